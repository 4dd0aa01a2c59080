//! A training loop of your own: windows of a prepared corpus, one optimizer step per call, and a
//! learning rate that the loop chooses.

use std::error::Error;

use block_transformer::burn::tensor::Device;
use block_transformer::datasets::{DocumentSource, Packing, Split, prepare};
use block_transformer::text::Tokenizer;
use block_transformer::training::{TrainConfig, Trainer, model_config};
use block_transformer::{FamilyConfig, LanguageModel};

const STEPS: u64 = 50;
const BATCH: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join("block-transformer-training-loop");
    std::fs::create_dir_all(&folder)?;
    let text = folder.join("text.txt");
    let document = "the quick brown fox jumps over the lazy dog\n<|endoftext|>\n";
    std::fs::write(&text, document.repeat(1000))?;
    let (source, tokenizer) = (DocumentSource::open(&text)?, Tokenizer::Bytes);
    let corpus = prepare("fox", &source, &tokenizer, &folder.join("corpus"), &mut |_, _| ())?;

    let config = TrainConfig { context: 64, ..TrainConfig::from_preset("debug-block")? };
    let model = model_config(&config.model, &tokenizer)?;
    let windows = |split, seed| -> Result<Packing, Box<dyn Error>> {
        Ok(Packing::new(corpus.split(split)?, model.block_length(), config.context, seed)?)
    };
    let (train, held_out) = (windows(Split::Train, Some(0))?, windows(Split::Validation, None)?);

    let mut trainer = Trainer::<LanguageModel>::new(&model, &config, &Device::flex());
    for step in 0..STEPS {
        let lr = 3e-3 * (1.0 - step as f64 / STEPS as f64);
        // one micro-batch; several are averaged
        let result = trainer.step(&[train.batch(step, BATCH)], lr);
        if step % 10 == 0 {
            println!("step {step}: loss {:.3}, gradient norm {:.2}", result.loss, result.grad_norm);
        }
    }
    let loss = trainer.validate(&held_out, 16, BATCH);
    println!("validation loss {loss:.3} nats per token");
    Ok(())
}
