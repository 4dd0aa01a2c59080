//! Standard errors by drawing books again.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sets of books drawn.
pub const RESAMPLES: usize = 1000;
/// The same books always give the same standard errors.
const SEED: u64 = 19;

/// The bootstrap over books (Efron 1979): as many books as there are, drawn with replacement, many
/// times. Tokens of a book are alike, so windows are not drawn on their own.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// How often each book is drawn, for each set.
    draws: Vec<Vec<u32>>,
}

impl Bootstrap {
    /// The draws for `books` books.
    pub fn new(books: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut set = || {
            let mut times = vec![0; books];
            (0..books).for_each(|_| times[rng.random_range(0..books)] += 1);
            times
        };
        Self { draws: (0..RESAMPLES).map(|_| set()).collect() }
    }

    /// Standard error of each column of `sum of sums / sum of counts` over books. None where a
    /// single book says nothing of how books differ.
    ///
    /// # Panics
    /// When there is not a row for each book, of a positive count and as many sums as the others.
    pub fn standard_errors(&self, books: &[(Vec<f64>, f64)]) -> Option<Vec<f64>> {
        assert!(self.draws.iter().all(|times| times.len() == books.len()));
        assert!(books.iter().all(|(_, count)| *count > 0.0));
        let [(first, _), _, ..] = books else { return None };
        let columns = first.len();
        let (mut mean, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
        for (n, times) in self.draws.iter().enumerate() {
            let (mut sums, mut total) = (vec![0.0; columns], 0.0);
            for ((book, count), &times) in books.iter().zip(times).filter(|(_, times)| **times > 0)
            {
                let times = f64::from(times);
                total += times * count;
                sums.iter_mut().zip(book).for_each(|(sum, x)| *sum += times * x);
            }
            // Welford's update, which loses no digits to the square of the mean
            for ((sum, mean), squares) in sums.iter().zip(&mut mean).zip(&mut squares) {
                let value = sum / total;
                let from_mean = value - *mean;
                *mean += from_mean / (n + 1) as f64;
                *squares += from_mean * (value - *mean);
            }
        }
        let error = |squares: &f64| (squares / (RESAMPLES - 1) as f64).sqrt();
        Some(squares.iter().map(error).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_is_the_spread_over_the_root_of_the_number() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f64> = (0..200).map(|_| rng.random_range(0.0..6.0)).collect();
        let mean = values.iter().sum::<f64>() / 200.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 200.0;
        let books: Vec<_> = values.iter().map(|&x| (vec![x, 2.0 * x, 3.0], 1.0)).collect();
        let errors = Bootstrap::new(200).standard_errors(&books).unwrap();
        let expected = (variance / 200.0).sqrt();
        assert!((errors[0] / expected - 1.0).abs() < 0.1, "{errors:?}, {expected}");
        assert!((errors[1] - 2.0 * errors[0]).abs() < 1e-12 && errors[2] == 0.0);
    }

    #[test]
    fn long_books_weigh_more_and_one_book_has_no_error() {
        let books = [(vec![10.0], 1.0), (vec![0.0], 1e9), (vec![0.0], 1e9)];
        // only a set without the long books is not near 0: 1 in 27
        let errors = Bootstrap::new(3).standard_errors(&books).unwrap();
        assert!((1.5..2.4).contains(&errors[0]), "{errors:?}");
        assert_eq!(Bootstrap::new(1).standard_errors(&books[..1]), None);
    }
}
