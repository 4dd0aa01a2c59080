//! `cargo xtask presets`

use std::process::ExitCode;

use anyhow::Result;

/// Bytes of a cached number in the table: half precision, as the published figures have it.
const KV_BYTES: usize = 2;

/// Arguments of `presets`.
#[derive(clap::Args)]
pub struct Args {
    /// Print one preset's configuration as JSON (the form `import --config` takes)
    #[arg(long, value_name = "NAME")]
    show: Option<String>,
}

impl Args {
    /// Prints the table, or one configuration.
    pub fn run(self) -> Result<ExitCode> {
        if let Some(name) = self.show {
            say!("{}", block_transformer_zoo::preset(&name)?.model.to_json());
            return Ok(ExitCode::SUCCESS);
        }
        say!(
            "{:<26} {:>13} {:>13} {:>14}  summary",
            "preset",
            "parameters",
            "non-embedding",
            "KV bytes/token"
        );
        for preset in block_transformer_zoo::presets() {
            say!(
                "{:<26} {:>13} {:>13} {:>14}  {}",
                preset.name,
                preset.model.num_params(),
                preset.model.num_params_non_embedding(),
                preset.model.kv_bytes_per_token(KV_BYTES),
                preset.summary
            );
        }
        say!("\nKV bytes are those of 16-bit caches.");
        Ok(ExitCode::SUCCESS)
    }
}
