//! Examines a machine, and checks a device part by part.
//!
//! [`doctor`] returns findings about drivers, compilers, devices and disks. [`run_all`] runs the
//! [parts](Part) of a check, each in a process of its own with a time limit, and writes a report.
//! [`Bundle::write`] writes a folder with everything that a machine without Rust needs for it.

mod bundle;
mod caches;
mod child;
mod doctor;
mod error;
mod examine;
mod finding;
mod json;
mod libraries;
mod part;
mod parts;
mod report;
mod result;
mod run;
mod settings;

pub use bundle::Bundle;
pub use child::{Ended, Limit, run_limited};
pub use doctor::doctor;
pub use error::CheckError;
pub use examine::{Examined, Wanted, examine, examine_in_child};
pub use finding::{Finding, Presence, is_usable};
pub use part::Part;
pub use parts::run_part;
pub use result::{PartOutput, PartResult, PartState};
pub use run::run_all;
pub use settings::{CheckSettings, golden_folder, this_program};
