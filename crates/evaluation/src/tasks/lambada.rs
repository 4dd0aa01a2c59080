//! LAMBADA.

use std::path::Path;

use serde::Deserialize;

use super::{Item, lines};
use crate::EvalError;
use crate::encode::Prompt;

#[derive(Deserialize)]
struct Row {
    text: String,
}

pub(super) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    lines::read_json(path, limit, |row: Row| {
        let (context, word) = row.text.rsplit_once(' ').unwrap_or(("", &row.text));
        let continuation = format!(" {word}");
        Ok(Item::Continuation(Prompt { context: context.into(), continuation }))
    })
}
