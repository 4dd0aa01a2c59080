//! Writes a made-up corpus of any size: `cargo run --release -p block-transformer-datasets --example
//! generate -- 10GB corpus.jsonl.zst`. The size is that of the text. The same size gives the same
//! file. The extension selects plain, gzip or zstd JSONL.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Different words.
const WORDS: usize = 20_000;
/// Words of the longest document. Lengths are spread evenly on a logarithmic scale.
const LONGEST: f64 = 20_000.0;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [size, path] = &arguments[..] else {
        return Err("give a size such as 10GB or 500MB, and the path of a .jsonl file".into());
    };
    let (number, unit) = size.split_at(size.len().saturating_sub(2));
    let unit = match unit {
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(format!("{size}: a size such as 10GB or 500MB is needed").into()),
    };
    let bytes = number.parse::<u64>()? * unit;
    let file = BufWriter::new(File::create(path)?);
    match Path::new(path).extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let level = flate2::Compression::fast();
            let mut packed = flate2::write::GzEncoder::new(file, level);
            write_documents(&mut packed, bytes)?;
            packed.finish()?.flush()?;
        }
        Some("zst") => {
            let mut packed = zstd::Encoder::new(file, 1)?;
            write_documents(&mut packed, bytes)?;
            packed.finish()?.flush()?;
        }
        _ => {
            let mut file = file;
            write_documents(&mut file, bytes)?;
            file.flush()?;
        }
    }
    Ok(())
}

/// Writes documents with `bytes` bytes of text in total, or a few more.
fn write_documents(out: &mut impl Write, mut bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let words: Vec<String> = (0..WORDS).map(|_| word(&mut rng)).collect();
    let mut text = String::new();
    while bytes > 0 {
        text.clear();
        let length = LONGEST.powf(rng.random_range(0.0..1.0)) as usize;
        for number in 0..=length {
            // the frequency of a word is about one divided by its rank
            let rank = (WORDS as f64).powf(rng.random_range(0.0..1.0)) as usize;
            text.push_str(&words[rank - 1]);
            text.push(if number % 12 == 11 { '\n' } else { ' ' });
        }
        bytes = bytes.saturating_sub(text.len() as u64);
        // words, blanks and line ends: the only character to escape is the line end
        writeln!(out, "{{\"text\": \"{}\"}}", text.replace('\n', "\\n"))?;
    }
    Ok(())
}

fn word(rng: &mut impl Rng) -> String {
    let letter = |rng: &mut dyn FnMut(usize) -> usize, letters: &[u8]| {
        char::from(letters[rng(letters.len())])
    };
    let mut draw = |count: usize| rng.random_range(0..count);
    let syllables = 1 + draw(4);
    let parts = (0..syllables)
        .flat_map(|_| [letter(&mut draw, b"bcdfghklmnprstvw"), letter(&mut draw, b"aeiou")]);
    parts.collect()
}
