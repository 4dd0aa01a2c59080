//! The place of a parameter in a model, for visitors and mappers of modules.

/// A layer that multiplies by a matrix, its only parameter with two axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearLayer {
    /// burn's `Linear`.
    Linear,
    /// [`BlockConv`](block_transformer_layers::BlockConv).
    BlockConv,
}

/// The fields that a walk over a module has entered. A visitor or mapper calls
/// [`enter`](Self::enter) and [`exit`](Self::exit) in the methods that burn calls for each field.
#[derive(Clone, Debug, Default)]
pub struct ModulePath {
    names: Vec<String>,
    /// The layer that each field belongs to.
    layers: Vec<Option<LinearLayer>>,
}

impl ModulePath {
    /// Enters the field `name` of a module. burn passes the type of the module as `container`.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_string());
        self.layers.push(match container {
            "Struct:Linear" => Some(LinearLayer::Linear),
            "Struct:BlockConv" => Some(LinearLayer::BlockConv),
            _ => None,
        });
    }

    /// Leaves the field that was entered last.
    pub fn exit(&mut self) {
        self.names.pop();
        self.layers.pop();
    }

    /// The names of the entered fields, joined by dots.
    pub fn path(&self) -> String {
        self.names.join(".")
    }

    /// The linear layer that the field entered last belongs to, if it belongs to one.
    pub fn linear_layer(&self) -> Option<LinearLayer> {
        self.layers.last().copied().flatten()
    }
}
