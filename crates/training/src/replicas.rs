//! The replicas of a data-parallel run. Each has the whole model on a device of its own, and computes
//! the gradients of a part of each step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use block_transformer_collectives::{Collective, CollectiveError, Nested, NoCollectives, replicas};
use block_transformer_datasets::Window;
use block_transformer_device::DeviceName;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel};

use crate::batch::num_predicted;
use crate::memory::{self, OutOfMemory};
use crate::reading::ReadPolicy;
use crate::trainer::{Trainer, WeightedWindows};
use crate::update::StepValues;

/// One step of one replica.
struct Share {
    parts: Vec<WeightedWindows>,
    /// Micro-batches of the step, over all replicas.
    count: usize,
    lr: f64,
    reading: ReadPolicy,
}

/// The replicas of a run in this process: the first one computes on the thread of the run, each other one on a
/// thread of its own. All have the same weights after every step.
pub(crate) struct Replicas {
    first: Trainer,
    others: Vec<(Sender<Share>, JoinHandle<()>)>,
    /// The first replica among all ranks of the run; `None` if it is the only one.
    place: Option<Arc<dyn Collective>>,
    /// The rank of the first replica, and the number of ranks.
    ranks: (usize, usize),
    no_collectives: Option<NoCollectives>,
    /// Whether one of the other replicas has too little memory.
    full: Arc<AtomicBool>,
}

impl Replicas {
    /// Starts the threads of `others`, which must have the same weights as `first`. The trainers are on
    /// the devices called `names`. Where these have collectives, they sum the gradients. `job` is this process
    /// among those of the run.
    pub(crate) fn new(
        first: Trainer,
        others: Vec<Trainer>,
        names: &[DeviceName],
        job: &Arc<dyn Collective>,
    ) -> Self {
        if others.is_empty() {
            return Self::with_places(first, others, vec![job.clone()]);
        }
        let on = |trainer: &Trainer| trainer.device().clone();
        let devices: Vec<_> = std::iter::once(&first).chain(&others).map(on).collect();
        let (inner, no_collectives) = replicas(names, &devices);
        let places = Nested::all(inner, job);
        let places = places.into_iter().map(|place| Arc::new(place) as _).collect();
        let mut replicas = Self::with_places(first, others, places);
        replicas.no_collectives = no_collectives;
        replicas
    }

    /// [`new`](Self::new) with the place of each replica among the ranks of the run.
    pub(crate) fn with_places(
        first: Trainer,
        others: Vec<Trainer>,
        places: Vec<Arc<dyn Collective>>,
    ) -> Self {
        let full = Arc::new(AtomicBool::new(false));
        let mut places = places.into_iter();
        let place = places.next();
        let ranks = place.as_ref().map_or((0, 1), |place| (place.rank(), place.size()));
        let start = |(trainer, place): (Trainer, Arc<dyn Collective>)| {
            let (sender, receiver) = channel();
            let member = Member { place, full: full.clone() };
            (sender, thread::spawn(move || work(trainer, &member, &receiver)))
        };
        let others = others.into_iter().zip(places).map(start).collect();
        let place = place.filter(|_| ranks.1 > 1);
        Self { first, others, place, ranks, no_collectives: None, full }
    }

    /// Why the gradients are summed in the memory of the process; `None` if collectives sum them.
    pub(crate) fn no_collectives(&self) -> Option<&NoCollectives> {
        self.no_collectives.as_ref()
    }

    /// Whether a replica besides the first stopped because its device has too little memory.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// The trainer whose weights are validated and saved.
    pub(crate) fn first(&self) -> &Trainer {
        &self.first
    }

    /// Runs one step over `micro_batches`, as [`Trainer::queue`] does on one device.
    ///
    /// # Errors
    /// When a rank stopped.
    pub(crate) fn queue(
        &mut self,
        micro_batches: Vec<Vec<Window>>,
        lr: f64,
        reading: ReadPolicy,
    ) -> Result<StepValues, CollectiveError> {
        let Some(place) = &self.place else {
            return Ok(self.first.queue(&micro_batches, lr, reading));
        };
        let count = micro_batches.len();
        let block_length = self.first.model().config().block_length();
        let (rank, size) = self.ranks;
        let mut shares = shares(micro_batches, size, block_length).into_iter().skip(rank);
        let mine = shares.next().unwrap_or_default();
        for (i, ((sender, _), parts)) in self.others.iter().zip(shares).enumerate() {
            let share = Share { parts, count, lr, reading };
            sender.send(share).map_err(|_| CollectiveError::Stopped(i + 1))?;
        }
        self.first.queue_share(&mine, count, lr, reading, place)
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        // the others do not wait for this one any more
        self.place = None;
        for (sender, replica) in self.others.drain(..) {
            drop(sender);
            // its last step may need this thread of the pool
            while rayon::current_thread_index().is_some() && !replica.is_finished() {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            // a panic of the thread has been reported already
            let _ = replica.join();
        }
    }
}

/// The place of a replica among the ranks. It is left when the replica's thread ends, also when the thread
/// panics.
struct Member {
    place: Arc<dyn Collective>,
    full: Arc<AtomicBool>,
}

/// The thread of a replica. It ends with the run, or with the first sum that fails.
fn work(mut trainer: Trainer<LanguageModel>, member: &Member, shares: &Receiver<Share>) {
    for Share { parts, count, lr, reading } in shares {
        let step = || trainer.queue_share(&parts, count, lr, reading, &member.place);
        match memory::catch(step) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(OutOfMemory) => return member.full.store(true, Ordering::SeqCst),
        }
    }
}

