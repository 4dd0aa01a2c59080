//! Decoding: sampling, stop conditions, streaming text.
