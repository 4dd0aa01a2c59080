//! `models`

use std::process::ExitCode;

use anyhow::Result;
use block_transformer_zoo::{FamilyConfig, published_weights};

use crate::program;

/// Arguments of `models`.
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Lists the published weights.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let program = program::name();
        say!("{:<20} {:>14} {:>10}  {:<14} from", "name", "parameters", "f32 bytes", "licence");
        for row in published_weights() {
            let parameters = row.model().num_params();
            let bytes = bytesize::ByteSize((parameters * 4) as u64).display().si().to_string();
            let from =
                row.hub.clone().or_else(|| row.folder.as_ref().map(|f| format!("by hand: {f}")));
            let licence = row.licence.split(' ').next().unwrap_or_default();
            say!(
                "{:<20} {parameters:>14} {bytes:>10}  {licence:<14} {}",
                row.name,
                from.unwrap_or_default()
            );
        }
        say!(
            "\n`{program} import NAME` fetches the weights from the hub of Hugging Face and writes a checkpoint. Those \
             marked \"by hand\" have no stable address; `import NAME` says where they are and what to download."
        );
        Ok(ExitCode::SUCCESS)
    }
}
