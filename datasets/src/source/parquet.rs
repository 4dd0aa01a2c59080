//! Documents of a Parquet file: the values of one column of strings.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use block_transformer_files::FileError;
use bytes::Bytes;

use super::ReadOptions;
use super::caught::caught;
use super::input::BytesRead;
use super::text::utf8;
use crate::error::DatasetError;

/// Values that are decoded together.
const VALUES: usize = 32;

/// Bytes of a page besides its longest document.
const PAGE: u64 = 64 << 20;

/// Bytes of the largest description of the columns and row groups of a file.
const MAX_METADATA: u64 = 256 << 20;

/// Bytes at the end of a file: the length of the description, and `PAR1`.
const FOOTER: u64 = 8;

/// Reads the documents of a Parquet file, without those that are null.
pub(super) struct ParquetReader {
    path: PathBuf,
    file: SerializedFileReader<Chunks>,
    options: ReadOptions,
    read: BytesRead,
    /// The index of the column of documents.
    column: usize,
    /// Row groups that were opened.
    groups: usize,
    /// The values of the current row group that are not decoded yet.
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Values that are decoded, in reverse order.
    values: Vec<ByteArray>,
    /// Documents returned.
    documents: u64,
    done: bool,
}

impl ParquetReader {
    pub(super) fn new(
        path: PathBuf,
        options: ReadOptions,
        read: &BytesRead,
    ) -> Result<Self, DatasetError> {
        let file = File::open(&path).map_err(FileError::read(&path))?;
        let page = options.max_document.saturating_add(PAGE);
        let file = caught(|| SerializedFileReader::new(Chunks { file, page }));
        let file = file.map_err(|e| unreadable(&path, &e))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let column = schema.columns().iter().position(|c| c.path().string() == options.text_key);
        let Some(column) = column else {
            let columns: Vec<_> = schema.columns().iter().map(|c| c.path().string()).collect();
            let (column, columns) = (options.text_key, columns.join(", "));
            return Err(DatasetError::NoColumn { path, column, columns });
        };
        let described = schema.column(column);
        if described.physical_type() != Type::BYTE_ARRAY || described.max_rep_level() > 0 {
            let column = &options.text_key;
            let reason = format!("the column `{column}` does not hold one string per row");
            return Err(DatasetError::invalid(&path, reason));
        }
        let (reader, values, read) = (None, Vec::new(), read.clone());
        let (groups, documents) = (0, 0);
        Ok(Self {
            path,
            file,
            options,
            read,
            column,
            groups,
            reader,
            values,
            documents,
            done: false,
        })
    }

    fn read(&mut self) -> Result<Option<String>, DatasetError> {
        while self.values.is_empty() {
            let decoded = caught(|| self.decode());
            if !decoded.map_err(|e| unreadable(&self.path, &e))? {
                return Ok(None);
            }
        }
        let Some(value) = self.values.pop() else { return Ok(None) };
        self.documents += 1;
        let place = || format!("{}: document {}", self.path.display(), self.documents);
        if value.len() as u64 > self.options.max_document {
            let limit = self.options.max_document;
            return Err(DatasetError::LongDocument { place: place(), limit });
        }
        utf8(&self.path, 0, value.data().to_vec()).map(Some).map_err(|_| {
            let reason = "invalid UTF-8".into();
            DatasetError::InvalidFile { place: place(), reason }
        })
    }

    /// Decodes some values of the current row group, or opens the next one. Returns `false` if
    /// there is none.
    fn decode(&mut self) -> ParquetResult<bool> {
        if let Some(reader) = &mut self.reader {
            let mut levels = Vec::new();
            let records = reader.read_records(VALUES, Some(&mut levels), None, &mut self.values)?.0;
            self.values.reverse();
            if records > 0 {
                return Ok(true);
            }
            self.reader = None;
        }
        let metadata = self.file.metadata();
        if self.groups == metadata.num_row_groups() {
            return Ok(false);
        }
        let group = metadata.row_group(self.groups);
        // the other columns of the row group are not read, but they are done as well
        self.read.add(u64::try_from(group.compressed_size()).unwrap_or(0));
        let reader = self.file.get_row_group(self.groups)?.get_column_reader(self.column)?;
        self.groups += 1;
        let ColumnReader::ByteArrayColumnReader(reader) = reader else {
            return Err(ParquetError::General("a row group has another type of column".into()));
        };
        self.reader = Some(reader);
        Ok(true)
    }
}

impl Iterator for ParquetReader {
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

fn unreadable(path: &Path, error: &ParquetError) -> DatasetError {
    let error = error.to_string();
    let error = error.strip_prefix("Parquet error: ").unwrap_or(&error);
    DatasetError::invalid(path, format!("cannot be read as Parquet: {error}"))
}

/// The bytes of a file, for a reader that allocates what the headers of pages say. Each header is
/// checked first.
struct Chunks {
    file: File,
    /// The largest page, in bytes.
    page: u64,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<File>;

    /// The reader asks in this way for headers of pages, and for the last bytes of the file.
    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        if start == self.len().saturating_sub(FOOTER) {
            return self.file.get_read(start);
        }
        let mut header = Vec::new();
        self.file.get_read(start)?.take(HEADER).read_to_end(&mut header)?;
        let too_large = page_sizes(&header)?.into_iter().find(|&size| size > self.page);
        if let Some(size) = too_large {
            return Err(ParquetError::General(format!(
                "a page at byte {start} has {size} bytes; the limit is {}",
                self.page
            )));
        }
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let limit = self.page.max(MAX_METADATA).min(self.len().saturating_sub(start));
        if length as u64 > limit {
            let reason = format!("a part at byte {start} has {length} bytes; the limit is {limit}");
            return Err(ParquetError::General(reason));
        }
        self.file.get_bytes(start, length)
    }
}

/// Upper bound on the bytes of the first three fields of the header of a page.
const HEADER: u64 = 18;

/// Reads the uncompressed and the compressed size from the start of the header of a page, in
/// Thrift's compact protocol: the fields 1 (type), 2 and 3 (sizes) are of the type i32.
fn page_sizes(header: &[u8]) -> ParquetResult<[u64; 2]> {
    let damaged = || ParquetError::General("a header of a page is damaged".into());
    let mut bytes = header.iter();
    let mut field = || -> Option<u64> {
        // the number of the field is one more than the last one, and its type is i32
        if *bytes.next()? != 0x15 {
            return None;
        }
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = *bytes.next()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                // zigzag: even values are positive
                return (value % 2 == 0).then_some(value / 2);
            }
        }
        None
    };
    let fields = [field(), field(), field()];
    match fields {
        [Some(_), Some(uncompressed), Some(compressed)] => Ok([uncompressed, compressed]),
        _ => Err(damaged()),
    }
}
