//! The optimizer of a run.

use block_transformer_cost::OptimizerKind;
use burn::module::ParamGroup;
use burn::optim::ModuleOptimizer;

use crate::config::TrainConfig;
use crate::muon::SkippingMuon;
use crate::skipping::{Constants, SkipFlag, SkippingAdamW};

/// The paths of the matrices inside the stacks: weights of linear layers in numbered layers. The gains of
/// norms have other names.
const HIDDEN_MATRICES: &str = r"\.(layers?|block)\.\d+\..*\.weight$";

/// The optimizer of `config`, without state, and the flag that skips its steps.
pub(crate) fn optimizer(config: &TrainConfig) -> (ModuleOptimizer, SkipFlag) {
    let (adamw, skip) = SkippingAdamW::new(Constants {
        beta_1: config.beta1 as f32,
        beta_2: config.beta2 as f32,
        epsilon: config.epsilon as f32,
        weight_decay: config.weight_decay as f32,
    });
    let adamw = ModuleOptimizer::from(adamw);
    let optimizer = match config.optimizer {
        OptimizerKind::Adamw => adamw,
        OptimizerKind::Muon => {
            let matrices = ParamGroup::from_regex(HIDDEN_MATRICES).expect("the pattern is valid");
            let muon = SkippingMuon::new(config.weight_decay, skip.clone());
            adamw.with_group(matrices, muon, None)
        }
    };
    (optimizer, skip)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{Device, Tensor};

    use super::*;

    /// Paths, ranks and numbers of elements of all parameters.
    #[derive(Default)]
    struct Parameters {
        path: Vec<String>,
        found: Vec<(String, usize, usize)>,
    }

    impl ModuleVisitor for Parameters {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.join("."), D, param.shape().num_elements()));
        }
    }

    #[test]
    fn muon_gets_the_matrices_inside_the_stacks_of_every_family() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let group = ParamGroup::from_regex(HIDDEN_MATRICES).unwrap();
        for name in [
            "vanilla",
            "lookup_prefix",
            "lookup_projection_prefix",
            "roberta_prefix",
            "cls_cross_attention",
        ] {
            let json = std::fs::read_to_string(golden.join(format!("{name}.json"))).unwrap();
            let config = ModelConfig::from_json(&json, name).unwrap();
            let mut parameters = Parameters::default();
            LanguageModel::init(&config, 0, &Device::flex()).visit(&mut parameters);
            let all: usize = parameters.found.iter().map(|(_, _, elements)| elements).sum();
            assert_eq!(all, config.num_params(), "{name}");
            let mut elements = 0;
            for (path, rank, count) in &parameters.found {
                let is_muons = group.matches(&0.into(), Some(path));
                let in_layers =
                    [".layers.", ".layer.", ".block."].iter().any(|part| path.contains(part));
                assert_eq!(is_muons, *rank == 2 && in_layers, "{name}: {path}");
                elements += if is_muons { *count } else { 0 };
            }
            assert_eq!(elements, config.stacks().hidden_matrix_params(), "{name}");
            let kept = OptimizerKind::Muon.state_elements(&config);
            assert_eq!(kept, 2 * (all - elements) + elements, "{name}");
        }
    }
}
