//! Block Transformers ([arXiv 2406.02657](https://arxiv.org/abs/2406.02657)) and GPT-NeoX on
//! [burn].
//!
//! This crate re-exports the parts of the project. A feature chooses the backend: `flex` and
//! `ndarray` compute on the CPU, `cuda` and `wgpu` on GPUs, `cubecl-cpu` on the CPU with CubeCL. None
//! is on by default, and every function that computes takes a [`Device`](burn::tensor::Device).
//!
//! | module | contents | feature |
//! |---|---|---|
//! | [`zoo`] | [`LanguageModel`], [`ModelConfig`], [`presets`] | |
//! | [`family`] | the traits that a model implements, batches, [`Precision`] | |
//! | [`checkpoint`] | [`Checkpoint`](checkpoint::Checkpoint): a model with its tokenizer on the disk | |
//! | [`generation`] | [`Engine`](generation::Engine), sampling, streaming text | |
//! | [`text`] | [`Tokenizer`](text::Tokenizer) | |
//! | [`weights`] | import and export of published weights | |
//! | [`device`] | [`DeviceName`](device::DeviceName): devices by name | |
//! | [`layers`] | the layers of the models | |
//! | `training` | `Trainer` for single steps, `TrainingRun` for a whole run | `train` |
//! | `evaluation` | scores of tasks and of long documents | `evaluate` |
//! | `exchange` | published weights by name, the hub, configurations and folders of `transformers` | `exchange` |
//! | `datasets` | corpora, token files, training windows | `datasets` |
//!
//! The folder `examples` shows how to generate from a checkpoint, compute logits and the loss, decode
//! many prompts together, write a training loop, and use burn's own trainer.

pub use burn;

pub use block_transformer_checkpoint as checkpoint;
pub use block_transformer_device as device;
pub use block_transformer_family as family;
pub use block_transformer_generation as generation;
pub use block_transformer_layers as layers;
pub use block_transformer_text as text;
pub use block_transformer_weights as weights;
pub use block_transformer_zoo as zoo;

#[cfg(feature = "datasets")]
pub use block_transformer_datasets as datasets;
#[cfg(feature = "evaluate")]
pub use block_transformer_evaluation as evaluation;
#[cfg(feature = "exchange")]
pub use block_transformer_exchange as exchange;
#[cfg(feature = "train")]
pub use block_transformer_training as training;

pub use family::{Family, FamilyConfig, PaddingMask, Precision, TokenBatch};
pub use zoo::{LanguageModel, ModelConfig, Preset, preset, presets};
