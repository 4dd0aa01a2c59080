//! Parsers of speeds and times on the command line.

use std::fmt;

/// A value in SI units, and the text that stated it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stated {
    /// Bytes per second, or seconds.
    pub value: f64,
    text: String,
}

impl fmt::Display for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Units of speeds in bytes per second, without `/s`.
const BYTES: [(&str, f64); 14] = [
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("B", 1.0),
    ("kbit", 1e3 / 8.0),
    ("Mbit", 1e6 / 8.0),
    ("Gbit", 1e9 / 8.0),
    ("Tbit", 1e12 / 8.0),
    ("bit", 1.0 / 8.0),
];

/// Units of times in seconds.
const SECONDS: [(&str, f64); 5] =
    [("ns", 1e-9), ("us", 1e-6), ("\u{b5}s", 1e-6), ("ms", 1e-3), ("s", 1.0)];

/// Parses a speed in bytes or bits per second, which must be above 0.
pub(crate) fn speed(text: &str) -> Result<Stated, String> {
    let value = text.strip_suffix("/s").and_then(|amount| with_unit(amount, &BYTES));
    let value = value.filter(|value| value.is_finite() && *value > 0.0);
    stated(text, value).ok_or_else(|| {
        "must be a speed above 0 in bytes or bits per second, such as 25GB/s or 10Gbit/s".into()
    })
}

/// Parses a time, which can be 0.
pub(crate) fn time(text: &str) -> Result<Stated, String> {
    let value = with_unit(text, &SECONDS).filter(|value| value.is_finite() && *value >= 0.0);
    stated(text, value).ok_or_else(|| "must be a time of 0 or more, such as 5us or 0.2ms".into())
}

/// Parses a duration above 0; a number without a unit is in seconds.
pub(crate) fn duration(text: &str) -> Result<Stated, String> {
    let value = text.parse().ok().or_else(|| with_unit(text, &SECONDS));
    let value = value.filter(|value: &f64| value.is_finite() && *value > 0.0);
    stated(text, value)
        .ok_or_else(|| "must be a time above 0 in seconds, such as 1.5 or 800ms".into())
}

fn stated(text: &str, value: Option<f64>) -> Option<Stated> {
    Some(Stated { value: value?, text: text.into() })
}

/// Returns the number before one of the units, multiplied by the unit.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let number =
        text.trim_end_matches(|character: char| !character.is_ascii_digit() && character != '.');
    let unit = text[number.len()..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_in_bytes_or_bits_per_second() {
        for (text, bytes) in [
            ("25GB/s", 25e9),
            ("10Gbit/s", 1.25e9),
            ("1e2 Mbit/s", 12.5e6),
            ("0.5MiB/s", 524_288.0),
            ("8B/s", 8.0),
        ] {
            let speed = speed(text).unwrap();
            assert_eq!((speed.value, speed.to_string().as_str()), (bytes, text));
        }
        for text in
            ["25", "25GB", "0GB/s", "-1GB/s", "GB/s", "25gb/s", "25Gb/s", "1e999B/s", "nanB/s", ""]
        {
            assert!(speed(text).unwrap_err().contains("25GB/s"), "{text}");
        }
    }

    #[test]
    fn times_have_a_unit_except_durations_in_seconds() {
        for (text, seconds) in [("5us", 5e-6), ("5\u{b5}s", 5e-6), ("0.2ms", 2e-4), ("0 s", 0.0)] {
            assert!((time(text).unwrap().value - seconds).abs() < 1e-15, "{text}");
        }
        for text in ["5", "-5us", "5m", "us", "5 u s", "infs", ""] {
            assert!(time(text).unwrap_err().contains("5us"), "{text}");
        }
        for (text, seconds) in [("1.5", 1.5), ("800ms", 0.8), ("2s", 2.0)] {
            assert!((duration(text).unwrap().value - seconds).abs() < 1e-12, "{text}");
        }
        for text in ["0", "0s", "-1", "inf", "NaN", "1h"] {
            assert!(duration(text).unwrap_err().contains("800ms"), "{text}");
        }
    }
}
