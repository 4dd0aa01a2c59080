//! Published parameter names.

/// The published names of a family's parameters. Import and export read the same table.
pub trait PublishedNames {
    /// The published names of the parameter at module path `path`. Every name after the first is
    /// another name of the same (tied) tensor.
    fn published_names(&self, path: &str) -> Vec<String>;

    /// Kernel size of the published convolution that is held as a
    /// [`BlockConv`](block_transformer_layers::BlockConv) at `path`.
    fn conv_kernel(&self, _path: &str) -> usize {
        1
    }

    /// Tensors of the published files that the model does not use: name and shape.
    fn unused(&self) -> Vec<(String, Vec<usize>)> {
        Vec::new()
    }
}

/// Replaces sequences of path segments by their published names, in the order of `rules`, and the
/// names that burn gives to norm parameters by those of PyTorch. An empty name removes the
/// segments.
pub fn rename(path: &str, rules: &[(&str, &str)]) -> String {
    let mut name = format!(".{path}.");
    for (ours, published) in rules.iter().chain(&[("gamma", "weight"), ("beta", "bias")]) {
        name = name.replace(&format!(".{ours}."), &format!(".{published}.")).replace("..", ".");
    }
    name.trim_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::rename;

    #[test]
    fn segments_are_replaced_whole_and_in_order() {
        let rules = [("output", "output.dense"), ("attention", "attention.output"), ("tokens", "")];
        assert_eq!(rename("layer.0.output.weight", &rules), "layer.0.output.dense.weight");
        // an "output" that a later rule produces is not renamed again
        assert_eq!(rename("layer.0.attention.bias", &rules), "layer.0.attention.output.bias");
        assert_eq!(rename("decoder.tokens.norm.gamma", &rules), "decoder.norm.weight");
        assert_eq!(rename("outputs.weight", &rules), "outputs.weight");
    }
}
