//! Findings about a machine.

use block_transformer_device::DeviceName;
use block_transformer_device::probe::Fault;
use serde::{Deserialize, Serialize};

/// Whether a thing that was looked for is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is there and works.
    Ok,
    /// It is not there, or does not work.
    Missing,
    /// It could not be found out.
    Unknown,
}

impl std::fmt::Display for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        })
    }
}

/// One thing that was looked for on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The thing.
    pub subject: String,
    /// Its state.
    pub state: Presence,
    /// A description of what was found.
    pub found: String,
    /// The remedy, if the thing is missing and there is a remedy.
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding without a remedy.
    pub(crate) fn new(
        subject: impl Into<String>,
        state: Presence,
        found: impl Into<String>,
    ) -> Self {
        Self { subject: subject.into(), state, found: found.into(), remedy: None }
    }

    /// A thing that is there, or missing for the reason of a fault.
    pub(crate) fn of<T>(
        subject: &str,
        result: &Result<T, Fault>,
        found: impl Fn(&T) -> String,
    ) -> Self {
        match result {
            Ok(value) => Self::new(subject, Presence::Ok, found(value)),
            Err(fault) => {
                let remedy = Some(fault.remedy().into());
                Self { remedy, ..Self::new(subject, Presence::Missing, fault.to_string()) }
            }
        }
    }
}

/// The subject of the finding that says whether a device can be used.
pub(crate) fn device_subject(device: DeviceName) -> String {
    format!("device {device}")
}

/// Returns whether the findings say that `device` can be used.
pub fn is_usable(findings: &[Finding], device: DeviceName) -> bool {
    let subject = device_subject(device);
    findings.iter().any(|finding| finding.subject == subject && finding.state == Presence::Ok)
}
