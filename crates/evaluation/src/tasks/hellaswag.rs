//! Task files of HellaSwag.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use crate::error::EvalError;
use crate::tasks::item::{Item, question};
use crate::tasks::lines::read_json;
use crate::tasks::python;

#[derive(Deserialize)]
struct HellaSwagLine {
    activity_label: String,
    ctx_a: String,
    ctx_b: String,
    endings: Vec<String>,
    label: usize,
}

pub(crate) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    read_json(path, limit, |line: HellaSwagLine| {
        let HellaSwagLine { activity_label, ctx_a, ctx_b, endings, label } = line;
        let context = format!("{activity_label}: {ctx_a} {}", python::capitalize(&ctx_b));
        let endings: Vec<String> = endings.iter().map(|ending| clean(ending)).collect();
        question(&clean(&context), &endings, label)
    })
}

/// Removes the rest of WikiHow's markup: a title becomes a sentence of its own, and all other text
/// in brackets is dropped (the harness's `preprocess`).
fn clean(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> = LazyLock::new(|| python::pattern(r"\[.*?\]"));
    let text = python::strip(text).replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_removed() {
        // the results of the harness's `preprocess`
        assert_eq!(clean(" [header] How to [title] Dry it [step] Now.  "), " How to. Dry it Now.");
        assert_eq!(clean("a [b [c] d] e"), "a d] e");
        assert_eq!(clean("a [b\nc] [d] e]"), "a [b\nc] e]");
        assert_eq!(clean("[x][y]z["), "z[");
        // blanks are replaced in one pass only
        assert_eq!(clean("a   b"), "a  b");
    }
}
