use burn::tensor::bf16;

use super::*;
use crate::flex::pack::{in_integer_panels, in_panels};
use crate::instruction_set::forced::for_each_set;
use crate::packed::SCALE_ROWS;

fn values(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1013) as f32 * step - 0.5).collect()
}

const SHAPES: [(usize, usize); 5] = [(1, 16), (16, 32), (33, 80), (800, 112), (65, 2512)];

/// The bits of a product equal those of each row alone, and its values plain loops over
/// `weight(row, column)`.
fn check<T: Stored>(packed: &[T], (k, n): (usize, usize), weight: impl Fn(usize, usize) -> f32) {
    for m in [1, 2, 3, 5, 6, 7, 8, 9, 17, 47, 200] {
        let size = Size { m, n, k };
        let x = values(m * k, 1e-3);
        let bias = values(n, 1e-2);
        let bias = (k != 33).then_some(&bias[..]);
        let out = product(&x, packed, bias, size);
        for (i, row) in out.chunks(n).enumerate() {
            let x = &x[i * k..][..k];
            let alone = product(x, packed, bias, Size { m: 1, ..size });
            assert_eq!(row, alone, "{m} {n} {k}, row {i}");
        }
        for (i, out) in out.iter().enumerate().step_by(7) {
            let terms = (0..k).map(|d| x[i / n * k + d] * weight(d, i % n));
            let expected = bias.map_or(0.0, |bias| bias[i % n]) + terms.sum::<f32>();
            assert!((out - expected).abs() < 2e-4, "{m} {n} {k}: {out} {expected}");
        }
    }
}

#[test]
fn products_of_all_shapes_have_the_bits_of_their_rows() {
    for_each_set(|_| {
        for (k, n) in SHAPES {
            let rows = values(k * n, 7e-4);
            check(&in_panels(&rows, k, n), (k, n), |d, column| rows[d * n + column]);
            let rows: Vec<bf16> = rows.into_iter().map(bf16::from_f32).collect();
            check(&in_panels(&rows, k, n), (k, n), |d, column| rows[d * n + column].to_f32());
        }
    });
}

#[test]
fn products_with_integers_are_those_of_the_rounded_matrix() {
    for_each_set(|_| {
        for (k, n) in SHAPES {
            let rows = values(k * n, 7e-4);
            let largest =
                |column: usize| (0..k).map(|d| rows[d * n + column].abs()).fold(0.0, f32::max);
            let scales: Vec<f32> = (0..n).map(|column| largest(column) / 127.0).collect();
            let packed = in_integer_panels(&rows, k, n);
            let weight = |d: usize, column: usize| {
                let row = column / PANEL * (k + SCALE_ROWS) + d;
                let scale = scales[column];
                let rounded = f32::from(packed[row * PANEL + column % PANEL]) * scale;
                assert!((rounded - rows[d * n + column]).abs() <= 0.501 * scale);
                rounded
            };
            check(&packed, (k, n), weight);
        }
    });
}

#[test]
fn tasks_keep_the_threads_busy() {
    for (k, n, threads) in [(768, 768, 2), (768, 2304, 4), (768, 50_304, 2), (3072, 768, 3)] {
        for bytes in [k * n, 2 * k * n, 4 * k * n] {
            let per_task = panels_per_task(n / PANEL, bytes, threads);
            let rounds = (n / PANEL).div_ceil(per_task).div_ceil(threads);
            // an eighth more than the share of a thread, and what whole tiles add
            let share = (n / PANEL).div_ceil(threads * VECTORS) * VECTORS;
            assert!(rounds * per_task <= share + share / 8, "{k} {n} {bytes}: {per_task}");
        }
    }
}
