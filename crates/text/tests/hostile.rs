//! Tokenizers of hostile authors.

use std::path::Path;
use std::time::{Duration, Instant};

use block_transformer_text::{TextError, Tokenizer};

/// The longest time for a file or a text here; all are read in much less.
const MOST: Duration = Duration::from_secs(20);

/// A tokenizer of words whose texts are split at the matches of `regex`.
fn split(regex: &str) -> String {
    let regex = regex.replace('\\', r"\\");
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{{"type":"Split","pattern":{{"Regex":"{regex}"}},"behavior":"Isolated","invert":false}},"post_processor":null,"decoder":null,"model":{{"type":"WordLevel","vocab":{{"<|endoftext|>":0,"<|padding|>":1}},"unk_token":"<|padding|>"}}}}"#
    )
}

fn load(dir: &Path, json: &str) -> Result<Tokenizer, TextError> {
    let path = dir.join("tokenizer.json");
    std::fs::write(&path, json).unwrap();
    Tokenizer::load(&path)
}

#[test]
fn a_regex_that_backtracks_without_end_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let text = "a".repeat(10_000);
    for regex in [
        r"(?=(a+)+$)(a|a)*b",
        r"(a*)*\1b",
        r"(?:(?=a)a|aa)+b",
        r"(a|a)*(?!.)c",
        r"(?<=(a|b))(a+)+\2c",
    ] {
        let began = Instant::now();
        if let Ok(tokenizer) = load(dir.path(), &split(regex)) {
            // an error, or the ids of the text without a split
            if let Ok(ids) = tokenizer.encode(&text) {
                assert!(!ids.is_empty() && ids.len() <= text.len());
            }
        }
        assert!(began.elapsed() < MOST, "{regex}: {:?}", began.elapsed());
    }
}

#[test]
fn a_regex_of_huge_repetitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for regex in [
        r"(a{1000}){1000}",
        r"((a{1000}){1000}){1000}",
        r"(?=b)((a{1000}){1000}){1000}",
        r"a{4294967295}",
        r"\w{1000000}",
        r"(((((((((a{10}){10}){10}){10}){10}){10}){10}){10}){10}){10}",
    ] {
        let began = Instant::now();
        let error = load(dir.path(), &split(regex)).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json is not a"), "{error}");
        assert!(began.elapsed() < MOST, "{regex}: {:?}", began.elapsed());
    }
    for regex in
        ["(".repeat(100_000), "(?:".repeat(100_000), "[".repeat(100_000), "a|".repeat(100_000)]
    {
        let began = Instant::now();
        // the last one is a valid regex
        let _ = load(dir.path(), &split(&regex));
        assert!(began.elapsed() < MOST, "{:?}", began.elapsed());
    }
}

#[test]
fn a_panic_of_the_library_is_an_error_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    // the library unwraps the result of parsing a decoder
    let json = split("a").replace(r#""decoder":null"#, r#""decoder":aaa"#);
    std::panic::set_hook(Box::new(|_| assert!(block_transformer_files::is_caught_as_damage())));
    let result = load(dir.path(), &json);
    let _ = std::panic::take_hook();
    assert!(result.unwrap_err().to_string().contains("tokenizer.json is not a"));
}

#[test]
fn ids_that_are_absurd_or_ambiguous_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let padding = r#""<|padding|>":1"#;
    for (id, says) in
        [(4_294_967_295_u32, "at most 16777216"), (1 << 25, "at most"), (1, "same id 1")]
    {
        let json = split("a").replace(padding, &format!(r#"{padding},"word":{id}"#));
        let began = Instant::now();
        let error = load(dir.path(), &json).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(says), "{error}");
        assert!(began.elapsed() < MOST);
    }
}

#[test]
fn a_file_of_gigabytes_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::File::create(&path).unwrap().set_len(8 << 30).unwrap();
    let began = Instant::now();
    let error = Tokenizer::load(&path).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert!(source.is_some_and(|s| s.ends_with("at most 268435456 are read")), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(1));
}
