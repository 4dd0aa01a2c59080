//! `presets`

use std::process::ExitCode;

use anyhow::Result;
use block_transformer_bench::table;
use block_transformer_zoo::FamilyConfig;

use super::inputs::preset_of;

/// Bytes per cached value: half precision, as in the published figures.
const KV_BYTES: usize = 2;

/// Arguments of `presets`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the configuration of one preset as JSON, as `import --config` reads it
    #[arg(long, value_name = "NAME")]
    show: Option<String>,
}

impl Args {
    /// Prints the table, or one configuration.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let Some(name) = self.show {
            say!("{}", preset_of("--show", &name)?.model.to_json());
            return Ok(ExitCode::SUCCESS);
        }
        let head = ["preset", "summary", "parameters", "non-embedding", "KV bytes/token"];
        let rows = block_transformer_zoo::presets().iter().map(|preset| {
            let model = &preset.model;
            vec![
                preset.name.to_string(),
                preset.summary.to_string(),
                model.num_params().to_string(),
                model.num_params_non_embedding().to_string(),
                model.kv_bytes_per_token(KV_BYTES).to_string(),
            ]
        });
        say!("{}\n\nKV bytes are for caches in 16 bits.", table(&head, 2, rows).trim_fmt());
        Ok(ExitCode::SUCCESS)
    }
}
