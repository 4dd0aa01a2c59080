//! Safetensors files.

use std::borrow::Cow;
use std::path::Path;

use block_transformer_family::{FloatFormat, PublishedNames};
use block_transformer_files::{FileError, NewFile};
use block_transformer_tensor_files::{HostTensor, HostTensors, TensorFiles, TensorSource};
use burn::module::Module;
use half::{bf16, f16};
use safetensors::{Dtype as Stored, SafeTensorError, View};

use crate::error::WeightsError;
use crate::visit::{Parameter, Source, load, parameters};

/// Loads a published file, or the files of an index, into `model`, as f32, one tensor after the other: see
/// [`TensorFiles::open`]. Returns the model, and the tensors that it does not use.
///
/// # Errors
/// When a file cannot be read, or does not hold exactly the model's parameters.
pub fn import<M: Module>(
    model: M,
    names: &dyn PublishedNames,
    path: &Path,
) -> Result<(M, HostTensors), WeightsError> {
    load(model, names, &TensorFiles::open(path)?, &path.display().to_string())
}

/// Writes `model` under its published names, one tensor after the other. `unused` holds the published tensors
/// that the model does not use, as returned by an import. Tensors missing from it are written as zeros,
/// because strict loaders require them.
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
    let parameters = parameters(model, names, Source::Values).into_iter();
    let used = parameters.map(|(name, parameter)| (name, Written::Parameter(parameter)));
    let unused = names.unused().into_iter().map(|(name, shape)| {
        let tensor = unused.get(&name).map_or(Written::Zeros(shape), Written::Tensor);
        (name, tensor)
    });
    write(used.chain(unused), format, path)
}

/// Reads every tensor of a file as f32.
///
/// # Errors
/// When the file cannot be read, or holds a tensor of an unsupported format.
pub fn read_tensors(path: &Path) -> Result<HostTensors, WeightsError> {
    Ok(TensorFiles::open(path)?.read_all()?)
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
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), Written::Tensor(tensor)));
    write(tensors, format, path)
}

fn write<'a>(
    tensors: impl Iterator<Item = (String, Written<'a>)>,
    format: FloatFormat,
    path: &Path,
) -> Result<(), WeightsError> {
    let views = tensors.map(|(name, tensor)| (name, Converted { tensor, format }));
    // the transformers library requires the framework that the file is meant for
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let file = NewFile::create(path)?;
    let allowed = std::fs::metadata(file.temporary_path()).map_err(FileError::write(path))?;
    safetensors::serialize_to_file(views, Some(metadata), file.temporary_path()).map_err(
        |error| match error {
            SafeTensorError::IoError(source) => FileError::write(path)(source).into(),
            error => WeightsError::Format { path: path.into(), reason: error.to_string() },
        },
    )?;
    // the writer of safetensors puts a file of its own there, which other users may not read
    std::fs::set_permissions(file.temporary_path(), allowed.permissions())
        .map_err(FileError::write(path))?;
    Ok(file.commit()?)
}

/// A tensor that is to be written.
enum Written<'a> {
    Parameter(Parameter),
    Tensor(&'a HostTensor),
    Zeros(Vec<usize>),
}

/// A tensor that is read and converted while it is written.
struct Converted<'a> {
    tensor: Written<'a>,
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
        match &self.tensor {
            Written::Parameter(parameter) => &parameter.shape,
            Written::Tensor(tensor) => &tensor.shape,
            Written::Zeros(shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = match &self.tensor {
            Written::Parameter(parameter) => parameter.values(),
            Written::Tensor(tensor) => tensor.values.clone(),
            Written::Zeros(_) => vec![0.0; self.shape().iter().product()],
        };
        let mut bytes = Vec::with_capacity(self.data_len());
        match self.format {
            FloatFormat::F32 => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            FloatFormat::F16 => {
                bytes.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
            }
            FloatFormat::Bf16 => {
                bytes.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
            }
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.shape().iter().product::<usize>() * self.format.bytes()
    }
}
