//! burn's own trainer on a model of this project: any model of it implements `TrainStep` and
//! `InferenceStep`, and a `Packing` is a burn `Dataset` of windows.
//!
//! `cargo run --package zoo-training --example burn_trainer`

use std::error::Error;
use std::sync::Arc;

use block_transformer_datasets::{DocumentSource, Packing, PrepareOptions, Split, prepare};
use block_transformer_text::Tokenizer;
use block_transformer_training::{Trainable, WindowBatcher, model_config};
use block_transformer_zoo::{FamilyConfig, TokenBatch, preset};
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::lr_scheduler::constant::ConstantLr;
use burn::optim::AdamWConfig;
use burn::tensor::Device;
use burn::train::metric::LossMetric;
use burn::train::{Learner, SupervisedTraining};

const CONTEXT: usize = 64;
const BATCH: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join("zoo-burn-trainer");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("text.txt");
    let document = "the quick brown fox jumps over the lazy dog\n<|endoftext|>\n";
    std::fs::write(&path, document.repeat(1000))?;
    let source = DocumentSource::open(&path)?;
    let tokenizer = Tokenizer::Bytes;
    let options = PrepareOptions::default();
    let corpus = prepare("fox", &source, &tokenizer, &dir.join("corpus"), options, &mut |_, _| {})?;

    let config = model_config(&preset("debug-block")?.model, &tokenizer)?;
    let length = config.block_length();
    let device = Device::flex();
    let loader =
        |split, seed, device: Device| -> Result<Arc<dyn DataLoader<TokenBatch>>, Box<dyn Error>> {
            let documents = corpus.split(split)?;
            let windows = Packing::new(documents, length, CONTEXT, seed)?;
            let loader = DataLoaderBuilder::new(WindowBatcher { block_length: length })
                .batch_size(BATCH)
                .set_device(device);
            Ok(loader.build(windows))
        };
    let train = loader(Split::Train, Some(0), device.clone().autodiff())?;
    let validation = loader(Split::Validation, None, device.clone())?;

    let model = Trainable { model: config.init(0, &device.autodiff()) };
    let optimizer = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1);
    let learner = Learner::new(model, optimizer.init(), ConstantLr::new(3e-3));
    let result = SupervisedTraining::new(dir.join("run"), train, validation)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .num_epochs(1)
        .summary()
        .launch(learner);
    if let Some(error) = result.error {
        return Err(error.to_string().into());
    }
    println!("trained a {} model", config.family());
    Ok(())
}
