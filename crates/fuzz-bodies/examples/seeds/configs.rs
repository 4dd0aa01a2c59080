//! Configurations, n-grams and files of tasks.

use super::Seed;

const VANILLA: &str = r#"{"vocab_size": 512, "max_position_embeddings": 128, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}"#;
const BLOCK: &str = r#"{"vocab_size": 512, "block_length": 4, "max_position_embeddings": 128,
"embedder": {"cls": "lookup", "hidden_size": 16, "projection_method": "concat"},
"block_decoder": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
"token_decoder": {"cls": "gpt-neo-x", "decoding_strategy": "prefix", "expansion_ratio": 2, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}}"#;
const NEOX: &str = r#"{"model_type": "gpt_neox", "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256, "max_position_embeddings": 128, "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "use_parallel_residual": true, "tie_word_embeddings": false}"#;
const YAML: &str = "block_length: 4
max_length: 128
block_split:
  distribution: fixed
embedder:
  cls: lookup
  n_embedding_tokens: 1
  projection_method: concat
  config:
    vocab_size: 512
    hidden_size: 16
block_decoder:
  cls: gpt-neo-x
  config:
    num_hidden_layers: 2
    hidden_size: 64
token_decoder:
  cls: gpt-neo-x
  expansion_ratio: 2
  decoding_strategy: prefix
  config:
    num_hidden_layers: 2
    hidden_size: 64
";
const TRAIN: &str = "format = 1\npreset = \"debug-vanilla\"\ncorpus = \"a\"\nsteps = 7\nlr = 0.5\n[model]\nvocab_size = 9\nhidden_size = 32\nnum_attention_heads = 2\nnum_hidden_layers = 1\nmax_position_embeddings = 128\n";
const PRESET: &str = "name = \"a\"\nsummary = \"b\"\ntrain = { lr = 1e-3, batch = 8, context = 128, steps = 120, warmup = 20 }\n[model]\nvocab_size = 512\nmax_position_embeddings = 128\nhidden_size = 64\nnum_hidden_layers = 4\nnum_attention_heads = 2\n";
const CHOICE: &str = "[[task]]\nname = \"mine\"\nkind = \"multiple_choice\"\ndata = \"a.jsonl\"\nprompt = \"Q: {question}\\nA:\"\nchoices = \"options\"\ngold = \"answer\"\n";
const LIKELIHOOD: &str = "[[task]]\nname = \"other\"\nkind = \"likelihood\"\ndata = \"a.jsonl\"\nprompt = \"{question} {{\"\ntarget = \" {target}\"\n";

