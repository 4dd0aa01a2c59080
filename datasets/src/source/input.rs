//! Opening files of documents, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block_transformer_files::FileError;

use crate::error::DatasetError;

/// Bytes of the buffer in front of a file.
const BUFFER: usize = 256 << 10;

/// Unpacked bytes after which the ratio to the packed bytes is checked.
const UNPACKED: u64 = 64 << 20;

/// The largest ratio of unpacked to packed bytes. Text stays far below it, also logs and tables;
/// it is exceeded by files made to fill a disk.
const MAX_RATIO: u64 = 250;

/// The base-2 logarithm of the largest window of a zstd frame, and so of its memory: 128 MiB, the
/// limit of the program `zstd` without `--long`.
const MAX_WINDOW_LOG: u32 = 27;

/// How the bytes of a file are compressed. The extension of its name decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What the unpacked bytes of a file are. The extension of its name decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Jsonl,
    Parquet,
}

/// Returns the format and the compression of the file called `path`. Everything that is not known
/// is plain text.
pub(super) fn kind(path: &Path) -> (Format, Compression) {
    let extension = |path: &Path| path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    let (inner, compression) = match extension(path).as_deref() {
        Some("gz") => (path.with_extension(""), Compression::Gzip),
        Some("zst" | "zstd") => (path.with_extension(""), Compression::Zstd),
        _ => (path.into(), Compression::None),
    };
    let format = match extension(&inner).as_deref() {
        Some("jsonl" | "ndjson") => Format::Jsonl,
        // published corpora call compressed JSONL so; a plain `.json` file is text, as it always was
        Some("json") if compression != Compression::None => Format::Jsonl,
        Some("parquet") if compression == Compression::None => Format::Parquet,
        _ => Format::Text,
    };
    (format, compression)
}

/// The bytes of files that were read so far, packed as they are on the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The unpacked bytes of a file.
pub(super) type Input = Box<dyn BufRead + Send>;

/// Opens the file at `path` and unpacks it while it is read. Adds to `read`.
pub(super) fn open(
    path: &Path,
    compression: Compression,
    read: &BytesRead,
) -> Result<Input, DatasetError> {
    let file = File::open(path).map_err(FileError::read(path))?;
    let own = BytesRead::default();
    let counted = Counted { file, own: own.clone(), all: read.clone() };
    let raw = BufReader::with_capacity(BUFFER, counted);
    Ok(match compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => unpacked(flate2::bufread::MultiGzDecoder::new(raw), own),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw);
            let mut decoder = decoder.map_err(FileError::read(path))?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(FileError::read(path))?;
            unpacked(decoder, own)
        }
    })
}

fn unpacked(inner: impl Read + Send + 'static, packed: BytesRead) -> Input {
    Box::new(BufReader::with_capacity(BUFFER, Limited { inner, packed, unpacked: 0 }))
}

/// A file whose bytes are counted.
struct Counted {
    file: File,
    own: BytesRead,
    all: BytesRead,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.own.add(read as u64);
        self.all.add(read as u64);
        Ok(read)
    }
}

/// A decoder whose output is limited to [`MAX_RATIO`] times its input.
struct Limited<R> {
    inner: R,
    packed: BytesRead,
    unpacked: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.unpacked += read as u64;
        if self.unpacked > UNPACKED && self.unpacked / MAX_RATIO > self.packed.get() {
            let reason = format!(
                "it unpacks to more than {MAX_RATIO} times its size, which text does not; unpack it \
                 and give the unpacked file if it is meant so"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_the_format() {
        for (name, format, compression) in [
            ("a.txt", Format::Text, Compression::None),
            ("a", Format::Text, Compression::None),
            ("a.json", Format::Text, Compression::None),
            ("a.gz", Format::Text, Compression::Gzip),
            ("a.md.zst", Format::Text, Compression::Zstd),
            ("a.jsonl", Format::Jsonl, Compression::None),
            ("00.JSONL.ZST", Format::Jsonl, Compression::Zstd),
            ("c4-train.00000-of-01024.json.gz", Format::Jsonl, Compression::Gzip),
            ("train-00000-of-00001.parquet", Format::Parquet, Compression::None),
        ] {
            assert_eq!(kind(Path::new(name)), (format, compression), "{name}");
        }
    }
}
