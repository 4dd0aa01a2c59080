//! Tokens chosen on the device.

use block_transformer_generation::{Options, Sampler};
use block_transformer_layers::{Draw, Draws, choose};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{random, runtimes};

const PAD: usize = 1;
const ROWS: usize = 6;

/// The tokens that the device chooses for each row of `logits`, one per place of `noise`, which is
/// the same for every row.
fn chosen(logits: &Tensor<2>, draw: Draw, noise: &[f32], device: &Device) -> Vec<Vec<i64>> {
    let ([rows, _], places) = (logits.dims(), noise.len());
    let noise = TensorData::new(noise.repeat(rows), [rows * places]);
    let draws =
        Draws::new(Draws::settings(&vec![draw; rows], device), Tensor::from_data(noise, device));
    let mut block = Tensor::<1, Int>::zeros([rows * places], device);
    for place in 0..places {
        choose(logits, &draws, &mut block, place, PAD).unwrap();
    }
    let ids: Vec<i64> = block.into_data().iter::<i64>().collect();
    ids.chunks(places).map(<[i64]>::to_vec).collect()
}

/// The probabilities of each row by the definition, in f64.
fn probabilities(logits: &[f32], draw: Draw) -> Vec<f64> {
    let allowed = |id: usize| id < draw.vocab && !(draw.without_pad && id == PAD);
    let mut order: Vec<usize> = (0..logits.len()).filter(|&id| allowed(id)).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(draw.top_k.unwrap_or(usize::MAX));
    let weight =
        |id: usize| (f64::from(logits[id] - logits[order[0]]) / f64::from(draw.temperature)).exp();
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let (mut kept, mut sum) = (0, 0.0);
    while kept < order.len() && sum < f64::from(draw.top_p.unwrap_or(2.0)) * total {
        sum += weight(order[kept]);
        kept += 1;
    }
    let mut probabilities = vec![0.0; logits.len()];
    for &id in &order[..kept] {
        probabilities[id] = weight(id) / sum;
    }
    probabilities
}

#[test]
fn the_device_draws_by_inversion_of_the_cumulative_probabilities() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let noise: Vec<f32> = (0..8).map(|_| rng.random()).collect();
    let plain = Draw { temperature: 1.0, top_k: None, top_p: None, vocab: 300, without_pad: false };
    for (name, device) in runtimes() {
        let logits = random(&mut rng, [ROWS, 300], &device);
        let host: Vec<f32> = logits.clone().into_data().iter::<f32>().collect();
        for draw in [
            plain,
            Draw { temperature: 0.3, ..plain },
            Draw { top_k: Some(1), ..plain },
            Draw { top_k: Some(7), without_pad: true, ..plain },
            Draw { top_p: Some(0.5), ..plain },
            Draw { top_k: Some(40), top_p: Some(0.6), vocab: 256, ..plain },
        ] {
            let ours = chosen(&logits, draw, &noise, &device);
            for (ours, logits) in ours.iter().zip(host.chunks(300)) {
                let probabilities = probabilities(logits, draw);
                for (&id, &noise) in ours.iter().zip(&noise) {
                    let id = usize::try_from(id).unwrap();
                    let before: f64 = probabilities[..id].iter().sum();
                    let after = before + probabilities[id];
                    let noise = f64::from(noise);
                    let fits = before - 1e-4 <= noise && noise <= after + 1e-4;
                    assert!(probabilities[id] > 0.0 && fits, "{name}, {draw:?}, {id}");
                }
            }
        }
    }
}

#[test]
fn greedy_choices_equal_those_of_the_host() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for (name, device) in runtimes() {
        let mut values: Vec<f32> = (0..ROWS * 300).map(|_| rng.random_range(-3.0..3.0)).collect();
        values[PAD] = 9.0; // the padding id has the largest logit of row 0
        values[300 + 40] = 9.0; // two equal logits in row 1
        values[300 + 41] = 9.0;
        values[600 + 299] = 9.0; // outside the allowed ids in row 2
        values[900 + 5] = f32::NAN; // ignored in row 3
        values[1200..1500].fill(f32::NEG_INFINITY); // no finite logit in row 4
        values[1500 + 7] = f32::INFINITY;
        let logits = Tensor::<2>::from_data(TensorData::new(values.clone(), [ROWS, 300]), &device);
        let draw =
            Draw { temperature: 0.0, top_k: None, top_p: None, vocab: 256, without_pad: true };
        let ours = chosen(&logits, draw, &[0.0], &device);
        for (row, (ours, logits)) in ours.iter().zip(values.chunks(300)).enumerate() {
            let host = Sampler::new(&Options { allowed_vocab: Some(256), ..Options::default() })
                .choose(logits);
            assert_eq!(u32::try_from(ours[0]).ok(), host, "{name}, row {row}");
        }
        assert_eq!((ours[4][0], ours[5][0]), (-1, -1));
    }
}
