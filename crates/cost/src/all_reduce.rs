//! The time of an all-reduce: every rank gets the sum of a vector over all ranks.
//!
//! A message of `m` bytes takes the latency of the network plus `m` divided by its bandwidth, and each rank sends
//! and receives one message at a time. Messages of different ranks do not slow each other. This is the model of
//! Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH (IJHPCA 19(1), 2005).

use std::fmt;

/// The network between ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    bandwidth: f64,
    latency: f64,
    sum: f64,
}

/// A network that cannot exist.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A speed that is not a positive number.
    #[error("the speed is {0} bytes per second; give a number above 0")]
    Speed(f64),
    /// A latency that is negative or not a number.
    #[error("the latency is {0} seconds; give 0 or more")]
    Latency(f64),
}

impl Network {
    /// Describes a network that sends `bandwidth` bytes per second from each rank, and receives as many at the same
    /// time. A message of no bytes takes `latency` seconds. Sums take no time.
    ///
    /// # Errors
    /// When the bandwidth is not a positive number, or the latency is negative or not finite.
    pub fn new(bandwidth: f64, latency: f64) -> Result<Self, NetworkError> {
        if !(latency.is_finite() && latency >= 0.0) {
            return Err(NetworkError::Latency(latency));
        }
        Ok(Self { bandwidth: positive(bandwidth)?, latency, sum: 0.0 })
    }

    /// Returns the same network for ranks that add `speed` received bytes per second to their own.
    ///
    /// # Errors
    /// When the speed is not a positive number.
    pub fn with_sums(self, speed: f64) -> Result<Self, NetworkError> {
        Ok(Self { sum: positive(speed)?.recip(), ..self })
    }

    /// Returns the seconds of `messages` messages one after the other, which have `sent` bytes together, of which
    /// `summed` bytes are added to those of the receiver.
    fn seconds(&self, messages: f64, sent: f64, summed: f64) -> f64 {
        messages * self.latency + sent / self.bandwidth + summed * self.sum
    }
}

fn positive(speed: f64) -> Result<f64, NetworkError> {
    if speed.is_finite() && speed > 0.0 { Ok(speed) } else { Err(NetworkError::Speed(speed)) }
}

/// An algorithm for an all-reduce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllReduce {
    /// Each rank sends to its neighbour only: bandwidth-optimal, with a latency that grows with the number of ranks
    /// (Patarasu and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, JPDC 69(2), 2009).
    Ring,
    /// Reduce-scatter by recursive halving, then all-gather by recursive doubling (Rabenseifner's algorithm, in
    /// Thakur et al.): the bytes of the ring, with a latency that grows with the logarithm of the ranks.
    Tree,
}

impl AllReduce {
    /// The algorithms.
    pub const ALL: [Self; 2] = [Self::Ring, Self::Tree];

    /// Returns the seconds in which `ranks` ranks sum `bytes` bytes each; 0 for one rank.
    ///
    /// With N ranks and n bytes, the ring sends 2 (N - 1) messages of n / N bytes, and sums half of them. The tree
    /// sends 2 log2 N messages with the same bytes together. If N is not a power of two, the tree has Q ranks, the
    /// largest power of two below N; each other rank first sends its n bytes to one of them, and gets the n bytes of
    /// the sum at the end, which is how MPICH does it.
    pub fn seconds(self, network: &Network, ranks: usize, bytes: f64) -> f64 {
        if ranks <= 1 {
            return 0.0;
        }
        let part = |of: usize| (of - 1) as f64 / of as f64 * bytes;
        match self {
            Self::Ring => {
                let part = part(ranks);
                network.seconds(2.0 * (ranks - 1) as f64, 2.0 * part, part)
            }
            Self::Tree => {
                let (power, rounds) = (1 << ranks.ilog2(), f64::from(ranks.ilog2()));
                let (more, outside) = if ranks == power { (0.0, 0.0) } else { (1.0, bytes) };
                let summed = part(power) + outside;
                network.seconds(2.0 * (rounds + more), 2.0 * summed, summed)
            }
        }
    }
}

impl fmt::Display for AllReduce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Tree => "tree",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: f64 = 100e6;

    /// 25 GB/s and 5 us.
    fn network() -> Network {
        Network::new(25e9, 5e-6).unwrap()
    }

    /// Asserts that an all-reduce of [`BYTES`] takes `milliseconds`, up to the rounding of f64.
    fn takes(algorithm: AllReduce, network: &Network, ranks: usize, milliseconds: f64) {
        let seconds = algorithm.seconds(network, ranks, BYTES);
        let error = (seconds * 1e3 - milliseconds).abs();
        assert!(error < 1e-9, "{algorithm}, {ranks}: {seconds} s, not {milliseconds} ms");
    }

    #[test]
    fn a_ring_pays_for_each_neighbour() {
        takes(AllReduce::Ring, &network(), 1, 0.0);
        // 2 messages of 50 MB: 100 MB at 25 GB/s are 4 ms, and 2 x 5 us
        takes(AllReduce::Ring, &network(), 2, 4.01);
        // 6 messages of 25 MB
        takes(AllReduce::Ring, &network(), 4, 6.03);
        // 2046 messages of 100/1024 MB: 199.8046875 MB are 7.9921875 ms, and 10.23 ms of latency
        takes(AllReduce::Ring, &network(), 1024, 18.222_187_5);
    }

    #[test]
    fn a_tree_pays_for_each_doubling() {
        takes(AllReduce::Tree, &network(), 1, 0.0);
        takes(AllReduce::Tree, &network(), 2, 4.01);
        // 2 messages of 50 MB and 2 of 25 MB
        takes(AllReduce::Tree, &network(), 4, 6.02);
        takes(AllReduce::Tree, &network(), 1024, 8.092_187_5);
        // two more messages of 100 MB: 350 MB are 14 ms, and 6 x 5 us
        for ranks in 5..8 {
            takes(AllReduce::Tree, &network(), ranks, 14.03);
        }
    }

    #[test]
    fn sums_take_the_time_of_the_received_bytes() {
        let network = network().with_sums(10e9).unwrap();
        // 75 MB are summed at 10 GB/s: 7.5 ms
        takes(AllReduce::Ring, &network, 4, 6.03 + 7.5);
        takes(AllReduce::Tree, &network, 4, 6.02 + 7.5);
        // 75 MB and the 100 MB of the fifth rank
        takes(AllReduce::Tree, &network, 5, 14.03 + 17.5);
    }

    #[test]
    fn networks_have_a_speed_and_a_latency() {
        assert!(Network::new(1.0, 0.0).is_ok());
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Network::new(speed, 0.0).unwrap_err().to_string().contains("above 0"));
            assert!(network().with_sums(speed).is_err());
        }
        for latency in [-1e-9, f64::NAN, f64::INFINITY] {
            assert!(Network::new(1.0, latency).unwrap_err().to_string().contains("0 or more"));
        }
    }
}
