//! A source of a mixture as text: the folder of a prepared corpus and its weight.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A prepared folder with its weight in a mixture, written `FOLDER=WEIGHT`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    /// The folder.
    pub dir: PathBuf,
    /// The weight, a positive number. Only the ratios of weights matter.
    pub weight: f64,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let need = "must be a prepared folder and a positive number, such as books=0.7";
        // the name of a folder can contain `=`
        let (dir, weight) = text.rsplit_once('=').ok_or(need)?;
        let weight = weight.parse().ok().filter(|weight: &f64| weight.is_finite() && *weight > 0.0);
        match (dir, weight) {
            ("", _) | (_, None) => Err(need.into()),
            (dir, Some(weight)) => Ok(Self { dir: dir.into(), weight }),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.dir.display(), self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_as_they_are_read() {
        for (text, dir, weight) in [("a=0.7", "a", 0.7), ("data/x=1/b=3", "data/x=1/b", 3.0)] {
            let share: Share = text.parse().unwrap();
            assert_eq!(share, Share { dir: dir.into(), weight });
            assert_eq!(share.to_string(), text);
        }
        for text in ["a", "a=", "=1", "a=b", "a=0", "a=-1", "a=inf", "a=nan"] {
            assert!(text.parse::<Share>().unwrap_err().contains("books=0.7"), "{text}");
        }
    }
}
