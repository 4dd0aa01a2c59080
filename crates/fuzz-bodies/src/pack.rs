//! The container of a model's weights.

use burn_pack::Reader;

use crate::scratch::{Scratch, said};

/// A `model.bpk`, read by the library that burn reads it with.
pub(crate) fn model_pack(bytes: &[u8]) -> bool {
    let scratch = Scratch::new(&[("model.bpk", bytes)]);
    let accepted = match Reader::from_file(scratch.path("model.bpk")) {
        Err(error) => {
            said(&error);
            false
        }
        Ok(reader) => {
            let names: Vec<String> =
                reader.tensor_names().into_iter().map(ToString::to_string).collect();
            let read = names.iter().all(|name| {
                let data = reader.tensor_data(name);
                data.is_ok_and(|data| {
                    assert!(data.len() <= bytes.len());
                    true
                })
            });
            read && reader.into_tensors().is_ok()
        }
    };
    scratch.unchanged();
    accepted
}
