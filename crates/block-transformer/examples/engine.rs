//! Decodes many prompts together. Texts are submitted and end at any time, as in a server; the engine
//! decodes one token of each in a step.

use std::collections::BTreeMap;
use std::error::Error;

use block_transformer::burn::tensor::Device;
use block_transformer::generation::{Limits, Options, Sampling, TextEngine};
use block_transformer::text::Tokenizer;
use block_transformer::{device, preset};

fn main() -> Result<(), Box<dyn Error>> {
    // the decoding speeds in the README were measured with this setting
    device::keep_freed_memory();
    let device = Device::flex();
    let model = preset("debug-block")?.model.init(0, &device);

    // memory for 8 sequences is allocated here; further ones wait until a slot is free
    let limits = Limits { max_sequences: 8, max_tokens: 128 };
    let mut engine = TextEngine::new(&model, Tokenizer::Bytes, limits, &device)?;
    let mut texts = BTreeMap::new();
    for number in 0..20 {
        let options = Options {
            sampling: Sampling::at(0.8, 0),
            max_tokens: 16 + number,
            rng_stream: number, // different draws for each text
            ..Options::default()
        };
        let id = engine.submit(&format!("Chapter {number}: "), &options, &["\n\n".into()])?;
        texts.insert(id, String::new());
    }

    let mut steps = 0;
    while !engine.is_idle() {
        steps += 1;
        for event in engine.step()? {
            if let Some(text) = texts.get_mut(&event.id) {
                text.push_str(&event.text);
            }
            if let Some(reason) = event.finish {
                println!(
                    "text {} ended after {} tokens: {reason:?}",
                    event.id.index(),
                    event.tokens
                );
            }
        }
    }
    println!("{} texts in {steps} steps", texts.len());
    Ok(())
}
