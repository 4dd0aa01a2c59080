//! `cargo xtask eval-pg19`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Error, Result, anyhow, ensure};
use block_transformer_collectives::{Collective, of_rank_0, rank_0_first};
use block_transformer_device::DeviceName;
use block_transformer_evaluation::EvalError;
use block_transformer_evaluation::documents::{
    Book, DocumentEvaluation, DocumentSettings, EvaluationFolder, Measures, OpenCheckpoints,
    PositionReport, Windows,
};

use block_transformer_zoo::Precision;
use block_transformer_zoo::family::{CacheFormat, MatrixFormat};

use super::inputs::{of_checkpoint, warn_of_skipped};
use super::prepare::with_remedy;
use crate::device::StorageFlags;
use crate::progress::{TokenMeter, progress};
use crate::{device, job, paths};

const RECIPE: &str = "pg19-test";
const CONTEXT: usize = 2048;
/// Tokens per batch. With fewer tokens the processor is not fully used, with more its caches are
/// too small.
const BATCH_TOKENS: usize = 2048;

/// Arguments of `eval-pg19`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint or run folder; give several to compare them
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,
    /// Folder of books (.txt), or a file that lists one book per line
    #[arg(long, value_name = "PATH", conflicts_with = "download")]
    books: Option<PathBuf>,
    /// Use the 100 books of PG19's test split; missing ones are downloaded (41 MB)
    #[arg(long)]
    download: bool,
    /// Tokens per window [default: 2048]
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Tokens from the start of one window to the start of the next [default: the context]
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Evaluate the first N books only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Windows per batch [default: the number of windows that have 2048 tokens together]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Leave out the loss of whole books, which takes half of the time
    #[arg(long)]
    windows_only: bool,
    /// Folder for the results [default: runs/eval-pg19]
    #[arg(long, value_name = "DIR", default_value = "runs/eval-pg19", hide_default_value = true)]
    out: PathBuf,
    /// Resume the evaluation in --out
    #[arg(long)]
    resume: bool,
    /// Folder for downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Storage format of the matrices: f32, bf16, or int8 [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = device::matrices())]
    weights: Option<MatrixFormat>,
    /// Storage format of keys and values: f32, or bf16 or int8, which are read through caches [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = device::stored())]
    cache: Option<CacheFormat>,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Evaluates the checkpoints and prints the summary.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let ranks = job::join()?;
        let leads = ranks.rank() == 0;
        if leads {
            paths::output_folder("--out", &self.out)?;
        }
        let settings = if self.resume { self.resumed(&*ranks)? } else { self.settings()? };
        if let Some(books) = &settings.books {
            let remedy = "give a folder of .txt files, or a file that lists one book per line";
            paths::existing("--books", books, remedy)?;
        } else {
            paths::cache_folder("--data", &self.data)?;
        }
        let device = device::open(self.device)?;
        let (weights, cache) = (settings.precision.matrices(), settings.precision.cache());
        StorageFlags { weights, cache }.check(self.device, &device)?;
        let books = match &settings.books {
            Some(path) => Book::list(path).map_err(of_books)?,
            None => rank_0_first(&*ranks, || self.downloaded())?,
        };
        let mut meter = TokenMeter::new();
        let report = OpenCheckpoints::open(&settings.checkpoints).and_then(|checkpoints| {
            let skipped = checkpoints.all.iter().flat_map(|opened| &*opened.checkpoint.skipped);
            warn_of_skipped(skipped);
            let evaluation = DocumentEvaluation {
                settings: &settings,
                checkpoints: &checkpoints,
                books: &books,
                out: &self.out,
                resume: self.resume,
                device: &device,
                ranks: &*ranks,
            };
            evaluation.run(&mut meter)
        });
        let report = report.map_err(with_flag)?;
        meter.finish();
        if leads {
            self.print(&report)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints the report and writes its plot.
    fn print(&self, report: &PositionReport) -> Result<()> {
        let file = |name: &str| self.out.join(name);
        say!("{}", report.markdown().trim_end());
        let (json, csv) = (file("results.json"), file("positions.csv"));
        say!("\nresults {}, {}", json.display(), csv.display());
        if !report.octaves.is_empty() {
            let (svg, png) = (file("loss-by-position.svg"), file("loss-by-position.png"));
            let plot = report.plot();
            plot.write(&svg)?;
            plot.write(&png)?;
            say!("plot {} and {}", svg.display(), png.display());
        }
        Ok(())
    }

    fn settings(&self) -> Result<DocumentSettings> {
        ensure!(!self.checkpoint.is_empty(), "--checkpoint DIR: give at least one");
        ensure!(
            self.books.is_some() || self.download,
            "--books PATH: give a folder of books, or --download PG19's test split (41 MB)"
        );
        let context = self.context.unwrap_or(CONTEXT);
        let windows = Windows { context, stride: self.stride.unwrap_or(context) };
        let batch = self.batch.unwrap_or((BATCH_TOKENS / context.max(1)).max(1));
        Ok(DocumentSettings {
            checkpoints: self.checkpoint.clone(),
            books: self.books.clone(),
            limit: self.limit,
            measures: Measures { windows, documents: !self.windows_only, batch },
            precision: Precision::of(
                self.weights.unwrap_or_default(),
                self.cache.unwrap_or_default(),
            ),
        })
    }

    /// The settings of the evaluation in --out. Flags may repeat them, but not change them.
    fn resumed(&self, ranks: &dyn Collective) -> Result<DocumentSettings> {
        let folder = EvaluationFolder::new(&self.out);
        let begun = of_rank_0(ranks, || folder.settings().map_err(with_flag))?;
        let measures = &begun.measures;
        let same = [
            ("--checkpoint", self.checkpoint.is_empty() || self.checkpoint == begun.checkpoints),
            ("--books", self.books.is_none() || self.books == begun.books),
            ("--download", !self.download || begun.books.is_none()),
            ("--context", self.context.is_none_or(|n| n == measures.windows.context)),
            ("--stride", self.stride.is_none_or(|n| n == measures.windows.stride)),
            ("--limit", self.limit.is_none() || self.limit == begun.limit),
            ("--weights", self.weights.is_none_or(|format| format == begun.precision.matrices())),
            ("--cache", self.cache.is_none_or(|format| format == begun.precision.cache())),
            ("--batch", self.batch.is_none_or(|n| n == measures.batch)),
            ("--windows-only", !self.windows_only || !measures.documents),
        ];
        for (flag, same) in same {
            ensure!(
                same,
                "{flag}: the evaluation in {} was begun with another value; leave the flag out to resume \
                 it, or give another --out",
                self.out.display()
            );
        }
        Ok(begun)
    }

    fn downloaded(&self) -> Result<Vec<Book>> {
        let cache = self.data.join("downloads");
        let source = block_transformer_datasets::resolve(RECIPE, &cache, &mut progress(""))
            .map_err(|error| with_remedy(error, "give --books a folder"))?;
        Ok(Book::of_files(source.files()))
    }
}

/// Adds `--books` to an error about the list of books.
fn of_books(error: EvalError) -> Error {
    anyhow!("--books {:#}", Error::new(error))
}

/// Adds to an error the flag that causes or remedies it.
fn with_flag(error: EvalError) -> Error {
    let error = match error {
        EvalError::Checkpoint(error) => return of_checkpoint(error),
        error => error,
    };
    let flag = match &error {
        EvalError::Zero(setting) => format!("--{setting}"),
        EvalError::Windows { context, .. } | EvalError::NoWindows(context) => {
            format!("--context {context}")
        }
        EvalError::Tokenizers { checkpoint, .. } => {
            format!("--checkpoint {}", checkpoint.display())
        }
        EvalError::NoText => "--books".into(),
        EvalError::Cache => "--cache".into(),
        EvalError::NotBegun(_) => return anyhow!("{error}; leave out --resume"),
        EvalError::AlreadyBegun(_) => return anyhow!("{error} (--resume, --out)"),
        EvalError::NotResumable { .. } => return anyhow!("{error} (--out)"),
        _ => return error.into(),
    };
    Error::new(error).context(flag)
}
