use super::text::MAX_DOCUMENT;
use super::*;
use ::parquet::basic::Compression as ParquetCodec;
use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use std::sync::Arc;

pub(super) fn read(name: &str, content: &[u8]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let source = DocumentSource::open(dir.path()).unwrap();
    source.documents().collect::<Result<_, _>>().map_err(|e| e.to_string())
}

#[test]
fn text_files_split_at_separators_and_keep_every_byte() {
    let docs = read("a.txt", b"one\n\ntwo\n<|endoftext|>\nthree").unwrap();
    assert_eq!(docs, ["one\n\ntwo\n", "three"]);
    let long = "word word word word\n\n".repeat(200_000);
    let docs = read("a.txt", long.as_bytes()).unwrap();
    assert_eq!(docs.len(), 5);
    assert_eq!(docs.concat(), long);
}

#[test]
fn errors_name_the_line_or_the_byte() {
    let docs = read("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n").unwrap();
    assert_eq!(docs, ["x", "y"]);
    let cases: [(&str, &[u8], &str); 3] = [
        ("a.jsonl", b"{\"text\": \"x\"}\n{\"txt\": 1}\n", "a.jsonl:2: column"),
        ("a.jsonl", b"{\"text\": \"x\"}\n{\"text\": \"\xFF\"}\n", "invalid UTF-8 at byte 24"),
        ("b.txt", b"abc\xFFdef", "b.txt: invalid UTF-8 at byte 3"),
    ];
    for (name, content, expected) in cases {
        let error = read(name, content).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn only_large_files_are_divided_without_separators() {
    for word in ["wörd ", "日本語"] {
        let long = word.repeat((9 << 20) / word.len());
        let docs = read("a.txt", long.as_bytes()).unwrap();
        assert!(docs.len() >= 2 && docs.iter().all(|doc| doc.len() <= MAX_DOCUMENT));
        assert_eq!(docs.concat(), long);
    }
    let small = "line\n\n".repeat(500_000);
    assert_eq!(read("a.txt", small.as_bytes()).unwrap().len(), 1);
}

#[test]
fn each_of_the_given_files_is_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    let text = "one\n<|endoftext|>\ntwo\n\n".repeat(300_000);
    std::fs::write(&path, &text).unwrap();
    let source = DocumentSource::from_files(vec![path.clone(), path]);
    let docs: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
    assert_eq!(docs, [text.clone(), text]);
}

#[test]
fn folders_are_read_in_order_without_hidden_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("b/.git")).unwrap();
    for (name, text) in [("c.txt", "3"), ("b/x.txt", "2"), ("a.txt", "1"), ("b/.git/y", "no")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let source = DocumentSource::open(dir.path()).unwrap();
    let docs: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
    assert_eq!(docs, ["1", "2", "3"]);
}

/// Compresses with gzip.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compresses with zstd.
pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A Parquet file with the columns `id` and `text`, with `rows` per row group.
pub(super) fn parquet(texts: &[Option<&str>], rows: usize, compression: ParquetCodec) -> Vec<u8> {
    let message = "message rows { required int32 id; optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for texts in texts.chunks(rows) {
        let mut group = file.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i32> = (0..texts.len() as i32).collect();
        ids.typed::<Int32Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        let values: Vec<ByteArray> = texts.iter().flatten().map(|&text| text.into()).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    file.into_inner().unwrap()
}

#[test]
fn compressed_files_have_the_documents_of_plain_ones() {
    let small = b"one\n\ntwo\n<|endoftext|>\nthree".to_vec();
    let large = "word word word word\n\n".repeat(300_000).into_bytes();
    let lines =
        b"{\"text\": \"x\", \"meta\": {\"a\": [1]}}\n\n{\"meta\": 1, \"text\": \"y\"}\n".to_vec();
    for (name, bytes) in [("a.txt", small), ("b.txt", large), ("c.jsonl", lines)] {
        let plain = read(name, &bytes).unwrap();
        assert_eq!(read(&format!("{name}.gz"), &gzip(&bytes)).unwrap(), plain, "{name}");
        assert_eq!(read(&format!("{name}.zst"), &zstd(&bytes)).unwrap(), plain, "{name}");
        // files of several members and frames
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let two = |pack: fn(&[u8]) -> Vec<u8>| [pack(first), pack(second)].concat();
        assert_eq!(read(&format!("{name}.gz"), &two(gzip)).unwrap(), plain, "{name}");
        assert_eq!(read(&format!("{name}.zst"), &two(zstd)).unwrap(), plain, "{name}");
    }
}

