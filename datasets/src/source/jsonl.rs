//! Documents of a JSONL file.

use std::fmt;
use std::io::{BufRead, Read};
use std::path::PathBuf;

use block_transformer_files::FileError;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};

use super::ReadOptions;
use super::input::Input;
use super::text::utf8;
use crate::error::DatasetError;

/// Reads the text of each line: the value of the key `options.text_key`. It is empty for a blank
/// line.
pub(super) struct JsonlReader {
    path: PathBuf,
    input: Input,
    options: ReadOptions,
    /// Lines read.
    lines: u64,
    /// Bytes read.
    offset: u64,
    done: bool,
}

impl JsonlReader {
    pub(super) fn new(path: PathBuf, input: Input, options: ReadOptions) -> Self {
        Self { path, input, options, lines: 0, offset: 0, done: false }
    }

    fn read(&mut self) -> Result<Option<String>, DatasetError> {
        let (mut bytes, limit) = (Vec::new(), self.options.max_document);
        // one byte more than the limit, to notice a longer line without reading it
        let read = self.input.by_ref().take(limit.saturating_add(1)).read_until(b'\n', &mut bytes);
        let read = read.map_err(FileError::read(&self.path))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let place = format!("{}:{}", self.path.display(), self.lines);
        if bytes.len() as u64 > limit {
            return Err(DatasetError::LongDocument { place, limit });
        }
        let line = utf8(&self.path, self.offset, bytes)?;
        self.offset += read;
        if line.trim().is_empty() {
            return Ok(Some(String::new()));
        }
        self.text(&line).map(Some).map_err(|e| {
            // the message ends with a position; its line is always 1, because each line is parsed
            // alone
            let message = e.to_string();
            let cause = message.split(" at line ").next().unwrap_or_default();
            let key = &self.options.text_key;
            let need = format!("each line must be an object with a \"{key}\"");
            let reason = format!("column {}: {cause}; {need}", e.column());
            DatasetError::InvalidFile { place, reason }
        })
    }

    fn text(&self, line: &str) -> Result<String, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(line);
        let text = TextOf(&self.options.text_key).deserialize(&mut json)?;
        json.end()?;
        Ok(text)
    }
}

impl Iterator for JsonlReader {
    type Item = Result<String, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let text = self.read().transpose();
        self.done = !matches!(text, Some(Ok(_)));
        text
    }
}

/// Deserializes an object to the string under one of its keys.
struct TextOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for TextOf<'_> {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<String, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextOf<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut text = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if text.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{}`", self.0)));
            }
        }
        text.ok_or_else(|| A::Error::custom(format!("missing field `{}`", self.0)))
    }
}
