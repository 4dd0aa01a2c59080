//! A Block Transformer with the weights of a vanilla model (arXiv 2406.02657, section 3.7; `load_from_vanilla` of the
//! published implementation).

use block_transformer_weights::{HostTensor, HostTensors, TensorFileError, TensorSource};
use block_transformer_zoo::block::{
    BlockTransformerConfig, EmbedderConfig, LookupConfig, NeoXTokenDecoderConfig, Projection,
    TokenDecoderConfig,
};
use block_transformer_zoo::family::{Conditioning, InvalidConfig};
use block_transformer_zoo::vanilla::GptNeoXConfig;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// Tokens per block, and prefix vectors per context embedding, of an uptrained model.
const BLOCK_LENGTH: usize = 4;
const EXPANSION: usize = 2;

/// Which layers of a vanilla model become those of the block decoder and of the token decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uptrain {
    /// The run does not begin with a vanilla model.
    #[default]
    Off,
    /// The first half becomes the block decoder, the second half the token decoder. The published recipe.
    Partition,
    /// Every second layer becomes that of both decoders.
    Skip,
    /// Every layer becomes that of both decoders.
    Duplicate,
}

impl Uptrain {
    /// Layers of the block decoder and of the token decoder from a model of `layers` layers.
    fn layers(self, layers: usize) -> Result<(usize, usize), TrainError> {
        let half = layers / 2;
        match self {
            Self::Partition if layers >= 2 => Ok((half, layers - half)),
            Self::Skip if layers >= 2 && layers.is_multiple_of(2) => Ok((half, half)),
            Self::Off | Self::Duplicate => Ok((layers, layers)),
            Self::Partition | Self::Skip => {
                let reason = format!("{layers} cannot be halved");
                Err(InvalidConfig::new("num_hidden_layers", reason).into())
            }
        }
    }

    /// The layer of the vanilla model for layer `at` of the block decoder, or of the token decoder.
    fn source(self, at: usize, is_token_decoder: bool, block_layers: usize) -> usize {
        match self {
            Self::Partition if is_token_decoder => block_layers + at,
            Self::Skip => 2 * at,
            _ => at,
        }
    }

    /// The shape of the Block Transformer made from a vanilla model: blocks of 4 tokens, a lookup embedder with a
    /// projection, and a prefix of 2 vectors.
    pub(crate) fn shape(
        self,
        vanilla: &GptNeoXConfig,
    ) -> Result<BlockTransformerConfig, TrainError> {
        let (block, token) = self.layers(vanilla.stack.num_hidden_layers)?;
        if vanilla.stack.rope_scaling.is_some() {
            let reason = "the vanilla model has scaled rotary positions, and a token decoder cannot have them";
            return Err(InvalidConfig::new("rope_scaling", reason).into());
        }
        let stack = |num_hidden_layers| {
            let stack = vanilla.stack.clone();
            block_transformer_layers::neox::NeoXConfig { num_hidden_layers, ..stack }
        };
        Ok(BlockTransformerConfig {
            vocab_size: vanilla.vocab_size,
            block_length: BLOCK_LENGTH,
            max_position_embeddings: vanilla.max_position_embeddings,
            embedder: EmbedderConfig::Lookup(LookupConfig {
                hidden_size: vanilla.stack.hidden_size,
                projection_method: Projection::ProjectionLayer,
                n_embedding_tokens: 1,
            }),
            block_decoder: stack(block),
            token_decoder: TokenDecoderConfig::NeoX(NeoXTokenDecoderConfig {
                decoding_strategy: Conditioning::Prefix,
                expansion_ratio: Some(EXPANSION),
                stack: stack(token),
            }),
        })
    }
}

/// The published tensors of a Block Transformer, made from those of a vanilla model: token tables, LM head, final norm
/// of the token decoder and layers are copied; the projection of the embedder is the mean over the block; each prefix
/// vector is the context embedding. The final norm of the block decoder is new.
pub(crate) struct Uptrained<'a> {
    pub vanilla: &'a HostTensors,
    pub config: &'a BlockTransformerConfig,
    pub method: Uptrain,
}

