//! The next token of each row of logits, chosen on the device. One cube per row; each unit walks over
//! a contiguous range of the vocabulary, so that ids keep their order.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::reduction::{total, units_for};
use super::rotation::empty;
use crate::draws::Draws;

/// Halvings of the interval of scores in which a threshold lies.
const HALVINGS: u32 = 32;
/// The lowest score, relative to the largest one, whose exponential is not 0 in f32.
const LOWEST: f32 = -104.0;

/// See [`crate::choose`].
pub(super) fn choose(
    logits: CubeTensor,
    settings: CubeTensor,
    noise: CubeTensor,
    block: CubeTensor,
    place: usize,
    pad: usize,
) -> (CubeTensor, CubeTensor) {
    let [logits, settings, noise, block] = [logits, settings, noise, block].map(into_contiguous);
    let block = if block.handle.can_mut() { block } else { block.copy() };
    let [rows, vocab] = logits.meta.shape().dims();
    let ids = empty(&logits, Shape::new([rows]), block.dtype);
    let client = logits.client.clone();
    let units = units_for(&logits, vocab);
    choose_kernel::launch(
        &client,
        CubeCount::Static(rows as u32, 1, 1),
        CubeDim::new_1d(units as u32),
        logits.clone().into_tensor_arg(),
        settings.into_tensor_arg(),
        noise.into_tensor_arg(),
        ids.clone().into_tensor_arg(),
        block.clone().into_tensor_arg(),
        place,
        pad,
        units,
        [logits.dtype, block.dtype].map(dtype_to_storage_type),
    );
    (ids, block)
}

/// The score of id `i` of the row that starts at `base`, relative to the largest one: 0 or less, and at least `LOWEST - 1`.
#[cube]
fn score<F: Float>(
    logits: &Tensor<F>,
    base: usize,
    i: usize,
    banned: usize,
    most: f32,
    inverse: f32,
) -> f32 {
    let mut score = f32::new(-105.0);
    if i != banned {
        let y = (f32::cast_from(logits[base + i]) - most) * inverse;
        // also false for a NaN
        if y > score {
            score = y;
        }
    }
    score
}

