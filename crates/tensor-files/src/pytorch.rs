//! PyTorch files. The pickle in them is parsed as data; nothing is executed.

use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, open_regular};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};

use crate::error::TensorFileError;
use crate::source::HostTensor;
use crate::values::Stored;

const KIND: &str = "PyTorch file";

/// Keys under which training programs store the weights.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// The tensors of a file have at most this many times its bytes, and [`FREE`] bytes more. Tensors of `torch.save` share
/// bytes if they are views of each other, but a view can also repeat one element, and a compressed archive can repeat
/// its bytes, as often as its author likes.
const MAX_RATIO: u64 = 8;
const FREE: u64 = 16 << 20;

/// An opened PyTorch file.
#[derive(Debug)]
pub(crate) struct PytorchFile {
    path: PathBuf,
    reader: PytorchReader,
    /// Prefix of the names of the weights, from a key under which they are stored; not part of the names outside.
    /// Tensors with another name are left out.
    prefix: String,
}

impl PytorchFile {
    pub(crate) fn open(path: &Path) -> Result<Self, TensorFileError> {
        open_regular(path)?;
        let reader = PytorchReader::new(path).map_err(|error| match error {
            PytorchError::Io(source) => FileError::read(path)(source).into(),
            error => TensorFileError::format(path, KIND, error),
        })?;
        if reader.is_empty() {
            return Err(TensorFileError::format(path, KIND, "it contains no tensor"));
        }
        let size = std::fs::metadata(path).map_err(FileError::read(path))?.len();
        let most = size.saturating_mul(MAX_RATIO).saturating_add(FREE);
        let mut bytes = 0_u64;
        for (name, tensor) in reader.tensors() {
            bytes = bytes.saturating_add(bytes_of(tensor).unwrap_or(u64::MAX));
            if bytes > most {
                let reason = format!(
                    "its tensors, up to {name}, have more than {most} bytes, but the file has {size}"
                );
                return Err(TensorFileError::format(path, KIND, reason));
            }
        }
        let mut prefixes = WRAPPERS.map(|key| format!("{key}.")).into_iter();
        // beside the weights, there can be the state of an optimizer
        let has = |prefix: &String| reader.tensors().keys().any(|name| name.starts_with(prefix));
        let prefix = prefixes.find(has).unwrap_or_default();
        Ok(Self { path: path.into(), reader, prefix })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.reader.tensors().keys();
        names.filter_map(|name| name.strip_prefix(&self.prefix).map(String::from)).collect()
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

/// The bytes of a tensor; `None` if they exceed `u64`.
fn bytes_of(tensor: &Tensor) -> Option<u64> {
    let sizes = tensor.shape().iter().map(|size| *size as u64);
    let mut all = sizes.chain([tensor.dtype().size() as u64]);
    all.try_fold(1_u64, u64::checked_mul)
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
