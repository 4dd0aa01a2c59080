//! Safetensors files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, open_regular};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};

use crate::error::TensorFileError;
use crate::source::HostTensor;
use crate::values::Stored;

const KIND: &str = "safetensors file";

/// Bytes that are read and converted at a time.
const CHUNK: usize = 1 << 20;

/// An opened safetensors file.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    metadata: Metadata,
    /// Offset of the first value, in bytes.
    start: u64,
}

impl SafetensorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self, TensorFileError> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(FileError::read(path))?.len();
        if length < 8 {
            return Err(TensorFileError::format(path, KIND, "the file ends before its header"));
        }
        // SAFETY: only the header is read, and the map is dropped here; a file that changes in the
        // meantime is a damaged input. Values are read without a map, so that they do not count as memory.
        let map = unsafe { Mmap::map(&file) }.map_err(FileError::read(path))?;
        let read = SafeTensors::read_metadata(&map);
        let (header, metadata) = read.map_err(|e| TensorFileError::format(path, KIND, e))?;
        Ok(Self { path: path.into(), metadata, start: (header + 8) as u64 })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.metadata.info(name)?.shape)
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<HostTensor>, TensorFileError> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        let Some(stored) = stored(info.dtype) else {
            let reason = format!("tensor {name} has the unsupported format {:?}", info.dtype);
            return Err(TensorFileError::format(&self.path, KIND, reason));
        };
        let (first, end) = info.data_offsets;
        let values = self.values(stored, self.start + first as u64, end - first);
        let values = values.map_err(FileError::read(&self.path))?;
        Ok(Some(HostTensor { shape: info.shape.clone(), values }))
    }

    fn values(&self, stored: Stored, start: u64, bytes: usize) -> io::Result<Vec<f32>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut values = Vec::with_capacity(bytes / stored.bytes());
        let mut chunk = vec![0; CHUNK.min(bytes)];
        let mut left = bytes;
        while left > 0 {
            let chunk = &mut chunk[..left.min(CHUNK)];
            file.read_exact(chunk)?;
            stored.append(chunk, &mut values);
            left -= chunk.len();
        }
        Ok(values)
    }
}

fn stored(format: Dtype) -> Option<Stored> {
    Some(match format {
        Dtype::F64 => Stored::F64,
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::Bf16,
        Dtype::I64 => Stored::I64,
        Dtype::I32 => Stored::I32,
        Dtype::U8 | Dtype::BOOL => Stored::U8,
        _ => return None,
    })
}
