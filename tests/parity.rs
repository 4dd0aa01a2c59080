//! Recorded outputs of the published implementation, compared on both backends for the processor.

use std::path::Path;

use block_transformer_parity::{Case, Products, Quantity, compare, compare_products, find_cases};
use block_transformer_weights::{FloatFormat, HostTensors, read_tensors, write_tensors};
use burn::tensor::Device;

use crate::support::golden;

fn hold(device: &Device) {
    let names = find_cases(&golden("")).unwrap();
    assert_eq!(names.len(), 10);
    for name in names {
        let quantities = compare(&Case::open(&golden(""), &name).unwrap(), device).unwrap();
        // embeddings, context embeddings, logits, losses, gradients; fewer for vanilla models
        assert!(quantities.len() >= 5, "{quantities:?}");
        assert!(quantities.iter().all(Quantity::holds), "{name}: {quantities:#?}");
    }
}

#[test]
fn flex_matches_the_published_implementation() {
    hold(&Device::flex());
}

#[test]
#[expect(deprecated, reason = "supported for as long as burn has it")]
fn ndarray_matches_the_published_implementation() {
    hold(&Device::ndarray());
}

/// Shows that the comparison can fail.
#[test]
fn a_changed_weight_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let name = "lookup_prefix";
    for kind in ["json", "golden.safetensors", "model.safetensors"] {
        let file = format!("{name}.{kind}");
        std::fs::copy(golden(&file), dir.path().join(&file)).unwrap();
    }
    let path = dir.path().join(format!("{name}.model.safetensors"));
    let mut tensors = read_tensors(&path).unwrap();
    let weight = "block_decoder.gpt_neox.layers.1.attention.dense.bias";
    tensors.get_mut(weight).unwrap().values[0] += 1e-2;
    write_tensors(&tensors, FloatFormat::F32, &path).unwrap();
    let quantities = compare(&Case::open(dir.path(), name).unwrap(), &Device::flex()).unwrap();
    let failed: Vec<_> = quantities.iter().filter(|q| !q.holds()).collect();
    assert!(failed.iter().any(|q| q.name == "logits"), "{quantities:#?}");
    assert!(failed.iter().any(|q| q.name.starts_with("gradients")), "{quantities:#?}");
}

/// Copies a case to `dir`, with every weight cut to `bits` bits after the leading one.
fn with_cut_weights(dir: &Path, name: &str, bits: u32) -> Case {
    with_weights(dir, name, |tensors| {
        for value in tensors.values_mut().flat_map(|tensor| &mut tensor.values) {
            *value = f32::from_bits(value.to_bits() & (u32::MAX << (23 - bits)));
        }
    })
}

/// Copies a case to `dir`, with the halves of the attention output of a layer exchanged.
fn with_exchanged_halves(dir: &Path, name: &str) -> Case {
    with_weights(dir, name, |tensors| {
        let (_, weight) = tensors
            .iter_mut()
            .find(|(name, _)| name.ends_with("layers.1.attention.dense.weight"))
            .unwrap();
        let half = weight.values.len() / 2;
        weight.values.rotate_left(half);
    })
}

/// Copies a case to `dir`, with weights that `change` has changed.
fn with_weights(dir: &Path, name: &str, change: impl FnOnce(&mut HostTensors)) -> Case {
    for kind in ["json", "golden.safetensors"] {
        let file = format!("{name}.{kind}");
        std::fs::copy(golden(&file), dir.join(&file)).unwrap();
    }
    let file = format!("{name}.model.safetensors");
    let mut tensors = read_tensors(&golden(&file)).unwrap();
    change(&mut tensors);
    write_tensors(&tensors, FloatFormat::F32, &dir.join(&file)).unwrap();
    Case::open(dir, name).unwrap()
}

/// Cuts the weights as TF32 does; activations keep all their bits. The tolerances must allow this,
/// and must not allow the cut of bf16, which is eight times coarser.
#[test]
fn the_tolerances_of_tf32_allow_its_rounding_and_no_coarser_one() {
    let (mut ratios, mut bf16_fails) = (Vec::new(), 0);
    for name in find_cases(&golden("")).unwrap() {
        let dir = tempfile::tempdir().unwrap();
        let compared = |bits| {
            let case = with_cut_weights(dir.path(), &name, bits);
            compare_products(&case, &Device::flex(), Products::Tf32).unwrap()
        };
        let tf32 = compared(10);
        assert!(tf32.iter().all(Quantity::holds), "{name}: {tf32:#?}");
        let logits = tf32.iter().find(|quantity| quantity.name == "logits").unwrap();
        ratios.push(logits.difference / logits.tolerance);
        bf16_fails += usize::from(!compared(7).iter().all(Quantity::holds));
    }
    // half of the operands are cut, so the differences are not far below the tolerances
    assert!(ratios.iter().all(|ratio| *ratio > 0.05), "{ratios:?}");
    assert_eq!(bf16_fails, ratios.len(), "cases in which bf16 is out of tolerance");
}

/// Flex rounds weights, keys and values in inference, and all operands of linear layers in training.
/// The tolerances must allow this. They must not allow weights that were cut to four bits before,
/// which is eight times coarser, nor a weight whose halves are exchanged.
#[test]
fn the_tolerances_of_bf16_allow_its_rounding_and_no_coarser_or_wrong_result() {
    let device = Device::flex();
    let compared = |case: Case| compare_products(&case, &device, Products::Bf16).unwrap();
    let logits = |quantities: &[Quantity]| {
        let logits = quantities.iter().find(|quantity| quantity.name == "logits").unwrap();
        logits.difference / logits.tolerance
    };
    for name in find_cases(&golden("")).unwrap() {
        let bf16 = compared(Case::open(&golden(""), &name).unwrap());
        assert!(bf16.iter().all(Quantity::holds), "{name}: {bf16:#?}");
        // flex rounds half of the operands, so the differences are not far below the tolerances
        assert!(logits(&bf16) > 0.05, "{name}: {bf16:#?}");
        let dir = tempfile::tempdir().unwrap();
        let coarse = compared(with_cut_weights(dir.path(), &name, 4));
        assert!(logits(&coarse) > 1.0, "{name}: {coarse:#?}");
        let wrong = compared(with_exchanged_halves(dir.path(), &name));
        assert!(!wrong.iter().all(Quantity::holds), "{name}: {wrong:#?}");
    }
}

#[test]
#[expect(deprecated, reason = "supported for as long as burn has it")]
fn a_device_without_bf16_is_an_error() {
    let case = Case::open(&golden(""), "vanilla").unwrap();
    let error = compare_products(&case, &Device::ndarray(), Products::Bf16).unwrap_err();
    assert_eq!(error.to_string(), "the device has no bf16");
}
