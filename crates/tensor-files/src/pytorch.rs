//! PyTorch files. The pickle in them is parsed as data; nothing is executed.

use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};

use crate::error::TensorFileError;
use crate::source::HostTensor;
use crate::values::Stored;

const KIND: &str = "PyTorch file";

/// Keys under which training programs store the weights.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// An opened PyTorch file.
#[derive(Debug)]
pub(crate) struct PytorchFile {
    path: PathBuf,
    reader: PytorchReader,
    /// Prefix of the names of all tensors, from a key under which the weights are stored; not part of the names
    /// outside.
    prefix: String,
}

impl PytorchFile {
    pub(crate) fn open(path: &Path) -> Result<Self, TensorFileError> {
        let reader = PytorchReader::new(path).map_err(|error| match error {
            PytorchError::Io(source) => FileError::read(path)(source).into(),
            error => TensorFileError::format(path, KIND, error),
        })?;
        if reader.is_empty() {
            return Err(TensorFileError::format(path, KIND, "it contains no tensor"));
        }
        let mut prefixes = WRAPPERS.map(|key| format!("{key}.")).into_iter();
        let all = |prefix: &String| reader.tensors().keys().all(|name| name.starts_with(prefix));
        let prefix = prefixes.find(all).unwrap_or_default();
        Ok(Self { path: path.into(), reader, prefix })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.reader.keys().into_iter();
        names.map(|name| name[self.prefix.len()..].to_string()).collect()
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.reader.get(&format!("{}{name}", self.prefix))
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.tensor(name)?.shape())
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<HostTensor>, TensorFileError> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        let Some(stored) = stored(tensor.dtype()) else {
            let reason = format!("tensor {name} has the unsupported format {:?}", tensor.dtype());
            return Err(TensorFileError::format(&self.path, KIND, reason));
        };
        let bytes = tensor.read().map_err(FileError::read(&self.path))?;
        let mut values = Vec::with_capacity(bytes.len() / stored.bytes());
        stored.append(&bytes, &mut values);
        Ok(Some(HostTensor { shape: tensor.shape().to_vec(), values }))
    }
}

fn stored(format: DType) -> Option<Stored> {
    // the reader gives values in the machine's own byte order
    const { assert!(cfg!(target_endian = "little")) };
    Some(match format {
        DType::F64 => Stored::F64,
        DType::F32 => Stored::F32,
        DType::F16 => Stored::F16,
        DType::BF16 => Stored::Bf16,
        DType::I64 => Stored::I64,
        DType::I32 => Stored::I32,
        DType::U8 | DType::Bool => Stored::U8,
        DType::I16 | DType::I8 | DType::U64 | DType::U32 | DType::U16 => return None,
    })
}
