//! Safetensors files.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use block_transformer_family::{FloatFormat, PublishedNames};
use block_transformer_files::{FileError, NewFile};
use burn::module::Module;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype as Stored, SafeTensorError, SafeTensors, View};

use crate::error::WeightsError;
use crate::tensor::{HostTensor, HostTensors};
use crate::visit::{Source, load, published_tensors};

/// Loads a published file of f32, f16 or bf16 tensors into `model`, as f32. Returns the model, and the
/// tensors that it does not use.
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

/// Writes `model` under its published names. `unused` holds the published tensors that the model
/// does not use, as returned by an import. Tensors missing from it are written as zeros, because
/// strict loaders require them.
///
/// # Errors
/// When the file cannot be written.
pub fn export<M: Module>(
    model: &M,
    names: &dyn PublishedNames,
    unused: &HostTensors,
    format: FloatFormat,
    path: &Path,
) -> Result<(), WeightsError> {
    let mut tensors = published_tensors(model, names, Source::Values);
    for (name, shape) in names.unused() {
        let zeros = || HostTensor { values: vec![0.0; shape.iter().product()], shape };
        let tensor = unused.get(&name).cloned().unwrap_or_else(zeros);
        tensors.insert(name, tensor);
    }
    write_tensors(&tensors, format, path)
}

/// Returns every tensor of a safetensors file as f32.
///
/// # Errors
/// When the file cannot be read, or holds a tensor of an unsupported format.
pub fn read_tensors(path: &Path) -> Result<HostTensors, WeightsError> {
    let file = File::open(path).map_err(FileError::read(path))?;
    // SAFETY: the map is read here and dropped; a file that changes in the meantime is a damaged
    // input.
    let map = unsafe { Mmap::map(&file) }.map_err(FileError::read(path))?;
    let file = SafeTensors::deserialize(&map).map_err(|error| format_error(path, error))?;
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
            other => {
                let reason = format!("tensor {name} has the unsupported format {other:?}");
                return Err(format_error(path, reason));
            }
        };
        tensors.insert(name, HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

fn format_error(path: &Path, reason: impl ToString) -> WeightsError {
    WeightsError::Format { path: path.into(), reason: reason.to_string() }
}

fn floats<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Writes `tensors` in `format` to a file that is complete or absent.
///
/// # Errors
/// When the file cannot be written; the previous file is then unchanged.
pub fn write_tensors(
    tensors: &HostTensors,
    format: FloatFormat,
    path: &Path,
) -> Result<(), WeightsError> {
    let views = tensors.iter().map(|(name, tensor)| (name, Converted { tensor, format }));
    // the transformers library requires the framework that the file is meant for
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let file = NewFile::create(path)?;
    safetensors::serialize_to_file(views, Some(metadata), file.temporary_path()).map_err(
        |error| match error {
            SafeTensorError::IoError(source) => FileError::write(path)(source).into(),
            error => format_error(path, error),
        },
    )?;
    Ok(file.commit()?)
}

/// A tensor that is converted while it is written.
struct Converted<'a> {
    tensor: &'a HostTensor,
    format: FloatFormat,
}

impl View for Converted<'_> {
    fn dtype(&self) -> Stored {
        match self.format {
            FloatFormat::F32 => Stored::F32,
            FloatFormat::F16 => Stored::F16,
            FloatFormat::Bf16 => Stored::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = &self.tensor.values;
        Cow::Owned(match self.format {
            FloatFormat::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            FloatFormat::F16 => {
                values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
            }
            FloatFormat::Bf16 => {
                values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
            }
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.values.len() * self.format.bytes()
    }
}
