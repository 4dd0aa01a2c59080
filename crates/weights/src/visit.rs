//! Walks over a model's parameters by published name.

use block_transformer_family::{FloatFormat, LinearLayer, ModulePath, PublishedNames};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};

use crate::error::WeightsError;
use crate::layout::TensorLayout;
use crate::tensor::{HostTensor, HostTensors};

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
    let mut collect =
        Collect { names, source, at: ModulePath::default(), tensors: HostTensors::new() };
    model.visit(&mut collect);
    collect.tensors
}

/// Loads published tensors into `model`. Returns the model, and the tensors that it does not use.
///
/// # Errors
/// [`WeightsError::Mismatch`] lists the names of tensors that are missing, left over, or wrong. Buffers
/// that are not learned are ignored.
pub fn load<M: Module>(
    model: M,
    names: &dyn PublishedNames,
    tensors: HostTensors,
    origin: &str,
) -> Result<(M, HostTensors), WeightsError> {
    let (missing, wrong) = (Vec::new(), Vec::new());
    let mut fill = Fill { names, at: ModulePath::default(), tensors, missing, wrong };
    let model = model.map(&mut fill);
    let Fill { mut tensors, missing, mut wrong, .. } = fill;
    let mut unused = HostTensors::new();
    for (name, shape) in names.unused() {
        if let Some(tensor) = tensors.remove(&name) {
            wrong.extend(wrong_shape(&name, &tensor, &shape));
            unused.insert(name, tensor);
        }
    }
    let left_over: Vec<String> = tensors.into_keys().filter(|name| !is_buffer(name)).collect();
    if missing.is_empty() && left_over.is_empty() && wrong.is_empty() {
        return Ok((model, unused));
    }
    Err(WeightsError::Mismatch { origin: origin.into(), missing, left_over, wrong })
}

fn wrong_shape(name: &str, tensor: &HostTensor, expected: &[usize]) -> Option<String> {
    (tensor.shape != expected)
        .then(|| format!("{name}: shape {:?}, the model has {expected:?}", tensor.shape))
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
    tensors: HostTensors,
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
        let ours = tensor.dims();
        let values = layout.to_published(&ours, tensor.into_data().iter::<f32>().collect());
        let tensor = HostTensor { shape: layout.published_shape(&ours), values };
        self.tensors.extend(names.into_iter().map(|name| (name, tensor.clone())));
    }
}

struct Fill<'a> {
    names: &'a dyn PublishedNames,
    at: ModulePath,
    tensors: HostTensors,
    missing: Vec<String>,
    wrong: Vec<String>,
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
        let take = |name: &String| Some((name.clone(), self.tensors.remove(name)?));
        let mut found = names.iter().filter_map(take).collect::<Vec<_>>().into_iter();
        let Some((name, first)) = found.next() else {
            self.missing.extend(names.into_iter().next());
            return param;
        };
        if let Some(wrong) = wrong_shape(&name, &first, &layout.published_shape(&ours)) {
            self.wrong.push(wrong);
            return param;
        }
        if let Some((other, _)) = found.find(|(_, tensor)| *tensor != first) {
            self.wrong.push(format!("{other}: tied to {name}, but different"));
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
