//! Values of any stored format as f32.

use half::{bf16, f16};

/// Formats whose values can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    U8,
}

impl Stored {
    /// Bytes per value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// Appends little-endian values to `values`.
    pub(crate) fn append(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::F64 => floats::<8>(bytes, values, |b| f64::from_le_bytes(b) as f32),
            Self::F32 => floats::<4>(bytes, values, f32::from_le_bytes),
            Self::F16 => floats::<2>(bytes, values, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => floats::<2>(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
            Self::I64 => floats::<8>(bytes, values, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => floats::<4>(bytes, values, |b| i32::from_le_bytes(b) as f32),
            Self::U8 => values.extend(bytes.iter().map(|&b| f32::from(b))),
        }
    }
}

fn floats<const N: usize>(bytes: &[u8], values: &mut Vec<f32>, read: impl Fn([u8; N]) -> f32) {
    values.extend(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_keeps_its_values() {
        let given = [0.0, 1.0, 2.5, -3.0];
        let check = |stored: Stored, bytes: Vec<u8>, expected: &[f32]| {
            assert_eq!(bytes.len(), expected.len() * stored.bytes());
            let mut values = Vec::new();
            stored.append(&bytes, &mut values);
            assert_eq!(values, expected, "{stored:?}");
        };
        check(
            Stored::F64,
            given.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
            &given,
        );
        check(Stored::F32, given.iter().flat_map(|v: &f32| v.to_le_bytes()).collect(), &given);
        check(
            Stored::F16,
            given.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            &given,
        );
        check(
            Stored::Bf16,
            given.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            &given,
        );
        check(Stored::I64, [7i64, -2].iter().flat_map(|v| v.to_le_bytes()).collect(), &[7.0, -2.0]);
        check(Stored::I32, [7i32, -2].iter().flat_map(|v| v.to_le_bytes()).collect(), &[7.0, -2.0]);
        check(Stored::U8, vec![0, 255], &[0.0, 255.0]);
    }
}