impl Uptrained<'_> {
    fn width(&self) -> usize {
        self.config.block_decoder.hidden_size
    }

    fn tensor(&self, name: &str) -> Option<HostTensor> {
        let (d, l) = (self.width(), self.config.block_length);
        let filled = |shape: &[usize], value: f32| HostTensor {
            shape: shape.to_vec(),
            values: vec![value; shape.iter().product()],
        };
        match name {
            "embedder.embeddings.weight" | "token_decoder.gpt_neox.embed_in.weight" => {
                self.vanilla.get("gpt_neox.embed_in.weight").cloned()
            }
            "token_decoder.embed_out.weight" => self.vanilla.get("embed_out.weight").cloned(),
            // [d, d, l]: each of the l tokens has a weight of 1 / l
            "embedder.projection_layer.weight" => {
                let mut tensor = filled(&[d, d, l], 0.0);
                for i in 0..d {
                    tensor.values[(i * d + i) * l..][..l].fill(1.0 / l as f32);
                }
                Some(tensor)
            }
            "embedder.projection_layer.bias" => Some(filled(&[d], 0.0)),
            // [2 d, d, 1]: the identity twice, one under the other
            "token_decoder.expansion_layer.weight" => {
                let mut tensor = filled(&[EXPANSION * d, d, 1], 0.0);
                for row in 0..EXPANSION * d {
                    tensor.values[row * d + row % d] = 1.0;
                }
                Some(tensor)
            }
            "token_decoder.expansion_layer.bias" => Some(filled(&[EXPANSION * d], 0.0)),
            "block_decoder.gpt_neox.final_layer_norm.weight" => Some(filled(&[d], 1.0)),
            "block_decoder.gpt_neox.final_layer_norm.bias" => Some(filled(&[d], 0.0)),
            _ => self.vanilla.get(&self.copied(name)?).cloned(),
        }
    }

    /// The vanilla tensor that the tensor `name` of a stack is a copy of.
    fn copied(&self, name: &str) -> Option<String> {
        let block = name.strip_prefix("block_decoder.gpt_neox.");
        let token = name.strip_prefix("token_decoder.gpt_neox.");
        let inside = block.or(token)?;
        let Some((at, rest)) = inside.strip_prefix("layers.").and_then(|rest| rest.split_once('.'))
        else {
            return token.map(|inside| format!("gpt_neox.{inside}"));
        };
        let block_layers = self.config.block_decoder.num_hidden_layers;
        let at = self.method.source(at.parse().ok()?, token.is_some(), block_layers);
        Some(format!("gpt_neox.layers.{at}.{rest}"))
    }

    fn all_names(&self) -> Vec<String> {
        const PARTS: [&str; 12] = [
            "input_layernorm.weight",
            "input_layernorm.bias",
            "post_attention_layernorm.weight",
            "post_attention_layernorm.bias",
            "attention.query_key_value.weight",
            "attention.query_key_value.bias",
            "attention.dense.weight",
            "attention.dense.bias",
            "mlp.dense_h_to_4h.weight",
            "mlp.dense_h_to_4h.bias",
            "mlp.dense_4h_to_h.weight",
            "mlp.dense_4h_to_h.bias",
        ];
        let token_layers = match &self.config.token_decoder {
            TokenDecoderConfig::NeoX(config) => config.stack.num_hidden_layers,
            TokenDecoderConfig::T5(_) => 0,
        };
        let stacks = [
            ("block_decoder", self.config.block_decoder.num_hidden_layers),
            ("token_decoder", token_layers),
        ];
        let mut names: Vec<String> = [
            "embedder.embeddings.weight",
            "embedder.projection_layer.weight",
            "embedder.projection_layer.bias",
            "token_decoder.gpt_neox.embed_in.weight",
            "token_decoder.expansion_layer.weight",
            "token_decoder.expansion_layer.bias",
            "token_decoder.embed_out.weight",
        ]
        .map(String::from)
        .into();
        for (stack, layers) in stacks {
            let layer = |i| PARTS.map(move |part| format!("{stack}.gpt_neox.layers.{i}.{part}"));
            names.extend((0..layers).flat_map(layer));
            names.extend(
                ["weight", "bias"].map(|part| format!("{stack}.gpt_neox.final_layer_norm.{part}")),
            );
        }
        names
    }
}

