//! Presets: their parameter counts, published names and initial weights.

use block_transformer_weights::{Source, published_tensors};
use block_transformer_zoo::family::ModulePath;
use block_transformer_zoo::{Family, FamilyConfig, ModelConfig, PublishedNames, preset, presets};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

#[test]
fn parameter_counts_match_the_modules_and_the_published_sizes() {
    for preset in presets() {
        let config = &preset.model;
        // weights are drawn at first access, so even the largest model needs no memory here
        let model = config.init(0, &Device::flex());
        assert_eq!(Module::num_params(&model), config.num_params(), "{}", preset.name);
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
            preset(&name).unwrap().model.num_params_non_embedding() as f64
        };
        let ratio = params("block") / params("vanilla");
        assert!((0.9..1.1).contains(&ratio), "{size}: {ratio}");
    }
}

/// Collects the published names of all parameters.
struct Names<'a> {
    config: &'a ModelConfig,
    at: ModulePath,
    names: Vec<String>,
}

impl ModuleVisitor for Names<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        self.names.extend(self.config.published_names(&self.at.path()));
    }
}

#[test]
fn published_names_are_unique() {
    for preset in presets() {
        let config = &preset.model;
        let mut all = Names { config, at: ModulePath::default(), names: Vec::new() };
        config.init(0, &Device::flex()).visit(&mut all);
        let mut names = all.names;
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{}", preset.name);
    }
}

#[test]
fn weights_depend_on_the_seed_and_not_on_the_order_of_access() {
    let config = &preset("debug-block").unwrap().model;
    let tensors = |seed| {
        let model = config.init(seed, &Device::flex());
        published_tensors(&model, config, Source::Values)
    };
    let whole = tensors(7);
    // the order of access does not change any parameter
    let model = config.init(7, &Device::flex());
    let _ = model.head();
    assert!(whole == published_tensors(&model, config, Source::Values));
    assert!(whole != tensors(8));
}
