//! Files of tensors.

use std::io::{Cursor, Write};

use block_transformer_tensor_files::{TensorFiles, TensorSource};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::scratch::Scratch;

/// Opens a file of the folder and reads every tensor. Each tensor has as many values as its shape says, and no more
/// than `most`.
fn read_all(scratch: &Scratch, name: &str, most: impl Fn(usize) -> usize) -> bool {
    let path = scratch.path(name);
    let size = std::fs::metadata(&path).unwrap().len() as usize;
    let Some(files) = scratch.named(TensorFiles::open(&path)) else { return false };
    let mut all = true;
    for name in files.names() {
        let shape = files.shape(&name).expect("a listed tensor has a shape");
        match scratch.named(files.read(&name)) {
            None => all = false,
            Some(tensor) => {
                let tensor = tensor.expect("a listed tensor can be read");
                assert_eq!(tensor.shape, shape);
                assert_eq!(Some(tensor.values.len()), product(&shape));
                assert!(tensor.values.len() <= most(size));
            }
        }
    }
    assert!(files.read("a name that no file has").unwrap().is_none());
    all
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

/// A safetensors file.
pub(crate) fn safetensors(bytes: &[u8]) -> bool {
    let scratch = Scratch::new(&[("a.safetensors", bytes)]);
    let accepted = read_all(&scratch, "a.safetensors", |size| size);
    scratch.unchanged();
    accepted
}

/// A view can repeat elements, but not without limit.
fn most_of_pytorch(size: usize) -> usize {
    8 * size + (16 << 20)
}

/// A PyTorch file of any of its containers: zip, tar, or a plain sequence of pickles.
pub(crate) fn pytorch(bytes: &[u8]) -> bool {
    let scratch = Scratch::new(&[("a.pt", bytes)]);
    let accepted = read_all(&scratch, "a.pt", most_of_pytorch);
    scratch.unchanged();
    accepted
}

/// The pickle of a zip archive; the checksums of the archive are right.
pub(crate) fn pickle(bytes: &[u8]) -> bool {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let storage: Vec<u8> = (0..16_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    for (name, content) in [
        ("a/data.pkl", bytes),
        ("a/byteorder", b"little"),
        ("a/data/0", &storage),
        ("a/data/1", &storage[..8]),
        ("a/version", b"3\n"),
    ] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(content).unwrap();
    }
    let archive = zip.finish().unwrap().into_inner();
    let scratch = Scratch::new(&[("a.pt", &archive)]);
    let accepted = read_all(&scratch, "a.pt", most_of_pytorch);
    scratch.unchanged();
    accepted
}

/// A safetensors file with one tensor of two values.
fn shard(tensor: &str) -> Vec<u8> {
    let header = format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// An index of shards. Its folder has two shards, and a link to a third that lies outside.
pub(crate) fn shard_index(bytes: &[u8]) -> bool {
    let outside = Scratch::new(&[("secret.safetensors", &shard("c"))]);
    let mut scratch = Scratch::new(&[
        ("one.safetensors", &shard("a")),
        ("two.safetensors", &shard("b")),
        ("model.safetensors.index.json", bytes),
    ]);
    #[cfg(unix)]
    scratch.link("link.safetensors", &outside.path("secret.safetensors"));
    let opened = TensorFiles::open(&scratch.path("model.safetensors.index.json"));
    let files = scratch.named(opened);
    if let Some(files) = &files {
        for path in files.paths() {
            let real = path.canonicalize().unwrap();
            assert_eq!(real.parent(), Some(&*scratch.dir().canonicalize().unwrap()), "{path:?}");
        }
        assert!(!files.names().iter().any(|name| name == "c"));
    }
    let all = |files: TensorFiles| files.names().iter().all(|name| files.read(name).is_ok());
    let accepted = files.is_some_and(all);
    scratch.unchanged();
    accepted
}
