//! `cargo xtask eval-pg19`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Error, Result, anyhow, ensure};
use block_transformer_datasets::DatasetError;
use block_transformer_device::DeviceName;
use block_transformer_position_loss::{
    Book, EvaluationFolder, Measures, Settings, Subjects, Windows, evaluate,
};

use super::prepare::progress;
use crate::device;
use crate::meter::TokenMeter;

const RECIPE: &str = "pg19-test";
const CONTEXT: usize = 2048;
/// Tokens computed together, at least: fewer leave the processor waiting, more its caches.
const BATCH_TOKENS: usize = 2048;

/// Arguments of `eval-pg19`.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint or run folder; give several to compare them
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,
    /// Folder of books (.txt), or a list of files, one a line
    #[arg(long, value_name = "PATH", conflicts_with = "download")]
    books: Option<PathBuf>,
    /// The 100 books of PG19's test split, fetched (41 MB) unless they are there
    #[arg(long)]
    download: bool,
    /// Tokens a window [default: 2048]
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Tokens from one window's start to the next's [default: the context]
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Evaluate the first N books only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Windows computed together [default: as many as make 2048 tokens]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Leave out the loss of whole books, which takes half of the time
    #[arg(long)]
    windows_only: bool,
    /// Folder of the results [default: runs/eval-pg19]
    #[arg(long, value_name = "DIR", default_value = "runs/eval-pg19", hide_default_value = true)]
    out: PathBuf,
    /// Go on with the evaluation in --out
    #[arg(long)]
    resume: bool,
    /// Folder of downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Device that computes
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Evaluates, and prints the summary.
    pub fn run(self) -> Result<ExitCode> {
        let settings = if self.resume { self.resumed()? } else { self.settings()? };
        let device = device::open(self.device)?;
        let subjects = Subjects::open(&settings.checkpoints)?;
        super::warn_of_skipped(subjects.skipped());
        let books = match &settings.books {
            Some(path) => Book::list(path)?,
            None => self.downloaded()?,
        };
        let mut meter = TokenMeter::new();
        let (out, resume) = (&self.out, self.resume);
        let report = evaluate(&settings, &subjects, &books, out, resume, &device, &mut meter)?;
        meter.finish();
        say!("{}", report.markdown().trim_end());
        let file = |name: &str| out.join(name).display().to_string();
        say!("\nresults {}, {}", file("results.json"), file("positions.csv"));
        if !report.octaves.is_empty() {
            say!("plot {} and {}", file("loss-by-position.svg"), file("loss-by-position.png"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self) -> Result<Settings> {
        ensure!(!self.checkpoint.is_empty(), "--checkpoint DIR: give at least one");
        ensure!(
            self.books.is_some() || self.download,
            "--books PATH: give a folder of books, or --download PG19's test split (41 MB)"
        );
        let context = self.context.unwrap_or(CONTEXT);
        let windows = Windows { context, stride: self.stride.unwrap_or(context) };
        let batch = self.batch.unwrap_or((BATCH_TOKENS / context.max(1)).max(1));
        Ok(Settings {
            checkpoints: self.checkpoint.clone(),
            books: self.books.clone(),
            limit: self.limit,
            measures: Measures { windows, documents: !self.windows_only, batch },
        })
    }

    /// What the evaluation in `--out` was begun with. A flag may repeat it.
    fn resumed(&self) -> Result<Settings> {
        let begun = EvaluationFolder::new(&self.out).settings()?;
        let measures = &begun.measures;
        let same = [
            ("--checkpoint", self.checkpoint.is_empty() || self.checkpoint == begun.checkpoints),
            ("--books", self.books.is_none() || self.books == begun.books),
            ("--download", !self.download || begun.books.is_none()),
            ("--context", self.context.is_none_or(|n| n == measures.windows.context)),
            ("--stride", self.stride.is_none_or(|n| n == measures.windows.stride)),
            ("--limit", self.limit.is_none() || self.limit == begun.limit),
            ("--batch", self.batch.is_none_or(|n| n == measures.batch)),
            ("--windows-only", !self.windows_only || !measures.documents),
        ];
        for (flag, same) in same {
            ensure!(
                same,
                "{flag}: the evaluation in {} was begun with another; leave the flag out to resume \
                 it, or give another --out",
                self.out.display()
            );
        }
        Ok(begun)
    }

    fn downloaded(&self) -> Result<Vec<Book>> {
        let cache = self.data.join("downloads");
        let source = block_transformer_datasets::resolve(RECIPE, &cache, &mut progress(""))
            .map_err(|e| match e {
                DatasetError::Download { ref path, .. } => {
                    let path = path.display().to_string();
                    anyhow!(
                        "{:#}; download the file elsewhere to {path}, or give --books a folder",
                        Error::new(e)
                    )
                }
                other => other.into(),
            })?;
        Ok(Book::of_files(source.files()))
    }
}
