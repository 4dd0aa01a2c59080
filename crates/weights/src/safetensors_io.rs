//! Safetensors files.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use block_transformer_family::PublishedNames;
use burn::module::Module;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype as Stored, SafeTensors, View};

use crate::{HostTensor, HostTensors, Source, WeightsError, load, published_tensors};

/// Number format of a written file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single.
    #[default]
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

/// Loads a published file of f32, f16 or bf16 tensors into `model`, as f32. Returns the model and
/// the tensors nothing computes with.
///
/// # Errors
/// When the file cannot be read, or does not hold exactly the model's parameters.
pub fn import<M: Module>(
    model: M,
    names: &dyn PublishedNames,
    path: &Path,
) -> Result<(M, HostTensors), WeightsError> {
    load(model, names, read_tensors(path)?, &path.display().to_string())
}

/// Writes `model` under its published names. `unused` holds the published tensors nothing computes
/// with, where an import found them; others are written as zeros, for strict loaders.
///
/// # Errors
/// When the file cannot be written.
pub fn export<M: Module>(
    model: &M,
    names: &dyn PublishedNames,
    unused: &HostTensors,
    dtype: Dtype,
    path: &Path,
) -> Result<(), WeightsError> {
    let mut tensors = published_tensors(model, names, &Source::Values);
    for (name, shape) in names.unused() {
        let zeros = || HostTensor { values: vec![0.0; shape.iter().product()], shape };
        let tensor = unused.get(&name).cloned().unwrap_or_else(zeros);
        tensors.insert(name, tensor);
    }
    write_tensors(&tensors, dtype, path)
}

/// Every float tensor of a safetensors file, as f32; integer and boolean tensors (buffers) come
/// with no values.
///
/// # Errors
/// When the file cannot be read.
pub fn read_tensors(path: &Path) -> Result<HostTensors, WeightsError> {
    let io = |source| WeightsError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read here and dropped; a file changed meanwhile is a broken input.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let format = |reason: String| WeightsError::Format { path: path.into(), reason };
    let file = SafeTensors::deserialize(&map).map_err(|error| format(error.to_string()))?;
    let mut tensors = HostTensors::new();
    for (name, view) in file.tensors() {
        let bytes = view.data();
        let values = match view.dtype() {
            Stored::F32 => floats::<4>(bytes, f32::from_le_bytes),
            Stored::F16 => floats::<2>(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Stored::BF16 => floats::<2>(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Stored::F64 => floats::<8>(bytes, |b| f64::from_le_bytes(b) as f32),
            Stored::I64 => floats::<8>(bytes, |b| i64::from_le_bytes(b) as f32),
            Stored::U8 | Stored::BOOL => bytes.iter().map(|&b| f32::from(b)).collect(),
            other => return Err(format(format!("{name}: no support for {other:?}"))),
        };
        tensors.insert(name, HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

fn floats<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Writes `tensors` as they are, in `dtype`, to a file beside `path` that is then renamed.
///
/// # Errors
/// When the file cannot be written; nothing is left behind.
pub fn write_tensors(tensors: &HostTensors, dtype: Dtype, path: &Path) -> Result<(), WeightsError> {
    let io = |source| WeightsError::Io { path: path.into(), source };
    let beside = path.with_extension("safetensors.partial");
    let views = tensors.iter().map(|(name, tensor)| (name, Stream { tensor, dtype }));
    // readers of transformers ask for the framework the file is meant for
    let about = [("format".to_string(), "pt".to_string())].into();
    let written = safetensors::serialize_to_file(views, Some(about), &beside);
    let written = written.map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => io(source),
        other => WeightsError::Format { path: path.into(), reason: other.to_string() },
    });
    let renamed = written.and_then(|()| {
        File::open(&beside).and_then(|file| file.sync_all()).map_err(io)?;
        std::fs::rename(&beside, path).map_err(io)
    });
    renamed.inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

/// A tensor converted as it is written.
struct Stream<'a> {
    tensor: &'a HostTensor,
    dtype: Dtype,
}

impl View for Stream<'_> {
    fn dtype(&self) -> Stored {
        match self.dtype {
            Dtype::F32 => Stored::F32,
            Dtype::F16 => Stored::F16,
            Dtype::Bf16 => Stored::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = &self.tensor.values;
        Cow::Owned(match self.dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        let size = if self.dtype == Dtype::F32 { 4 } else { 2 };
        self.tensor.values.len() * size
    }
}
