//! Comparing one case on one device.

use block_transformer_zoo::{Family, FamilyConfig, LanguageModel};
use burn::tensor::{DType, Device};

use crate::case::Case;
use crate::error::ParityError;
use crate::greedy;
use crate::quantity::{Quantity, largest, values};
use crate::tolerance::Products;
use crate::training;

/// Computes on `device` every quantity that `case` records, and compares it with the recorded one
/// within the tolerances of f32.
///
/// # Errors
/// When a file is damaged or a recorded tensor is missing. Differences are not errors.
pub fn compare(case: &Case, device: &Device) -> Result<Vec<Quantity>, ParityError> {
    compare_products(case, device, Products::F32)
}

/// Like [`compare`], with a model in the precision of `products` and within their tolerances. With
/// narrow products, a greedy id may differ from the recorded one where the logits of both are equal
/// within tolerance.
///
/// # Errors
/// When a file is damaged, a recorded tensor is missing, or the device does not have the float
/// format of `products`. Differences are not errors.
pub fn compare_products(
    case: &Case,
    device: &Device,
    products: Products,
) -> Result<Vec<Quantity>, ParityError> {
    let precision = products.precision();
    if !device.supports_dtype(DType::from(precision.matrices())) {
        return Err(ParityError::NoFormat(precision));
    }
    let model = case.model(device)?.with_precision(precision);
    let mut quantities = forward(case, &model, device, products)?;
    quantities.extend(losses(case, &model, device, products)?);
    quantities.push(gradients(case, device, products)?);
    if let Ok(golden) = case.golden("out.adamw_losses") {
        let ours = training::adamw_losses(case, device, precision, golden.values.len())?;
        let difference = largest(&ours, &golden.values, |_| true);
        let logits = &case.golden("out.logits")?.values;
        let tolerance = products.losses_of_steps(&case.config, logits);
        quantities.push(Quantity::new("AdamW losses", difference, tolerance));
    }
    quantities.extend(greedy::compare(case, &model, device, products)?);
    Ok(quantities)
}

fn forward(
    case: &Case,
    model: &LanguageModel,
    device: &Device,
    products: Products,
) -> Result<Vec<Quantity>, ParityError> {
    let batch = case.batch(device)?;
    let is_token = case.is_token()?;
    let [b, time] = batch.ids.dims();
    let mut quantities = Vec::new();
    let mut check = |name: &str, ours: Vec<f32>, counts: &dyn Fn(usize) -> bool| {
        let golden = case.golden(&format!("out.{name}"))?;
        let difference = largest(&ours, &golden.values, counts);
        let tolerance = products.values(&case.config, &golden.values);
        quantities.push(Quantity::new(name.replace('_', " "), difference, tolerance));
        Ok::<_, ParityError>(())
    };
    if let LanguageModel::Block(model) = model {
        let config = model.config();
        let (l, e) = (config.block_length, config.embeddings_per_block());
        let width = config.block_decoder.hidden_size;
        let embedded = model.embed(batch.ids.clone().reshape([b, time / l, l]), &batch.is_token);
        let contexts = model.contexts(embedded.clone(), &batch.is_token);
        // the values of a block (`e` vectors) count if the block holds a token
        let counts = |i: usize| {
            let block = i / (e * width);
            is_token[block * l..(block + 1) * l].contains(&true)
        };
        check("block_input_embeddings", values(embedded), &counts)?;
        check("context_embeddings", values(contexts), &counts)?;
    }
    let vocab = case.config.vocab_size();
    if let LanguageModel::Vanilla(model) = model {
        // logits are recorded for every position
        check("logits", values(model.forward(batch.ids)), &|i| is_token[i / vocab])?;
    } else {
        // the first block of each sequence is not predicted
        let rows = is_token.chunks(time);
        let predicted: Vec<bool> =
            rows.flat_map(|row| row[batch.block_length..].to_vec()).collect();
        check("logits", values(model.predict(&batch).0), &|i| predicted[i / vocab])?;
    }
    Ok(quantities)
}

fn losses(
    case: &Case,
    model: &LanguageModel,
    device: &Device,
    products: Products,
) -> Result<Vec<Quantity>, ParityError> {
    let tolerance = products.losses(&case.config, &case.golden("out.logits")?.values);
    let losses = model.losses(&case.batch(device)?);
    let difference = largest(&values(losses.mean()), &case.golden("out.loss")?.values, |_| true);
    let mut quantities = vec![Quantity::new("loss", difference, tolerance)];
    if let Ok(golden) = case.golden("out.loss_by_block_position") {
        let [b, predicted] = losses.losses.dims();
        let l = case.config.block_length();
        let rows = [b * predicted / l, l];
        let ours = losses.losses.reshape(rows).sum_dim(0) / losses.weights.reshape(rows).sum_dim(0);
        let difference = largest(&values(ours), &golden.values, |_| true);
        quantities.push(Quantity::new("loss by block position", difference, tolerance));
    }
    Ok(quantities)
}

fn gradients(case: &Case, device: &Device, products: Products) -> Result<Quantity, ParityError> {
    let ours = training::gradients(case, device, products.precision())?;
    let mut worst = (String::from("none"), 0.0_f64);
    for (name, golden) in case.with_prefix("grad.") {
        let difference = match ours.get(name) {
            Some(tensor) if tensor.shape == golden.shape => {
                let scale = golden.values.iter().fold(1e-6_f64, |m, v| m.max(f64::from(v.abs())));
                largest(&tensor.values, &golden.values, |_| true) / scale
            }
            // an unused parameter has no gradient here, and a recorded gradient of zeros
            None => largest(&vec![0.0; golden.values.len()], &golden.values, |_| true),
            Some(_) => f64::NAN,
        };
        if difference.is_nan() || difference >= worst.1 {
            worst = (name.to_string(), difference);
            if difference.is_nan() {
                break;
            }
        }
    }
    let tolerance = products.gradients(&case.config);
    Ok(Quantity::new(format!("gradients (worst: {})", worst.0), worst.1, tolerance))
}
