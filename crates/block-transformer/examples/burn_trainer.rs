//! burn's own trainer on a model of this project: `Trainable` implements burn's steps for a model,
//! and a `Packing` is a burn `Dataset` of windows.

use std::error::Error;
use std::sync::Arc;

use block_transformer::burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use block_transformer::burn::lr_scheduler::constant::ConstantLr;
use block_transformer::burn::optim::AdamWConfig;
use block_transformer::burn::tensor::Device;
use block_transformer::burn::train::metric::LossMetric;
use block_transformer::burn::train::{Learner, SupervisedTraining};
use block_transformer::datasets::{DocumentSource, Packing, Split, prepare};
use block_transformer::text::Tokenizer;
use block_transformer::training::{Trainable, WindowBatcher, model_config};
use block_transformer::{FamilyConfig, TokenBatch, preset};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join("block-transformer-burn-trainer");
    std::fs::create_dir_all(&folder)?;
    let text = folder.join("text.txt");
    let document = "the quick brown fox jumps over the lazy dog\n<|endoftext|>\n";
    std::fs::write(&text, document.repeat(1000))?;
    let (source, tokenizer) = (DocumentSource::open(&text)?, Tokenizer::Bytes);
    let corpus = prepare("fox", &source, &tokenizer, &folder.join("corpus"), &mut |_, _| ())?;

    let config = model_config(&preset("debug-block")?.model, &tokenizer)?;
    let block_length = config.block_length();
    let loader = |split, seed, device| -> Result<Arc<dyn DataLoader<TokenBatch>>, Box<dyn Error>> {
        let windows = Packing::new(corpus.split(split)?, block_length, 64, seed)?;
        let loader = DataLoaderBuilder::new(WindowBatcher { block_length });
        Ok(loader.batch_size(8).set_device(device).build(windows))
    };
    let device = Device::flex();
    let train = loader(Split::Train, Some(0), device.clone().autodiff())?;
    let validation = loader(Split::Validation, None, device.clone())?;

    let model = Trainable { model: config.init(0, &device.autodiff()) };
    let optimizer = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1);
    let learner = Learner::new(model, optimizer.init(), ConstantLr::new(3e-3));
    let result = SupervisedTraining::new(folder.join("run"), train, validation)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .num_epochs(1)
        .summary()
        .launch(learner);
    result.error.map_or(Ok(()), |error| Err(error.to_string().into()))
}
