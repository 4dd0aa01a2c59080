//! Rows of an embedding table in training, with the derivative.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Int, Shape, Tensor};

use super::matmul::add_values;
use super::parts::{contiguous, in_parts, tensor, values};

type Tracked = Autodiff<Flex, NoCheckpointing>;

/// Elements per task.
const TASK: usize = 1 << 16;

/// See [`crate::embed`].
pub(crate) fn embed(table: &Tensor<2>, ids: &Tensor<1, Int>) -> Option<Tensor<2>> {
    let ([entries, width], [count]) = (table.dims(), ids.dims());
    let table = table.clone().try_into_primitive::<Tracked>().ok()?;
    let rows = contiguous(table.primitive())?;
    let ids: Vec<usize> = ids.to_data().iter::<i64>().map(|id| id as usize).collect();
    let mut out = Vec::with_capacity(count * width);
    for &id in &ids {
        out.extend_from_slice(&values(&rows)[id * width..(id + 1) * width]);
    }
    let out = tensor(out, Shape::new([count, width]));
    let prepared = Embed.prepare::<NoCheckpointing>([table.node()]).compute_bound();
    let out = match prepared.stateful() {
        OpsKind::Tracked(prep) => prep.finish(Rows { ids, entries, width }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    Some(Tensor::from_primitive::<Tracked>(out))
}

#[derive(Debug)]
struct Embed;

#[derive(Clone, Debug)]
struct Rows {
    ids: Vec<usize>,
    entries: usize,
    width: usize,
}

impl Backward<Flex, 1> for Embed {
    type State = Rows;

    fn backward(self, ops: Ops<Rows, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Rows { ids, entries, width } = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |d_out| {
            let d_out = d_out.to_contiguous();
            // most entries do not occur: writing their zeros takes most of the time
            let mut d_table = in_parts(entries * width, TASK, |_, _| {});
            for (&id, d_row) in ids.iter().zip(values(&d_out).chunks_exact(width)) {
                add_values(&mut d_table[id * width..(id + 1) * width], d_row);
            }
            tensor(d_table, Shape::new([entries, width]))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::gradient_tests::{check, random};
    use burn::tensor::Device;

    #[test]
    fn rows_and_gradients_are_those_of_burn_with_any_number_of_threads() {
        for [entries, width, count] in [[1, 1, 1], [50, 7, 200], [3000, 64, 90]] {
            let ids = Tensor::<1, Int>::arange(0..count as i64, &Device::flex().autodiff());
            let ids = (ids.clone() * ids + 3) % entries as i64;
            check(
                &random(&[[entries, width]]),
                &|x| embed(&x[0], &ids).unwrap(),
                &|x| x[0].clone().select(0, ids.clone()),
                0.0,
            );
        }
    }
}
