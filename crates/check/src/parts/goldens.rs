//! Recorded outputs of the published implementation.

use block_transformer_parity::{Case, Products, Quantity, compare_products, find_cases};
use serde_json::json;

use super::table;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

pub(super) fn run(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let (mut rows, mut data, mut held, mut worst) = (Vec::new(), Vec::new(), 0, 0.0_f64);
    let names = find_cases(&settings.golden)?;
    for name in &names {
        let case = Case::open(&settings.golden, name)?;
        let quantities = compare_products(&case, &device, settings.products())?;
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
    let arithmetic = match settings.products() {
        Products::F32 => "f32",
        Products::Tf32 => "f32, products in TF32",
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
