//! Findings about the machine.

use block_transformer_device::DeviceName;
use block_transformer_device::probe::CudaParts;

use super::table::table;
use crate::doctor::doctor;
use crate::error::CheckError;
use crate::examine::{Examined, Wanted};
use crate::finding::is_usable;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

pub(super) fn run(
    settings: &CheckSettings,
    examine: &dyn Fn(DeviceName, Wanted) -> Result<Examined, String>,
) -> Result<PartOutput, CheckError> {
    let device = settings.device;
    let findings = doctor(device, &CudaParts::of_system(), examine);
    let passed = is_usable(&findings, device);
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let (state, remedy) = (finding.state.to_string(), finding.remedy.clone());
            let cells =
                [finding.subject.clone(), state, finding.found.clone(), remedy.unwrap_or_default()];
            cells.map(|cell| cell.replace('|', "\\|").replace('\n', " ")).into()
        })
        .collect();
    let can = if passed { "can be used" } else { "cannot be used" };
    Ok(PartOutput {
        passed,
        summary: format!("The device {device} {can}."),
        markdown: table(&["", "state", "found", "remedy"], 4, &rows),
        data: serde_json::to_value(&findings)?,
    })
}
