//! Corpus recipes: where a corpus comes from, what it must hash to, how it is split.
