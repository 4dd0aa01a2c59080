//! The registry of model families.

use block_transformer_family::{
    BlockDecoding, CacheRoom, Continuations, Family, FamilyConfig, InvalidConfig, PublishedNames,
    Registration, Stacks, TokenBatch,
};
use block_transformer_gpt_neox::GptNeoX;
use block_transformer_model::BlockTransformer;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Declares [`ModelConfig`] and [`LanguageModel`] with a variant per family, and implements the
/// family traits for them by delegation.
///
/// A family gives its model type and its [`Registration`].
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident($model:ident), $registration:expr;)+) => {
        /// Configuration of a [`LanguageModel`] of any family. Its JSON is that of the published
        /// configurations.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "a program holds few configurations")]
        #[non_exhaustive]
        pub enum ModelConfig {
            $($(#[$doc])* $variant(<$model as Family>::Config),)+
        }

        /// A language model of any family.
        #[derive(Module, Debug)]
        #[expect(clippy::large_enum_variant, reason = "one model lives at a time")]
        #[non_exhaustive]
        pub enum LanguageModel {
            $($(#[$doc])* $variant($model),)+
        }

        /// The registration of every family.
        pub(crate) const REGISTRATIONS: &[Registration] = &[$($registration,)+];

        impl ModelConfig {
            /// Reads a table of the family with the key `key`.
            pub(crate) fn deserialize_family(
                key: &str,
                table: &Value,
            ) -> Result<Self, serde_json::Error> {
                $(if key == $registration.key {
                    return Deserialize::deserialize(table).map(Self::$variant);
                })+
                unreachable!("the key is that of a registered family")
            }
        }

        impl FamilyConfig for ModelConfig {
            fn family(&self) -> &'static str {
                match self { $(Self::$variant(config) => config.family(),)+ }
            }

            fn with_vocab_size(self, vocab_size: usize) -> Self {
                match self {
                    $(Self::$variant(config) => Self::$variant(config.with_vocab_size(vocab_size)),)+
                }
            }

            fn max_position_embeddings(&self) -> usize {
                match self { $(Self::$variant(config) => config.max_position_embeddings(),)+ }
            }

            fn check(&self) -> Result<(), InvalidConfig> {
                match self { $(Self::$variant(config) => config.check(),)+ }
            }

            fn num_params(&self) -> usize {
                match self { $(Self::$variant(config) => config.num_params(),)+ }
            }

            fn num_params_non_embedding(&self) -> usize {
                match self { $(Self::$variant(config) => config.num_params_non_embedding(),)+ }
            }

            fn stacks(&self) -> Stacks {
                match self { $(Self::$variant(config) => config.stacks(),)+ }
            }
        }

        /// Parameter paths are those of a [`LanguageModel`]: they start with its variant.
        impl PublishedNames for ModelConfig {
            fn published_names(&self, path: &str) -> Vec<String> {
                let path = inside(path);
                match self { $(Self::$variant(config) => config.published_names(path),)+ }
            }

            fn conv_kernel(&self, path: &str) -> usize {
                let path = inside(path);
                match self { $(Self::$variant(config) => config.conv_kernel(path),)+ }
            }

            fn unused(&self) -> Vec<(String, Vec<usize>)> {
                match self { $(Self::$variant(config) => config.unused(),)+ }
            }
        }

        /// `path` without the variant of [`LanguageModel`] that it may start with.
        fn inside(path: &str) -> &str {
            $(if let Some(path) = path.strip_prefix(concat!(stringify!($variant), ".")) {
                return path;
            })+
            path
        }

        impl Family for LanguageModel {
            type Config = ModelConfig;

            fn init(config: &ModelConfig, seed: u64, device: &Device) -> Self {
                match config {
                    $(ModelConfig::$variant(config) => {
                        Self::$variant(Family::init(config, seed, device))
                    })+
                }
            }

            fn config(&self) -> ModelConfig {
                match self { $(Self::$variant(model) => ModelConfig::$variant(model.config()),)+ }
            }

            fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
                match self { $(Self::$variant(model) => model.hidden(batch),)+ }
            }

            fn head(&self) -> Tensor<2> {
                match self { $(Self::$variant(model) => model.head(),)+ }
            }

            fn continuation_hidden(&self, batch: Continuations) -> Tensor<3> {
                match self { $(Self::$variant(model) => model.continuation_hidden(batch),)+ }
            }

            fn decoder(&self, room: CacheRoom, device: &Device) -> Box<dyn BlockDecoding> {
                match self { $(Self::$variant(model) => model.decoder(room, device),)+ }
            }
        }
    };
}

families! {
    /// Block Transformer.
    Block(BlockTransformer), block_transformer_model::REGISTRATION;
    /// Vanilla GPT-NeoX.
    Vanilla(GptNeoX), block_transformer_gpt_neox::REGISTRATION;
}
