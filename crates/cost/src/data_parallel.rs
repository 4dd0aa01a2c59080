//! The time of a data-parallel training step on several ranks.
//!
//! Every rank computes the gradients of its own sequences. The gradients are summed over the ranks once per step, in
//! buckets of a fixed number of bytes, each by an all-reduce of its own. With overlap, the buckets of the last
//! micro-batch are sent while its backward pass still runs (Li et al., PyTorch Distributed, arXiv 2006.15704).

use block_transformer_family::FamilyConfig;

use crate::all_reduce::{AllReduce, Network};
use crate::machine::Machine;
use crate::mfu::training_flops;
use crate::training::{TrainingPrediction, TrainingStep};

/// The share of the backward pass in the time of a micro-batch: it has twice the FLOPs of the forward pass (see
/// [`training_flops`]). Activations that are computed again do not count.
const BACKWARD: f64 = 2.0 / 3.0;

/// The way in which the time that a rank computes is known.
#[derive(Clone, Debug, PartialEq)]
pub enum RankCompute {
    /// It was measured.
    Measured {
        /// Seconds of a step of one rank alone.
        seconds: f64,
        /// Sequences of that step.
        sequences: usize,
    },
    /// FLOPs of the model, divided by a share of the peak.
    Utilization {
        /// FLOP/s of a rank.
        peak: f64,
        /// Model FLOPs utilization, from 0 to 1.
        mfu: f64,
    },
    /// The prediction of [`TrainingPrediction`] for a machine, with the time of launches where they are known.
    Machine(Machine),
}

impl RankCompute {
    /// Returns the seconds in which a rank computes `step`, communication not counted.
    pub fn seconds<C: FamilyConfig>(&self, config: &C, step: TrainingStep) -> f64 {
        match self {
            Self::Measured { seconds, sequences } => {
                seconds * step.batch as f64 / *sequences as f64
            }
            Self::Utilization { peak, mfu } => {
                step.tokens() * training_flops(config, step.context) / (peak * mfu)
            }
            Self::Machine(machine) => {
                let prediction = TrainingPrediction::new(config, machine, step);
                step.tokens() / prediction.rate_with_launches.unwrap_or(prediction.rate)
            }
        }
    }
}

/// Bytes of a bucket of a step with `gradients` bytes of gradients: few enough that the first bucket is sent early in
/// the backward pass, and enough that a network is busy with them. The trainer uses the same rule.
pub fn bucket_bytes(gradients: f64) -> f64 {
    (gradients / 8.0).clamp(1e6, 25e6)
}

/// The sequences of a step when the number of ranks grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Each rank keeps its sequences, so that the step grows.
    Weak,
    /// The step keeps its sequences, which the ranks share.
    Strong,
}

impl Scaling {
    /// Returns the sequences of the busiest of `ranks` ranks, if one rank alone has `sequences`; `None` if a rank
    /// has none.
    pub fn share(self, sequences: usize, ranks: usize) -> Option<usize> {
        match self {
            Self::Weak => Some(sequences),
            Self::Strong => (ranks <= sequences).then(|| sequences.div_ceil(ranks)),
        }
    }

    /// Returns the parallel efficiency: sequences per second of `ranks` ranks, whose step takes `seconds`, divided by
    /// `ranks` times those of one rank, whose step takes `alone` seconds.
    pub fn efficiency(self, alone: f64, ranks: usize, seconds: f64) -> f64 {
        match self {
            Self::Weak => alone / seconds,
            Self::Strong => alone / (ranks as f64 * seconds),
        }
    }
}

/// The work of each rank in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankStep {
    /// Seconds of computation.
    pub compute: f64,
    /// Micro-batches, at least 1.
    pub micro_batches: usize,
    /// Bytes of gradients on the wire.
    pub gradients: f64,
    /// Those of them that are ready only at the end of the backward pass.
    pub late: f64,
    /// Bytes per bucket, above 0.
    pub bucket: f64,
    /// Seconds in which a rank copies and sums gradients on the cores that compute. Nothing hides them.
    pub host: f64,
}

