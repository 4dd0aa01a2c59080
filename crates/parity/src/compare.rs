//! Comparing one case on one device.

use block_transformer_zoo::{Family, FamilyConfig, LanguageModel};
use burn::tensor::Device;

use crate::case::Case;
use crate::error::ParityError;
use crate::quantity::{Quantity, largest, values};
use crate::{greedy, training};

/// Absolute tolerance of embeddings and logits: f32 rounding through a few layers.
const VALUES: f64 = 1e-4;
/// Absolute tolerance of losses, which are means over many tokens.
const LOSSES: f64 = 1e-5;
/// Tolerance of the largest difference of a gradient, relative to its largest element.
const GRADIENTS: f64 = 1e-4;

/// The result of comparing a case.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Name of the case.
    pub case: String,
    /// Every quantity compared.
    pub quantities: Vec<Quantity>,
}

impl Comparison {
    /// Whether every quantity is within tolerance.
    pub fn holds(&self) -> bool {
        self.quantities.iter().all(Quantity::holds)
    }
}

/// Computes on `device` every quantity that `case` records, and compares it with the recorded one.
///
/// # Errors
/// When a file is damaged or a recorded tensor is missing. Differences are not errors.
pub fn compare(case: &Case, device: &Device) -> Result<Comparison, ParityError> {
    let model = case.model(device)?;
    let mut quantities = Vec::new();
    forward(case, &model, device, &mut quantities)?;
    losses(case, &model, device, &mut quantities)?;
    quantities.push(gradients(case, device)?);
    if let Ok(golden) = case.golden("out.adamw_losses") {
        let ours = training::adamw_losses(case, device, golden.values.len())?;
        let difference = largest(&ours, &golden.values, |_| true);
        quantities.push(Quantity::new("AdamW losses", difference, LOSSES));
    }
    greedy::compare(case, &model, device, &mut quantities)?;
    Ok(Comparison { case: case.name.clone(), quantities })
}

fn forward(
    case: &Case,
    model: &LanguageModel,
    device: &Device,
    quantities: &mut Vec<Quantity>,
) -> Result<(), ParityError> {
    let batch = case.batch(device)?;
    let is_token = case.is_token()?;
    let golden = case.golden("out.logits")?;
    let (logits, _) = model.predict(&batch);
    let vocab = case.config.vocab_size();
    let [b, time] = batch.ids.dims();
    // the first block of each sequence is not predicted
    let predicted: Vec<bool> =
        is_token.chunks(time).flat_map(|row| row[batch.block_length..].iter().copied()).collect();
    let (ours, predicted) = match model {
        LanguageModel::Block(model) => {
            let config = model.config();
            let (l, e) = (config.block_length, config.embeddings_per_block());
            let width = config.block_decoder.hidden_size;
            let ids = batch.ids.clone().reshape([b, time / l, l]);
            let embedded = model.embed(ids, &batch.is_token);
            let contexts = model.contexts(embedded.clone(), &batch.is_token);
            // the values of a block (`e` vectors) count if the block holds a token
            let block_counts = |i: usize| {
                let block = i / (e * width);
                is_token[block * l..(block + 1) * l].contains(&true)
            };
            for (name, tensor) in
                [("block_input_embeddings", embedded), ("context_embeddings", contexts)]
            {
                let golden = case.golden(&format!("out.{name}"))?;
                let difference = largest(&values(tensor), &golden.values, block_counts);
                quantities.push(Quantity::new(name.replace('_', " "), difference, VALUES));
            }
            (values(logits), predicted)
        }
        // logits are recorded for every position
        LanguageModel::Vanilla(model) => (values(model.forward(batch.ids)), is_token),
        _ => (values(logits), predicted),
    };
    let difference = largest(&ours, &golden.values, |i| predicted[i / vocab]);
    quantities.push(Quantity::new("logits", difference, VALUES));
    Ok(())
}

fn losses(
    case: &Case,
    model: &LanguageModel,
    device: &Device,
    quantities: &mut Vec<Quantity>,
) -> Result<(), ParityError> {
    let losses = model.losses(&case.batch(device)?);
    let difference = largest(&values(losses.mean()), &case.golden("out.loss")?.values, |_| true);
    quantities.push(Quantity::new("loss", difference, LOSSES));
    if let Ok(golden) = case.golden("out.loss_by_block_position") {
        let [b, predicted] = losses.losses.dims();
        let l = case.config.block_length();
        let rows = [b * predicted / l, l];
        let ours = losses.losses.reshape(rows).sum_dim(0) / losses.weights.reshape(rows).sum_dim(0);
        let difference = largest(&values(ours), &golden.values, |_| true);
        quantities.push(Quantity::new("loss by block position", difference, LOSSES));
    }
    Ok(())
}

fn gradients(case: &Case, device: &Device) -> Result<Quantity, ParityError> {
    let ours = training::gradients(case, device)?;
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
    Ok(Quantity::new(format!("gradients (worst: {})", worst.0), worst.1, GRADIENTS))
}
