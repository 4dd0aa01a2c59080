//! Every published key layout: small synthetic files with the names of the published implementations, written
//! here by hand, in the shape of every preset made small.

use std::collections::BTreeMap;

use block_transformer_weights::{HostTensor, HostTensors, Source, load, published_tensors};
use block_transformer_zoo::{ModelConfig, presets};
use burn::tensor::Device;
use serde_json::{Value, json};

const VOCABULARY: usize = 40;

/// Names and shapes of a file.
#[derive(Default)]
struct Layout(BTreeMap<String, Vec<usize>>);

impl Layout {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.insert(name.into(), shape.to_vec());
    }

    fn linear(&mut self, name: &str, out: usize, inputs: usize) {
        self.add(format!("{name}.weight"), &[out, inputs]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width]);
        self.add(format!("{name}.bias"), &[width]);
    }

    /// `transformers.GPTNeoXModel`.
    fn neox(&mut self, at: &str, stack: &Value) {
        let (width, layers) = (size(stack, "hidden_size"), size(stack, "num_hidden_layers"));
        let mlp = stack
            .get("intermediate_size")
            .and_then(Value::as_u64)
            .map_or(4 * width, |m| m as usize);
        self.add(format!("{at}.embed_in.weight"), &[VOCABULARY, width]);
        for i in 0..layers {
            let layer = format!("{at}.layers.{i}");
            self.norm(&format!("{layer}.input_layernorm"), width);
            self.norm(&format!("{layer}.post_attention_layernorm"), width);
            self.linear(&format!("{layer}.attention.query_key_value"), 3 * width, width);
            self.linear(&format!("{layer}.attention.dense"), width, width);
            self.linear(&format!("{layer}.mlp.dense_h_to_4h"), mlp, width);
            self.linear(&format!("{layer}.mlp.dense_4h_to_h"), width, mlp);
        }
        self.norm(&format!("{at}.final_layer_norm"), width);
    }

    /// `transformers.RobertaModel` without a pooler.
    fn roberta(&mut self, at: &str, encoder: &Value) {
        let (width, layers) = (size(encoder, "hidden_size"), size(encoder, "num_hidden_layers"));
        let embeddings = format!("{at}.embeddings");
        self.add(format!("{embeddings}.word_embeddings.weight"), &[VOCABULARY, width]);
        let rows = size(encoder, "max_position_embeddings");
        self.add(format!("{embeddings}.position_embeddings.weight"), &[rows, width]);
        self.add(format!("{embeddings}.token_type_embeddings.weight"), &[1, width]);
        self.norm(&format!("{embeddings}.LayerNorm"), width);
        for i in 0..layers {
            let layer = format!("{at}.encoder.layer.{i}");
            for part in ["query", "key", "value"] {
                self.linear(&format!("{layer}.attention.self.{part}"), width, width);
            }
            self.linear(&format!("{layer}.attention.output.dense"), width, width);
            self.norm(&format!("{layer}.attention.output.LayerNorm"), width);
            self.linear(&format!("{layer}.intermediate.dense"), 4 * width, width);
            self.linear(&format!("{layer}.output.dense"), width, 4 * width);
            self.norm(&format!("{layer}.output.LayerNorm"), width);
        }
    }

    /// The decoder of `transformers.T5ForConditionalGeneration`.
    fn t5(&mut self, at: &str, stack: &Value) {
        let size = |key| size(stack, key);
        let (width, heads) = (size("hidden_size"), size("num_attention_heads"));
        let inner = heads * size("d_kv");
        for i in 0..size("num_hidden_layers") {
            let block = format!("{at}.decoder.block.{i}.layer");
            for (part, attention) in [(0, "SelfAttention"), (1, "EncDecAttention")] {
                for projection in ["q", "k", "v"] {
                    self.add(
                        format!("{block}.{part}.{attention}.{projection}.weight"),
                        &[inner, width],
                    );
                }
                self.add(format!("{block}.{part}.{attention}.o.weight"), &[width, inner]);
                self.add(format!("{block}.{part}.layer_norm.weight"), &[width]);
            }
            self.add(format!("{block}.2.DenseReluDense.wi.weight"), &[size("d_ff"), width]);
            self.add(format!("{block}.2.DenseReluDense.wo.weight"), &[width, size("d_ff")]);
            self.add(format!("{block}.2.layer_norm.weight"), &[width]);
        }
        let bias =
            format!("{at}.decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        self.add(bias, &[32, heads]);
        self.add(format!("{at}.decoder.final_layer_norm.weight"), &[width]);
        for name in ["shared", "decoder.embed_tokens", "lm_head"] {
            self.add(format!("{at}.{name}.weight"), &[VOCABULARY, width]);
        }
    }
}

