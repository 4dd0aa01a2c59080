//! Writes the windows of a training to a file, for programs outside this project: `cargo run -p
//! block-transformer-datasets --example windows -- FOLDER KIND SEED CONTEXT COUNT BLOCK_LENGTH FILE`. FOLDER is a
//! prepared corpus, KIND `documents` or `contiguous`. The file holds the ids of windows 0 to COUNT - 1 as u32,
//! little-endian.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use block_transformer_datasets::{PreparedCorpus, Split};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kind, seed, context, count, block_length, out] = &arguments[..] else {
        return Err("give FOLDER KIND SEED CONTEXT COUNT BLOCK_LENGTH FILE".into());
    };
    let corpus = PreparedCorpus::open(Path::new(folder))?;
    let (kind, seed) = (kind.parse()?, Some(seed.parse()?));
    let packing =
        corpus.packing(kind, Split::Train, block_length.parse()?, context.parse()?, seed)?;
    let mut file = BufWriter::new(File::create(out)?);
    for index in 0..count.parse()? {
        for id in packing.window(index).ids {
            file.write_all(&id.to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}