pub(super) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |body, name, text: &str| seeds.push((body, name, text.as_bytes().to_vec()));
    let deep = "[".repeat(10_000);
    let huge = |text: &str| text.replace(": 64", ": 9223372036854775806");
    add("model_config", "good-vanilla", VANILLA);
    add("model_config", "good-block", BLOCK);
    add("model_config", "bad-size", &huge(VANILLA));
    add("model_config", "bad-block-size", &huge(BLOCK));
    add("model_config", "bad-layers", &VANILLA.replace(": 4,", ": 18446744073709551615,"));
    add("model_config", "bad-zero", &VANILLA.replace("heads\": 2", "heads\": 0"));
    add("model_config", "bad-key", &VANILLA.replace("vocab", "vocap"));
    add("model_config", "bad-depth", &deep);
    add("hugging_face", "good-neox", NEOX);
    add("hugging_face", "good-vanilla", VANILLA);
    add("hugging_face", "bad-size", &huge(NEOX));
    add("hugging_face", "bad-type", &NEOX.replace("gpt_neox", "llama"));
    add("hugging_face", "bad-epsilon", &NEOX.replace("1e-5", "1e400"));
    add("hugging_face", "bad-depth", &deep);
    add("training_yaml", "good", YAML);
    add("training_yaml", "bad-size", &huge(YAML));
    add("training_yaml", "bad-depth", &deep);
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let (here, before) = (format!("a{i}"), format!("*a{}, ", i - 1).repeat(8));
        aliases += &format!("{here}: &{here} [{before}]\n");
    }
    add("training_yaml", "bad-aliases", &aliases);
    add("train_config", "good", TRAIN);
    add("train_config", "good-preset", "preset = \"debug-block\"\ncorpus = \"a\"\n");
    add("train_config", "bad-number", &TRAIN.replace("steps = 7", "steps = 99999999999999999999"));
    add("train_config", "bad-format", &TRAIN.replace("format = 1", "format = 99"));
    add("train_config", "bad-rate", &TRAIN.replace("0.5", "nan"));
    add("train_config", "bad-size", &TRAIN.replace("= 32", "= 9223372036854775806"));
    add("train_config", "bad-depth", &format!("a = {deep}"));
    add("preset", "good", PRESET);
    add("preset", "bad-size", &PRESET.replace("= 64", "= 9223372036854775806"));
    add("preset", "bad-key", &PRESET.replace("summary", "sumary"));
    add(
        "ngrams",
        "good",
        r#"{"tokenizer": 7, "three": [[1, 2, 3, 4], [1, 2, 2, 9]], "two": [[1, 2, 3]]}"#,
    );
    add("ngrams", "bad-id", r#"{"tokenizer": 7, "three": [[1, 2, 3, 4294967296]], "two": []}"#);
    add("ngrams", "bad-length", r#"{"tokenizer": 7, "three": [[1, 2]], "two": []}"#);
    add("ngrams", "bad-depth", &deep);
    add("task_toml", "good", &format!("{CHOICE}{LIKELIHOOD}"));
    add("task_toml", "bad-choices", &CHOICE.replace("\"options\"", "[\"a\"]"));
    add("task_toml", "bad-brace", &LIKELIHOOD.replace("{{", "{"));
    add("task_toml", "any-path", &CHOICE.replace("a.jsonl", "/dev/zero"));
    add("task_toml", "bad-name", &CHOICE.replace("mine", "../mine"));
    add("task_toml", "bad-depth", &format!("a = {deep}"));
    for (name, line) in [
        (
            "good-hellaswag",
            "\u{0}{\"activity_label\": \"A\", \"ctx_a\": \"a\", \"ctx_b\": \"b\", \"endings\": [\"c\", \"d\", \"e\", \"f\"], \"label\": 1}\n",
        ),
        (
            "good-piqa",
            "\u{1}{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}\n",
        ),
        (
            "good-arc",
            "\u{2}{\"question\": {\"stem\": \"a\", \"choices\": [{\"text\": \"b\", \"label\": \"A\"}, {\"text\": \"c\", \"label\": \"B\"}]}, \"answerKey\": \"B\"}\n",
        ),
        ("good-lambada", "\u{3}{\"text\": \"a b c\"}\n"),
        ("good-wikitext", "\u{4} = A = \n \n a b c . \n \n"),
        (
            "good-winogrande",
            "\u{5}{\"sentence\": \"a _ b\", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"2\"}\n",
        ),
        (
            "good-sciq",
            "\u{6}[{\"question\": \"a\", \"distractor1\": \"b\", \"distractor2\": \"c\", \"distractor3\": \"d\", \"correct_answer\": \"e\", \"support\": \"f\"}]",
        ),
        (
            "bad-label",
            "\u{0}{\"activity_label\": \"A\", \"ctx_a\": \"a\", \"ctx_b\": \"b\", \"endings\": [\"c\"], \"label\": 18446744073709551615}\n",
        ),
        (
            "bad-blank",
            "\u{5}{\"sentence\": \"a b\", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"2\"}\n",
        ),
        ("bad-sciq", "\u{6}[{}]"),
    ] {
        add("task_lines", name, line);
    }
    add("task_lines", "bad-depth", &format!("\u{6}{deep}"));
    seeds
}
