//! WikiText: articles, and the text they were before they were tokenized.

use std::path::Path;

use super::Item;
use crate::{EvalError, python};

pub(super) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    let text = std::fs::read(path).map_err(|source| EvalError::Io { path: path.into(), source })?;
    let text = String::from_utf8(text).map_err(|e| {
        let bytes = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
        EvalError::Line { path: path.into(), line, reason: format!("not UTF-8 ({e})") }
    })?;
    let item = |page: String| Item::Document {
        text: detokenize(&page),
        words: python::count_words(&page),
        bytes: page.len(),
    };
    Ok(articles(&text).into_iter().take(limit).map(item).collect())
}

/// The articles, each from its title (` = Title = `) to the next.
fn articles(text: &str) -> Vec<String> {
    let mut articles: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.split('\n') {
        let heading = line.replace("= = =", "===").replace("= =", "==");
        let heading = python::strip(&heading);
        if heading.starts_with("= ") && heading.ends_with(" =") {
            articles.push(Vec::new());
        }
        if let Some(article) = articles.last_mut() {
            article.push(line);
        }
    }
    let articles = articles.into_iter().map(|lines| lines.join("\n"));
    articles.filter(|article| !python::strip(article).is_empty()).collect()
}

/// The harness's `wikitext_detokenizer`, one step after another in its order.
fn detokenize(page: &str) -> String {
    let mut text = page.replace("s '", "s'");
    text = with_digit_pattern(&text);
    for (from, to) in [
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ] {
        text = text.replace(from, to);
    }
    for (open, close) in [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')] {
        text = trimmed_inside(&text, open, close);
    }
    for (from, to) in [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" ° ", "°"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ] {
        text = text.replace(from, to);
    }
    text
}

/// Each `/' 5/` becomes `/'[0-9]/`, literally: the harness takes slashes for the ends of a pattern
/// in both, and its scores are what is asked for.
fn with_digit_pattern(text: &str) -> String {
    let mut parts = text.split("/' ");
    let mut joined = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.strip_prefix(|c: char| c.is_ascii_digit()).and_then(|p| p.strip_prefix('/')) {
            Some(rest) => joined = joined + "/'[0-9]/" + rest,
            None => joined = joined + "/' " + part,
        }
    }
    joined
}

/// `re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)`: no blanks inside brackets or quotes.
fn trimmed_inside(text: &str, open: char, close: char) -> String {
    let mut trimmed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once(open)
        && let Some((inside, after)) = from.split_once(close)
    {
        trimmed.push_str(before);
        trimmed.push(open);
        trimmed.push_str(python::strip(inside));
        trimmed.push(close);
        rest = after;
    }
    trimmed + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_start_at_titles_and_not_at_sections() {
        let text = " \n = One = \n \n a \n = = Part = = \n b \n = Two = \n c \n";
        let expected = [" = One = \n \n a \n = = Part = = \n b ", " = Two = \n c \n"];
        assert_eq!(articles(text), expected);
        assert!(articles(" \n\n").is_empty());
    }

    #[test]
    fn text_is_put_together_again() {
        // what the harness's `wikitext_detokenizer` makes of it
        let page = "He said \" well , no \" ( or [ so ] ) at 5 @,@ 000 @-@ odd ° N \n = = A = = \n \
                    the dogs ' ' x ' { y } ; z";
        let text = "He said \"well, no\" (or [so]) at 5,000-odd°N\n== A ==\n\
                    the dogs'' x ' {y}; z";
        assert_eq!(detokenize(page), text);
        assert_eq!(with_digit_pattern("a /' 5/ /' 55/ /' x"), "a /'[0-9]/ /' 55/ /' x");
        assert_eq!(trimmed_inside("( a ( b ) c ) ( d", '(', ')'), "(a ( b) c ) ( d");
    }
}