/// Divides `micro_batches` among `ranks` replicas: whole micro-batches if their number is a multiple of
/// `ranks`, otherwise a part of each micro-batch.
fn shares(
    micro_batches: Vec<Vec<Window>>,
    ranks: usize,
    block_length: usize,
) -> Vec<Vec<WeightedWindows>> {
    let count = micro_batches.len();
    let mut shares: Vec<Vec<WeightedWindows>> = (0..ranks).map(|_| Vec::new()).collect();
    for (i, windows) in micro_batches.into_iter().enumerate() {
        if count.is_multiple_of(ranks) {
            shares[i / (count / ranks)].push(WeightedWindows { windows, weight: 1.0 });
            continue;
        }
        let all = num_predicted(&windows, block_length);
        for (rank, share) in shares.iter_mut().enumerate() {
            let part = rank * windows.len() / ranks..(rank + 1) * windows.len() / ranks;
            let windows = windows[part].to_vec();
            let weight = num_predicted(&windows, block_length) as f64 / all as f64;
            // a part without predicted tokens has no mean loss
            if weight != 0.0 {
                share.push(WeightedWindows { windows, weight });
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;
    use block_transformer_collectives::Alone;
    use burn::tensor::Device;

    /// A window of two blocks of two, with `tokens` tokens.
    fn window(id: u32, tokens: usize) -> Window {
        Window { ids: vec![id; 4], is_token: (0..4).map(|i| i < tokens).collect() }
    }

    /// Ids of windows with their weight, by replica.
    fn divided(micro_batches: Vec<Vec<Window>>, ranks: usize) -> Vec<Vec<(Vec<u32>, f64)>> {
        let part =
            |part: WeightedWindows| (part.windows.iter().map(|w| w.ids[0]).collect(), part.weight);
        let shares = shares(micro_batches, ranks, 2);
        shares.into_iter().map(|share| share.into_iter().map(part).collect()).collect()
    }

    #[test]
    fn every_window_has_one_replica_and_the_weights_are_those_of_one_device() {
        let batches = || vec![vec![window(0, 4), window(1, 3)], vec![window(2, 4), window(3, 2)]];
        let whole = divided(batches(), 2);
        assert_eq!(whole, [[(vec![0, 1], 1.0)], [(vec![2, 3], 1.0)]]);
        // the windows have 2, 1, 2 and 0 predicted tokens
        let parts = divided(vec![batches().concat()], 2);
        assert_eq!(parts, [[(vec![0, 1], 0.6)], [(vec![2, 3], 0.4)]]);
        let parts = divided(vec![vec![window(2, 4), window(3, 2)]], 2);
        assert_eq!(parts, [vec![(vec![2], 1.0)], vec![]]);
        let uneven = divided(vec![vec![window(0, 4), window(1, 4), window(2, 4)]], 2);
        assert_eq!(uneven, [[(vec![0], 1.0 / 3.0)], [(vec![1, 2], 2.0 / 3.0)]]);
    }

    #[test]
    fn a_replica_that_fails_ends_the_step_and_no_thread_waits_forever() {
        let config = TrainConfig::from_preset("debug-block").unwrap();
        let trainer = |vocabulary| {
            let model = config.model.clone().with_vocab_size(vocabulary);
            Trainer::new(&model, &config, &Device::flex())
        };
        let mut replicas =
            Replicas::new(trainer(64), vec![trainer(128)], &[], &(Arc::new(Alone) as _));
        let step = || vec![vec![Window { ids: vec![3; 16], is_token: vec![true; 16] }; 2]];
        let mut queue = || replicas.queue(step(), 1e-3, ReadPolicy::EveryStep).err();
        assert_eq!(queue(), Some(CollectiveError::Lengths));
        assert_eq!(queue(), Some(CollectiveError::Stopped(1)));
        drop(replicas);
    }
}
