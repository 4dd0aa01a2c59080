#![no_main]

use block_transformer_fuzz_bodies::{allow_caught_panics, run};

libfuzzer_sys::fuzz_target!(init: allow_caught_panics(), |bytes: &[u8]| {
    run("pytorch", bytes);
});
