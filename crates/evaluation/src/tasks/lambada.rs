//! Task files of LAMBADA.

use std::path::Path;

use serde::Deserialize;

use crate::error::EvalError;
use crate::tasks::item::{Item, Prompt};
use crate::tasks::lines::read_json;

#[derive(Deserialize)]
struct LambadaLine {
    text: String,
}

pub(crate) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    read_json(path, limit, |line: LambadaLine| {
        let (context, word) = line.text.rsplit_once(' ').unwrap_or(("", &line.text));
        let continuation = format!(" {word}");
        Ok(Item::Continuation(Prompt { context: context.into(), continuation }))
    })
}
