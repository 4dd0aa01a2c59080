//! Walks over a model's parameters by published name.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use block_transformer_family::{FloatFormat, LinearLayer, ModulePath, PublishedNames};
use block_transformer_tensor_files::{HostTensor, HostTensors, TensorFileError, TensorSource};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};

use crate::error::WeightsError;
use crate::layout::TensorLayout;

/// Selects a tensor of each parameter.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Its value.
    Values,
    /// Its gradient; parameters without one are left out.
    Gradients(&'a GradientsParams),
}

/// Returns the values or gradients of all parameters of `model`, in published layout, under their
/// published names. A tied tensor is listed under each of its names.
pub fn published_tensors<M: Module>(
    model: &M,
    names: &dyn PublishedNames,
    source: Source<'_>,
) -> HostTensors {
    let parameters = parameters(model, names, source).into_iter();
    parameters.map(|(name, parameter)| (name, parameter.read())).collect()
}

/// Like [`published_tensors`], but the values stay on the device until they are read.
pub(crate) fn parameters<M: Module>(
    model: &M,
    names: &dyn PublishedNames,
    source: Source<'_>,
) -> BTreeMap<String, Parameter> {
    let mut collect =
        Collect { names, source, at: ModulePath::default(), parameters: BTreeMap::new() };
    model.visit(&mut collect);
    collect.parameters
}

/// A tensor of a model, which can be read in its published layout.
#[derive(Clone)]
pub(crate) struct Parameter {
    /// Published sizes of its axes.
    pub shape: Vec<usize>,
    read: Rc<dyn Fn() -> Vec<f32>>,
}

impl Parameter {
    fn new<const D: usize>(tensor: Tensor<D>, layout: TensorLayout) -> Self {
        let ours = tensor.dims();
        let shape = layout.published_shape(&ours);
        let read = move || {
            // the data of a processor's tensor is not copied unless it is used elsewhere
            let values = tensor.to_data().convert::<f32>().try_into_vec();
            layout.to_published(&ours, values.expect("converted above"))
        };
        Self { shape, read: Rc::new(read) }
    }

    /// Row-major values in published layout.
    pub(crate) fn values(&self) -> Vec<f32> {
        (self.read)()
    }

    fn read(&self) -> HostTensor {
        HostTensor { shape: self.shape.clone(), values: self.values() }
    }
}

/// Loads published tensors into `model`, one after the other. Returns the model, and the tensors that it does
/// not use.
///
/// # Errors
/// [`WeightsError::Mismatch`] lists the names of tensors that are missing, left over, or wrong. Buffers
/// that are not learned are ignored. [`WeightsError::Read`] when a file cannot be read.
pub fn load<M: Module>(
    model: M,
    names: &dyn PublishedNames,
    source: &dyn TensorSource,
    origin: &str,
) -> Result<(M, HostTensors), WeightsError> {
    let mut fill = Fill {
        names,
        at: ModulePath::default(),
        source,
        left: source.names().into_iter().collect(),
        missing: Vec::new(),
        wrong: Vec::new(),
        failed: None,
    };
    let model = model.map(&mut fill);
    let Fill { mut left, missing, mut wrong, failed, .. } = fill;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut unused = HostTensors::new();
    for (name, shape) in names.unused() {
        if left.remove(&name)
            && let Some(given) = source.shape(&name)
        {
            match wrong_shape(&name, &given, &shape) {
                Some(reason) => wrong.push(reason),
                None => unused.extend(source.read(&name)?.map(|tensor| (name, tensor))),
            }
        }
    }
    let left_over: Vec<String> = left.into_iter().filter(|name| !is_buffer(name)).collect();
    if missing.is_empty() && left_over.is_empty() && wrong.is_empty() {
        return Ok((model, unused));
    }
    Err(WeightsError::Mismatch { origin: origin.into(), missing, left_over, wrong })
}

fn wrong_shape(name: &str, given: &[usize], expected: &[usize]) -> Option<String> {
    (given != expected).then(|| format!("{name}: shape {given:?}, the model has {expected:?}"))
}

/// Returns whether `name` is the name of a buffer. Published files can contain buffers in addition
/// to parameters.
fn is_buffer(name: &str) -> bool {
    const BUFFERS: [&str; 4] = [
        "attention.bias",
        "attention.masked_bias",
        "attention.rotary_emb.inv_freq",
        "position_ids",
    ];
    BUFFERS.iter().any(|buffer| {
        name.strip_suffix(buffer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Returns the names and the layout in published files of the parameter with the path `at`, which has
/// as many axes as `axes`. The tensors of all names after the first are tied to the first.
fn published(
    at: &ModulePath,
    axes: usize,
    names: &dyn PublishedNames,
) -> (Vec<String>, TensorLayout) {
    let path = at.path();
    let layout = match at.linear_layer() {
        Some(LinearLayer::Linear) if axes == 2 => TensorLayout::Transposed,
        Some(LinearLayer::BlockConv) if axes == 2 => {
            TensorLayout::Conv { kernel: names.conv_kernel(&path) }
        }
        _ => TensorLayout::Same,
    };
    (names.published_names(&path), layout)
}

struct Collect<'a> {
    names: &'a dyn PublishedNames,
    source: Source<'a>,
    at: ModulePath,
    parameters: BTreeMap<String, Parameter>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.source {
            Source::Values => Some(param.val()),
            Source::Gradients(gradients) => gradients.get::<D>(param.id),
        };
        let Some(tensor) = tensor else { return };
        let (names, layout) = published(&self.at, D, self.names);
        let parameter = Parameter::new(tensor, layout);
        self.parameters.extend(names.into_iter().map(|name| (name, parameter.clone())));
    }
}

struct Fill<'a> {
    names: &'a dyn PublishedNames,
    at: ModulePath,
    source: &'a dyn TensorSource,
    /// The tensors that no parameter has taken.
    left: BTreeSet<String>,
    missing: Vec<String>,
    wrong: Vec<String>,
    /// The first error of reading; nothing is read after it.
    failed: Option<TensorFileError>,
}

impl Fill<'_> {
    /// Reads the tensor `name`, which has the shape `expected`. `None` after an error, which is kept.
    fn read(&mut self, name: &str, expected: &[usize]) -> Option<HostTensor> {
        if self.failed.is_some() {
            return None;
        }
        let given = self.source.shape(name)?;
        if let Some(wrong) = wrong_shape(name, &given, expected) {
            self.wrong.push(wrong);
            return None;
        }
        self.source.read(name).unwrap_or_else(|error| {
            self.failed = Some(error);
            None
        })
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (names, layout) = published(&self.at, D, self.names);
        let ours = param.lazy_shape().to_vec();
        let mut found: Vec<&String> = names.iter().filter(|name| self.left.remove(*name)).collect();
        if found.is_empty() {
            self.missing.extend(names.into_iter().next());
            return param;
        }
        let (name, shape) = (found.remove(0), layout.published_shape(&ours));
        let Some(first) = self.read(name, &shape) else { return param };
        for other in found {
            if self.read(other, &shape).is_some_and(|tensor| tensor != first) {
                self.wrong.push(format!("{other}: tied to {name}, but different"));
            }
        }
        let values = TensorData::new(layout.to_ours(&ours, first.values), ours);
        let (id, tensor) = (param.id, Tensor::from_data(values, &param.lazy_device()));
        param.transform_for_load(tensor, id)
    }
}

/// Returns `model` with every parameter in `format`.
pub fn cast<M: Module>(model: M, format: FloatFormat) -> M {
    struct Cast(DType);

    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }

    model.map(&mut Cast(format.into()))
}
