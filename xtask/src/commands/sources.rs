//! The models of other programs that flags name.

use std::path::PathBuf;

use anyhow::{Error, Result, anyhow};
use block_transformer_exchange::{ExchangeError, Hub, Located, locate};
use block_transformer_files::digest;
use sha2::{Digest, Sha256};

use crate::program;
use crate::progress::progress;

/// Finds the model that the value of `flag` names, with a progress bar for each file that is fetched.
pub(super) fn located(flag: &str, given: &str, hub: &Hub) -> Result<Located> {
    let mut file = String::new();
    let mut draw: Option<Box<dyn FnMut(u64, u64)>> = None;
    let found = locate(given, hub, &mut |download| {
        if file != download.file {
            file = download.file.to_string();
            note!("fetching {file}");
            draw = Some(Box::new(progress(&file)));
        }
        if let Some(draw) = &mut draw {
            draw(download.done, download.total);
        }
    });
    found.map_err(|error| with_remedy(flag, error))
}

fn with_remedy(flag: &str, error: ExchangeError) -> Error {
    let program = program::name();
    match &error {
        ExchangeError::Unknown { .. } => {
            anyhow!("{flag} {error}; `{program} models` lists the published weights")
        }
        ExchangeError::Hub { .. } => {
            anyhow!(
                "{flag} {error}; check the id and the network, give --offline if the model is in the cache, or set \
                 HF_TOKEN if the repository needs it"
            )
        }
        _ => Error::new(error).context(flag.to_string()),
    }
}

/// The SHA-256 of a file; of several, that of the text with the SHA-256 of each as a line, in the order of their
/// names.
pub(super) fn sha256(files: &[PathBuf]) -> Result<String> {
    if let [file] = files {
        return Ok(digest(file)?.1);
    }
    let mut files = files.to_vec();
    files.sort();
    let mut lines = String::new();
    for file in &files {
        lines += &(digest(file)?.1 + "\n");
    }
    Ok(Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect())
}
