//! Low-rank adapters (Hu et al., arXiv 2106.09685): a frozen matrix `W` of shape `[in, out]` becomes
//! `W + scale * A B` with trained `A` `[in, rank]` and `B` `[rank, out]`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use block_transformer_layers::Init;
use burn::module::{LoraAdapter, Module, ModuleMapper, ModuleVisitor, Param, Reparameterizer};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::module_path::ModulePath;

/// Rank of adapters, and the matrices that get one. As text: `RANK` or `RANK:PARTS`, with the parts joined
/// by `+`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lora {
    /// Columns of `A`, rows of `B`.
    pub rank: usize,
    /// The matrices with an adapter; not empty.
    pub parts: Vec<LoraPart>,
}

/// A kind of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraPart {
    /// Projections of attention in every stack.
    Attention,
    /// The MLPs of every stack.
    Mlp,
    /// Token tables and the LM head.
    Tables,
    /// The projections between embedder, block decoder and token decoder.
    Projections,
}

/// Fields of the layers that are part of attention.
const ATTENTION: [&str; 7] =
    ["attention", "self_attention", "cross_attention", "query", "key", "value", "attention_dense"];

impl LoraPart {
    const NAMES: [(&str, &[Self]); 6] = [
        ("stacks", &[Self::Attention, Self::Mlp]),
        ("attention", &[Self::Attention]),
        ("mlp", &[Self::Mlp]),
        ("tables", &[Self::Tables]),
        ("projections", &[Self::Projections]),
        ("all", &[Self::Attention, Self::Mlp, Self::Tables, Self::Projections]),
    ];

    /// The part that the parameter at `path` belongs to.
    fn of(path: &str) -> Self {
        let has = |names: &[&str]| path.split('.').any(|field| names.contains(&field));
        if has(&["projection_layer", "expansion_layer"]) {
            Self::Projections
        } else if has(&ATTENTION) {
            Self::Attention
        } else if has(&["layers", "layer", "block"]) {
            Self::Mlp
        } else {
            Self::Tables
        }
    }
}

/// An error in the text of a [`Lora`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not RANK or RANK:PARTS, with a rank from 1 to 1024 and parts, joined by `+`, of stacks, attention, \
     mlp, tables, projections and all"
)]
pub struct ParseLoraError(String);

impl FromStr for Lora {
    type Err = ParseLoraError;

    fn from_str(text: &str) -> Result<Self, ParseLoraError> {
        let refuse = || ParseLoraError(text.into());
        let (rank, named) = text.split_once(':').unwrap_or((text, "stacks"));
        let rank = rank.parse().ok().filter(|rank| (1..=1024).contains(rank)).ok_or_else(refuse)?;
        let mut parts = Vec::new();
        for name in named.split('+') {
            let (_, of) =
                LoraPart::NAMES.iter().find(|(known, _)| *known == name).ok_or_else(refuse)?;
            parts.extend(
                of.iter().filter(|part| !parts.contains(*part)).copied().collect::<Vec<_>>(),
            );
        }
        Ok(Self { rank, parts })
    }
}

impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alone = LoraPart::NAMES.iter().filter(|(_, of)| of.len() == 1);
        let names = alone.filter(|(_, of)| self.parts.contains(&of[0])).map(|(name, _)| *name);
        write!(f, "{}:{}", self.rank, names.collect::<Vec<_>>().join("+"))
    }
}

impl TryFrom<String> for Lora {
    type Error = ParseLoraError;

    fn try_from(text: String) -> Result<Self, ParseLoraError> {
        text.parse()
    }
}

impl From<Lora> for String {
    fn from(lora: Lora) -> Self {
        lora.to_string()
    }
}

/// Factor of `A B`: `alpha / rank` with `alpha = 2 rank`, a common choice.
const SCALE: f64 = 2.0;

impl Lora {
    /// Freezes `model` and gives its matrices adapters, which change nothing yet: `B` is zero. `A` is drawn from
    /// N(0, 1 / rank²) as a function of the matrix's path and `seed`, and so are the ids of both.
    pub fn attach<M: Module>(&self, model: M, seed: u64, device: &Device) -> M {
        let init = Init::new(seed, device);
        model.apply_reparameterization(Attach { lora: self, init })
    }
}

