//! Attention of whole sequences and over caches, with derivatives.

use std::sync::Arc;

use block_transformer_device::DeviceName;
use block_transformer_layers::neox::{NeoXConfig, NeoXStack};
use block_transformer_layers::{Init, Positions, causal_by_block};
use burn::tensor::{DType, Device};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{assert_close, list, random, runtimes};

const HEADS: usize = 2;

struct Case {
    time: usize,
    group: usize,
    head_dim: usize,
    rotary_pct: f64,
    padded: bool,
}

/// The output of a stack over whole sequences, and the gradient of its input.
fn whole(case: &Case, device: &Device) -> [Vec<f32>; 2] {
    let &Case { time, group, head_dim, rotary_pct, padded } = case;
    let device = device.clone().autodiff();
    let config = NeoXConfig { rotary_pct, ..NeoXConfig::new(HEADS * head_dim, 1, HEADS) };
    let stack = NeoXStack::new(&config, &Init::new(7, &device));
    let (mut rng, shape) = (ChaCha8Rng::seed_from_u64(1), [2, time, config.hidden_size]);
    let x = random(&mut rng, shape, &device).require_grad();
    let weight = random(&mut rng, shape, &device);
    let seen = padded.then(|| -> Arc<[bool]> { (0..2 * time).map(|i| i != 1).collect() });
    let mask = causal_by_block(&Positions::Same(0), time, group, seen);
    let out = stack.forward(x.clone(), &mask, &stack.rotary(&Positions::Same(0), time));
    let gradients = (out.clone() * weight).sum().backward();
    [list(out.inner()), list(x.grad(&gradients).unwrap())]
}

#[test]
fn self_attention_and_its_gradient_equal_those_of_flex() {
    for (name, device) in runtimes() {
        // few cases: both runtimes take most of the time to compile the kernels of each width
        for (time, group, head_dim, rotary_pct, padded) in [
            (32, 1, 8, 0.25, false),
            (6, 2, 8, 1.0, false),
            (7, 1, 8, 0.25, true),   // composed in chunks
            (40, 4, 8, 0.5, false),  // composed in chunks
            (5, 1, 8, 0.0, false),   // no rotation
            (3, 1, 66, 0.25, false), // a head too wide for the kernel
        ] {
            let case = Case { time, group, head_dim, rotary_pct, padded };
            let (ours, theirs) = (whole(&case, &device), whole(&case, &Device::flex()));
            for (ours, theirs, what) in
                [(&ours[0], &theirs[0], "output"), (&ours[1], &theirs[1], "gradient")]
            {
                let what = format!("{name}, {what}, {time} {group} {head_dim} {rotary_pct}");
                assert_close(ours, theirs, &what);
            }
        }
    }
}

/// The outputs of a few steps over caches of 4 slots. Sequences start, end and overwrite others.
fn cached(group: usize, head_dim: usize, device: &Device) -> Vec<Vec<f32>> {
    let config = NeoXConfig::new(HEADS * head_dim, 2, HEADS);
    let stack = NeoXStack::new(&config, &Init::new(7, device));
    let mut cache = stack.new_cache([4, 200], DType::F32, device);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    // slots, starts, new positions, kept positions
    let steps: [(&[usize], &[usize], usize, usize); 7] = [
        (&[0, 1, 2, 3], &[0, 0, 0, 0], 2 * group, 2 * group),
        (&[2, 0], &[2 * group, 2 * group], group, group),
        (&[3], &[2 * group], 70 * group, group), // more than one part
        (&[1, 2], &[2 * group, 3 * group], 3 * group, 1),
        (&[3, 0, 1], &[72 * group, 0, 5 * group], group, group), // slot 0 begins anew
        (&[1, 3], &[6 * group, 73 * group], 1, 1),
        (&[2], &[6 * group], 1, 1),
    ];
    let mut outputs = Vec::new();
    for (slots, starts, time, keep) in steps {
        let x = random(&mut rng, [slots.len(), time, config.hidden_size], device);
        let at = Positions::Slots { slots: slots.to_vec().into(), starts: starts.to_vec().into() };
        let out =
            stack.append(x, &stack.places(&at, [slots.len(), time], group), Some(keep), &mut cache);
        outputs.push(list(out));
    }
    outputs
}

