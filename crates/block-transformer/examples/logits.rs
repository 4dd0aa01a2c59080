//! Computes logits and the loss of a model: `logits [DEVICE]`, where DEVICE is `flex`, `ndarray`,
//! `cuda`, `wgpu` or `cpu`, if the features of the build include it.

use std::error::Error;

use block_transformer::burn::tensor::{Int, Tensor};
use block_transformer::device::DeviceName;
use block_transformer::text::Tokenizer;
use block_transformer::{Family, FamilyConfig, PaddingMask, TokenBatch, preset};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or("flex".into());
    let device = name.parse::<DeviceName>()?.open()?;

    let config = preset("debug-block")?.model.clone();
    let model = config.init(0, &device);

    // a batch holds whole blocks; this text is 32 bytes and so 32 tokens
    let ids = Tokenizer::Bytes.encode("the quick brown fox jumps over a")?;
    let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
    let batch = TokenBatch {
        ids: Tensor::<1, Int>::from_ints(&ids[..], &device).unsqueeze(), // [1, 32]
        is_token: PaddingMask::full(),
        block_length: config.block_length(),
    };

    // all tokens except those of the first block are predicted
    let (logits, targets) = model.predict(&batch);
    println!("logits {:?} for targets {:?}", logits.dims(), targets.dims());
    let loss: f32 = model.loss(&batch).into_scalar();
    println!(
        "loss {loss:.3} nats per token; guessing gives {:.3}",
        (config.vocab_size() as f64).ln()
    );
    Ok(())
}
