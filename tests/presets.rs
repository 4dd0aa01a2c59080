//! Presets: their parameter counts, published names and initial weights.

use block_transformer_zoo::{Family, FamilyConfig};
use burn::tensor::Device;

#[test]
fn parameter_counts_match_the_modules_and_the_published_sizes() {
    for preset in block_transformer_zoo::presets() {
        let config = &preset.model;
        // weights are drawn at first access, so even the largest model needs no memory here
        let model = config.init(0, &Device::flex());
        let mut counted = 0;
        for entry in block_transformer_weights::entries(&model, config) {
            counted += entry.shape.iter().product::<usize>();
        }
        assert_eq!(counted, config.num_params(), "{}", preset.name);
        if let Some(published) = preset.published_non_embedding {
            let ratio = config.num_params_non_embedding() as f64 / published;
            // published sizes are rounded, and do not include T5's cross-attention and RoBERTa
            let most = if preset.name.contains("cls") { 1.25 } else { 1.09 };
            assert!((0.94..most).contains(&ratio), "{}: {ratio}", preset.name);
        }
    }
}

#[test]
fn small_block_and_vanilla_presets_have_similar_sizes() {
    for size in ["debug", "small"] {
        let params = |family| {
            let name = format!("{size}-{family}");
            block_transformer_zoo::preset(&name).unwrap().model.num_params_non_embedding() as f64
        };
        let ratio = params("block") / params("vanilla");
        assert!((0.9..1.1).contains(&ratio), "{size}: {ratio}");
    }
}

#[test]
fn published_names_are_unique() {
    for preset in block_transformer_zoo::presets() {
        let model = preset.model.init(0, &Device::flex());
        let entries = block_transformer_weights::entries(&model, &preset.model);
        let mut names: Vec<_> = entries.into_iter().flat_map(|entry| entry.names).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{}", preset.name);
    }
}

#[test]
fn weights_depend_on_the_seed_and_not_on_the_order_of_access() {
    let config = &block_transformer_zoo::preset("debug-block").unwrap().model;
    let tensors = |seed| {
        let model = config.init(seed, &Device::flex());
        block_transformer_weights::published_tensors(
            &model,
            config,
            &block_transformer_weights::Source::Values,
        )
    };
    let whole = tensors(7);
    // the order of access does not change any parameter
    let model = config.init(7, &Device::flex());
    let _ = model.head();
    let again = block_transformer_weights::published_tensors(
        &model,
        config,
        &block_transformer_weights::Source::Values,
    );
    assert!(whole == again);
    assert!(whole != tensors(8));
}