struct Attach<'a> {
    lora: &'a Lora,
    init: Init,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let shape = param.lazy_shape().to_vec();
        let base = param.set_require_grad(false);
        if D != 2 || !self.lora.parts.contains(&LoraPart::of(path)) {
            return (base, None);
        }
        let (here, rank) = (self.init.at(path), self.lora.rank);
        let adapter = LoraAdapter {
            a: here.normal("lora_a", [shape[0], rank], 1.0 / rank as f64),
            b: here.zeros("lora_b", [rank, shape[1]]),
            scale: SCALE,
        };
        (base, Some(adapter))
    }
}

/// The factors of all adapters of a model: shape and row-major values by path.
pub type Factors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads the factors of all adapters of `model`.
pub fn lora_factors<M: Module>(model: &M) -> Factors {
    let mut read = ReadFactors { at: ModulePath::default(), factors: Factors::new() };
    model.visit(&mut read);
    read.factors
}

struct ReadFactors {
    at: ModulePath,
    factors: Factors,
}

/// Whether `path` is that of a factor.
fn is_factor(path: &str) -> bool {
    path.ends_with(".lora.a") || path.ends_with(".lora.b")
}

impl ModuleVisitor for ReadFactors {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.at.path();
        if is_factor(&path) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            self.factors.insert(path, (shape, tensor.into_data().iter::<f32>().collect()));
        }
    }
}

/// Writes `factors` into the adapters of `model`. Both must have the same.
///
/// # Errors
/// Names a factor that is missing, left over or of another shape.
pub fn with_lora_factors<M: Module>(model: M, factors: Factors) -> Result<M, String> {
    let mut write = WriteFactors { at: ModulePath::default(), factors, problem: None };
    let model = model.map(&mut write);
    let left = write.factors.keys().next().map(|path| format!("{path} is left over"));
    match write.problem.or(left) {
        None => Ok(model),
        Some(problem) => Err(problem),
    }
}

struct WriteFactors {
    at: ModulePath,
    factors: Factors,
    problem: Option<String>,
}

impl ModuleMapper for WriteFactors {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.at.path();
        if !is_factor(&path) {
            return param;
        }
        let ours = param.lazy_shape().to_vec();
        match self.factors.remove(&path) {
            Some((shape, values)) if shape == ours => {
                let tensor =
                    Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            found => {
                let reason = if found.is_some() { "has another shape" } else { "is missing" };
                self.problem.get_or_insert(format!("{path} {reason}"));
                param
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        let lora: Lora = "8".parse().unwrap();
        assert_eq!((lora.rank, lora.to_string().as_str()), (8, "8:attention+mlp"));
        assert_eq!(lora.to_string().parse(), Ok(lora));
        let all: Lora = "4:tables+stacks+projections".parse().unwrap();
        assert_eq!(all.parts.len(), 4);
        assert_eq!("4:all".parse::<Lora>().unwrap().to_string(), all.to_string());
        for bad in ["", "0", "x", "8:", "8:head", "2000", "8:stacks,mlp", ":stacks"] {
            assert!(bad.parse::<Lora>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_are_known_by_the_path() {
        for (path, part) in [
            ("Block.block_decoder.layers.0.attention.dense.weight", LoraPart::Attention),
            (
                "Block.token_decoder.tokens.NeoX.stack.layers.1.mlp.dense_h_to_4h.weight",
                LoraPart::Mlp,
            ),
            ("Block.token_decoder.tokens.NeoX.embed_out.weight", LoraPart::Tables),
            ("Block.token_decoder.tokens.NeoX.embed_in.weight", LoraPart::Tables),
            ("Block.token_decoder.expansion_layer.weight", LoraPart::Projections),
            ("Block.embedder.embeddings.Lookup.weight", LoraPart::Tables),
            ("Vanilla.embed_in.weight", LoraPart::Tables),
            ("Vanilla.stack.layers.3.attention.query_key_value.weight", LoraPart::Attention),
        ] {
            assert_eq!(LoraPart::of(path), part, "{path}");
        }
    }
}
