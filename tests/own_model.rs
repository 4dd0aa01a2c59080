//! A model with its own shape, given in the file of `--config`.

use crate::support::{fails, succeeds, with_text};

const CONFIG: &str = r#"
preset = "debug-block"
corpus = "text.txt"
out = "run"
steps = 4
context = 32
batch = 2
tokenizer = "bytes"

[model]
vocab_size = 512
block_length = 2
max_position_embeddings = 64
embedder = { cls = "lookup", hidden_size = 24, projection_method = "concat" }
block_decoder = { hidden_size = 48, num_hidden_layers = 1, num_attention_heads = 3 }
token_decoder = { cls = "gpt-neo-x", decoding_strategy = "prefix", expansion_ratio = 2, hidden_size = 48, num_hidden_layers = 1, num_attention_heads = 2 }
"#;

#[test]
fn a_model_of_the_users_own_shape_trains_resumes_generates_and_exports() {
    let dir = with_text();
    let dir = dir.path();
    std::fs::write(dir.join("own.toml"), CONFIG).unwrap();
    let printed = succeeds(dir, "train --config own.toml --print-config");
    assert!(printed.contains("block_length = 2"), "{printed}");
    std::fs::write(dir.join("printed.toml"), &printed).unwrap();
    assert_eq!(succeeds(dir, "train --config printed.toml --print-config"), printed);
    // a flag overrides the file; a preset that a flag names overrides the model in the file
    let other = "train --config own.toml --preset debug-vanilla --print-config";
    assert!(!succeeds(dir, other).contains("block_length"));

    let text = succeeds(dir, "train --config own.toml");
    assert!(text.contains("own.toml: [model]: vocab_size 512 does not apply"), "{text}");
    assert!(text.contains("the model has 320"), "{text}");
    succeeds(dir, "train --config own.toml --resume --keep 2");
    succeeds(dir, "export --checkpoint run --out own.safetensors");
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    assert!(config.contains("\"block_length\": 2"), "{config}");
    succeeds(dir, "generate --checkpoint run --prompt line --max-tokens 4");

    let changed = CONFIG.replace("num_attention_heads = 3", "num_attention_heads = 2");
    std::fs::write(dir.join("changed.toml"), changed).unwrap();
    let key = "model.block_decoder.num_attention_heads";
    fails(dir, "train --config changed.toml --resume", &["changed.toml: ", key, "--config out"]);
    fails(dir, "train --config own.toml --resume --lr 1", &["--lr 1", "leave the flag out"]);
    let misspelt = CONFIG.replace("block_length", "blok_length");
    std::fs::write(dir.join("misspelt.toml"), misspelt).unwrap();
    let says = ["misspelt.toml:12: model.blok_length", "`block_length`"];
    fails(dir, "train --config misspelt.toml --print-config", &says);
    std::fs::write(dir.join("misspelt.toml"), CONFIG.replace("block_decoder", "blok_decoder"))
        .unwrap();
    let says = ["misspelt.toml:15: model.blok_decoder", "`block_decoder`"];
    fails(dir, "train --config misspelt.toml --print-config", &says);
}
