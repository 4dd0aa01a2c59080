//! The sum of the squares of many tensors.

use burn::backend::Flex;
use burn::tensor::{Shape, Tensor};
use rayon::prelude::*;

use super::parts::{contiguous, tensor, values};
use super::simd::math::dot;

/// Elements per task.
const TASK: usize = 1 << 16;
/// Squares that are added in f32.
const PART: usize = 1 << 12;

/// See [`crate::square_sum`]. The parts of the sum do not depend on the number of threads.
pub(crate) fn square_sum(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let own = |x: &Tensor<1>| contiguous(&x.clone().try_into_primitive::<Flex>().ok()?);
    let tensors = tensors.iter().map(own).collect::<Option<Vec<_>>>()?;
    if tensors.is_empty() {
        return None;
    }
    let tasks: Vec<&[f32]> = tensors.iter().flat_map(|x| values(x).chunks(TASK)).collect();
    let sums: Vec<f64> = tasks.into_par_iter().map(squares).collect();
    let sum = sums.iter().sum::<f64>() as f32;
    Some(Tensor::from_primitive::<Flex>(tensor(vec![sum], Shape::new([1]))))
}

vectorized! {
    fn squares(x: &[f32]) -> f64 {
        x.chunks(PART).map(|x| f64::from(dot(x, x))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::forced::for_each_set;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn the_sum_is_that_of_all_squares_with_any_number_of_threads() {
        let counts = [1, 4097, 200_003];
        let random =
            |count| Tensor::<1>::random([count], Distribution::Normal(0.0, 2.0), &Device::flex());
        let tensors = counts.map(random);
        let all = tensors.iter().flat_map(|x| x.to_data().iter::<f64>().collect::<Vec<_>>());
        let expected: f64 = all.map(|x| x * x).sum();
        for_each_set(|set| {
            let sums = [1, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| square_sum(&tensors).unwrap().into_scalar::<f32>())
            });
            assert_eq!(sums[0].to_bits(), sums[1].to_bits(), "{set:?}");
            // sums of 256 squares per lane
            assert!((f64::from(sums[0]) / expected - 1.0).abs() < 1e-6, "{set:?}: {sums:?}");
        });
    }
}
