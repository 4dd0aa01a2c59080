//! Walks over a model's parameters by published name.

use block_transformer_family::{FloatFormat, PublishedNames};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};

use crate::error::WeightsError;
use crate::layout::Layout;
use crate::{HostTensor, HostTensors};

/// A parameter, and its name and layout in published files.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Module path.
    pub path: String,
    /// Published names. The tensors of all names after the first are tied to the first.
    pub names: Vec<String>,
    /// Published layout.
    pub layout: Layout,
    /// Shape of the parameter in the model.
    pub shape: Vec<usize>,
}

/// Selects a tensor of each parameter.
pub enum Source<'a> {
    /// Its value.
    Values,
    /// Its gradient; parameters without one are left out.
    Gradients(&'a GradientsParams),
}

/// Returns every parameter of `model` in module order.
pub fn entries<M: Module>(model: &M, names: &dyn PublishedNames) -> Vec<Entry> {
    let mut walk = Walk::new(names, None);
    model.visit(&mut walk);
    walk.found.into_iter().map(|(entry, _)| entry).collect()
}

/// Returns the values or gradients of all parameters of `model`, in published layout, under their
/// published names. A tied tensor is listed under each of its names.
pub fn published_tensors<M: Module>(
    model: &M,
    names: &dyn PublishedNames,
    source: &Source<'_>,
) -> HostTensors {
    let mut walk = Walk::new(names, Some(source));
    model.visit(&mut walk);
    let mut tensors = HostTensors::new();
    for (entry, values) in walk.found {
        let Some(values) = values else { continue };
        let shape = entry.layout.published_shape(&entry.shape);
        let values = entry.layout.to_published(&entry.shape, values);
        for name in entry.names {
            tensors.insert(name, HostTensor { shape: shape.clone(), values: values.clone() });
        }
    }
    tensors
}

/// Loads published tensors into `model`. Returns the model, and the tensors that it does not use.
///
/// # Errors
/// [`WeightsError::Mismatch`] lists the names of tensors that are missing, left over, or wrong. Buffers
/// that are not learned are ignored.
pub fn load<M: Module>(
    model: M,
    names: &dyn PublishedNames,
    mut tensors: HostTensors,
    origin: &str,
) -> Result<(M, HostTensors), WeightsError> {
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    let mut placed = HostTensors::new();
    for entry in entries(&model, names) {
        let shape = entry.layout.published_shape(&entry.shape);
        let found: Vec<(String, HostTensor)> = entry
            .names
            .iter()
            .filter_map(|name| Some((name.clone(), tensors.remove(name)?)))
            .collect();
        let Some((name, first)) = found.first() else {
            missing.push(entry.names[0].clone());
            continue;
        };
        if first.shape != shape {
            wrong.push(format!("{name}: shape {:?}, the model has {shape:?}", first.shape));
            continue;
        }
        if let Some((other, _)) = found.iter().find(|(_, tensor)| tensor != first) {
            wrong.push(format!("{other}: tied to {name}, but different"));
        }
        let values = entry.layout.from_published(&entry.shape, first.values.clone());
        placed.insert(entry.path, HostTensor { shape: entry.shape, values });
    }
    let mut unused = HostTensors::new();
    for (name, shape) in names.unused() {
        if let Some(tensor) = tensors.remove(&name) {
            if tensor.shape == shape {
                unused.insert(name, tensor);
            } else {
                wrong.push(format!("{name}: shape {:?}, the model has {shape:?}", tensor.shape));
            }
        }
    }
    let left_over: Vec<String> = tensors.into_keys().filter(|name| !is_buffer(name)).collect();
    if !(missing.is_empty() && left_over.is_empty() && wrong.is_empty()) {
        let origin = origin.to_string();
        return Err(WeightsError::Mismatch { origin, missing, left_over, wrong });
    }
    Ok((model.map(&mut Fill { path: Vec::new(), tensors: placed }), unused))
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

struct Walk<'a> {
    names: &'a dyn PublishedNames,
    source: Option<&'a Source<'a>>,
    path: Vec<String>,
    containers: Vec<String>,
    found: Vec<(Entry, Option<Vec<f32>>)>,
}

impl<'a> Walk<'a> {
    fn new(names: &'a dyn PublishedNames, source: Option<&'a Source<'a>>) -> Self {
        Self { names, source, path: Vec::new(), containers: Vec::new(), found: Vec::new() }
    }

    fn layout(&self, path: &str) -> Layout {
        let is_weight = self.path.last().is_some_and(|name| name == "weight");
        match self.containers.last().map(String::as_str) {
            Some("Struct:Linear") if is_weight => Layout::Transposed,
            Some("Struct:BlockConv") if is_weight => {
                Layout::Conv { kernel: self.names.conv_kernel(path) }
            }
            _ => Layout::Same,
        }
    }
}

impl ModuleVisitor for Walk<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.containers.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let entry = Entry {
            names: self.names.published_names(&path),
            layout: self.layout(&path),
            shape: param.lazy_shape().to_vec(),
            path,
        };
        let tensor = match self.source {
            None => None,
            Some(Source::Values) => Some(param.val()),
            Some(Source::Gradients(gradients)) => gradients.get::<D>(param.id),
        };
        let values = tensor.map(|tensor| host(tensor.into_data()));
        self.found.push((entry, values));
    }
}

pub(crate) fn host(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

struct Fill {
    path: Vec<String>,
    tensors: HostTensors,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(HostTensor { shape, values }) = self.tensors.remove(&self.path.join(".")) else {
            return param;
        };
        let tensor = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
        let id = param.id;
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