#[test]
fn attention_over_a_cache_equals_that_of_flex() {
    for (name, device) in runtimes() {
        for (group, head_dim) in [(1, 8), (2, 12)] {
            let ours = cached(group, head_dim, &device);
            let theirs = cached(group, head_dim, &Device::flex());
            for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_close(ours, theirs, &format!("{name}, group {group}, step {step}"));
            }
        }
    }
}

/// A prompt over a cache of 4 slots in several parts. The matrix products of prefills serve 32 and more
/// queries per row.
struct Prefill {
    heads: usize,
    head_dim: usize,
    group: usize,
    /// Slots, and new positions of each, in groups.
    parts: Vec<(Vec<usize>, usize)>,
    /// Positions whose outputs are compared, in groups.
    keep: usize,
}

impl Prefill {
    /// A prefill of random sizes.
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let mut parts = Vec::new();
        for _ in 0..3 {
            let mut slots: Vec<usize> = (0..4).collect();
            slots.shuffle(rng);
            slots.truncate(rng.random_range(1..4));
            parts.push((slots, rng.random_range(17..40)));
        }
        Self {
            heads: rng.random_range(1..4),
            head_dim: [8, 9, 11][rng.random_range(0..3)],
            group: rng.random_range(2..4),
            parts,
            keep: 17,
        }
    }

    /// The outputs of the last layer for each part, with caches in `format`.
    fn run(&self, format: DType, device: &Device) -> Vec<Vec<f32>> {
        let &Self { heads, head_dim, group, keep, .. } = self;
        let config = NeoXConfig::new(heads * head_dim, 2, heads);
        let stack = NeoXStack::new(&config, &Init::new(7, device));
        let longest: usize = self.parts.iter().map(|(_, groups)| groups * group).sum();
        let mut cache = stack.new_cache([4, longest], format, device);
        let (mut rng, mut starts) = (ChaCha8Rng::seed_from_u64(3), [0; 4]);
        let mut outputs = Vec::new();
        for (slots, groups) in &self.parts {
            let shape = [slots.len(), groups * group];
            let x = random(&mut rng, [shape[0], shape[1], config.hidden_size], device);
            let at = Positions::Slots {
                slots: slots.clone().into(),
                starts: slots.iter().map(|&slot| starts[slot]).collect(),
            };
            let places = stack.places(&at, shape, group);
            outputs.push(list(stack.append(x, &places, Some(keep * group), &mut cache)));
            slots.iter().for_each(|&slot| starts[slot] += shape[1]);
        }
        outputs
    }
}

#[test]
fn the_prefill_of_a_cache_equals_that_of_flex() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let parts = vec![(vec![3, 1], 18), (vec![1], 20)];
    let mut cases = vec![Prefill { heads: 2, head_dim: 8, group: 2, parts, keep: 17 }];
    cases.extend((0..2).map(|_| Prefill::random(&mut rng)));
    // scores of 72 MiB, which are computed in two chunks of queries
    let parts = vec![(vec![2], 100), (vec![2], 1500)];
    cases.push(Prefill { heads: 8, head_dim: 4, group: 1, parts, keep: 100 });
    for (name, device) in runtimes() {
        let formats = if device.supports_dtype(DType::BF16) {
            vec![DType::F32, DType::BF16]
        } else {
            eprintln!("{name} has no bf16: prefills with caches in bf16 are skipped");
            vec![DType::F32]
        };
        // cubecl-cpu takes a minute per case, and attends without products
        let count = if name == DeviceName::CubeclCpu { 1 } else { cases.len() };
        for format in formats {
            for (case, prefill) in cases[..count].iter().enumerate() {
                let ours = prefill.run(format, &device);
                let theirs = prefill.run(format, &Device::flex());
                for (part, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                    let what = format!("{name}, {format:?}, case {case}, part {part}");
                    if format == DType::F32 {
                        assert_close(ours, theirs, &what);
                        continue;
                    }
                    // flex multiplies in f32; here queries and probabilities are rounded too, each by at
                    // most 2^-9 of itself, in two layers
                    for (a, b) in ours.iter().zip(theirs) {
                        assert!((a - b).abs() < 0.02 * b.abs().max(1.0), "{what}: {a} {b}");
                    }
                }
            }
        }
    }
}
