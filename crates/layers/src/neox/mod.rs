//! The GPT-NeoX decoder stack: partial rotary embedding, fused query-key-value projection, parallel
//! or sequential residual (Black et al., arXiv 2204.06745).

mod config;
mod layer;
mod rope_scaling;
mod stack;

pub use config::NeoXConfig;
pub use layer::{NeoXAttention, NeoXLayer, NeoXMlp};
pub use rope_scaling::{RopeKind, RopeScaling};
pub use stack::NeoXStack;
