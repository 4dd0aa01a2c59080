//! The `config.json` of `transformers` for GPT-NeoX, in both directions.

use std::path::Path;

use block_transformer_gpt_neox::GptNeoXConfig;
use block_transformer_layers::neox::{NeoXConfig, RopeKind, RopeScaling};
use block_transformer_text::{EOS, PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ExchangeError;

/// The `model_type` of GPT-NeoX.
pub(crate) const MODEL_TYPE: &str = "gpt_neox";

/// The keys that decide the shape. Those with a default have the default of `transformers`.
#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    layer_norm_eps: Option<f64>,
    use_parallel_residual: Option<bool>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    rotary_pct: Option<f64>,
    rotary_emb_base: Option<f64>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
}

/// Reads `rope_scaling`, or the scaling in `rope_parameters`, with the kind in `rope_type` or, in older files,
/// `type`. `None` is the kind `default`. `ntk` is not a kind of `transformers`.
///
/// # Errors
/// Says what is not supported.
pub(crate) fn rope_scaling(table: &Value) -> Result<Option<RopeScaling>, String> {
    let Some(table) = table.as_object() else { return Err(format!("{table} is not a table")) };
    let kind = table.get("rope_type").or_else(|| table.get("type"));
    let kind = kind.map(|kind| kind.as_str().ok_or(format!("the kind {kind} is not a text")));
    let rope_type = match kind.transpose()? {
        None | Some("default") => return Ok(None),
        Some("linear") => RopeKind::Linear,
        Some("ntk") => RopeKind::Ntk,
        Some("dynamic") => {
            return Err("`dynamic` is not supported, because its angles change with the length, so that keys \
                        in a cache do not fit later queries; `ntk` has the angles of one length for all"
                .into());
        }
        Some(other) => {
            return Err(format!(
                "`{other}` is not supported; only `default`, `linear` and `ntk` are"
            ));
        }
    };
    match table.get("factor").and_then(Value::as_f64) {
        Some(factor) => Ok(Some(RopeScaling { rope_type, factor })),
        None => Err("the number `factor` is missing".into()),
    }
}

/// Reads the `config.json` of a GPT-NeoX model; `path` names it in errors. Rotary settings may have the older
/// form (`rotary_pct`, `rotary_emb_base`) or the newer one (`rope_parameters`).
///
/// # Errors
/// When a key is missing, or the model differs from GPT-NeoX as it is implemented here: tied embeddings,
/// another activation, no biases, other scaled rotary angles than linear ones.
pub fn from_hugging_face(value: &Value, path: &Path) -> Result<GptNeoXConfig, ExchangeError> {
    let unsupported = |key: &str, reason: String| ExchangeError::Unsupported {
        path: path.into(),
        key: key.into(),
        reason,
    };
    let given = value.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if given != MODEL_TYPE {
        let reason = format!("`{given}` is not supported; only `{MODEL_TYPE}` is");
        return Err(unsupported("model_type", reason));
    }
    let config = Config::deserialize(value).map_err(|error| ExchangeError::Unreadable {
        path: path.into(),
        reason: error.to_string(),
    })?;
    if let Some(act) = config.hidden_act.filter(|act| act != "gelu") {
        return Err(unsupported("hidden_act", format!("`{act}` is not supported; only `gelu` is")));
    }
    for (key, value, needed) in [
        ("tie_word_embeddings", config.tie_word_embeddings, false),
        ("attention_bias", config.attention_bias, true),
    ] {
        if value.is_some_and(|value| value != needed) {
            return Err(unsupported(key, format!("{} is not supported", !needed)));
        }
    }
    let mut scaling = None;
    for (key, table) in
        [("rope_parameters", &config.rope_parameters), ("rope_scaling", &config.rope_scaling)]
    {
        if let Some(table) = table {
            scaling = scaling.or(rope_scaling(table).map_err(|reason| unsupported(key, reason))?);
        }
    }
    let of_rope = |key: &str| config.rope_parameters.as_ref()?.get(key)?.as_f64();
    let pct = of_rope("partial_rotary_factor");
    let pct = pct.or(config.rotary_pct).or(config.partial_rotary_factor);
    let base = of_rope("rope_theta");
    let base = base.or(config.rotary_emb_base).or(config.rope_theta);
    let default =
        NeoXConfig::new(config.hidden_size, config.num_hidden_layers, config.num_attention_heads);
    Ok(GptNeoXConfig {
        vocab_size: config.vocab_size,
        max_position_embeddings: config.max_position_embeddings.unwrap_or(2048),
        stack: NeoXConfig {
            intermediate_size: config
                .intermediate_size
                .filter(|width| Some(*width) != config.hidden_size.checked_mul(4)),
            rotary_pct: pct.unwrap_or(default.rotary_pct),
            rotary_emb_base: base.unwrap_or(default.rotary_emb_base),
            rope_scaling: scaling,
            layer_norm_eps: config.layer_norm_eps.unwrap_or(default.layer_norm_eps),
            use_parallel_residual: config.use_parallel_residual.unwrap_or(true),
            ..default
        },
    })
}

