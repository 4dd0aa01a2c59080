//! Sizes of memory, as people write them.

/// Bytes of `4GiB`, `500MB`, `1.5G` or `123456`. A unit without `i` is a power of 1000, a letter
/// alone one of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let power = match unit.chars().next() {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        _ => return Err(unknown(text)),
    };
    let base: f64 = match unit.get(1..) {
        None | Some("" | "ib") => 1024.0,
        Some("b") => 1000.0,
        _ => return Err(unknown(text)),
    };
    let number: f64 = digits.trim().parse().map_err(|_| unknown(text))?;
    if !number.is_finite() || number < 0.0 {
        return Err(unknown(text));
    }
    Ok((number * base.powi(power)) as u64)
}

fn unknown(text: &str) -> String {
    format!("`{text}` is no size; write 4GiB, 500MB or a number of bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("123456", 123_456),
            ("12b", 12),
            ("2KiB", 2048),
            ("500MB", 500_000_000),
            ("1.5G", 1_610_612_736),
            ("4 GiB", 4 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "4GiX", "4 apples", "-1", "1e", "kb4", "4gibs", "nan", "inf"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
