//! HellaSwag.

use std::path::Path;

use serde::Deserialize;

use super::{Item, lines, question};
use crate::{EvalError, python};

#[derive(Deserialize)]
struct Row {
    activity_label: String,
    ctx_a: String,
    ctx_b: String,
    endings: Vec<String>,
    label: usize,
}

pub(super) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    lines::read_json(path, limit, |row: Row| {
        let Row { activity_label, ctx_a, ctx_b, endings, label } = row;
        let context = format!("{activity_label}: {ctx_a} {}", python::capitalize(&ctx_b));
        let endings: Vec<String> = endings.iter().map(|ending| clean(ending)).collect();
        question(clean(&context), &endings, label)
    })
}

/// Without what is left of WikiHow's markup: titles become sentences of their own, and anything
/// else in brackets goes.
fn clean(text: &str) -> String {
    let text = python::strip(text).replace(" [title]", ". ");
    without_brackets(&text).replace("  ", " ")
}

/// `re.sub(r"\[.*?\]", "", text)`: from a bracket to the first that closes one on its line.
fn without_brackets(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, from) = rest.split_at(open);
        kept.push_str(before);
        let line = from.find('\n').unwrap_or(from.len());
        match from[..line].find(']') {
            Some(close) => rest = &from[close + 1..],
            None => {
                kept.push('[');
                rest = &from[1..];
            }
        }
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_goes() {
        // what the harness's `preprocess` makes of them
        assert_eq!(clean(" [header] How to [title] Dry it [step] Now.  "), " How to. Dry it Now.");
        assert_eq!(clean("a [b [c] d] e"), "a d] e");
        assert_eq!(without_brackets("a [b\nc] [d] e]"), "a [b\nc]  e]");
        assert_eq!(without_brackets("[x][y]z["), "z[");
        // once over, not until none is left
        assert_eq!(clean("a   b"), "a  b");
    }
}
