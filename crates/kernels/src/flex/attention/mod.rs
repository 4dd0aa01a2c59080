//! Rotary self-attention from the fused projection: over whole sequences with a derivative, and
//! over a KV cache without one.

mod cached;
mod head;
mod loops;
mod per_head;
mod products;
mod self_attention;
#[cfg(test)]
mod tests;
mod tiles;
mod view;

pub(crate) use cached::cached_attention;
pub(crate) use self_attention::self_attention;
