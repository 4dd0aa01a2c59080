//! Continues a text: `generate [CHECKPOINT [PROMPT]]`. Without CHECKPOINT, it first writes a
//! checkpoint of a tiny, untrained model, so the text is noise.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;

use block_transformer::burn::tensor::Device;
use block_transformer::checkpoint::{Checkpoint, Contents, State};
use block_transformer::generation::{Options, Sampling, TextGenerator};
use block_transformer::text::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(untrained, |path| Ok(path.into()))?;
    let prompt = arguments.next().unwrap_or("fn main".into());

    let device = Device::flex();
    let checkpoint = Checkpoint::open_model(&folder)?;
    let model = checkpoint.load_model(&device)?;
    let generator = TextGenerator::new(&model, checkpoint.tokenizer()?, &device);

    let options = Options { sampling: Sampling::at(0.8, 0), max_tokens: 64, ..Options::default() };
    print!("{prompt}");
    generator.generate(&[prompt], &options, &[], |_, event| {
        print!("{}", event.text);
        ControlFlow::Continue(())
    })?;
    println!();
    Ok(())
}

/// Writes a checkpoint of an untrained model and returns its folder.
fn untrained() -> Result<PathBuf, Box<dyn Error>> {
    let folder = std::env::temp_dir().join("block-transformer-untrained");
    let config = block_transformer::preset("debug-block")?.model.clone();
    let contents = Contents {
        model: &config.init(0, &Device::flex()),
        config: &config,
        tokenizer: &Tokenizer::Bytes,
        optimizer: None,
        state: &State::default(),
        unused: &Default::default(),
    };
    Checkpoint::write(&folder, &contents)?;
    Ok(folder)
}
