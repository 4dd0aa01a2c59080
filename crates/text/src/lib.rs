//! Text to tokens to training windows: tokenizers, token files, packing.
