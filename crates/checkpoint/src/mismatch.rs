//! The differences between a file of weights and a model, from burn's error.

use burn::store::RecordError;

/// The tensors that differ between a record and a module, one text per tensor; `None` if `error` is about
/// something else. burn reports them only in its message.
pub(crate) fn differences(error: &RecordError) -> Option<Vec<String>> {
    let RecordError::Validation(message) = error else { return None };
    let (kind, list) = message.split_once(": ")?;
    let list: Vec<String> = serde_json::from_str(list).ok()?;
    let reworded = |text: String| match kind {
        "Missing tensors" => Some(format!("{text}: missing from the file")),
        "Unused tensors" => Some(format!("{text}: not part of the model")),
        _ => wrong_shape(&text),
    };
    list.into_iter().map(reworded).collect()
}

/// `NAME: shape mismatch, expected Shape { dims: [..] } but record has Shape { dims: [..] }` in other words.
fn wrong_shape(text: &str) -> Option<String> {
    let (name, shapes) = text.split_once(": shape mismatch, expected ")?;
    let (model, file) = shapes.split_once(" but record has ")?;
    let dims = |shape: &str| Some(shape.split_once("dims: ")?.1.strip_suffix(" }")?.to_string());
    Some(format!("{name}: shape {}, the model has {}", dims(file)?, dims(model)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Module, Param};
    use burn::tensor::{Device, Tensor};

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<2>>,
    }

    #[derive(Module, Debug)]
    struct Other {
        bias: Param<Tensor<2>>,
    }

    /// Holds for the messages of the version of burn that this crate is built with.
    #[test]
    fn tensors_are_named_with_both_shapes() {
        let tensor = |shape| Param::from_tensor(Tensor::ones(shape, &Device::flex()));
        let (one, other) = (One { weight: tensor([2, 3]) }, Other { bias: tensor([2, 3]) });
        let differs = |error| differences(&error).unwrap();
        let wide = One { weight: tensor([2, 4]) };
        let error = wide.try_load_record(one.clone().into_record()).unwrap_err();
        assert_eq!(differs(error), ["weight: shape [2, 3], the model has [2, 4]"]);
        let error = other.clone().try_load_record(one.clone().into_record()).unwrap_err();
        assert_eq!(differs(error), ["bias: missing from the file"]);
        let record = one.into_record().allow_partial(true);
        let error = other.try_load_record(record).unwrap_err();
        assert_eq!(differs(error), ["weight: not part of the model"]);
        assert_eq!(differences(&RecordError::Io("x: []".into())), None);
    }
}