#[test]
fn a_parquet_file_has_a_document_per_value() {
    let texts = [Some("one"), None, Some("two"), Some(" "), Some("three"), Some("日本")];
    let level = ::parquet::basic::GzipLevel::default();
    for codec in [
        ParquetCodec::UNCOMPRESSED,
        ParquetCodec::SNAPPY,
        ParquetCodec::GZIP(level),
        ParquetCodec::ZSTD(::parquet::basic::ZstdLevel::default()),
    ] {
        for rows in [1, 4, 100] {
            let docs = read("a.parquet", &parquet(&texts, rows, codec)).unwrap();
            assert_eq!(docs, ["one", "two", "three", "日本"]);
        }
    }
    let many: Vec<String> = (0..3000).map(|i| format!("document {i} {}", "x".repeat(i))).collect();
    let texts: Vec<Option<&str>> = many.iter().map(|text| Some(&**text)).collect();
    assert_eq!(read("a.parquet", &parquet(&texts, 700, ParquetCodec::SNAPPY)).unwrap(), many);
}

#[test]
fn the_key_of_the_text_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, key: &str, bytes: &[u8]| -> Result<Vec<String>, String> {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let options = ReadOptions { text_key: key.into(), ..ReadOptions::default() };
        let source = DocumentSource::open(&path).unwrap().with_options(options);
        source.documents().collect::<Result<_, _>>().map_err(|e| e.to_string())
    };
    let line = b"{\"text\": \"no\", \"b\\u006fdy\": \"yes\"}";
    assert_eq!(read("a.jsonl", "body", line).unwrap(), ["yes"]);
    let error = read("a.jsonl", "content", line).unwrap_err();
    assert!(error.contains("a.jsonl:1") && error.contains("\"content\""), "{error}");
    let file = parquet(&[Some("x")], 1, ParquetCodec::UNCOMPRESSED);
    let error = read("a.parquet", "content", &file).unwrap_err();
    assert!(
        error.contains("a.parquet: there is no column `content`; the columns are id, text"),
        "{error}"
    );
    let error = read("a.parquet", "id", &file).unwrap_err();
    assert!(error.contains("`id` does not hold one string per row"), "{error}");
}

#[test]
fn patterns_are_read_in_the_order_of_paths() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("x/y")).unwrap();
    for (name, text) in
        [("c.txt", "3"), ("x/b.txt", "2"), ("x/y/a.txt", "1"), (".d.txt", "no"), ("e.md", "5")]
    {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let pattern = |tail: &str| dir.path().join(tail).display().to_string();
    let read = |patterns: &[String]| -> Result<Vec<String>, String> {
        let source = DocumentSource::open_all(patterns).map_err(|e| e.to_string())?;
        source.documents().collect::<Result<_, _>>().map_err(|e| e.to_string())
    };
    assert_eq!(read(&[pattern("*.txt")]).unwrap(), ["3"]);
    assert_eq!(read(&[pattern("**/*.txt")]).unwrap(), ["3", "2", "1"]);
    assert_eq!(
        read(&[pattern("*.md"), pattern("x/[ab].txt"), pattern("c.txt")]).unwrap(),
        ["5", "2", "3"]
    );
    // a file whose name is a pattern is a file
    std::fs::write(dir.path().join("[c].txt"), "6").unwrap();
    assert_eq!(read(&[pattern("[c].txt")]).unwrap(), ["6"]);
    let error = read(&[pattern("*.pdf")]).unwrap_err();
    assert!(error.contains("*.pdf: it matches no file"), "{error}");
    let error = read(&[pattern("[z")]).unwrap_err();
    assert!(error.contains("[z: "), "{error}");
    let error = read(&[pattern("lost.txt")]).unwrap_err();
    assert!(error.contains("lost.txt"), "{error}");
}

#[test]
fn reading_continues_at_every_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.jsonl"), "{\"text\": \"1\"}\n\n{\"text\": \"2\"}\n").unwrap();
    std::fs::write(dir.path().join("b.txt"), "3\n<|endoftext|>\n \n<|endoftext|>\n4").unwrap();
    let file = parquet(&[Some("5"), None, Some("6")], 2, ParquetCodec::SNAPPY);
    std::fs::write(dir.path().join("c.parquet"), file).unwrap();
    let source = DocumentSource::open(dir.path()).unwrap();
    let read = BytesRead::default();
    let all: Vec<(Position, String)> = source
        .documents_from(Position::default(), read.clone())
        .map(|(place, text)| (place, text.unwrap()))
        .collect();
    assert_eq!(all.len(), 6);
    let parquet = std::fs::metadata(dir.path().join("c.parquet")).unwrap().len();
    let bytes = source.bytes().unwrap();
    assert!(read.get() <= bytes && read.get() > bytes - parquet, "{} of {bytes}", read.get());
    for (i, (place, _)) in all.iter().enumerate() {
        let rest: Vec<_> = source
            .documents_from(*place, BytesRead::default())
            .map(|(place, text)| (place, text.unwrap()))
            .collect();
        assert_eq!(rest, all[i + 1..], "{place:?}");
    }
}
