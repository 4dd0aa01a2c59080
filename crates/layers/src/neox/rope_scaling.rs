//! Scaling of rotary positions, for contexts longer than that of training.

use serde::{Deserialize, Serialize};

use crate::invalid::InvalidConfig;

/// The kind of a [`RopeScaling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeKind {
    /// Position interpolation (Chen et al., arXiv 2306.15595): positions are divided by the factor.
    Linear,
    /// NTK-aware scaling: the base is multiplied by `factor^(d / (d - 2))`, where `d` is the number of rotated
    /// dimensions of a head. The slowest angle is that of `linear`, and the fastest one is not scaled. All positions
    /// have the same base. The kind `dynamic` of `transformers` with the factor `f` has this base at a length of `r`
    /// times `max_position_embeddings` if `factor` is `f * r - (f - 1)`; it changes the base with the length, so
    /// that keys in a cache do not fit later queries.
    Ntk,
}

/// Scaling of the rotary positions of a stack. The keys are those of `transformers`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    /// The kind.
    pub rope_type: RopeKind,
    /// How many times longer the context is than that of training, at least 1.
    pub factor: f64,
}

impl RopeScaling {
    /// Largest factor.
    const MOST: f64 = 1e6;

    /// Checks the scaling of `rotated` dimensions of a head.
    ///
    /// # Errors
    /// Names the key with an invalid value.
    pub(super) fn check(&self, rotated: usize) -> Result<(), InvalidConfig> {
        if !(1.0..=Self::MOST).contains(&self.factor) {
            let reason = format!("{} must be from 1 to {}", self.factor, Self::MOST);
            return Err(InvalidConfig::new("rope_scaling.factor", reason));
        }
        let (kind, least) = match self.rope_type {
            RopeKind::Linear => ("linear", 2),
            RopeKind::Ntk => ("ntk", 4),
        };
        if rotated < least {
            let reason = format!(
                "{kind} needs at least {least} rotated dimensions per head, and `rotary_pct` selects {rotated}"
            );
            return Err(InvalidConfig::new("rope_scaling.rope_type", reason));
        }
        Ok(())
    }

    /// The base of the angles of `rotated` dimensions in place of `base`, and the number by which positions are
    /// divided.
    pub fn of(self, rotated: usize, base: f64) -> (f64, f64) {
        match self.rope_type {
            RopeKind::Linear => (base, self.factor),
            RopeKind::Ntk => {
                let d = rotated as f64;
                (base * self.factor.powf(d / (d - 2.0)), 1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaling_gives_base_and_divisor() {
        let of = |rope_type, rotated| RopeScaling { rope_type, factor: 3.0 }.of(rotated, 100.0);
        assert_eq!(of(RopeKind::Linear, 16), (100.0, 3.0));
        // 3^(4/2) and 3^(16/14)
        assert_eq!(of(RopeKind::Ntk, 4), (900.0, 1.0));
        let (base, divisor) = of(RopeKind::Ntk, 16);
        assert!((base - 350.979_24).abs() < 1e-4 && divisor == 1.0, "{base}");
        // the slowest angle, of pair 7 of 8, is that of `linear`
        let slowest = base.powf(-14.0 / 16.0);
        assert!((slowest - 100_f64.powf(-14.0 / 16.0) / 3.0).abs() < 1e-12, "{slowest}");
    }

    #[test]
    fn scalings_that_do_not_apply_are_refused() {
        let check = |rope_type, factor, rotated| {
            RopeScaling { rope_type, factor }.check(rotated).map_err(|error| error.key)
        };
        assert_eq!(check(RopeKind::Linear, 1.0, 2), Ok(()));
        assert_eq!(check(RopeKind::Ntk, 1e6, 4), Ok(()));
        for factor in [0.99, -2.0, 2e6, f64::NAN, f64::INFINITY] {
            assert_eq!(check(RopeKind::Linear, factor, 8), Err("rope_scaling.factor".into()));
        }
        for (rope_type, rotated) in [(RopeKind::Linear, 0), (RopeKind::Ntk, 2)] {
            assert_eq!(check(rope_type, 2.0, rotated), Err("rope_scaling.rope_type".into()));
        }
    }
}
