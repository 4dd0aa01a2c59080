//! The contract between a model family and the published weight files.

/// What a family knows of the published names of its parameters. Serves import and export alike.
pub trait PublishedNames {
    /// The published names of the parameter at module path `path`; every name after the first is
    /// another name of the same (tied) tensor.
    fn published_names(&self, path: &str) -> Vec<String>;

    /// Kernel of the published convolution held as a [`BlockConv`](crate::BlockConv) at `path`.
    fn conv_kernel(&self, path: &str) -> usize;

    /// Tensors of the published files that nothing computes with: name and shape.
    fn unused(&self) -> Vec<(String, Vec<usize>)>;
}

/// Replaces runs of path segments by their published spelling, first rule first, and the norm
/// parameter names of burn by PyTorch's.
pub fn rename(path: &str, rules: &[(&str, &str)]) -> String {
    let mut name = format!(".{path}.");
    for (ours, published) in rules.iter().chain(&[("gamma", "weight"), ("beta", "bias")]) {
        name = name.replace(&format!(".{ours}."), &format!(".{published}."));
    }
    name.trim_matches('.').to_string()
}
