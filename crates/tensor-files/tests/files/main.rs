//! Real files: shards, PyTorch files, and damaged and hostile ones.

mod memory;

use std::io::Write;
use std::path::{Path, PathBuf};

use block_transformer_tensor_files::{TensorFileError, TensorFiles, TensorSource};
use memory::measured;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

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

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_instead_of_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.safetensors", "a.pt", "a.safetensors.index.json"] {
        let path = dir.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(refused(&path).contains("not a regular file"), "{name}");
    }
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

/// The pickle of `torch.save` for one f32 tensor `w` over the storage `0` of `elements` elements.
fn pickle(elements: u32, shape: [u32; 2], strides: [u32; 2]) -> Vec<u8> {
    let number = |n: u32| [&b"J"[..], &n.to_le_bytes()].concat();
    let pair = |[a, b]: [u32; 2]| [number(a), number(b), vec![0x86]].concat();
    [
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu".to_vec(),
        number(elements),
        b"tQK\0".to_vec(),
        pair(shape),
        pair(strides),
        b"\x89ccollections\nOrderedDict\n)RtRs.".to_vec(),
    ]
    .concat()
}

/// A PyTorch archive with deflated entries; `data` is the storage `0`, 1 MiB at a time.
fn deflated(path: &Path, pickle: &[u8], data: impl Iterator<Item = Vec<u8>>) {
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    zip.start_file("a/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    zip.start_file("a/data/0", options).unwrap();
    data.for_each(|part| zip.write_all(&part).unwrap());
    zip.finish().unwrap();
}

/// 512 MiB of zeros.
fn zeros() -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat_n(vec![0; 1 << 20], 512)
}

#[test]
fn an_archive_that_unpacks_to_much_more_than_its_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.pt");
    let all = 512 << 18;
    deflated(&path, &pickle(all, [1 << 10, 1 << 17], [1 << 17, 1]), zeros());
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 1 << 20, "{size}");
    let (error, peak) = measured(|| refused(&path));
    assert!(error.contains("bomb.pt") && error.contains("up to w, have more than"), "{error}");
    assert!(peak < 16 << 20, "{peak}");
    // a tensor that is a small part of such an entry costs no more than itself
    deflated(&path, &pickle(all, [2, 2], [2, 1]), zeros());
    let (tensor, peak) = measured(|| TensorFiles::open(&path).unwrap().read("w").unwrap());
    assert_eq!(tensor.unwrap().values, [0.0; 4]);
    assert!(peak < 16 << 20, "{peak}");
    // the pickle itself
    let entry = "N".repeat(512 << 20);
    deflated(&path, entry.as_bytes(), std::iter::empty());
    drop(entry);
    let (error, peak) = measured(|| refused(&path));
    assert!(error.contains("bomb.pt") && error.contains("limit"), "{error}");
    assert!(peak < 16 << 20, "{peak}");
}

#[test]
fn a_view_that_repeats_an_element_has_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("view.pt");
    let one = || std::iter::once(1.5_f32.to_le_bytes().to_vec());
    deflated(&path, &pickle(1, [3, 5], [0, 0]), one());
    let tensor = TensorFiles::open(&path).unwrap().read("w").unwrap().unwrap();
    assert_eq!(tensor.values, [1.5; 15]);
    for shape in [[1 << 20, 1 << 20], [i32::MAX as u32, i32::MAX as u32], [1 << 12, 1 << 11]] {
        deflated(&path, &pickle(1, shape, [0, 0]), one());
        let (error, peak) = measured(|| refused(&path));
        let limited = error.contains("bytes, but the file has") || error.contains("byte limit");
        assert!(error.contains("view.pt") && limited, "{error}");
        assert!(peak < 16 << 20, "{peak}");
    }
}

#[test]
fn an_index_of_gigabytes_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors.index.json");
    std::fs::File::create(&path).unwrap().set_len(8 << 30).unwrap();
    let (error, peak) = measured(|| refused(&path));
    assert!(error.contains("index.json") && error.contains("at most 67108864 are read"), "{error}");
    assert!(peak < 1 << 20, "{peak}");
    // a header that claims all of a large file
    let path = dir.path().join("a.safetensors");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(1_u64 << 32).to_le_bytes()).unwrap();
    file.set_len(8 << 30).unwrap();
    let (error, peak) = measured(|| refused(&path));
    assert!(error.contains("a.safetensors") && error.contains("large"), "{error}");
    assert!(peak < 1 << 20, "{peak}");
}
