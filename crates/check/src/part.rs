//! The parts of a check.

use std::time::Duration;

use crate::child::Limit;
use crate::settings::CheckSettings;

/// A part of a check. Every part runs in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Findings about the machine.
    Doctor,
    /// Recorded outputs of the published implementation.
    Goldens,
    /// The same outputs, with bf16 operands of matrix products and bf16 KV caches.
    GoldensBf16,
    /// Decoding with caches against decoding without them.
    Cached,
    /// Losses of training steps against those of the processor.
    Curve,
    /// Memory during many training steps.
    Soak,
    /// Decoding speed, at the lengths with this index.
    Decode(usize),
    /// Speed of training steps.
    Train,
}

/// The prefix of the names of the parts that measure decoding.
const DECODE: &str = "decode-";

impl Part {
    /// Returns the parts of a check, in their order.
    pub fn all(settings: &CheckSettings) -> Vec<Self> {
        let first = [Self::Doctor, Self::Goldens, Self::GoldensBf16];
        let models = [Self::Cached, Self::Curve, Self::Soak];
        let decode = (0..settings.lengths.len()).map(Self::Decode);
        first.into_iter().chain(models).chain(decode).chain([Self::Train]).collect()
    }

    /// Returns the name, which is also that of the part's files.
    pub fn name(self) -> String {
        match self {
            Self::Doctor => "doctor".into(),
            Self::Goldens => "goldens".into(),
            Self::GoldensBf16 => "goldens-bf16".into(),
            Self::Cached => "cached".into(),
            Self::Curve => "curve".into(),
            Self::Soak => "soak".into(),
            Self::Decode(index) => format!("{DECODE}{}", index + 1),
            Self::Train => "train".into(),
        }
    }

    /// Returns the part called `name`; `None` if there is none.
    pub fn named(name: &str, settings: &CheckSettings) -> Option<Self> {
        Self::all(settings).into_iter().find(|part| part.name() == name)
    }

    /// Returns the heading in the report.
    pub(crate) fn title(self, settings: &CheckSettings) -> String {
        match self {
            Self::Doctor => "Machine".into(),
            Self::Goldens => "Recorded outputs of the published implementation".into(),
            Self::GoldensBf16 => "Recorded outputs, in bf16".into(),
            Self::Cached => "Decoding with caches against decoding without them".into(),
            Self::Curve => format!("Loss curve of {} against flex", settings.curve_preset),
            Self::Soak => format!("Memory during {} training steps", settings.soak_steps),
            Self::Decode(index) => format!("Decoding {}", settings.lengths[index]),
            Self::Train => "Training steps".into(),
        }
    }

    /// Returns the time limit. All limits of a quick check together are less than 8 minutes.
    pub fn limit(self, quick: bool) -> Limit {
        let (full, quick_one) = match self {
            Self::Doctor => (90, 30),
            Self::Goldens => (1200, 110),
            Self::GoldensBf16 => (1200, 45),
            Self::Cached => (300, 60),
            Self::Curve => (1200, 85),
            Self::Soak => (1200, 40),
            Self::Decode(_) => (600, 55),
            Self::Train => (300, 40),
        };
        Limit(Duration::from_secs(if quick { quick_one } else { full }))
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_device::DeviceName;

    use super::*;

    #[test]
    fn a_quick_check_takes_less_than_eight_minutes() {
        let settings = CheckSettings::quick(DeviceName::Cuda(0));
        let limits = Part::all(&settings).into_iter().map(|part| part.limit(true).0);
        assert!(limits.sum::<Duration>() < Duration::from_secs(8 * 60 - 10));
    }

    #[test]
    fn a_part_has_a_name_of_its_own() {
        let settings = CheckSettings::full(DeviceName::Cuda(0));
        let parts = Part::all(&settings);
        assert_eq!(parts.len(), 10);
        for part in parts {
            assert_eq!(Part::named(&part.name(), &settings), Some(part));
        }
        assert_eq!(Part::named("decode-4", &settings), None);
    }
}