fn size(table: &Value, key: &str) -> usize {
    usize::try_from(table[key].as_u64().unwrap_or_else(|| panic!("{key} in {table}"))).unwrap()
}

/// The file of a model of the family and kind of `config`.
fn published(config: &Value) -> Layout {
    let mut layout = Layout::default();
    if config.get("block_decoder").is_none() {
        layout.neox("gpt_neox", config);
        layout.add("embed_out.weight", &[VOCABULARY, size(config, "hidden_size")]);
        return layout;
    }
    let length = size(config, "block_length");
    let (embedder, decoder) = (&config["embedder"], &config["token_decoder"]);
    let (width, hidden) =
        (size(&config["block_decoder"], "hidden_size"), size(decoder, "hidden_size"));
    layout.neox("block_decoder.gpt_neox", &config["block_decoder"]);
    if embedder["cls"] == "lookup" {
        layout.add("embedder.embeddings.weight", &[VOCABULARY, size(embedder, "hidden_size")]);
    } else {
        layout.roberta("embedder", embedder);
    }
    if embedder["projection_method"] == "projection_layer" {
        let joined = embedder["n_cls_tokens"].as_u64().map_or(length, |n| n as usize);
        layout.add(
            "embedder.projection_layer.weight",
            &[width, size(embedder, "hidden_size"), joined],
        );
        layout.add("embedder.projection_layer.bias", &[width]);
    }
    let expansion = decoder["expansion_ratio"].as_u64().map_or(length, |r| r as usize);
    layout.add("token_decoder.expansion_layer.weight", &[expansion * hidden, width, 1]);
    layout.add("token_decoder.expansion_layer.bias", &[expansion * hidden]);
    if decoder["cls"] == "t5" {
        layout.t5("token_decoder", decoder);
    } else {
        layout.neox("token_decoder.gpt_neox", decoder);
        layout.add("token_decoder.embed_out.weight", &[VOCABULARY, hidden]);
    }
    layout
}

/// A preset with two layers per stack, and an eighth of every width.
fn small(config: &ModelConfig) -> Value {
    let mut table = serde_json::to_value(config).unwrap();
    table["vocab_size"] = VOCABULARY.into();
    let stacks: &[&str] = if table.get("block_decoder").is_some() {
        &["/embedder", "/block_decoder", "/token_decoder"]
    } else {
        &[""]
    };
    for stack in stacks {
        let stack = table.pointer_mut(stack).unwrap().as_object_mut().unwrap();
        for (key, value) in stack.iter_mut() {
            match key.as_str() {
                "hidden_size" | "d_ff" | "intermediate_size" => {
                    *value = (value.as_u64().unwrap() / 8).into()
                }
                "num_hidden_layers" => *value = 2.into(),
                "num_attention_heads" => *value = 1.into(),
                _ => {}
            }
        }
    }
    table
}

/// Values that differ by name and position; tied tensors have the same.
fn values(name: &str, count: usize) -> Vec<f32> {
    let name = if ["shared", "embed_tokens", "lm_head"].iter().any(|tied| name.contains(tied)) {
        "tied"
    } else {
        name
    };
    let start =
        name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    (0..count as u32).map(|i| (start.wrapping_add(i * 977) % 8191) as f32 / 8191.0).collect()
}

#[test]
fn every_preset_is_imported_from_its_published_layout() {
    let device = Device::flex();
    for preset in presets() {
        let table = small(&preset.model);
        let config = ModelConfig::from_json(&table.to_string(), &preset.name).unwrap();
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let values = values(&name, shape.iter().product());
            (name, HostTensor { shape, values })
        };
        let mut file: HostTensors = published(&table).0.into_iter().map(tensor).collect();
        let expected = file.clone();
        // real files also hold buffers that are not learned
        let at = if table.get("block_decoder").is_some() {
            "block_decoder.gpt_neox"
        } else {
            "gpt_neox"
        };
        for buffer in ["bias", "masked_bias", "rotary_emb.inv_freq"] {
            let name = format!("{at}.layers.1.attention.{buffer}");
            file.insert(name, HostTensor { shape: vec![1], values: vec![3.0] });
        }
        let model = config.init(0, &device);
        let (model, unused) =
            load(model, &config, &file, &preset.name).unwrap_or_else(|e| panic!("{e}"));
        let mut read = published_tensors(&model, &config, Source::Values);
        read.extend(unused);
        assert!(read == expected, "{}: {:?}", preset.name, read.keys().collect::<Vec<_>>());
    }
    assert!(presets().len() >= 18, "{}", json!(presets().len()));
}