/// How many ids have at least the score `least`, or with `by_weight` the sum of their weights.
#[cube]
fn held<F: Float>(
    logits: &Tensor<F>,
    base: usize,
    first: usize,
    end: usize,
    banned: usize,
    most: f32,
    inverse: f32,
    least: f32,
    by_weight: bool,
    sums: &mut Shared<[f32]>,
    #[comptime] units: usize,
) -> f32 {
    let mut own = f32::new(0.0);
    for i in first..end {
        let y = score::<F>(logits, base, i, banned, most, inverse);
        if y >= least {
            if by_weight {
                own += y.exp();
            } else {
                own += f32::new(1.0);
            }
        }
    }
    total(own, sums, units)
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn choose_kernel<F: Float, I: Int>(
    logits: &Tensor<F>,
    sampling: &Tensor<f32>,
    noise: &Tensor<f32>,
    ids: &mut Tensor<I>,
    block: &mut Tensor<I>,
    place: usize,
    pad: usize,
    #[comptime] units: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let row = CUBE_POS;
    let unit = UNIT_POS as usize;
    let vocab = logits.shape(1);
    let at = row * Draws::SETTINGS;
    let temperature = sampling[at];
    let top_k = sampling[at + 1];
    let top_p = sampling[at + 2];
    let allowed = usize::cast_from(sampling[at + 3]);
    let mut banned = vocab;
    if sampling[at + 4] > 0.0 {
        banned = pad;
    }
    let base = row * vocab;
    let each = allowed.div_ceil(units);
    let mut first = unit * each;
    if first > allowed {
        first = allowed;
    }
    let mut end = first + each;
    if end > allowed {
        end = allowed;
    }
    let to = row * (block.shape(0) / CUBE_COUNT) + place;
    let mut sums = Shared::<[f32]>::new_slice(units);
    let mut places = Shared::<[u32]>::new_slice(units);

    // the largest logit, and the lowest id that has it
    let mut most = f32::new(-3.4e38);
    let mut best = vocab as u32;
    for i in first..end {
        let x = f32::cast_from(logits[base + i]);
        if x > most && i != banned {
            most = x;
            best = i as u32;
        }
    }
    sums[unit] = most;
    places[unit] = best;
    sync_cube();
    for other in 0..units {
        if sums[other] > most || (sums[other] == most && places[other] < best) {
            most = sums[other];
            best = places[other];
        }
    }
    sync_cube();
    let exists = best < vocab as u32 && most < 3.4e38;
    if !exists || temperature <= 0.0 {
        if unit == 0 {
            if exists {
                ids[row] = I::cast_from(best);
                block[to] = I::cast_from(best);
            } else {
                ids[row] = I::new(0);
                block[to] = I::new(-1);
            }
        }
    } else {
        let inverse = 1.0 / temperature;
        // kept are the scores from `upper` on, and of those from `lower` on the first `ties`
        let mut lower = f32::new(LOWEST);
        let mut upper = f32::new(LOWEST);
        let mut ties = f32::new(0.0);
        let all = held::<F>(
            logits, base, first, end, banned, most, inverse, upper, true, &mut sums, units,
        );
        let mut mass = all;
        if top_k >= 1.0
            && held::<F>(
                logits, base, first, end, banned, most, inverse, upper, false, &mut sums, units,
            ) > top_k
        {
            upper = f32::new(1.0);
            for _ in 0..HALVINGS {
                let middle = (lower + upper) * 0.5;
                if held::<F>(
                    logits, base, first, end, banned, most, inverse, middle, false, &mut sums,
                    units,
                ) >= top_k
                {
                    lower = middle;
                } else {
                    upper = middle;
                }
            }
            ties = top_k
                - held::<F>(
                    logits, base, first, end, banned, most, inverse, upper, false, &mut sums, units,
                );
            let above = held::<F>(
                logits, base, first, end, banned, most, inverse, upper, true, &mut sums, units,
            );
            mass = above + ties * lower.exp();
        }
        if top_p < 1.0 {
            let enough = top_p * mass;
            let above = held::<F>(
                logits, base, first, end, banned, most, inverse, upper, true, &mut sums, units,
            );
            if above >= enough {
                lower = upper;
                upper = f32::new(1.0);
                for _ in 0..HALVINGS {
                    let middle = (lower + upper) * 0.5;
                    if held::<F>(
                        logits, base, first, end, banned, most, inverse, middle, true, &mut sums,
                        units,
                    ) >= enough
                    {
                        lower = middle;
                    } else {
                        upper = middle;
                    }
                }
                let above = held::<F>(
                    logits, base, first, end, banned, most, inverse, upper, true, &mut sums, units,
                );
                ties = ((enough - above) / lower.exp()).ceil();
            } else {
                ties = ((enough - above) / lower.exp()).ceil().min(ties);
            }
        }

        // the ties of the units before this one
        let mut own = f32::new(0.0);
        for i in first..end {
            let y = score::<F>(logits, base, i, banned, most, inverse);
            if y >= lower && y < upper {
                own += f32::new(1.0);
            }
        }
        sums[unit] = own;
        sync_cube();
        let mut before = f32::new(0.0);
        for other in 0..unit {
            before += sums[other];
        }
        sync_cube();
        let mut seen = before;
        let mut own = f32::new(0.0);
        for i in first..end {
            let y = score::<F>(logits, base, i, banned, most, inverse);
            let is_tie = y >= lower && y < upper;
            if y >= upper || (is_tie && seen < ties) {
                own += y.exp();
            }
            if is_tie {
                seen += f32::new(1.0);
            }
        }
        let sum = total(own, &mut sums, units);
        sums[unit] = own;
        sync_cube();
        // below the sum, also after rounding
        let target = noise[to] * sum * 0.999_999_9;
        let mut start = f32::new(0.0);
        for other in 0..unit {
            start += sums[other];
        }
        if target >= start && target < start + own {
            let mut left = target - start;
            let mut chosen = first;
            let mut found = false;
            let mut seen = before;
            for i in first..end {
                let y = score::<F>(logits, base, i, banned, most, inverse);
                let is_tie = y >= lower && y < upper;
                if !found && (y >= upper || (is_tie && seen < ties)) {
                    chosen = i;
                    left -= y.exp();
                    found = left < 0.0;
                }
                if is_tie {
                    seen += f32::new(1.0);
                }
            }
            ids[row] = I::cast_from(chosen);
            block[to] = I::cast_from(chosen);
        }
    }
}
