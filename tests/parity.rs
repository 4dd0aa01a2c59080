//! Recorded outputs of the published implementation, compared on both backends for the processor.

use block_transformer_parity::{Case, Quantity, compare, find_cases};
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
