//! Suggestions for misspelt names.

/// Returns the name most similar to `name`; `None` when `names` is empty.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &&str| (strsim::jaro_winkler(name, other) * 1e6) as u64;
    names.into_iter().max_by_key(likeness)
}
