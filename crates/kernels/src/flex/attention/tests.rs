use std::sync::Arc;

use super::head::Heads;
use super::view::{Outputs, View};
use super::{loops, products, tiles};
use crate::causal_mask::CausalMask;
use crate::flex::parts::DisjointSlices;
use crate::instruction_set::forced::for_each_set;
use crate::rotary::RotaryTable;

const TIME: usize = 21;
/// Not a multiple of a vector.
const DIM: usize = 22;
/// Sums have at most 22 terms below 1, in f32.
const TOLERANCE: f64 = 1e-5;

fn values(count: usize, factor: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * factor) % 1013) as f32 / 1013.0 - 0.5).collect()
}

fn assert_near(actual: &[f32], expected: &[f64], what: &str) {
    assert_eq!(actual.len(), expected.len());
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let near = (f64::from(*actual) - expected).abs() < TOLERANCE;
        assert!(near, "{what}, element {i}: {actual} {expected}");
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Adds `a * x` to `y`.
fn add(y: &mut [f64], a: f64, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * f64::from(*x));
}

/// The output, and the gradients of queries, keys and values, in f64.
fn reference(view: View, d_out: &[f32]) -> [Vec<f64>; 4] {
    let [mut out, mut d_q, mut d_k, mut d_v] = [(); 4].map(|()| vec![0.0; TIME * DIM]);
    let seen = view.mask.key_mask().unwrap();
    for i in 0..TIME {
        let row = i * DIM..(i + 1) * DIM;
        let (q, d_out) = (&view.q[row.clone()], &d_out[row.clone()]);
        let at = |j: usize| j * DIM..(j + 1) * DIM;
        let keys: Vec<usize> = (0..view.visible_keys(i)).filter(|&j| seen[j]).collect();
        let powers: Vec<f64> = keys.iter().map(|&j| dot(q, &view.k[at(j)]).exp()).collect();
        let total: f64 = powers.iter().sum();
        let slopes: Vec<f64> = keys.iter().map(|&j| dot(d_out, &view.v[at(j)])).collect();
        let mean: f64 = powers.iter().zip(&slopes).map(|(p, slope)| p / total * slope).sum();
        for ((&j, p), slope) in keys.iter().zip(powers).zip(slopes) {
            let p = p / total;
            add(&mut out[row.clone()], p, &view.v[at(j)]);
            add(&mut d_v[at(j)], p, d_out);
            add(&mut d_q[row.clone()], p * (slope - mean), &view.k[at(j)]);
            add(&mut d_k[at(j)], p * (slope - mean), q);
        }
    }
    [out, d_q, d_k, d_v]
}

#[test]
fn attention_is_that_of_the_formula() {
    let [q, k, v, d_out] = [7919, 104_729, 611, 389].map(|factor| values(TIME * DIM, factor));
    let seen: Arc<[bool]> = (0..TIME).map(|key| key != 2 && key != 17).collect();
    let mask = CausalMask::new(vec![0], 4, Some(seen));
    let view = View { q: &q, k: &k, v: &v, mask: &mask, row: 0, skip: 0, dim: DIM };
    let expected = reference(view, &d_out);
    for_each_set(|set| {
        for by_products in [false, true] {
            let [mut out, mut d_q, mut d_k, mut d_v] = [(); 4].map(|()| vec![0.0; TIME * DIM]);
            let (mut lse, mut scores) = (vec![0.0; TIME], Vec::new());
            tiles::forward(view, &mut out, &mut lse, &mut scores);
            let outputs = Outputs { lse: &lse, out: &out, d_out: &d_out, stride: DIM };
            let gradients = [&mut d_q[..], &mut d_k, &mut d_v];
            if by_products {
                products::backward(view, outputs, gradients, [&mut scores, &mut Vec::new()]);
            } else {
                loops::backward(view, outputs, gradients, &mut scores);
            }
            for (actual, expected) in [out, d_q, d_k, d_v].iter().zip(&expected) {
                assert_near(actual, expected, &format!("{set}, products: {by_products}"));
            }
        }
    });
}

