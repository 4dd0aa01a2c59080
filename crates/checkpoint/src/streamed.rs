//! A model's file, written one tensor after the other.

use burn::module::{Module, ModuleVisitor, Param};
use burn::store::RecordError;
use burn::tensor::Tensor;
use burn_pack::Writer;
use std::path::Path;

/// Writes `model` as [`ModuleRecord::save`](burn::store::ModuleRecord::save) does, but copies one tensor at a time
/// from the device instead of all.
pub(crate) fn save<M: Module>(model: &M, path: &Path) -> Result<(), RecordError> {
    let mut collect = Collect { at: Vec::new(), tensors: Vec::new() };
    model.visit(&mut collect);
    Ok(Writer::new(collect.tensors).write_to_file(path)?)
}

struct Collect {
    at: Vec<String>,
    tensors: Vec<burn_pack::Tensor>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.at.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.transform_for_save().val();
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        let bytes = shape.num_elements() * dtype.size();
        let read = move || Ok(tensor.to_data().into_bytes());
        let (path, id) = (self.at.join("."), param.id.val());
        self.tensors.push(burn_pack::Tensor::deferred(path, dtype, shape, Some(id), bytes, read));
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_zoo::preset;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_file_is_that_of_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let model = preset("debug-block").unwrap().model.init(3, &Device::flex());
        let [streamed, record] = ["streamed.bpk", "record.bpk"].map(|name| dir.path().join(name));
        save(&model, &streamed).unwrap();
        model.into_record().save(&record).unwrap();
        assert!(std::fs::read(streamed).unwrap() == std::fs::read(record).unwrap());
    }
}
