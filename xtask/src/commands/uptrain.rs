//! `uptrain`

use std::process::ExitCode;

use anyhow::{Result, ensure};
use block_transformer_training::Uptrain;
use clap::ValueEnum;

use super::train;

/// Arguments of `uptrain`: those of `train`, and how the model is made.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which layers of the vanilla model become those of the two decoders
    #[arg(long, value_enum, default_value_t, help_heading = "Given weights")]
    method: Method,
    /// Weight of the divergence from the vanilla model's distribution, which is added to the loss [default: 0]
    #[arg(long, value_name = "WEIGHT", help_heading = "Given weights")]
    distill: Option<f64>,
    #[command(flatten)]
    train: train::Args,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Method {
    /// The first half for the block decoder, the second half for the token decoder, as published
    #[default]
    Partition,
    /// Every second layer for both
    Skip,
    /// Every layer for both
    Duplicate,
}

impl Args {
    /// Makes a Block Transformer from a vanilla model and trains it.
    pub(crate) fn run(mut self) -> Result<ExitCode> {
        if let Some(weight) = self.distill {
            ensure!(weight.is_finite() && weight >= 0.0, "--distill {weight}: must be 0 or above");
        }
        if !self.train.is_resumed() {
            self.train.flags.uptrain = Some(match self.method {
                Method::Partition => Uptrain::Partition,
                Method::Skip => Uptrain::Skip,
                Method::Duplicate => Uptrain::Duplicate,
            });
            self.train.flags.distill = self.distill;
        }
        self.train.run()
    }
}
