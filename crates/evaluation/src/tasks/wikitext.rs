//! Task files of WikiText: articles, and their text before tokenization.

use std::path::Path;
use std::sync::LazyLock;

use block_transformer_files::read_up_to;
use regex::{NoExpand, Regex};

use crate::error::EvalError;
use crate::tasks::item::Item;
use crate::tasks::python;

/// The largest file in bytes; that of the training split has 11 MB.
const MAX_BYTES: u64 = 256 << 20;

pub(crate) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    let text = read_up_to(path, MAX_BYTES)?;
    let text = String::from_utf8(text).map_err(|e| {
        let bytes = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
        EvalError::line(path, line, format!("not UTF-8 ({e})"))
    })?;
    let item = |page: String| Item::Document {
        text: detokenize(&page),
        words: python::count_words(&page),
        bytes: page.len(),
    };
    Ok(articles(&text).into_iter().take(limit).map(item).collect())
}

/// Splits a file into articles at their titles (` = Title = `).
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

/// The harness's `wikitext_detokenizer`, with its steps in the same order.
fn detokenize(page: &str) -> String {
    /// The harness puts slashes around the pattern and the replacement of one step, where the
    /// slashes are literal characters. The replacement is literal too.
    static DIGIT: LazyLock<Regex> = LazyLock::new(|| python::pattern("/' [0-9]/"));
    /// Blanks inside brackets and quotes.
    static INSIDE: LazyLock<[Regex; 5]> = LazyLock::new(|| {
        let patterns = [
            r"(\()\s*([^\)]*?)\s*(\))",
            r"(\[)\s*([^\]]*?)\s*(\])",
            r"(\{)\s*([^}]*?)\s*(\})",
            r#"(")\s*([^"]*?)\s*(")"#,
            r"(')\s*([^']*?)\s*(')",
        ];
        patterns.map(python::pattern)
    });
    let mut text = page.replace("s '", "s'");
    text = DIGIT.replace_all(&text, NoExpand("/'[0-9]/")).into_owned();
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
    for pattern in INSIDE.iter() {
        text = pattern.replace_all(&text, "$1$2$3").into_owned();
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
    fn tokenized_text_is_detokenized() {
        // the results of the harness's `wikitext_detokenizer`
        let page = "He said \" well , no \" ( or [ so ] ) at 5 @,@ 000 @-@ odd ° N \n = = A = = \n \
                    the dogs ' ' x ' { y } ; z";
        let text = "He said \"well, no\" (or [so]) at 5,000-odd°N\n== A ==\n\
                    the dogs'' x ' {y}; z";
        assert_eq!(detokenize(page), text);
        assert_eq!(detokenize("a /' 5/ /' 55/ /"), "a /'[0-9]/ /' 55/ /");
        assert_eq!(detokenize("( a ( b ) c ) ( d"), "(a ( b) c ) ( d");
    }
}
