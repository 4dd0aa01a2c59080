//! The kernels on flex against the same layers composed of burn's operations, on ndarray.

use block_transformer_kernels::{CachedRows, CausalMask, RotaryTable};
use block_transformer_layers::neox::{NeoXConfig, NeoXStack};
use block_transformer_layers::{Init, Positions, causal_by_block};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct AttentionCase {
    time: usize,
    group: usize,
    starts: Positions,
    padded: bool,
    head_dim: usize,
    rotary_pct: f64,
}

const ROWS: usize = 3;
const HEADS: usize = 2;

fn starts(starts: Vec<usize>) -> Positions {
    Positions::Slots { slots: (0..starts.len()).collect(), starts: starts.into() }
}

fn random(rng: &mut ChaCha8Rng, shape: [usize; 3], device: &Device) -> Tensor<3> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-3.0..3.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn list(x: Tensor<3>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// The output, and the gradient of the input.
fn run(case: &AttentionCase, device: &Device) -> [Vec<f32>; 2] {
    let device = device.clone().autodiff();
    let mut config = NeoXConfig::new(HEADS * case.head_dim, 2, HEADS);
    config.rotary_pct = case.rotary_pct;
    let stack = NeoXStack::new(&config, &Init::new(7, &device));
    let (mut rng, shape) = (ChaCha8Rng::seed_from_u64(1), [ROWS, case.time, config.hidden_size]);
    let x = random(&mut rng, shape, &device).require_grad();
    let weight = random(&mut rng, shape, &device);
    let seen = case.padded.then(|| {
        // the first row has padding inside, the last at its end
        let seen = (0..ROWS * case.time).map(|i| {
            let (row, time) = (i / case.time, i % case.time);
            !(row == 0 && time == 1 || row == ROWS - 1 && time + 2 >= case.time)
        });
        seen.collect::<std::sync::Arc<[bool]>>()
    });
    let mask = causal_by_block(&Positions::Same(0), case.time, case.group, seen);
    // the angles belong to other positions than the positions of the mask
    let rotary = stack.rotary(&case.starts, case.time);
    let out = stack.forward(x.clone(), &mask, &rotary);
    let gradients = (out.clone() * weight).sum().backward();
    [list(out.inner()), list(x.grad(&gradients).unwrap())]
}

#[test]
fn self_attention_and_its_gradient_equal_the_composed_layer() {
    let plain = |time| AttentionCase {
        time,
        group: 1,
        starts: Positions::Same(0),
        padded: false,
        head_dim: 16,
        rotary_pct: 0.25,
    };
    let cases = [
        plain(1),
        plain(5),
        plain(16),
        plain(17),
        plain(150),
        AttentionCase { group: 3, ..plain(9) },
        AttentionCase { group: 4, ..plain(60) },
        AttentionCase { padded: true, ..plain(7) },
        AttentionCase { padded: true, ..plain(40) },
        AttentionCase { starts: starts(vec![0, 9, 4]), ..plain(12) },
        AttentionCase { starts: starts(vec![3, 0, 70]), ..plain(33) },
        AttentionCase { head_dim: 20, rotary_pct: 1.0, ..plain(21) },
        AttentionCase { rotary_pct: 0.0, ..plain(6) },
    ];
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let ndarray = Device::ndarray();
    for (i, case) in cases.iter().enumerate() {
        let (fused, composed) = (run(case, &Device::flex()), run(case, &ndarray));
        for (quantity, fused, composed) in
            [("output", &fused[0], &composed[0]), ("gradient", &fused[1], &composed[1])]
        {
            let scale = composed.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
            for (a, b) in fused.iter().zip(composed) {
                assert!((a - b).abs() < 2e-5 * scale, "case {i}, {quantity}: {a} {b}");
            }
        }
    }
}

/// The outputs of a few steps over caches of 4 slots. Sequences start, end and overwrite others.
fn run_cached(group: usize, format: DType, device: &Device) -> Vec<Vec<f32>> {
    let config = NeoXConfig::new(HEADS * 16, 2, HEADS);
    let stack = NeoXStack::new(&config, &Init::new(7, device));
    let mut cache = stack.new_cache([4, 60], format, device);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    // slots, starts, new positions, kept positions; the kernel computes the long steps in another
    // way
    let steps: [(&[usize], &[usize], usize, usize); 6] = [
        (&[0, 1, 2, 3], &[0, 0, 0, 0], 2 * group, 2 * group),
        (&[2, 0], &[2 * group, 2 * group], group, group),
        (&[3], &[2 * group], 10 * group, 10 * group),
        (&[1, 2], &[2 * group, 3 * group], 3 * group, 1),
        (&[0], &[0], 9 * group, group), // a new sequence in an old slot
        (&[3, 0, 1], &[12 * group, 9 * group, 5 * group], group, group),
    ];
    let mut outputs = Vec::new();
    for (slots, starts, time, keep) in steps {
        let x = random(&mut rng, [slots.len(), time, config.hidden_size], device);
        let at = Positions::Slots { slots: slots.to_vec().into(), starts: starts.to_vec().into() };
        let places = stack.places(&at, [slots.len(), time], group);
        let out = stack.append(x, &places, Some(keep), &mut cache);
        assert_eq!(out.dims(), [slots.len(), keep, config.hidden_size]);
        outputs.push(list(out));
    }
    outputs
}

#[test]
fn attention_over_slots_equals_the_composed_layer() {
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let ndarray = Device::ndarray();
    for group in [1, 2] {
        let run = |device: &Device| run_cached(group, DType::F32, device);
        let (fused, composed) = (run(&Device::flex()), run(&ndarray));
        for (step, (fused, composed)) in fused.iter().zip(&composed).enumerate() {
            for (a, b) in fused.iter().zip(composed) {
                assert!((a - b).abs() < 2e-5, "group {group}, step {step}: {a} {b}");
            }
        }
    }
}

#[test]
fn narrow_caches_give_nearly_the_outputs_of_one_in_f32() {
    for group in [1, 2] {
        let run = |format| run_cached(group, format, &Device::flex());
        let wide = run(DType::F32);
        for format in [DType::BF16, DType::I8] {
            let narrow = run(format);
            let differences = wide.iter().flatten().zip(narrow.iter().flatten());
            let most = differences.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            // the outputs are normalized; a bf16 value has a relative error of at most 2^-9, an integer
            // one of 2^-8 of the largest value of its head
            assert!(most > 1e-5 && most < 0.05, "{format:?}: {most}");
        }
    }
}

#[test]
fn rows_of_different_lengths_are_those_of_each_alone() {
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let devices = [(Device::flex(), 0.0), (Device::ndarray(), 1e-5)];
    let (slots, lengths) = ([2, 0, 3, 1], [3, 3, 5, 1]);
    for ((device, tolerance), group) in
        devices.into_iter().flat_map(|case| [(case.clone(), 1), (case, 2)])
    {
        let config = NeoXConfig::new(HEADS * 16, 2, HEADS);
        let stack = NeoXStack::new(&config, &Init::new(7, &device));
        let caches = || stack.new_cache([4, 20], DType::F32, &device);
        let (mut together, mut alone, mut kept) = (caches(), caches(), caches());
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // the second step continues the first
        for step in 0..2 {
            let starts = lengths.map(|length| step * length * group);
            let lengths = lengths.map(|length| length * group);
            let x = random(&mut rng, [1, lengths.iter().sum(), config.hidden_size], &device);
            let ragged = Positions::Ragged {
                slots: slots.to_vec().into(),
                starts: starts.to_vec().into(),
                lengths: lengths.to_vec().into(),
            };
            let places = stack.places(&ragged, [1, x.dims()[1]], group);
            let all = stack.append(x.clone(), &places, None, &mut together);
            let last = stack.append(x.clone(), &places, Some(group), &mut kept);
            assert_eq!((all.dims(), last.dims()), (x.dims(), [4, group, config.hidden_size]));
            let (mut expected, mut expected_last, mut first) = (Vec::new(), Vec::new(), 0);
            for ((slot, start), length) in slots.into_iter().zip(starts).zip(lengths) {
                let at = Positions::Slots { slots: vec![slot].into(), starts: vec![start].into() };
                let x = x.clone().narrow(1, first, length);
                first += length;
                let places = stack.places(&at, [1, length], group);
                let out = list(stack.append(x, &places, None, &mut alone));
                expected_last.extend_from_slice(&out[(length - group) * config.hidden_size..]);
                expected.extend(out);
            }
            for (ours, theirs) in [(list(all), expected), (list(last), expected_last)] {
                assert_eq!(ours.len(), theirs.len());
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
                assert!(ours.iter().zip(&theirs).all(near), "step {step}, group {group}");
            }
        }
    }
}

#[test]
fn a_cache_on_another_device_is_left_unchanged() {
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let (flex, ndarray) = (Device::flex(), Device::ndarray());
    let qkv = Tensor::<3>::ones([1, 1, 6], &flex);
    let mut cache = [&flex, &ndarray].map(|device| Tensor::<4>::full([1, 1, 3, 2], 5.0, device));
    let [keys, values] = &mut cache;
    let out = block_transformer_kernels::cached_attention(
        &qkv,
        &RotaryTable::new(0, 1e4).angles(vec![0], 1),
        &CausalMask::new(vec![0], 1, None),
        &|| None,
        CachedRows { slots: &vec![0].into(), lengths: None, keep: None },
        [keys, values],
    );
    assert!(out.is_none());
    for tensor in cache {
        assert_eq!(tensor.into_data().iter::<f32>().collect::<Vec<_>>(), [5.0; 6]);
    }
}
