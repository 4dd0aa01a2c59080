//! Published parameter names of the GPT-NeoX family.

use block_transformer_family::{PublishedNames, rename};

use crate::config::GptNeoXConfig;

const NAMES: &[(&str, &str)] = &[("stack", "gpt_neox"), ("embed_in", "gpt_neox.embed_in")];

impl PublishedNames for GptNeoXConfig {
    fn published_names(&self, path: &str) -> Vec<String> {
        vec![rename(path, NAMES)]
    }
}
