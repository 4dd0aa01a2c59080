//! Speed of the preparation of a corpus beside that of the `tokenizers` library.

use std::path::Path;
use std::time::Instant;

use block_transformer_datasets::{DatasetError, DocumentSource, Preparation, SHARD_TOKENS};
use block_transformer_text::{TextError, Tokenizer};
use comfy_table::Table;
use rayon::ThreadPoolBuilder;

use crate::error::BenchError;
use crate::format::table;

/// Bytes of text that the library gets at a time.
const BATCH: usize = 8 << 20;

/// A measurement of tokenizing.
#[derive(Clone, Debug)]
pub struct TokenizingBench<'a> {
    /// The documents.
    pub source: &'a DocumentSource,
    /// A tokenizer of the `tokenizers` library.
    pub tokenizer: &'a Tokenizer,
    /// Bytes of text after which no more documents are used.
    pub bytes: usize,
    /// Numbers of threads, measured in turn.
    pub threads: Vec<usize>,
    /// Measurements of each number of threads. The best one counts.
    pub rounds: usize,
}

/// Tokens per second with a number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenizingRow {
    /// Threads.
    pub threads: usize,
    /// [`Preparation::run`]: reading JSONL, tokenizing and writing.
    pub prepare: f64,
    /// The library's `encode_batch_fast` on texts in memory, without offsets.
    pub fast: f64,
    /// The library's `encode_batch` on texts in memory.
    pub batch: f64,
}

impl TokenizingBench<'_> {
    /// Measures in the folder `dir`, which gets a copy of the documents.
    ///
    /// # Errors
    /// If the tokenizer has no batch encoding of the library, or the documents cannot be read,
    /// tokenized or written.
    pub fn run(&self, dir: &Path) -> Result<Vec<TokenizingRow>, BenchError> {
        let mut texts: Vec<String> = Vec::new();
        let mut bytes = 0;
        for text in self.source.documents() {
            let text = text?;
            bytes += text.len();
            texts.push(text);
            if bytes >= self.bytes {
                break;
            }
        }
        let path = dir.join("documents.jsonl");
        let line = |text: &String| format!("{}\n", serde_json::json!({ "text": text }));
        let lines: String = texts.iter().map(line).collect();
        block_transformer_files::write(&path, lines.as_bytes()).map_err(DatasetError::from)?;
        drop(lines);
        let copy = DocumentSource::open(&path)?;
        let mut rows: Vec<TokenizingRow> = self
            .threads
            .iter()
            .map(|&threads| TokenizingRow { threads, ..Default::default() })
            .collect();
        for _ in 0..self.rounds {
            for row in &mut rows {
                let pool = ThreadPoolBuilder::new().num_threads(row.threads).build();
                let pool = pool.map_err(|error| BenchError::Threads(error.to_string()))?;
                let out = dir.join("prepared");
                let prepared = pool.install(|| self.prepare(&copy, &out))?;
                block_transformer_files::remove_folder(&out).map_err(DatasetError::from)?;
                row.prepare = row.prepare.max(prepared);
                row.fast = row.fast.max(pool.install(|| self.library(&texts, true))?);
                row.batch = row.batch.max(pool.install(|| self.library(&texts, false))?);
            }
        }
        Ok(rows)
    }

    /// Tokens per second of a preparation.
    fn prepare(&self, source: &DocumentSource, dir: &Path) -> Result<f64, BenchError> {
        let (name, tokenizer, shard_tokens) = ("bench", self.tokenizer, SHARD_TOKENS);
        let (mut tokens, begun) = (0, Instant::now());
        Preparation { name, source, tokenizer, dir, shard_tokens }
            .run(&mut |at| tokens = at.tokens)?;
        Ok(tokens as f64 / begun.elapsed().as_secs_f64())
    }

    /// Tokens per second of the library.
    fn library(&self, texts: &[String], fast: bool) -> Result<f64, BenchError> {
        let Tokenizer::HuggingFace(tokenizer) = self.tokenizer else {
            return Err(BenchError::NoLibrary);
        };
        let (mut tokens, begun, mut rest) = (0, Instant::now(), texts);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |text: &&String| {
                bytes += text.len();
                bytes <= BATCH
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count);
            let inputs: Vec<&str> = batch.iter().map(String::as_str).collect();
            let encodings = if fast {
                tokenizer.encode_batch_fast(inputs, false)
            } else {
                tokenizer.encode_batch(inputs, false)
            };
            let encodings =
                encodings.map_err(|error| DatasetError::Text(TextError::Tokenizer(error)))?;
            tokens += encodings.iter().map(|encoding| encoding.get_ids().len()).sum::<usize>();
            rest = after;
        }
        Ok(tokens as f64 / begun.elapsed().as_secs_f64())
    }
}

/// A table of `rows`, in tokens per second.
pub fn tokenizing_table(rows: &[TokenizingRow]) -> Table {
    let header = ["threads", "prepare", "encode_batch_fast", "encode_batch", "prepare / fast"];
    let row = |row: &TokenizingRow| {
        let TokenizingRow { threads, prepare, fast, batch } = *row;
        let rates = [prepare, fast, batch].map(|rate| format!("{rate:.0}"));
        [vec![threads.to_string()], rates.to_vec(), vec![format!("{:.2}", prepare / fast)]].concat()
    };
    table(&header, 0, rows.iter().map(row))
}
