//! What happens around each layer in training: recomputation of its activations, and early gradients.

use std::cell::{Cell, RefCell};

use block_transformer_kernels::{Report, watched};
use burn::module::Module;
use burn::tensor::Tensor;

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
}

/// Runs `forward`. If `recompute` is true, the layers that it runs on this thread keep their inputs for
/// the backward pass, and compute all other activations again there. Gradients are the same.
pub fn recompute_layers<T>(recompute: bool, forward: impl FnOnce() -> T) -> T {
    /// Restores the old state, also after a panic.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_ON.set(self.0);
        }
    }
    let _restore = Restore(IS_ON.replace(recompute));
    forward()
}

thread_local! {
    static WATCHER: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Runs `forward`. In its backward pass, `report` gets the gradients of each layer as soon as they are complete:
/// the last layer comes first.
pub fn watch_layers<T>(report: Report, forward: impl FnOnce() -> T) -> T {
    /// Restores the old state, also after a panic.
    struct Restore(Option<Report>);
    impl Drop for Restore {
        fn drop(&mut self) {
            WATCHER.set(self.0.take());
        }
    }
    let _restore = Restore(WATCHER.replace(Some(report)));
    forward()
}

/// `forward` of `layer`, `x` and `others`, inside [`recompute_layers`] with recomputation. `forward` may
/// use no other tensors that need gradients.
pub(crate) fn run_layer<M, F>(
    layer: &M,
    x: Tensor<3>,
    others: Vec<Tensor<4>>,
    forward: F,
) -> Tensor<3>
where
    M: Module + Sync + 'static,
    F: Fn(&M, Tensor<3>, Vec<Tensor<4>>) -> Tensor<3> + Clone + Send + Sync + 'static,
{
    let report = WATCHER.with_borrow(Option::clone);
    let x = report.and_then(|report| watched(layer, &x, &report)).unwrap_or(x);
    if IS_ON.get()
        && let Some(out) =
            block_transformer_kernels::recomputed(layer, &x, &others, forward.clone())
    {
        return out;
    }
    forward(layer, x, others)
}
