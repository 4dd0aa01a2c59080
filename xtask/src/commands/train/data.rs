//! The data of a run: one corpus, or a mixture of prepared folders.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use block_transformer_datasets::{Mixture, PreparedCorpus, Share};
use block_transformer_training::TrainConfig;

use crate::commands::prepare::{summary, with_flags};
use crate::program;

/// The folder of prepared corpora and downloads if no other is given.
const CACHE: &str = "data";

/// The values of `--data`.
pub(super) struct Data {
    /// The folder of prepared corpora and downloads.
    pub(super) cache: PathBuf,
    /// The sources of a mixture.
    pub(super) shares: Vec<Share>,
}

impl Data {
    /// Divides the values into shares of a mixture, which contain `=`, and the folder. An existing folder can
    /// have a name with `=`.
    pub(super) fn parse(values: &[String]) -> Result<Self> {
        let (mut folders, mut shares) = (Vec::new(), Vec::new());
        for value in values {
            if !value.contains('=') || Path::new(value).is_dir() {
                folders.push(value);
            } else {
                let share = value.parse::<Share>();
                shares.push(share.map_err(|reason| anyhow!("--data {value}: {reason}"))?);
            }
        }
        if let [_, second, ..] = folders[..] {
            ensure!(
                false,
                "--data {second}: only one folder without a weight can be given; for a mixture, give \
                 {second}=WEIGHT"
            );
        }
        let cache = folders.first().map_or_else(|| CACHE.into(), PathBuf::from);
        Ok(Self { cache, shares })
    }
}

/// Opens the folders of a mixture. `flag` is the origin of their names.
pub(super) fn open(shares: &[Share], flag: &str) -> Result<Mixture> {
    let open = |share: &Share| {
        let (shown, program) = (share.dir.display(), program::name());
        ensure!(
            PreparedCorpus::exists(&share.dir),
            "{flag} {shown}: not a prepared folder; `{program} prepare --out {shown}` makes one"
        );
        let corpus = PreparedCorpus::open(&share.dir).map_err(with_flags)?;
        Ok((corpus, share.weight))
    };
    let sources = shares.iter().map(open).collect::<Result<_>>()?;
    Mixture::new(sources).map_err(|error| with_flags(error).context(flag.to_string()))
}

/// The flag of the data, with its value.
pub(super) fn shown(config: &TrainConfig) -> String {
    match config.mixture.first() {
        Some(share) => format!("--data {share}"),
        None => format!("--corpus {}", config.corpus),
    }
}

/// Prints the sizes of the corpora, and of a mixture their shares.
pub(super) fn say_summary(mixture: &Mixture) {
    let sources = mixture.sources();
    for ((corpus, _), weight) in sources.iter().zip(mixture.weights()) {
        let share = match sources {
            [_] => String::new(),
            _ => format!("{:.1}% of the windows: ", 100.0 * weight),
        };
        say!("{share}{}", summary(corpus));
    }
}

/// The loss of a model that knows only the frequencies of the tokens of each corpus.
pub(super) fn frequency_loss(mixture: &Mixture) -> f64 {
    let losses = mixture.infos().into_iter().map(|info| info.frequency_loss);
    losses.zip(mixture.weights()).map(|(loss, weight)| loss * weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_a_weight_are_a_mixture() {
        let parse = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            Data::parse(&values)
        };
        let data = parse(&["a=0.7", "b/c=3"]).unwrap();
        let shares: Vec<String> = data.shares.iter().map(ToString::to_string).collect();
        assert_eq!((shares, data.cache), (vec!["a=0.7".into(), "b/c=3".into()], "data".into()));
        let data = parse(&["cache", "a=1"]).unwrap();
        assert_eq!((data.shares.len(), data.cache), (1, "cache".into()));
        let error = |values: &[&str]| parse(values).err().unwrap().to_string();
        assert!(error(&["a", "b"]).contains("--data b: only one"), "{}", error(&["a", "b"]));
        assert!(error(&["a=x"]).contains("--data a=x: must be"), "{}", error(&["a=x"]));
        // a folder that exists is a folder
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("x=2");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(parse(&[odd.to_str().unwrap()]).unwrap().cache, odd);
    }
}
