//! Bodies of the fuzz targets, one for each reader of bytes from outside.
//!
//! A [`Body`] writes the bytes to a file of a temporary folder and reads it as the program does. It panics if
//! the reader panics, changes or adds a file, gives an error that does not name the file, or accepts what breaks
//! the promises of its format. The targets of libFuzzer in `fuzz/` and the test `mutations` of this crate run the
//! same bodies.

mod data;
#[cfg(feature = "models")]
mod models;
mod pack;
mod scratch;
mod tensors;
mod text;
mod tokens;

/// A reader of bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// The name of the target, and of the folder of its seeds in `fuzz/seeds`.
    pub name: &'static str,
    /// Reads the bytes. Returns whether they were accepted.
    pub run: fn(&[u8]) -> bool,
}

/// The bodies that do not need burn.
pub const FILES: &[Body] = &[
    Body { name: "safetensors", run: tensors::safetensors },
    Body { name: "pytorch", run: tensors::pytorch },
    Body { name: "pickle", run: tensors::pickle },
    Body { name: "shard_index", run: tensors::shard_index },
    Body { name: "model_pack", run: pack::model_pack },
    Body { name: "token_file", run: tokens::token_file },
    Body { name: "megatron", run: tokens::megatron },
    Body { name: "corpus", run: tokens::corpus },
    Body { name: "corpus_index", run: tokens::corpus_index },
    Body { name: "documents", run: data::documents },
    Body { name: "tokenizer", run: text::tokenizer },
];

/// The bodies that need burn.
#[cfg(feature = "models")]
pub const MODELS: &[Body] = &[
    Body { name: "model_config", run: models::config::model_config },
    Body { name: "hugging_face", run: models::config::hugging_face },
    Body { name: "training_yaml", run: models::config::training_yaml },
    Body { name: "train_config", run: models::config::train_config },
    Body { name: "preset", run: models::config::preset },
    Body { name: "ngrams", run: models::config::ngrams },
    Body { name: "checkpoint", run: models::checkpoint::checkpoint },
    Body { name: "task_toml", run: models::tasks::task_toml },
    Body { name: "task_lines", run: models::tasks::task_lines },
];

/// Runs the body called `name` on `bytes`, for a target of libFuzzer.
///
/// # Panics
/// If there is no such body, or the body panics.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let body = FILES.iter().find(|body| body.name == name);
    #[cfg(feature = "models")]
    let body = body.or_else(|| MODELS.iter().find(|body| body.name == name));
    (body.expect("the name of a body").run)(bytes)
}

/// Keeps the panic hook quiet about panics of libraries that the readers catch and report as damage; libFuzzer's hook
/// would end the process.
pub fn allow_caught_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !block_transformer_files::is_caught_as_damage() {
            hook(info);
        }
    }));
}
