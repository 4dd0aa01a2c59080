//! Recorded outputs of the published implementation.

use block_transformer_parity::{Case, Products, Quantity, compare_products, find_cases};
use serde_json::json;

use super::table::table;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

/// Cases of a quick check in bf16: one with blocks and one without.
const QUICK: [&str; 2] = ["lookup_prefix", "vanilla"];

/// Compares the cases in the precision in which the device multiplies f32 values.
pub(super) fn run(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let names = find_cases(&settings.golden)?;
    compare_all(settings, &names, settings.products(), progress)
}

/// Compares the cases in bf16, if the device has it.
pub(super) fn run_bf16(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    if !settings.device.multiplies_bf16(&settings.device.open()?) {
        return Ok(PartOutput {
            passed: true,
            summary: "Nothing was compared: the device has no bf16.".into(),
            markdown: String::new(),
            data: json!([]),
        });
    }
    let mut names = find_cases(&settings.golden)?;
    if settings.quick {
        names.retain(|name| QUICK.contains(&name.as_str()));
    }
    compare_all(settings, &names, Products::Bf16, progress)
}

fn compare_all(
    settings: &CheckSettings,
    names: &[String],
    products: Products,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let (mut rows, mut data, mut held, mut worst) = (Vec::new(), Vec::new(), 0, 0.0_f64);
    for name in names {
        let case = Case::open(&settings.golden, name)?;
        let quantities = compare_products(&case, &device, products)?;
        let holds = quantities.iter().all(Quantity::holds);
        held += usize::from(holds);
        progress(&format!("{name}: {}", if holds { "ok" } else { "OUT OF TOLERANCE" }));
        for quantity in &quantities {
            let Quantity { name: what, difference, tolerance } = quantity;
            if *tolerance > 0.0 {
                worst = worst.max(difference / tolerance);
            }
            rows.push(vec![
                name.clone(),
                what.clone(),
                if quantity.holds() { "ok".into() } else { "OUT OF TOLERANCE".into() },
                format!("{difference:.2e}"),
                format!("{tolerance:.2e}"),
            ]);
            data.push(json!({
                "case": name, "quantity": what, "difference": difference, "tolerance": tolerance,
            }));
        }
    }
    let arithmetic = match products {
        Products::F32 => "f32",
        Products::Tf32 => "f32, products in TF32",
        Products::Bf16 => "bf16",
    };
    Ok(PartOutput {
        passed: held == names.len(),
        summary: format!(
            "{held} of {} cases within tolerance ({arithmetic}); the largest difference is {:.0}% of its tolerance.",
            names.len(),
            100.0 * worst
        ),
        markdown: table(&["case", "quantity", "", "difference", "tolerance"], 3, &rows),
        data: data.into(),
    })
}
