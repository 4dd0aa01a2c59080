//! Stop strings, which may span several pieces of text.

use crate::error::GenerationError;

/// Passes text on until a stop string appears, and holds back text that may be the start of one.
#[derive(Clone, Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// Returns a filter that stops at any of `stops`.
    ///
    /// # Errors
    /// [`GenerationError::EmptyStop`] when one of them is empty.
    pub fn new(stops: &[String]) -> Result<Self, GenerationError> {
        if stops.iter().any(String::is_empty) {
            return Err(GenerationError::EmptyStop);
        }
        Ok(Self { stops: stops.to_vec(), held: String::new(), stopped: false })
    }

    /// Returns whether a stop string has appeared.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes the next piece and returns the text that cannot be part of a stop string. The
    /// concatenated output does not depend on how the text is cut into pieces.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let matches = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        // the match that ends first is the one that would be found if the text came one character
        // at a time
        if let Some((_, start)) = matches.min() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let certain = self.held.len() - self.possible_stop();
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Returns the text that was held back, since no more text can complete a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Returns the length in bytes of the longest end of the text that begins a stop string.
    fn possible_stop(&self) -> usize {
        let begins = |stop: &String| {
            let prefixes = stop.char_indices().map(|(end, _)| &stop[..end]);
            prefixes.filter(|prefix| self.held.ends_with(prefix)).map(str::len).max()
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut filter = StopFilter::new(&stops).unwrap();
        let mut out = String::new();
        for piece in pieces {
            out += &filter.push(piece);
            assert!(stops.iter().all(|stop| !out.contains(stop.as_str())), "{out}");
        }
        let stopped = filter.stopped();
        (out + &filter.finish(), stopped)
    }

    #[test]
    fn a_stop_string_may_span_pieces_and_its_beginning_alone_is_passed_on() {
        for (stop, pieces, expected) in [
            ("END", &["one E", "N", "D two"][..], ("one ", true)),
            ("\n\n", &["a\n", "b\n", "\nc"], ("a\nb", true)),
            ("END", &["one E", "N", "d"], ("one ENd", false)),
            ("END", &["one EN"], ("one EN", false)),
            ("aab", &["aa", "a", "b"], ("a", true)),
        ] {
            assert_eq!(run(&[stop], pieces), (expected.0.into(), expected.1));
        }
    }

    #[test]
    fn text_is_passed_on_as_soon_as_it_is_certain() {
        let mut filter = StopFilter::new(&["END".into()]).unwrap();
        assert_eq!(filter.push("hello E"), "hello ");
        assert_eq!(filter.push("x"), "Ex");
    }

    #[test]
    fn the_output_does_not_depend_on_the_pieces() {
        let text = "aé b\u{1F600}c ab cd é";
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        for stops in [vec!["ab c", "b"], vec!["b", "ab c"], vec!["é"], vec!["\u{1F600}c "], vec![]]
        {
            assert_eq!(run(&stops, &[text]), run(&stops, &letters), "{stops:?}");
        }
    }

    #[test]
    fn nothing_comes_after_a_stop() {
        let mut filter = StopFilter::new(&["x".into()]).unwrap();
        assert_eq!(filter.push("axb"), "a");
        assert_eq!(filter.push("c") + &filter.finish(), "");
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert!(matches!(StopFilter::new(&[String::new()]), Err(GenerationError::EmptyStop)));
    }
}
