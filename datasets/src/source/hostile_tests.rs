//! Files that are made to fill memory or disk, or to crash a reader.

use std::io::Write;

use ::parquet::basic::Compression as ParquetCodec;
use ::parquet::basic::ZstdLevel;

use super::tests::{gzip, parquet, read, zstd};
use super::*;

fn limited(name: &str, bytes: &[u8], max_document: u64) -> Result<Vec<usize>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let options = ReadOptions { max_document, ..ReadOptions::default() };
    let source = DocumentSource::open(&path).unwrap().with_options(options);
    let documents = source.documents().map(|text| text.map(|text| text.len()));
    documents.collect::<Result<_, _>>().map_err(|e| with_causes(&e))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_document_above_the_limit_is_refused_with_its_place() {
    let line = |bytes: usize| format!("{{\"text\": \"{}\"}}\n", "x".repeat(bytes - 13));
    let lines = format!("{}{}", line(100), line(1000));
    assert_eq!(limited("a.jsonl", lines.as_bytes(), 1000).unwrap(), [87, 987]);
    let says = "a.jsonl:2: more than 998 bytes, the limit of a document";
    assert!(limited("a.jsonl", lines.as_bytes(), 998).unwrap_err().contains(says));
    let long = "y".repeat(1000);
    let file = parquet(&[Some("x"), Some(&long)], 2, ParquetCodec::SNAPPY);
    assert_eq!(limited("a.parquet", &file, 1000).unwrap(), [1, 1000]);
    let error = limited("a.parquet", &file, 999).unwrap_err();
    assert!(error.contains("a.parquet: document 2: more than 999 bytes"), "{error}");
    let error = limited("a.txt", long.as_bytes(), 999).unwrap_err();
    assert!(error.contains("a.txt: the document at byte 0: more than 999 bytes"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("book.txt");
    std::fs::write(&path, &long).unwrap();
    let options = ReadOptions { max_document: 999, ..ReadOptions::default() };
    let source = DocumentSource::from_files(vec![path]).with_options(options);
    let error = source.documents().next().unwrap().unwrap_err().to_string();
    assert!(error.contains("book.txt: more than 999 bytes"), "{error}");
}

/// 400 MB of zeros; a line of JSON without an end is refused at the limit of a document, and a text
/// at the limit of the ratio, after some MB.
#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut frames = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..400 {
        zeros.write_all(&[b' '; 1 << 20]).unwrap();
        frames.write_all(&[b' '; 1 << 20]).unwrap();
    }
    for (extension, bytes) in [("gz", zeros.finish().unwrap()), ("zst", frames.finish().unwrap())] {
        assert!(bytes.len() < 1 << 20);
        let error = limited(&format!("a.jsonl.{extension}"), &bytes, 1 << 20).unwrap_err();
        assert!(error.contains("a.jsonl") && error.contains("more than 1048576 bytes"), "{error}");
        let error = limited(&format!("a.txt.{extension}"), &bytes, 128 << 20).unwrap_err();
        assert!(error.contains("a.txt.") && error.contains("250 times its size"), "{error}");
    }
}

#[test]
fn damaged_compressed_files_are_errors() {
    let text = "a line of text that is long enough\n".repeat(1000);
    for (name, good) in [("a.txt.gz", gzip(text.as_bytes())), ("a.txt.zst", zstd(text.as_bytes()))]
    {
        assert_eq!(read(name, &good).unwrap().concat(), text);
        for bad in [&good[..good.len() - 5], &good[1..], &text.as_bytes()[..100]] {
            let error = read(name, bad).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
    // a frame that asks for a window of 1 GiB
    let mut frames = zstd::Encoder::new(Vec::new(), 1).unwrap();
    frames.window_log(30).unwrap();
    frames.long_distance_matching(true).unwrap();
    frames.write_all(text.as_bytes()).unwrap();
    let error = limited("a.txt.zst", &frames.finish().unwrap(), 1 << 20).unwrap_err();
    assert!(error.contains("a.txt.zst") && error.to_lowercase().contains("memory"), "{error}");
}

#[test]
fn a_parquet_file_with_any_changed_byte_is_read_or_refused() {
    let texts: Vec<String> = (0..30).map(|i| format!("document {i} {}", "x".repeat(i))).collect();
    let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(&**text)).collect();
    for codec in [ParquetCodec::UNCOMPRESSED, ParquetCodec::SNAPPY] {
        let good = parquet(&texts, 16, codec);
        let (mut refused, dir) = (0, tempfile::tempdir().unwrap());
        let path = dir.path().join("a.parquet");
        for at in 0..good.len() {
            for byte in [good[at] ^ 1, good[at] ^ 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[at] = byte;
                std::fs::write(&path, bad).unwrap();
                let source = DocumentSource::open(&path).unwrap();
                let read: Result<Vec<String>, _> = source.documents().collect();
                if let Err(error) = read {
                    assert!(error.to_string().contains("a.parquet"), "{error}");
                    refused += 1;
                }
            }
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(DocumentSource::open(&path).unwrap().documents().any(|text| text.is_err()));
        }
        assert!(refused > good.len() / 2, "{refused} of {}", good.len());
    }
}

#[test]
fn a_parquet_page_that_unpacks_to_more_than_the_limit_is_refused() {
    let long = "x".repeat(66 << 20);
    let file = parquet(&[Some(&long)], 1, ParquetCodec::ZSTD(ZstdLevel::default()));
    assert!(file.len() < 1 << 20);
    let error = limited("a.parquet", &file, 1 << 10).unwrap_err();
    assert!(error.contains("a.parquet") && error.contains("the limit is"), "{error}");
    // the length of a footer beyond the file, and a file that is not Parquet
    let mut footer = file.clone();
    let at = footer.len() - 8;
    footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    for bad in [&footer[..], b"PAR1", b"text", b""] {
        let error = read("a.parquet", bad).unwrap_err();
        assert!(error.contains("a.parquet: cannot be read as Parquet"), "{error}");
    }
}
