//! Writes the seeds of the fuzz targets to `fuzz/seeds`. Names that begin with `good` are accepted by their readers, and
//! names that begin with `bad` are refused.

mod configs;
mod corpora;
mod tensors;

use std::path::Path;

/// The bytes of a seed of the body with the first name; the second is that of the file.
type Seed = (&'static str, &'static str, Vec<u8>);

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (body, name, bytes) in [tensors::seeds(), corpora::seeds(), configs::seeds()].concat() {
        let folder = folder.join(body);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
