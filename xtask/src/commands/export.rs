//! `export`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use block_transformer_device::DeviceName;
use block_transformer_weights::{FloatFormat, cast, export};
use burn::module::Module;
use clap::ValueEnum;

use super::inputs::{of_checkpoint, open_checkpoint};
use crate::{device, paths};

/// Files that are written to the folder of the weights: configuration and tokenizer.
const BESIDE: [&str; 2] = ["config.json", "tokenizer.json"];

/// Arguments of `export`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint folder, or run folder (its newest checkpoint)
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// File format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Float format of the values
    #[arg(long, value_parser = device::float_format(), default_value_t)]
    dtype: FloatFormat,
    /// File to write; config.json and tokenizer.json are written to the same folder
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Device to load the weights on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// A safetensors file with the published names and layouts, which the published Python code
    /// loads
    #[default]
    Safetensors,
    /// burn's own format
    Burnpack,
}

impl Args {
    /// Writes the weights, the configuration and the tokenizer.
    pub(crate) fn run(self) -> Result<ExitCode> {
        paths::output_file("--out", &self.out)?;
        let folder = paths::parent(&self.out);
        let (out, shown) = (self.out.display(), folder.display());
        let name = self.out.file_name().unwrap_or_default();
        ensure!(
            !BESIDE.iter().any(|beside| name.eq_ignore_ascii_case(beside)),
            "--out {out}: the export writes {} of its own beside the weights; give the weights another \
             name, such as model.safetensors",
            BESIDE.join(" and ")
        );
        for beside in BESIDE {
            paths::output_file("--out: beside the weights,", &folder.join(beside))?;
        }
        ensure!(
            !folder.join("manifest.json").exists(),
            "--out {out}: {shown} is a checkpoint, whose files must stay as they are; write to another folder"
        );
        let checkpoint = open_checkpoint(&self.checkpoint)?;
        let device = device::open(self.device)?;
        let model = checkpoint.load_model(&device).map_err(of_checkpoint)?;
        match self.format {
            Format::Safetensors => {
                export(&model, &checkpoint.config, &checkpoint.unused()?, self.dtype, &self.out)?;
            }
            Format::Burnpack => {
                let saved = cast(model, self.dtype).save_file(&self.out);
                saved.with_context(|| out.to_string())?;
            }
        }
        let texts = [checkpoint.config.to_json() + "\n", checkpoint.tokenizer()?.to_json()?];
        for (name, text) in BESIDE.iter().zip(texts) {
            let path = folder.join(name);
            block_transformer_files::write(&path, text.as_bytes())?;
        }
        say!("{out}");
        Ok(ExitCode::SUCCESS)
    }
}