/// The parts of the time of a step, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// Computation, and the work of the host for communication.
    pub compute: f64,
    /// All-reduces of all buckets.
    pub communication: f64,
    /// The part of the communication after the backward pass, if the buckets are sent during it.
    pub exposed: f64,
}

impl RankStep {
    /// Returns the seconds of the backward pass of the last micro-batch, which is all that can hide communication.
    pub fn backward(&self) -> f64 {
        BACKWARD * self.compute / self.micro_batches as f64
    }

    /// Predicts the time of the step on `ranks` ranks.
    ///
    /// Gradients become ready evenly over the backward pass, except for the late ones. A bucket is sent when all its
    /// gradients are ready and the bucket before it has been sent, so that the last bucket is never hidden.
    /// Communication does not slow the computation.
    pub fn time(&self, algorithm: AllReduce, network: &Network, ranks: usize) -> StepTime {
        let (backward, early) = (self.backward(), self.gradients - self.late);
        let ready = |bytes: f64| if bytes < early { backward * bytes / early } else { backward };
        let (mut begin, mut communication, mut sent_at) = (0.0, 0.0, 0.0_f64);
        for buckets in 1..=(self.gradients / self.bucket).ceil() as usize {
            let end = self.gradients.min(buckets as f64 * self.bucket);
            let seconds = algorithm.seconds(network, ranks, end - begin);
            communication += seconds;
            sent_at = sent_at.max(ready(end)) + seconds;
            begin = end;
        }
        let exposed = (sent_at - backward).max(0.0);
        let host = if ranks > 1 { self.host } else { 0.0 };
        StepTime { compute: self.compute + host, communication, exposed }
    }
}

impl StepTime {
    /// Returns the seconds of the step.
    pub fn seconds(&self, overlap: bool) -> f64 {
        self.compute + if overlap { self.exposed } else { self.communication }
    }

    /// Returns the share of the step during which gradients are sent, from 0 to 1.
    pub fn communication_share(&self, overlap: bool) -> f64 {
        self.communication / self.seconds(overlap)
    }
}

/// Returns the parameters whose gradients are summed after the backward pass: the tables of embeddings, whose
/// gradients burn computes last, and the LM head, which is no layer.
pub fn late_params<C: FamilyConfig>(config: &C) -> usize {
    config.num_params() - config.num_params_non_embedding()
}

#[cfg(test)]
mod tests {
    use block_transformer_zoo::preset;

    use super::*;

    /// Two micro-batches in 300 ms: the backward pass of the last one takes 100 ms. Four buckets of 10 MB.
    const STEP: RankStep = RankStep {
        compute: 0.3,
        micro_batches: 2,
        gradients: 40e6,
        late: 0.0,
        bucket: 10e6,
        host: 0.0,
    };

    /// Asserts the communication and its exposed part, in milliseconds, on two ranks with 1 ms of latency.
    fn takes(step: RankStep, bandwidth: f64, communication: f64, exposed: f64) {
        let network = Network::new(bandwidth, 1e-3).unwrap();
        for algorithm in AllReduce::ALL {
            let time = step.time(algorithm, &network, 2);
            let close = |seconds: f64, expected: f64| (seconds * 1e3 - expected).abs() < 1e-9;
            assert!(close(time.communication, communication), "{time:?}");
            assert!(close(time.exposed, exposed), "{time:?}");
            assert!(close(time.seconds(false), 300.0 + communication), "{time:?}");
            assert!(close(time.seconds(true), 300.0 + exposed), "{time:?}");
        }
    }

