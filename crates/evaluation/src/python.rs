//! Python's notions of text, where the harness's scores hang on them.

/// What `str.isspace`, `str.strip` and `\s` take for white space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip`
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.capitalize`: the first letter large, all others small.
pub(crate) fn capitalize(text: &str) -> String {
    let mut rest = text.chars();
    let Some(first) = rest.next() else { return String::new() };
    // the letters of a large ligature but the first are small ones
    let mut large = first.to_uppercase();
    let large = large.next().into_iter().chain(large.flat_map(char::to_lowercase));
    large.chain(rest.as_str().to_lowercase().chars()).collect()
}

/// `len(re.split(r"\s+", text))`, which counts an empty word at a blank end.
pub(crate) fn count_words(text: &str) -> usize {
    let mut after_space = false;
    let starts = text.chars().filter(|&c| {
        let starts = is_space(c) && !after_space;
        after_space = is_space(c);
        starts
    });
    1 + starts.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_has_it() {
        assert_eq!(capitalize("the man on TV"), "The man on tv");
        assert_eq!(capitalize("ßx"), "Ssx");
        assert_eq!((capitalize(""), capitalize("9 LIVES")), (String::new(), "9 lives".into()));
        assert_eq!(strip("\u{1f}\u{a0} a b\n"), "a b");
        let words = [("", 1), ("a", 1), (" a\n\nb ", 4), ("a b", 2), (" ", 2)];
        words.iter().for_each(|&(text, count)| assert_eq!(count_words(text), count, "{text:?}"));
    }
}
