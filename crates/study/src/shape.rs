//! Short descriptions of models, from which the table of a model configuration is made.

use serde::Deserialize;
use toml::{Table, Value};

/// A model by the rules of the paper: heads from the width, an MLP of four times the width, and an embedding width
/// that fills the block decoder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    /// `block` or `vanilla`.
    family: ShapeFamily,
    /// Width of the (block) decoder.
    pub width: usize,
    /// Layers of a vanilla model; of a block model, half of them in each decoder.
    layers: Option<usize>,
    /// Layers of the block decoder, in place of half of `layers`.
    block_layers: Option<usize>,
    /// Layers of the token decoder, in place of half of `layers`.
    token_layers: Option<usize>,
    /// Width of the token decoder; that of the block decoder if it is not given.
    token_width: Option<usize>,
    /// The width of the token decoder is that of the block decoder divided by this number.
    token_part: Option<usize>,
    /// Tokens per block.
    #[serde(default = "four")]
    block_length: usize,
    #[serde(default)]
    embedder: ShapeEmbedder,
    /// Layers of a RoBERTa embedder.
    #[serde(default = "three")]
    embedder_layers: usize,
    /// Width of a RoBERTa embedder.
    embedder_width: Option<usize>,
    #[serde(default)]
    decoder: ShapeDecoder,
    /// Prefix vectors per context embedding.
    #[serde(default = "two")]
    prefix: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ShapeFamily {
    Block,
    Vanilla,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ShapeEmbedder {
    /// A table whose vectors are concatenated.
    #[default]
    Lookup,
    /// A table as wide as the block decoder, and a learned projection: the embedder of uptrained models.
    Projection,
    Roberta,
    Cls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ShapeDecoder {
    #[default]
    Prefix,
    Summation,
    Cross,
}

/// CLS tokens of the paper's CLS embedder.
const CLS_TOKENS: usize = 3;
/// Positions of a RoBERTa embedder in the published configurations.
const EMBEDDER_POSITIONS: usize = 64;

fn four() -> usize {
    4
}
fn three() -> usize {
    3
}
fn two() -> usize {
    2
}

/// Attention heads of a stack, by the rule of the published configurations.
fn heads(width: usize) -> usize {
    let size = match width {
        ..=256 => 32,
        257..=1536 => 64,
        _ => 128,
    };
    (width / size).max(1)
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn int(value: usize) -> Value {
    Value::Integer(value as i64)
}

fn stack(width: usize, layers: usize) -> Table {
    table([
        ("hidden_size", int(width)),
        ("num_hidden_layers", int(layers)),
        ("num_attention_heads", int(heads(width))),
    ])
}

impl Shape {
    /// The keys of a shape.
    pub(crate) const KEYS: [&str; 13] = [
        "family",
        "width",
        "layers",
        "block_layers",
        "token_layers",
        "token_width",
        "token_part",
        "block_length",
        "embedder",
        "embedder_layers",
        "embedder_width",
        "decoder",
        "prefix",
    ];

    /// The family as the label of the rate that a sweep chose.
    pub(crate) fn family(&self) -> &'static str {
        match self.family {
            ShapeFamily::Block => "block",
            ShapeFamily::Vanilla => "vanilla",
        }
    }

    /// The table of the model over `vocab_size` ids, for `context` tokens.
    pub(crate) fn model(&self, vocab_size: usize, context: usize) -> Result<Table, String> {
        let common =
            table([("vocab_size", int(vocab_size)), ("max_position_embeddings", int(context))]);
        if self.family == ShapeFamily::Vanilla {
            let layers = self.layers.ok_or("shape.layers: needed for a vanilla model")?;
            return Ok(common.into_iter().chain(stack(self.width, layers)).collect());
        }
        let half = |own: Option<usize>, key: &str| match (own, self.layers) {
            (Some(own), _) => Ok(own),
            (None, Some(layers)) if layers.is_multiple_of(2) => Ok(layers / 2),
            (None, Some(layers)) => Err(format!(
                "shape.layers {layers}: must be even, because a block model has half of them in each decoder; or give \
                 shape.block_layers and shape.token_layers"
            )),
            (None, None) => Err(format!("shape.{key}: needed without shape.layers")),
        };
        let block = stack(self.width, half(self.block_layers, "block_layers")?);
        let token_width =
            self.token_width.unwrap_or(self.width / self.token_part.unwrap_or(1).max(1));
        let token = stack(token_width, half(self.token_layers, "token_layers")?);
        let mut model = common;
        model.insert("block_length".into(), int(self.block_length));
        model.insert("embedder".into(), self.embedder()?.into());
        model.insert("block_decoder".into(), block.into());
        let strategy = |name: &str| table([("decoding_strategy", name.into())]);
        let decoder = match self.decoder {
            ShapeDecoder::Prefix => {
                let of_prefix =
                    table([("cls", "gpt-neo-x".into()), ("expansion_ratio", int(self.prefix))]);
                of_prefix.into_iter().chain(strategy("prefix"))
            }
            ShapeDecoder::Summation => {
                table([("cls", "gpt-neo-x".into())]).into_iter().chain(strategy("summation"))
            }
            ShapeDecoder::Cross => {
                let of_t5 = table([
                    ("cls", "t5".into()),
                    ("d_kv", int(token_width / heads(token_width))),
                    ("d_ff", int(4 * token_width)),
                ]);
                of_t5.into_iter().chain(strategy("cross_attention"))
            }
        };
        let decoder: Table = token.into_iter().chain(decoder).collect();
        model.insert("token_decoder".into(), decoder.into());
        Ok(model)
    }

    fn embedder(&self) -> Result<Table, String> {
        let (width, length) = (self.width, self.block_length.max(1));
        let roberta = |cls: &str| {
            let width = self.embedder_width.unwrap_or(self.width);
            let encoder = stack(width, self.embedder_layers).into_iter();
            let rest = table([
                ("cls", cls.into()),
                ("projection_method", "projection_layer".into()),
                ("max_position_embeddings", int(EMBEDDER_POSITIONS)),
            ]);
            encoder.chain(rest).collect::<Table>()
        };
        let lookup = |width: usize, method: &str| {
            table([
                ("cls", "lookup".into()),
                ("hidden_size", int(width)),
                ("projection_method", method.into()),
            ])
        };
        Ok(match self.embedder {
            ShapeEmbedder::Lookup if !width.is_multiple_of(length) => {
                return Err(format!(
                    "shape.block_length {length}: must divide shape.width {width}, because the vectors of a block \
                     are concatenated"
                ));
            }
            ShapeEmbedder::Lookup => lookup(width / length, "concat"),
            ShapeEmbedder::Projection => lookup(width, "projection_layer"),
            ShapeEmbedder::Roberta => roberta("roberta"),
            ShapeEmbedder::Cls => {
                let mut table = roberta("roberta_cls");
                table.insert("n_cls_tokens".into(), int(CLS_TOKENS));
                table
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_zoo::ModelConfig;

    use super::*;

    fn model(shape: &str, vocab_size: usize) -> Result<ModelConfig, String> {
        let shape: Shape = toml::from_str(shape).map_err(|error| error.to_string())?;
        let table = shape.model(vocab_size, 2048)?;
        ModelConfig::deserialize(Value::Table(table)).map_err(|error| error.to_string())
    }

    /// The rules make the published presets.
    #[test]
    fn shapes_are_those_of_the_presets() {
        let cls = "embedder_width = 256";
        let block = "family = \"block\"\nwidth = 768\nlayers = 12\n";
        for (preset, shape) in [
            ("vanilla-410m", "family = \"vanilla\"\nwidth = 1024\nlayers = 24".to_string()),
            ("block-77m", "family = \"block\"\nwidth = 512\nlayers = 6".into()),
            ("block-1.0b", "family = \"block\"\nwidth = 2048\nlayers = 16".into()),
            ("block-170m-length1", format!("{block}block_length = 1\nprefix = 1")),
            ("block-170m-roberta", format!("{block}embedder = \"roberta\"\n{cls}\nprefix = 1")),
            (
                "block-170m-cls-summation",
                format!("{block}embedder = \"cls\"\n{cls}\ndecoder = \"summation\""),
            ),
            ("block-170m-cls-cross", format!("{block}embedder = \"cls\"\n{cls}\ndecoder = \"cross\"")),
            (
                "megabyte-85m",
                "family = \"block\"\nwidth = 768\nblock_layers = 11\ntoken_layers = 4\ntoken_width = 512\n\
                 decoder = \"summation\""
                    .into(),
            ),
            (
                "megabyte-19m",
                "family = \"block\"\nwidth = 512\nblock_layers = 5\ntoken_layers = 4\ntoken_part = 2\n\
                 decoder = \"summation\""
                    .into(),
            ),
            ("block-uptrain-85m", format!("{block}embedder = \"projection\"")),
        ] {
            let expected = &block_transformer_zoo::preset(preset).unwrap().model;
            assert_eq!(model(&shape, 50304).unwrap(), *expected, "{preset}");
        }
        let error = model(&format!("{block}block_length = 5"), 64).unwrap_err();
        assert!(error.contains("block_length 5"), "{error}");
        let error = model("family = \"block\"\nwidth = 64\nblock_layers = 1", 64).unwrap_err();
        assert!(error.contains("token_layers"), "{error}");
        let error = model("family = \"block\"\nwidth = 64\nlayers = 3", 64).unwrap_err();
        assert!(error.contains("shape.layers 3: must be even"), "{error}");
    }
}
