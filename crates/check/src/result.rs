//! The results of parts, and their files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::part::Part;

/// The result of a part that ran to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartOutput {
    /// Whether everything is as it should be.
    pub passed: bool,
    /// The result in one sentence.
    pub summary: String,
    /// The result as Markdown, for the report.
    pub markdown: String,
    /// The values, for programs.
    pub data: serde_json::Value,
}

/// The state of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartState {
    /// The part ran to its end, and everything is as it should be.
    Passed,
    /// The part ran to its end, and something is not as it should be.
    Failed,
    /// The part ended with an error, a panic or a crash.
    Broken,
    /// The part was killed at its time limit.
    TimedOut,
}

impl std::fmt::Display for PartState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Broken => "BROKEN",
            Self::TimedOut => "TIMED OUT",
        })
    }
}

/// The result of a part, as `NAME.json` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartResult {
    /// The name of the part.
    pub part: String,
    /// Its state.
    pub state: PartState,
    /// Seconds that it took.
    pub seconds: f64,
    /// Its time limit in seconds.
    pub limit: f64,
    /// The result in one sentence.
    pub summary: String,
    /// The result as Markdown; empty if the part did not run to its end.
    pub markdown: String,
    /// The values, for programs.
    pub data: serde_json::Value,
    /// The last lines of what it wrote.
    pub tail: Vec<String>,
}

impl PartResult {
    /// Returns whether the part ran to its end.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, PartState::Passed | PartState::Failed)
    }
}

/// Returns the path of a part's result in a folder of results.
pub(crate) fn result_path(dir: &Path, part: Part) -> PathBuf {
    dir.join(format!("{}.json", part.name()))
}

/// Returns the path at which the process of a part leaves its output.
pub(crate) fn output_path(dir: &Path, part: Part) -> PathBuf {
    dir.join(format!("{}.output.json", part.name()))
}
