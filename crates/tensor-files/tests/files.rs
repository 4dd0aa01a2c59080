//! Real files: shards, PyTorch files, and damaged and hostile ones.

use std::path::{Path, PathBuf};

use block_transformer_tensor_files::{TensorFileError, TensorFiles, TensorSource};
use tempfile::TempDir;

/// A safetensors file with one f32 tensor of shape `[2]` per name.
fn safetensors(path: &Path, names: &[&str]) {
    let header: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let (first, end) = (8 * i, 8 * i + 8);
            format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{first},{end}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", header.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    for i in 0..names.len() {
        bytes.extend((i as f32).to_le_bytes());
        bytes.extend((i as f32 + 0.5).to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

/// Two shards and an index of them.
fn sharded() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    safetensors(&dir.path().join("one.safetensors"), &["a", "b"]);
    safetensors(&dir.path().join("two.safetensors"), &["c"]);
    let index = dir.path().join("model.safetensors.index.json");
    write_index(&index, &[("a", "one"), ("b", "one"), ("c", "two")]);
    (dir, index)
}

fn write_index(path: &Path, map: &[(&str, &str)]) {
    let entries: Vec<_> =
        map.iter().map(|(tensor, file)| format!(r#""{tensor}":"{file}.safetensors""#)).collect();
    let entries = entries.join(",");
    std::fs::write(
        path,
        format!(r#"{{"metadata":{{"total_size":24}},"weight_map":{{{entries}}}}}"#),
    )
    .unwrap();
}

fn refused(path: &Path) -> String {
    let error: TensorFileError = TensorFiles::open(path).unwrap_err();
    std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(|error| error.to_string() + " ")
        .collect()
}

#[test]
fn shards_are_read_through_their_index() {
    let (_dir, index) = sharded();
    let files = TensorFiles::open(&index).unwrap();
    assert_eq!(files.names(), ["a", "b", "c"]);
    assert_eq!(files.paths().len(), 2);
    let all = files.read_all().unwrap();
    assert_eq!(
        (all["b"].values.clone(), all["c"].values.clone()),
        (vec![1.0, 1.5], vec![0.0, 0.5])
    );
    assert!(files.read("d").unwrap().is_none());
}

#[test]
fn an_index_must_agree_with_its_files_and_stay_in_its_folder() {
    let (dir, index) = sharded();
    for (map, says) in [
        (&[("a", "one"), ("c", "two")][..], "does not list the tensor b"),
        (&[("a", "one"), ("b", "one"), ("c", "two"), ("d", "two")], "lists the tensor d"),
        (&[("a", "one"), ("b", "two"), ("c", "two")], "does not list the tensor b of one"),
        (&[("a", "none")], "cannot read"),
        (&[("a", "../one")], "not a plain file name"),
        (&[("a", "/etc/one")], "not a plain file name"),
        (&[("a", "x/../one")], "not a plain file name"),
        (&[("a", "./one")], "not a plain file name"),
        (&[], "`weight_map` is empty"),
    ] {
        write_index(&index, map);
        let error = refused(&index);
        assert!(error.contains(says) && error.contains(dir.path().to_str().unwrap()), "{error}");
    }
    for json in ["", "{", "[]", r#"{"weight_map": 3}"#, r#"{"weight_map": {"a": 1}}"#] {
        std::fs::write(&index, json).unwrap();
        assert!(refused(&index).contains("index of shards"), "{json}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_refused_except_into_the_cache_of_the_hub() {
    let (dir, index) = sharded();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("secret.safetensors");
    safetensors(&target, &["a"]);
    std::os::unix::fs::symlink(&target, dir.path().join("link.safetensors")).unwrap();
    write_index(&index, &[("a", "link")]);
    assert!(refused(&index).contains("a link that leads out of the folder"));
    // the layout of the hub's cache
    let snapshot = dir.path().join("models--a--b/snapshots/0123");
    let blobs = dir.path().join("models--a--b/blobs");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(&blobs).unwrap();
    safetensors(&blobs.join("ffff"), &["a"]);
    std::os::unix::fs::symlink("../../blobs/ffff", snapshot.join("link.safetensors")).unwrap();
    let index = snapshot.join("model.safetensors.index.json");
    write_index(&index, &[("a", "link")]);
    assert_eq!(TensorFiles::open(&index).unwrap().names(), ["a"]);
}

#[test]
fn safetensors_with_impossible_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    let with = |length: u64, header: &str, data: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        std::fs::write(&path, bytes).unwrap();
        refused(&path)
    };
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let of = |header: String, data: usize| with(header.len() as u64, &header, data);
    for error in [
        with(u64::MAX, "{}", 0),
        with(1 << 40, "{}", 0),
        with(200, "{}", 0),
        with(2, "{]", 0),
        of(tensor("[2]", "[0,4]"), 8),
        of(tensor("[2]", "[0,8]"), 4),
        of(tensor("[2]", "[8,0]"), 8),
        of(tensor("[4611686018427387904,4611686018427387904]", "[0,8]"), 8),
        of(tensor("[-1]", "[0,8]"), 8),
        // two tensors that overlap
        of(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#
                .to_string(),
            12,
        ),
    ] {
        assert!(error.contains("bad.safetensors is not a readable safetensors file"), "{error}");
    }
    std::fs::write(&path, [1, 2, 3]).unwrap();
    assert!(refused(&path).contains("ends before its header"));
    let other = dir.path().join("weights.txt");
    std::fs::write(&other, "x").unwrap();
    assert!(refused(&other).contains("the name does not say which format"));
}

#[test]
fn a_pickle_that_wants_to_run_code_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let touched = dir.path().join("touched");
    let path = dir.path().join("evil.pt");
    let command = format!("touch {}", touched.display());
    let call = format!("cposix\nsystem\n(S'{command}'\ntR.");
    let nested = format!("(dS'weight'\ncposix\nsystem\n(S'{command}'\ntRs.");
    for pickle in [call, nested] {
        std::fs::write(&path, &pickle).unwrap();
        let error = refused(&path);
        assert!(error.contains("evil.pt is not a readable PyTorch file"), "{error}");
        assert!(!touched.exists());
    }
    for bytes in [&b""[..], b"PK\x03\x04", b"\x80\x02.", b"\x80\x02}q\0."] {
        std::fs::write(&path, bytes).unwrap();
        assert!(refused(&path).contains("evil.pt"), "{bytes:?}");
    }
}

#[test]
fn a_file_of_torch_save_has_the_values_of_its_safetensors() {
    let fixture = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        TensorFiles::open(&folder.join(name)).unwrap()
    };
    let expected = fixture("mixed.safetensors").read_all().unwrap();
    assert!(expected.len() > 3);
    for name in ["mixed.pt", "mixed_wrapped.bin", "mixed_legacy.pt"] {
        assert_eq!(fixture(name).read_all().unwrap(), expected, "{name}");
    }
}
