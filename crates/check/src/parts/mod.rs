//! The work of each part, inside the part's own process.

mod cached;
mod curve;
mod goldens;
mod logits;
mod machine;
mod soak;
mod speed;
mod table;
mod training;

use std::path::Path;

use block_transformer_device::DeviceName;

use crate::error::CheckError;
use crate::examine::{Examined, Wanted};
use crate::json::write;
use crate::part::Part;
use crate::result::{PartOutput, output_path};
use crate::settings::CheckSettings;

/// Runs a part of the check in `dir`, and leaves its output there for [`run_all`](crate::run_all).
/// `examine` uses a device, in a process of its own.
///
/// # Errors
/// When the part cannot be run to its end.
pub fn run_part(
    settings: &CheckSettings,
    dir: &Path,
    part: Part,
    examine: &dyn Fn(DeviceName, Wanted) -> Result<Examined, String>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), CheckError> {
    let output: PartOutput = match part {
        Part::Doctor => machine::run(settings, examine)?,
        Part::Goldens => goldens::run(settings, progress)?,
        Part::GoldensBf16 => goldens::run_bf16(settings, progress)?,
        Part::Cached => cached::run(settings, progress)?,
        Part::Curve => curve::run(settings, progress)?,
        Part::Soak => soak::run(settings, progress)?,
        Part::Decode(index) => speed::decode(settings, index, progress)?,
        Part::Train => speed::train(settings)?,
    };
    write(&output_path(dir, part), &output)
}
