//! Corpora and tokenizers.

use std::io::Write;
use std::sync::Arc;

use block_transformer_text::Tokenizer;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    [token_files(), megatron(), corpora(), documents(), tokenizers()].concat()
}

/// A token file without checksums; the body adds them.
fn tokens(width: u32, counts: [u64; 2], ids: &[u8], ends: &[u64]) -> Vec<u8> {
    let mut bytes = b"ZOOTOK\r\n".to_vec();
    bytes.extend([1, width, 300, 7].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(counts.iter().flat_map(|n| n.to_le_bytes()));
    bytes.resize(64, 0);
    bytes.extend(ids);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(ends.iter().flat_map(|n| n.to_le_bytes()));
    bytes
}

fn token_files() -> Vec<Seed> {
    let two = [5, 0, 6, 0, 7, 0, 8, 0, 43, 1];
    let four = [5, 0, 0, 0, 6, 0, 0, 0, 43, 1, 0, 0];
    let of = |name, bytes| ("token_file", name, bytes);
    vec![
        of("good-two-bytes", tokens(2, [5, 3], &two, &[3, 3, 5])),
        of("good-four-bytes", tokens(4, [3, 1], &four, &[3])),
        of("good-empty", tokens(2, [0, 0], &[], &[])),
        of("bad-width", tokens(3, [5, 3], &two, &[3, 3, 5])),
        of("bad-order", tokens(2, [5, 3], &two, &[5, 3, 5])),
        of("bad-end", tokens(2, [5, 3], &two, &[3, 3, u64::MAX])),
        of("bad-tokens", tokens(2, [u64::MAX, 3], &two, &[3, 3, 5])),
        of("bad-documents", tokens(2, [5, u64::MAX / 8], &two, &[3, 3, 5])),
        of("bad-id", tokens(2, [1, 1], &[0xFF, 0xFF], &[1])),
        of("bad-cut", tokens(2, [5, 3], &two, &[3, 3, 5])[..70].to_vec()),
    ]
}

fn megatron() -> Vec<Seed> {
    let pair = |kind: u8, counts: [u64; 2], lengths: &[u32], offsets: &[u64], bounds: &[u64]| {
        let mut index = b"MMIDIDX\0\0".to_vec();
        index.extend(1_u64.to_le_bytes());
        index.push(kind);
        index.extend(counts.iter().flat_map(|n| n.to_le_bytes()));
        index.extend(lengths.iter().flat_map(|n| n.to_le_bytes()));
        index.extend(offsets.iter().chain(bounds).flat_map(|n| n.to_le_bytes()));
        let ids = [10, 0, 11, 0, 0, 0, 12, 0, 0, 0];
        [&(index.len() as u16).to_le_bytes()[..], &index, &ids].concat()
    };
    let of = |name, bytes| ("megatron", name, bytes);
    vec![
        of("good", pair(8, [2, 3], &[3, 2], &[0, 6], &[0, 1, 2])),
        of("good-i32", pair(4, [1, 2], &[2], &[0], &[0, 1])),
        of("good-empty", pair(8, [0, 1], &[], &[], &[0])),
        of("bad-offset", pair(8, [2, 3], &[3, 2], &[0, 7], &[0, 1, 2])),
        of("bad-negative-offset", pair(8, [1, 2], &[3], &[u64::MAX - 1], &[0, 1])),
        of("bad-length", pair(8, [1, 2], &[u32::MAX], &[0], &[0, 1])),
        of("bad-bound", pair(8, [2, 3], &[3, 2], &[0, 6], &[0, 9, 2])),
        of("bad-counts", pair(8, [u64::MAX / 12, u64::MAX / 8], &[3], &[0], &[0])),
        of("bad-sum", pair(8, [1 << 60, 1 << 60], &[3], &[0], &[0])),
        of("bad-type", pair(6, [1, 2], &[2], &[0], &[0, 1])),
    ]
}

fn corpora() -> Vec<Seed> {
    let corpus = |train: &str, more: &str| {
        format!(
            r#"{{"name": "a", "tokenizer": 7, "frequency_loss": 1.5, "train": {train}, "validation": {{"documents": 1, "tokens": 1, "bytes": 2}}{more}}}"#
        )
        .into_bytes()
    };
    let good = r#"{"documents": 2, "tokens": 5, "bytes": 9}"#;
    let pair = r#", "megatron": {"path": "/dev/null", "validation": 0.1}"#;
    let infinite = r#"{"documents": 18446744073709551615, "tokens": 1e400, "bytes": 9}"#;
    let shard = |file: &str, tokens: u64, bytes: u64| {
        format!(r#"{{"file": "{file}", "documents": 1, "tokens": {tokens}, "bytes": {bytes}}}"#)
    };
    let index = |train: &[String], version: u32| {
        let train = train.join(", ");
        format!(r#"{{"version": {version}, "train": [{train}], "validation": []}}"#).into_bytes()
    };
    let (one, two) = (shard("one.tok", 3, 80), shard("two.tok", 2, 80));
    let mut seeds = vec![
        ("corpus", "good", corpus(good, "")),
        ("corpus", "good-order", corpus(good, r#", "order": "streamed""#)),
        ("corpus", "bad-count", corpus(r#"{"documents": 3, "tokens": 5, "bytes": 9}"#, "")),
        ("corpus", "bad-number", corpus(infinite, "")),
        ("corpus", "bad-pair", corpus(good, pair)),
        ("corpus", "bad-sharded", corpus(good, r#", "sharded": true"#)),
        ("corpus", "bad-type", b"[]".to_vec()),
        ("corpus_index", "good", index(&[one.clone(), two.clone()], 1)),
        ("corpus_index", "bad-version", index(&[one.clone(), two.clone()], 2)),
        ("corpus_index", "bad-size", index(&[one.clone(), shard("two.tok", 2, 81)], 1)),
        ("corpus_index", "bad-tokens", index(&[one.clone(), shard("two.tok", u64::MAX, 80)], 1)),
    ];
    for (name, file) in [
        ("bad-parent", "../two.tok"),
        ("bad-root", "/dev/zero"),
        ("bad-link", "link.tok"),
        ("bad-folder", "."),
        ("bad-other", "corpus.json"),
    ] {
        seeds.push(("corpus_index", name, index(&[one.clone(), shard(file, 2, 80)], 1)));
    }
    seeds
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 19).unwrap()
}

fn parquet(texts: &[&str], codec: Compression) -> Vec<u8> {
    let schema = parse_message_type("message rows { optional binary text (UTF8); }").unwrap();
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), properties).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|&text| text.into()).collect();
    let levels = vec![1; texts.len()];
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.into_inner().unwrap()
}

fn documents() -> Vec<Seed> {
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let (text, lines) =
        ("one\n\ntwo\n<|endoftext|>\nthree\n", "{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n");
    let spaces = vec![b' '; 2 << 20];
    let mut window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(30).unwrap();
    window.long_distance_matching(true).unwrap();
    window.write_all(text.as_bytes()).unwrap();
    let table = parquet(&["one", "two", "three"], Compression::UNCOMPRESSED);
    let mut footer = table.clone();
    let at = footer.len() - 8;
    footer[at..at + 4].fill(0xFF);
    let packed = parquet(&["one", "two", "three"], Compression::SNAPPY);
    let of = |name, bytes| ("documents", name, bytes);
    vec![
        of("good-text", with(0, text.as_bytes())),
        of("good-jsonl", with(1, lines.as_bytes())),
        of("good-text-gzip", with(2, &gzip(text.as_bytes()))),
        of("good-jsonl-gzip", with(3, &gzip(lines.as_bytes()))),
        of("good-text-zstd", with(4, &zstd_of(text.as_bytes()))),
        of("good-jsonl-zstd", with(5, &zstd_of(lines.as_bytes()))),
        of("good-parquet", with(6, &table)),
        of("good-parquet-snappy", with(6, &packed)),
        of("bad-utf-8", with(0, b"abc\xFFdef")),
        of("bad-line", with(1, b"{\"txt\": 1}\n")),
        of("bad-depth", with(1, "[".repeat(10_000).as_bytes())),
        of("bad-gzip-bomb", with(3, &gzip(&spaces))),
        of("bad-zstd-bomb", with(5, &zstd_of(&spaces))),
        of("bad-zstd-window", with(4, &window.finish().unwrap())),
        of("bad-gzip-cut", with(2, &gzip(text.as_bytes())[..20])),
        of("bad-parquet-footer", with(6, &footer)),
        of("bad-parquet-cut", with(6, &table[..table.len() - 20])),
    ]
}

fn tokenizers() -> Vec<Seed> {
    let texts = ["the end of the rock, round and round the rock.\n".repeat(9)];
    let bpe = Tokenizer::train_bpe(texts.into_iter(), 270).unwrap().to_json().unwrap();
    let words = |pre: &str, vocabulary: &str| {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{pre},"post_processor":null,"decoder":null,"model":{{"type":"WordLevel","vocab":{{"<|endoftext|>":0,"<|padding|>":1{vocabulary}}},"unk_token":"<|padding|>"}}}}"#
        )
        .into_bytes()
    };
    let split = |regex: &str| {
        let pattern = format!(
            r#"{{"type":"Split","pattern":{{"Regex":"{regex}"}},"behavior":"Isolated","invert":false}}"#
        );
        words(&pattern, r#","a":2"#)
    };
    let unigram = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true},"post_processor":null,"decoder":null,"model":{"type":"Unigram","unk_id":1,"vocab":[["<|endoftext|>",0.0],["<|padding|>",0.0],["a",-1.0],["_a",-2.0]],"byte_fallback":false}}"#;
    let of = |name, bytes: Vec<u8>| ("tokenizer", name, bytes);
    vec![
        of("good-bytes", b"{\n  \"type\": \"bytes\",\n  \"version\": 1\n}\n".to_vec()),
        of("good-bpe", bpe.into_bytes()),
        of("good-words", words("null", r#","a":2"#)),
        of("good-unigram", unigram.into()),
        of("good-split", split(r"\\s+(?!\\S)|\\w+")),
        of("any-backtracking", split(r"(?=(a+)+$)(a|a)*b")),
        of("any-backtracking-reference", split(r"(a*)*\\1b")),
        of("any-repetition", split(r"(?:a{100}){100}")),
        of("bad-repetition", split(r"((a{1000}){1000}){1000}")),
        of("bad-open", split("(((")),
        of("bad-high-id", words("null", r#","a":4294967295"#)),
        of("bad-ids", words("null", r#","b":-1"#)),
        of("bad-special", br#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{},"unk_token":"a"}}"#.to_vec()),
        of("bad-depth", "[".repeat(10_000).into_bytes()),
    ]
}
