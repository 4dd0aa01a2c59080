//! Means and their standard errors.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// A value measured on a sample, with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// The standard error of the value; `None` for fewer than two observations.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// The mean of `values`, with its standard error: the standard deviation of `values` divided by
    /// the square root of their number.
    pub fn mean(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let standard_error = (values.len() > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (count - 1.0)).sqrt() / count.sqrt()
        });
        Self { value: mean, standard_error }
    }
}

/// The bootstrap (Efron 1979): the standard error of a statistic is its standard deviation over
/// samples drawn with replacement from the observations. The same seed always draws the same
/// samples.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Number of samples drawn.
    pub resamples: usize,
}

impl Bootstrap {
    /// Standard errors of the columns that `statistic` returns. `statistic` gets the indices of the
    /// observations in one resample: `count` values below `count`. `None` for fewer than two
    /// observations, from which no variation can be estimated.
    pub fn standard_errors(
        &self,
        count: usize,
        mut statistic: impl FnMut(&[usize]) -> Vec<f64>,
    ) -> Option<Vec<f64>> {
        if count < 2 {
            return None;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn = vec![0; count];
        let (mut means, mut squares) = (Vec::new(), Vec::new());
        for n in 1..=self.resamples {
            drawn.iter_mut().for_each(|index| *index = rng.random_range(0..count));
            let values = statistic(&drawn);
            means.resize(values.len(), 0.0);
            squares.resize(values.len(), 0.0);
            // Welford's update, which avoids the loss of precision of subtracting squared means
            for ((value, mean), squares) in values.iter().zip(&mut means).zip(&mut squares) {
                let from_mean = value - *mean;
                *mean += from_mean / n as f64;
                *squares += from_mean * (value - *mean);
            }
        }
        let error = |squares: f64| (squares / (self.resamples - 1) as f64).sqrt();
        Some(squares.into_iter().map(error).collect())
    }

    /// Estimates means over items that come in clusters, such as the windows of a book. Each
    /// observation is a cluster: for each column, the sum over the cluster's items; and the number
    /// of the items. The estimate of a column is its sum over all clusters divided by the number of
    /// all items. Clusters are resampled as a whole, because the items of a cluster are similar.
    pub fn ratios(&self, clusters: &[(Vec<f64>, f64)]) -> Vec<Estimate> {
        let columns = clusters.first().map_or(0, |(sums, _)| sums.len());
        let ratios = |times: &[u32]| -> Vec<f64> {
            let (mut totals, mut total_count) = (vec![0.0; columns], 0.0);
            let drawn = clusters.iter().zip(times).filter(|(_, times)| **times > 0);
            for ((sums, count), &times) in drawn {
                let times = f64::from(times);
                total_count += times * count;
                totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += times * sum);
            }
            totals.iter_mut().for_each(|total| *total /= total_count);
            totals
        };
        let errors = self.standard_errors(clusters.len(), |drawn| {
            let mut times = vec![0; clusters.len()];
            drawn.iter().for_each(|&index| times[index] += 1);
            ratios(&times)
        });
        let values = ratios(&vec![1; clusters.len()]).into_iter().enumerate();
        let standard_error = |column: usize| errors.as_ref().map(|errors| errors[column]);
        values.map(|(i, value)| Estimate { value, standard_error: standard_error(i) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTSTRAP: Bootstrap = Bootstrap { seed: 19, resamples: 1000 };

    #[test]
    fn the_error_of_a_mean_is_the_deviation_over_the_root_of_the_count() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f64> = (0..200).map(|_| rng.random_range(0.0..6.0)).collect();
        let clusters: Vec<_> = values.iter().map(|&x| (vec![x, 2.0 * x, 3.0], 1.0)).collect();
        let found = BOOTSTRAP.ratios(&clusters);
        let errors: Vec<f64> = found.iter().map(|e| e.standard_error.unwrap()).collect();
        let mean = Estimate::mean(&values);
        assert!((found[0].value - mean.value).abs() < 1e-12);
        let expected = mean.standard_error.unwrap();
        assert!((errors[0] / expected - 1.0).abs() < 0.1, "{errors:?}, {expected}");
        assert!((errors[1] - 2.0 * errors[0]).abs() < 1e-12 && errors[2] == 0.0);
    }

    #[test]
    fn large_clusters_weigh_more_and_one_cluster_has_no_error() {
        let clusters = [(vec![10.0], 1.0), (vec![0.0], 1e9), (vec![0.0], 1e9)];
        // the mean of a resample is near 0 unless it lacks the large clusters, which happens once
        // in 27 resamples
        let error = BOOTSTRAP.ratios(&clusters)[0].standard_error.unwrap();
        assert!((1.5..2.4).contains(&error), "{error}");
        let one = Estimate { value: 10.0, standard_error: None };
        assert_eq!(BOOTSTRAP.ratios(&clusters[..1]), [one]);
        assert_eq!(BOOTSTRAP.ratios(&[]), []);
    }
}