    #[test]
    fn the_backward_pass_hides_all_but_the_last_bucket_on_a_fast_network() {
        // a bucket takes 10 ms and two latencies; ready at 25, 50, 75, 100 ms, sent at 37, 62, 87, 112 ms
        takes(STEP, 1e9, 48.0, 12.0);
        // 15, 15 and 10 MB: 17, 17 and 12 ms, ready at 37.5, 75 and 100 ms
        takes(RankStep { bucket: 15e6, ..STEP }, 1e9, 46.0, 12.0);
        // one bucket of all gradients hides nothing
        takes(RankStep { bucket: 1e9, ..STEP }, 1e9, 42.0, 42.0);
        // the host's work comes on top, with several ranks
        let busy = RankStep { host: 0.05, ..STEP };
        let network = Network::new(1e9, 1e-3).unwrap();
        let seconds = |ranks| busy.time(AllReduce::Ring, &network, ranks).compute;
        assert!((seconds(2) - 0.35).abs() < 1e-9 && (seconds(1) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_slow_network_is_hidden_for_the_time_of_the_backward_pass() {
        // a bucket takes 42 ms: sent at 67, 109, 151, 193 ms
        takes(STEP, 0.25e9, 168.0, 93.0);
        // with eight micro-batches, the backward pass takes 25 ms: ready at 6.25 ms, the last sent at 174.25 ms
        takes(RankStep { micro_batches: 8, ..STEP }, 0.25e9, 168.0, 149.25);
    }

    #[test]
    fn late_gradients_are_not_hidden() {
        // ready at 50, 100, 100, 100 ms; sent at 62, 112, 124, 136 ms
        takes(RankStep { late: 20e6, ..STEP }, 1e9, 48.0, 36.0);
        takes(RankStep { late: 40e6, ..STEP }, 1e9, 48.0, 48.0);
    }

    #[test]
    fn one_rank_only_computes() {
        let network = Network::new(1.0, 1.0).unwrap();
        let time = STEP.time(AllReduce::Ring, &network, 1);
        assert_eq!(time, StepTime { compute: 0.3, communication: 0.0, exposed: 0.0 });
    }

    #[test]
    fn the_share_is_that_of_sending() {
        let time = StepTime { compute: 0.3, communication: 0.2, exposed: 0.1 };
        assert!((time.communication_share(false) - 0.4).abs() < 1e-12);
        assert!((time.communication_share(true) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn sequences_are_kept_by_ranks_or_by_the_step() {
        assert_eq!(Scaling::Weak.share(8, 1024), Some(8));
        let shares = [1, 3, 8, 9].map(|ranks| Scaling::Strong.share(8, ranks));
        assert_eq!(shares, [Some(8), Some(3), Some(1), None]);
        // four ranks in 1.25 times the time, each with as many sequences, or with a quarter in a third of the time
        assert!((Scaling::Weak.efficiency(1.0, 4, 1.25) - 0.8).abs() < 1e-12);
        assert!((Scaling::Strong.efficiency(1.0, 4, 1.0 / 3.0) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn computation_is_measured_or_follows_from_flops() {
        let model = &preset("vanilla-160m").unwrap().model;
        let step = TrainingStep { batch: 8, micro_batch: 8, context: 2048 };
        // a token: 2 (12 x 12 x 768^2 + 50304 x 768) FLOPs of products, 4 x 768 x 12 x 1025 of attention, three
        // times; 16384 tokens; half of 100 TFLOP/s
        let seconds = RankCompute::Utilization { peak: 1e14, mfu: 0.5 }.seconds(model, step);
        assert!((seconds - 0.280_089_581).abs() < 1e-8, "{seconds}");
        let measured = RankCompute::Measured { seconds: 6.0, sequences: 32 };
        assert!((measured.seconds(model, step) - 1.5).abs() < 1e-12);
    }

    #[test]
    fn tables_and_heads_come_late() {
        let params = |name: &str| late_params(&preset(name).unwrap().model);
        // 50304 tokens of 768 elements for table and head; the embedder of a block model has a quarter of the width
        assert_eq!(params("vanilla-160m"), 2 * 38_633_472);
        assert_eq!(params("block-170m"), 9_658_368 + 2 * 38_633_472);
    }
}