#[test]
fn a_query_has_the_same_bits_alone_and_with_others() {
    // more than a chunk of queries, and tiles of keys and columns of every size
    const KEYS: usize = 100;
    for_each_set(|set| {
        for dim in [1, DIM, 64, 80] {
            for group in [1, 4] {
                let [q, k, v] = [7919, 104_729, 611].map(|factor| values(KEYS * dim, factor));
                let mask = CausalMask::new(vec![0], group, None);
                let attend = |from: usize, count: usize| {
                    let q = &q[from * dim..(from + count) * dim];
                    let view = View { q, k: &k, v: &v, mask: &mask, row: 0, skip: from, dim };
                    let (mut out, mut lse) = (vec![0.0; count * dim], vec![0.0; count]);
                    tiles::forward(view, &mut out, &mut lse, &mut Vec::new());
                    (out, lse)
                };
                let (all, all_lse) = attend(0, KEYS);
                for count in [1, 3, 7] {
                    for from in (0..KEYS - count).step_by(count) {
                        let (out, lse) = attend(from, count);
                        let what = format!("{set}, dim {dim}, group {group}, {count} from {from}");
                        assert_eq!(out, all[from * dim..(from + count) * dim], "{what}");
                        assert_eq!(lse, all_lse[from..from + count], "{what}");
                    }
                }
                // the last query sees all keys
                let last = &q[(KEYS - 1) * dim..];
                let powers: Vec<f64> = k.chunks_exact(dim).map(|k| dot(last, k).exp()).collect();
                let mut expected = vec![0.0; dim];
                let total: f64 = powers.iter().sum();
                for (p, v) in powers.iter().zip(v.chunks_exact(dim)) {
                    add(&mut expected, p / total, v);
                }
                assert_near(&all[(KEYS - 1) * dim..], &expected, &format!("{set}, dim {dim}"));
            }
        }
    });
}

#[test]
fn heads_are_rotated_and_rotated_back() {
    const ROTATED: usize = 14;
    let heads = Heads { batch: 1, time: TIME, heads: 2, dim: DIM };
    let qkv = values(TIME * heads.heads * 3 * DIM, 7919);
    let angles = RotaryTable::new(ROTATED, 100.0).angles((3..3 + TIME).collect::<Vec<_>>(), 1);
    let scale = f64::from(heads.scale());
    for_each_set(|set| {
        let mut back = vec![0.0; qkv.len()];
        for head in 0..heads.heads {
            let [mut q, mut k, mut v] = [(); 3].map(|()| vec![0.0; TIME * DIM]);
            heads.load(&qkv, (0, head), &angles, [&mut q, &mut k, &mut v]);
            for time in 0..TIME {
                let from = &qkv[(time * heads.heads + head) * 3 * DIM..][..3 * DIM];
                let rotated = |from: &[f32], d: usize| {
                    let pair = d % (ROTATED / 2);
                    let angle =
                        (3 + time) as f64 * 100_f64.powf(-2.0 * pair as f64 / ROTATED as f64);
                    let [a, b] = [pair, pair + ROTATED / 2].map(|d| f64::from(from[d]));
                    match d {
                        d if d >= ROTATED => f64::from(from[d]),
                        d if d >= ROTATED / 2 => b * angle.cos() + a * angle.sin(),
                        _ => a * angle.cos() - b * angle.sin(),
                    }
                };
                let at = time * DIM..(time + 1) * DIM;
                let expected_q: Vec<f64> = (0..DIM).map(|d| scale * rotated(from, d)).collect();
                let expected_k: Vec<f64> = (0..DIM).map(|d| rotated(&from[DIM..], d)).collect();
                assert_near(&q[at.clone()], &expected_q, &format!("{set}, queries"));
                assert_near(&k[at.clone()], &expected_k, &format!("{set}, keys"));
                assert_eq!(v[at], from[2 * DIM..]);
            }
            let all = DisjointSlices::new(&mut back);
            heads.store_gradient(&all, (0, head), &angles, [&q, &k, &v]);
        }
        for (i, (back, from)) in back.chunks(DIM).zip(qkv.chunks(DIM)).enumerate() {
            // queries are scaled both times
            let factor = if i % 3 == 0 { scale * scale } else { 1.0 };
            let expected: Vec<f64> = from.iter().map(|x| factor * f64::from(*x)).collect();
            assert_near(back, &expected, &format!("{set}, back"));
        }
    });
}