/// The `config.json` with which `transformers` loads the model. It has the rotary settings in both forms, so that
/// older and newer versions read it. Its rotary base includes NTK scaling, for which `transformers` has no name.
pub fn to_hugging_face(config: &GptNeoXConfig, dtype: &str) -> Value {
    let stack = &config.stack;
    let scaling = stack.rope_scaling;
    let (base, _) = scaling
        .map_or((stack.rotary_emb_base, 1.0), |it| it.of(stack.rotated(), stack.rotary_emb_base));
    let mut rope = json!({
        "rope_type": "default",
        "rope_theta": base,
        "partial_rotary_factor": stack.rotary_pct,
    });
    let mut written = json!({
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_size": stack.hidden_size,
        "num_hidden_layers": stack.num_hidden_layers,
        "num_attention_heads": stack.num_attention_heads,
        "intermediate_size": stack.intermediate(),
        "hidden_act": "gelu",
        "layer_norm_eps": stack.layer_norm_eps,
        "use_parallel_residual": stack.use_parallel_residual,
        "attention_bias": true,
        "tie_word_embeddings": false,
        "rotary_pct": stack.rotary_pct,
        "rotary_emb_base": base,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "torch_dtype": dtype,
        "use_cache": true,
    });
    if let Some(RopeScaling { rope_type: RopeKind::Linear, factor }) = scaling {
        rope["rope_type"] = "linear".into();
        rope["factor"] = factor.into();
        written["rope_scaling"] =
            json!({"type": "linear", "rope_type": "linear", "factor": factor});
    }
    written["rope_parameters"] = rope;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pythia() -> Value {
        json!({
            "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
            "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-5,
            "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 12,
            "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
            "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": true,
            "use_parallel_residual": true, "vocab_size": 50304
        })
    }

    fn read(value: &Value) -> Result<GptNeoXConfig, ExchangeError> {
        from_hugging_face(value, Path::new("config.json"))
    }

    #[test]
    fn both_forms_of_the_rotary_settings_are_read() {
        let preset = &block_transformer_zoo::preset("vanilla-160m").unwrap().model;
        let block_transformer_zoo::ModelConfig::Vanilla(expected) = preset else { unreachable!() };
        assert_eq!(&read(&pythia()).unwrap(), expected);
        let mut newer = pythia();
        let table = newer.as_object_mut().unwrap();
        table.remove("rotary_pct");
        table.remove("rotary_emb_base");
        let rope =
            json!({"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5});
        table.insert("rope_parameters".into(), rope);
        let config = read(&newer).unwrap();
        assert_eq!((config.stack.rotary_pct, config.stack.rotary_emb_base), (0.5, 5000.0));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut config = read(&pythia()).unwrap();
        config.stack.rotary_pct = 1.0;
        config.stack.use_parallel_residual = false;
        config.stack.intermediate_size = Some(512);
        assert_eq!(read(&to_hugging_face(&config, "float32")).unwrap(), config);
        config.stack.rope_scaling = Some(RopeScaling { rope_type: RopeKind::Linear, factor: 2.5 });
        assert_eq!(read(&to_hugging_face(&config, "float32")).unwrap(), config);
        // a base for 192 rotated dimensions: 10000 * 3^(192 / 190)
        config.stack.rope_scaling = Some(RopeScaling { rope_type: RopeKind::Ntk, factor: 3.0 });
        config.stack.num_attention_heads = 4;
        let written = to_hugging_face(&config, "float32");
        assert_eq!(written["rope_parameters"]["rope_type"], "default");
        assert!((written["rotary_emb_base"].as_f64().unwrap() - 30_348.944).abs() < 1e-3);
        let read = read(&written).unwrap().stack;
        let (base, divisor) = config.stack.rope_scaling.unwrap().of(192, 10_000.0);
        assert_eq!((read.rotary_emb_base, read.rope_scaling, divisor), (base, None, 1.0));
    }

    #[test]
    fn scaled_positions_are_read_in_both_forms() {
        let linear = Some(RopeScaling { rope_type: RopeKind::Linear, factor: 2.0 });
        let of = |key: &str, table: Value| {
            let mut config = pythia();
            config[key] = table;
            read(&config).unwrap().stack.rope_scaling
        };
        assert_eq!(of("rope_scaling", json!({"type": "linear", "factor": 2.0})), linear);
        assert_eq!(of("rope_scaling", json!({"rope_type": "linear", "factor": 2})), linear);
        assert_eq!(of("rope_scaling", Value::Null), None);
        assert_eq!(of("rope_parameters", json!({"rope_type": "linear", "factor": 2.0})), linear);
        let ntk = json!({"rope_type": "ntk", "factor": 2.0});
        assert_eq!(of("rope_scaling", ntk).unwrap().rope_type, RopeKind::Ntk);
    }

    #[test]
    fn models_that_differ_are_refused_with_the_key() {
        for (key, value) in [
            ("model_type", json!("llama")),
            ("hidden_act", json!("gelu_new")),
            ("tie_word_embeddings", json!(true)),
            ("attention_bias", json!(false)),
            ("rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
            ("rope_scaling", json!({"type": "linear"})),
            ("rope_scaling", json!({"type": 3, "factor": 2.0})),
            ("rope_scaling", json!(2.0)),
            ("rope_parameters", json!({"rope_type": "yarn"})),
            ("hidden_size", Value::Null),
            ("num_hidden_layers", json!(-1)),
        ] {
            let mut config = pythia();
            config[key] = value;
            let error = read(&config).unwrap_err().to_string();
            assert!(error.contains("config.json"), "{key}: {error}");
        }
    }
}
