//! The memory that a training step needs on flex, against the formula of `crates/cost`.
//!
//! The allocator counts the bytes of the whole process, so this binary has one test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use block_transformer_cost::{Holding, OptimizerKind, TrainingMemory, TrainingShape};
use block_transformer_datasets::Window;
use block_transformer_testing::shape;
use block_transformer_training::{TrainConfig, Trainer, token_batch};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig, Precision, preset};
use burn::tensor::Device;

/// The relative error of the formula for the presets.
const TOLERANCE: f64 = 0.1;
/// That of models with composed attention, whose small tensors the formula leaves out.
const TOLERANCE_COMPOSED: f64 = 0.15;

/// The relative error of the formula for a loss without gradients. It is below 0.01 without composed
/// attention, of which the formula takes the scores alone.
const EVALUATION: RangeInclusive<f64> = -0.3..=0.2;

/// Counts live bytes.
struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call goes to the system's allocator
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as promised by the caller
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as promised by the caller
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as promised by the caller
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Windows of different ids.
fn windows(model: &ModelConfig, batch: usize, context: usize) -> Vec<Window> {
    let vocab = model.vocab_size();
    let window = |i: usize| Window {
        ids: (0..context).map(|j| ((i * 7 + j * j) % vocab) as u32).collect(),
        is_token: vec![true; context],
    };
    (0..batch).map(window).collect()
}

/// Bytes at the peak of a second step, beyond those before the model was made.
fn measured(model: &ModelConfig, shape: TrainingShape) -> f64 {
    let TrainingShape { batch, accumulate, context, precision, recompute, optimizer, .. } = shape;
    let config = TrainConfig {
        precision,
        recompute,
        optimizer,
        ..TrainConfig::from_preset("debug-block").unwrap()
    };
    let windows = windows(model, batch, context);
    let micro_batches = vec![windows; accumulate];
    let before = LIVE.load(Relaxed);
    let mut trainer = Trainer::<LanguageModel>::new(model, &config, &Device::flex());
    // the first step creates the moments
    trainer.step(&micro_batches, 1e-3);
    PEAK.store(LIVE.load(Relaxed), Relaxed);
    trainer.step(&micro_batches, 1e-3);
    (PEAK.load(Relaxed) - before) as f64
}

/// Bytes at the peak of a second loss without gradients, beyond those before the model was made.
fn measured_loss(model: &ModelConfig, shape: TrainingShape) -> f64 {
    let windows = windows(model, shape.batch, shape.context);
    let before = LIVE.load(Relaxed);
    let batch = token_batch(&windows, model.block_length(), &Device::flex());
    let model = model.init(0, &Device::flex());
    drop(model.loss(&batch));
    PEAK.store(LIVE.load(Relaxed), Relaxed);
    drop(model.loss(&batch));
    (PEAK.load(Relaxed) - before) as f64
}

#[test]
fn the_formula_gives_the_peak_of_a_step() {
    let presets = ["debug-block", "debug-vanilla", "small-block", "small-vanilla"];
    let presets = presets.map(|name| {
        (name, preset(name).unwrap().model.clone().with_vocab_size(2048), 256, TOLERANCE)
    });
    let composed = ["cross-attention", "cls, summation"];
    let composed = composed.map(|name| (name, wide(name), 64, TOLERANCE_COMPOSED));
    let settings = [
        (8, 1, Precision::F32, false),
        (8, 2, Precision::F32, false),
        (8, 1, Precision::F32, true),
        (2, 2, Precision::F32, true),
        (8, 1, Precision::Bf16, false),
        (2, 1, Precision::Bf16, false),
        (8, 1, Precision::Bf16, true),
        (8, 2, Precision::Bf16, true),
    ];
    let mut wrong = Vec::new();
    for (name, model, context, tolerance) in presets.into_iter().chain(composed) {
        // a process holds some memory after its first step
        measured(&model, shape_of(1, 1, context, Precision::F32, false));
        for (batch, accumulate, precision, recompute) in settings {
            let shape = shape_of(batch, accumulate, context, precision, recompute);
            // one setting of each model
            let muon = (batch, accumulate, precision) == (8, 1, Precision::F32) && recompute;
            let optimizer = if muon { OptimizerKind::Muon } else { OptimizerKind::Adamw };
            let shape = TrainingShape { optimizer, ..shape };
            let (formula, peak) = (TrainingMemory::new(&model, shape), measured(&model, shape));
            let error = formula.total() / peak - 1.0;
            if error.abs() > tolerance {
                let error = 100.0 * error;
                wrong.push(format!("{name} {shape:?}: {error:.1}% of {peak}: {formula:?}"));
            }
        }
        // the logits of a large vocabulary, or the activations of a layer
        for (vocab, batch) in [(2048, 8), (64, 64)] {
            let model = model.clone().with_vocab_size(vocab);
            let shape = shape_of(batch, 1, context, Precision::F32, false);
            let formula = TrainingMemory::evaluation(&model, shape);
            let peak = measured_loss(&model, shape);
            let error = formula / peak - 1.0;
            if !EVALUATION.contains(&error) {
                wrong.push(format!("loss of {name}, {vocab} ids: {:.1}% of {peak}", 100.0 * error));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The shape called `name` with wider stacks: the formula counts the tensors that grow with the width.
fn wide(name: &str) -> ModelConfig {
    let text = serde_json::to_string(&shape(name)).unwrap();
    let wider =
        [("hidden_size\":32", "hidden_size\":128"), ("hidden_size\":16", "hidden_size\":128")];
    let wider = wider.into_iter().fold(text, |text, (from, to)| text.replace(from, to));
    let wider =
        wider.replace("hidden_size\":8", "hidden_size\":32").replace("d_kv\":8", "d_kv\":64");
    let wider = wider.replace("d_ff\":48", "d_ff\":512");
    ModelConfig::from_json(&wider, name).unwrap().with_vocab_size(1024)
}

fn shape_of(
    batch: usize,
    accumulate: usize,
    context: usize,
    precision: Precision,
    recompute: bool,
) -> TrainingShape {
    let (holding, optimizer) = (Holding::Flex, OptimizerKind::Adamw);
    TrainingShape { batch, accumulate, context, precision, recompute, holding, optimizer }
}
