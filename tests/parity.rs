//! Recorded outputs of the published implementation, compared on both backends for the processor.

use block_transformer_parity::{Case, Products, Quantity, compare, compare_products, find_cases};
use block_transformer_weights::{FloatFormat, read_tensors, write_tensors};
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
fn with_cut_weights(dir: &std::path::Path, name: &str, bits: u32) -> Case {
    for kind in ["json", "golden.safetensors"] {
        let file = format!("{name}.{kind}");
        std::fs::copy(golden(&file), dir.join(&file)).unwrap();
    }
    let file = format!("{name}.model.safetensors");
    let mut tensors = read_tensors(&golden(&file)).unwrap();
    for value in tensors.values_mut().flat_map(|tensor| &mut tensor.values) {
        *value = f32::from_bits(value.to_bits() & (u32::MAX << (23 - bits)));
    }
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
