//! Python's text functions and random numbers. The scores of the harness depend on their details.

use std::collections::HashSet;
use std::sync::LazyLock;

use rand_mt::Mt;
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

/// `random.Random`
pub(crate) struct Random(Mt);

impl Random {
    /// `random.Random(seed)`
    pub(crate) fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `sample(range(count), k)`
    ///
    /// # Panics
    /// When `k` is larger than `count`.
    pub(crate) fn sample(&mut self, count: usize, k: usize) -> Vec<usize> {
        assert!(k <= count, "a sample is not larger than the population");
        // the size of a set above which Python draws from a list instead
        let mut set_size = 21;
        if k > 5 {
            let log4 = ((3 * k) as f64).ln() / 4_f64.ln();
            set_size += 4_usize.pow(log4.ceil() as u32);
        }
        let mut drawn = Vec::with_capacity(k);
        if count <= set_size {
            let mut pool: Vec<usize> = (0..count).collect();
            for i in 0..k {
                let at = self.below(count - i);
                drawn.push(pool[at]);
                pool[at] = pool[count - i - 1];
            }
        } else {
            let mut seen = HashSet::new();
            while drawn.len() < k {
                let index = self.below(count);
                if seen.insert(index) {
                    drawn.push(index);
                }
            }
        }
        drawn
    }

    /// `_randbelow(n)`, for `n` from 1 to 2^32 - 1.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let value = (self.0.next_u32() >> (32 - bits)) as usize;
            if value < n {
                return value;
            }
        }
    }
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

    #[test]
    fn samples_are_those_of_python() {
        // r = random.Random(1234); r.sample(range(n), k), one after the other
        let mut random = Random::new(1234);
        for (count, expected) in [
            (10, &[7, 1, 0, 9, 4, 6, 5, 3, 8][..]),
            (5000, &[1939, 142, 252, 129, 2835, 3966]),
            (86, &[78, 59, 19, 11, 23, 14]),
            (85, &[1, 64, 62, 31, 8, 69]),
            (1, &[0]),
        ] {
            assert_eq!(random.sample(count, expected.len()), expected);
        }
        assert_eq!([random.0.next_u32(), random.0.next_u32()], [294_502_670, 2_583_265_852]);
    }
}
