//! `parity`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Error, Result, anyhow, ensure};
use block_transformer_device::DeviceName;
use block_transformer_parity::{Case, Products, Quantity, compare_products, find_cases};
use block_transformer_zoo::Precision;

use crate::{device, paths};

/// Arguments of `parity`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of cases: NAME.json, NAME.model.safetensors, NAME.golden.safetensors
    dir: PathBuf,
    /// Compare only cases with this text in their name
    #[arg(long)]
    case: Option<String>,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
    /// Format of the operands of matrix products, and of KV caches. The tolerances follow from it
    #[arg(long, value_name = "FORMAT", value_parser = device::training_precision(), default_value = "f32")]
    precision: Precision,
}

impl Args {
    /// Prints the largest difference of each quantity; fails if one is out of tolerance.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let remedy = "give a folder of recorded cases, such as tests/golden";
        paths::input_folder("parity", &self.dir, remedy)?;
        let device = device::open(self.device)?;
        ensure!(
            self.precision == Precision::F32 || self.device.multiplies_bf16(&device),
            "--precision {}: --device {} has no bf16; use f32, or --device flex",
            self.precision,
            self.device
        );
        let products = match self.precision {
            Precision::F32 => Products::of_f32(self.device),
            _ => Products::Bf16,
        };
        let (mut compared, mut failed) = (0, 0);
        let cases = find_cases(&self.dir);
        let cases = cases.map_err(|error| anyhow!("parity {:#}; {remedy}", Error::new(error)))?;
        for name in cases {
            if self.case.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
                continue;
            }
            let case = Case::open(&self.dir, &name)?;
            let quantities = compare_products(&case, &device, products)?;
            say!("{name}");
            for quantity in &quantities {
                let verdict = if quantity.holds() { "ok" } else { "OUT OF TOLERANCE" };
                say!(
                    "  {:<28} {:>9.2e}  (<= {:.0e})  {verdict}",
                    quantity.name.split(" (").next().unwrap_or_default(),
                    quantity.difference,
                    quantity.tolerance,
                );
                if !quantity.holds() && quantity.name.contains('(') {
                    say!("    {}", quantity.name);
                }
            }
            compared += 1;
            failed += usize::from(!quantities.iter().all(Quantity::holds));
        }
        ensure!(
            compared > 0,
            "--case: {} has no case with this text in its name",
            self.dir.display()
        );
        say!("{} of {compared} cases within tolerance", compared - failed);
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
