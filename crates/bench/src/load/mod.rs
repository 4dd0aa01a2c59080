//! Load on a server of completions over HTTP.
//!
//! A [`LoadTest`] sends streaming requests under a [`Load`] and measures each token as the client sees it.

mod client;
mod figures;
mod paired;
mod report;
mod row;
mod run;

pub use client::{Endpoint, ServedCard};
pub use figures::draw_load;
pub use paired::{Paired, Side, paired_table};
pub use report::LoadReport;
pub use row::{Bounds, LoadRow, Percentiles};
pub use run::{Load, LoadTest};