/// Tensors are made when they are read; their shapes are those of the model, which `load` checks.
impl TensorSource for Uptrained<'_> {
    fn names(&self) -> Vec<String> {
        self.all_names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.tensor(name)?.shape)
    }

    fn read(&self, name: &str) -> Result<Option<HostTensor>, TensorFileError> {
        Ok(self.tensor(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use block_transformer_weights::{Source, load, published_tensors};
    use block_transformer_zoo::{LanguageModel, ModelConfig, preset, published_weights};
    use burn::tensor::{Device, Int, Tensor};

    use block_transformer_layers::neox::{RopeKind, RopeScaling};

    use super::*;

    fn vanilla() -> (GptNeoXConfig, HostTensors) {
        let model = preset("debug-vanilla").unwrap().model.clone();
        let ModelConfig::Vanilla(config) = model.clone() else { unreachable!() };
        let weights = model.init(3, &Device::flex());
        (config, published_tensors(&weights, &model, Source::Values))
    }

    #[test]
    fn layers_are_partitioned_skipped_or_duplicated() {
        let (vanilla, tensors) = vanilla();
        assert_eq!(vanilla.stack.num_hidden_layers, 4);
        for (method, block, token) in [
            (Uptrain::Partition, &[0, 1][..], &[2, 3][..]),
            (Uptrain::Skip, &[0, 2], &[0, 2]),
            (Uptrain::Duplicate, &[0, 1, 2, 3], &[0, 1, 2, 3]),
        ] {
            let config = method.shape(&vanilla).unwrap();
            let made = Uptrained { vanilla: &tensors, config: &config, method };
            for (stack, sources) in [("block_decoder", block), ("token_decoder", token)] {
                for (at, source) in sources.iter().enumerate() {
                    let name = format!("{stack}.gpt_neox.layers.{at}.attention.dense.weight");
                    let expected =
                        &tensors[&format!("gpt_neox.layers.{source}.attention.dense.weight")];
                    assert_eq!(made.tensor(&name).as_ref(), Some(expected), "{method:?} {name}");
                }
            }
            // the model takes every tensor, and none is left over
            let model = ModelConfig::Block(config.clone());
            let (loaded, unused) =
                load(model.init(0, &Device::flex()), &model, &made, "made").unwrap();
            assert!(unused.is_empty());
            let names: BTreeSet<String> =
                published_tensors(&loaded, &model, Source::Values).into_keys().collect();
            assert_eq!(names, made.names().into_iter().collect());
        }
        let odd = GptNeoXConfig {
            stack: block_transformer_layers::neox::NeoXConfig {
                num_hidden_layers: 3,
                ..vanilla.stack.clone()
            },
            ..vanilla
        };
        let mut scaled = odd.clone();
        scaled.stack.rope_scaling = Some(RopeScaling { rope_type: RopeKind::Linear, factor: 2.0 });
        let error = Uptrain::Partition.shape(&scaled).unwrap_err().to_string();
        assert!(error.contains("rope_scaling"), "{error}");
        assert_eq!(Uptrain::Partition.layers(3).unwrap(), (1, 2));
        assert!(Uptrain::Skip.shape(&odd).unwrap_err().to_string().contains("num_hidden_layers"));
    }

    #[test]
    fn the_uptraining_presets_are_what_published_models_become() {
        for (preset_name, source) in [
            ("block-uptrain-85m", "pythia-160m"),
            ("block-uptrain-302m", "pythia-410m"),
            ("block-uptrain-805m", "pythia-1b"),
        ] {
            let row = published_weights().iter().find(|row| row.name == source).unwrap();
            let ModelConfig::Vanilla(config) = row.model() else { unreachable!() };
            let made = ModelConfig::Block(Uptrain::Partition.shape(config).unwrap());
            assert_eq!(made, preset(preset_name).unwrap().model, "{preset_name}");
        }
    }

    #[test]
    fn a_block_is_embedded_as_the_mean_of_its_tokens_and_expanded_to_itself_twice() {
        let (vanilla, tensors) = vanilla();
        let config = Uptrain::Partition.shape(&vanilla).unwrap();
        let made = Uptrained { vanilla: &tensors, config: &config, method: Uptrain::Partition };
        let (model, device) = (ModelConfig::Block(config.clone()), Device::flex());
        let (loaded, _) = load(model.init(0, &device), &model, &made, "made").unwrap();
        let LanguageModel::Block(block) = loaded else { unreachable!() };
        let ids = [5, 9, 100, 7];
        let embedded =
            block.embed(Tensor::<3, Int>::from_data([[ids]], &device), &Default::default());
        let (table, d) = (&tensors["gpt_neox.embed_in.weight"].values, vanilla.stack.hidden_size);
        for (i, value) in embedded.into_data().iter::<f32>().enumerate() {
            let mean = ids.iter().map(|&id| table[id as usize * d + i]).sum::<f32>() / 4.0;
            assert!((value - mean).abs() < 1e-6, "{i}: {value} {mean}");
        }
        let expansion = made.tensor("token_decoder.expansion_layer.weight").unwrap();
        assert_eq!(expansion.shape, [2 * d, d, 1]);
        for row in [0, 1, d - 1, d, 2 * d - 1] {
            let ones: Vec<usize> =
                (0..d).filter(|col| expansion.values[row * d + col] == 1.0).collect();
            assert_eq!(ones, [row % d], "{row}");
        }
    }
}
