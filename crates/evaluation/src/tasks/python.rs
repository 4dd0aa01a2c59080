//! Python's text functions. The scores of the harness depend on their details.

use std::sync::LazyLock;

use regex::Regex;

/// Returns whether `str.isspace`, `str.strip` and `\s` of Python treat a character as white space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Compiles a pattern of Python's `re` module. `\s` matches four more characters in Python than in
/// Rust.
///
/// # Panics
/// When the pattern is invalid.
pub(crate) fn pattern(pattern: &str) -> Regex {
    let pattern = pattern.replace(r"\s", r"[\s\x1c-\x1f]");
    Regex::new(&pattern).expect("patterns are constants, compiled by tests")
}

/// `str.strip`
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.capitalize`: the first letter in upper case, all others in lower case.
pub(crate) fn capitalize(text: &str) -> String {
    let mut rest = text.chars();
    let Some(first) = rest.next() else { return String::new() };
    // a ligature has several letters, of which only the first is in upper case
    let mut upper = first.to_uppercase();
    let upper = upper.next().into_iter().chain(upper.flat_map(char::to_lowercase));
    upper.chain(rest.as_str().to_lowercase().chars()).collect()
}

/// `len(re.split(r"\s+", text))`, which counts an empty word at a blank start or end.
pub(crate) fn count_words(text: &str) -> usize {
    static SPACES: LazyLock<Regex> = LazyLock::new(|| pattern(r"\s+"));
    SPACES.split(text).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_python() {
        assert_eq!(capitalize("the man on TV"), "The man on tv");
        assert_eq!(capitalize("ßx"), "Ssx");
        assert_eq!((capitalize(""), capitalize("9 LIVES")), (String::new(), "9 lives".into()));
        assert_eq!(strip("\u{1f}\u{a0} a b\n"), "a b");
        let words = [("", 1), ("a", 1), (" a\n\nb ", 4), ("a b", 2), (" ", 2), ("a\u{1c} b", 2)];
        words.iter().for_each(|&(text, count)| assert_eq!(count_words(text), count, "{text:?}"));
    }
}
