//! Training windows: which tokens make up window `i` is a function of (seed, i) alone.

use std::sync::{Arc, Mutex};

use burn::data::dataset::{Dataset, DatasetError};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{Documents, EOS, PAD, TextError};

/// One training sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Ids, padding included.
    pub ids: Vec<u32>,
    /// False at padding.
    pub real: Vec<bool>,
}

/// Documents laid end to end and cut into windows.
///
/// A document is its tokens and EOS. With blocks of `block_length > 0` tokens it is left-padded by
/// a random 0..block_length-1 and right-padded to the block boundary, as the published training
/// does; without blocks (`block_length` 0, vanilla models) nothing is padded. An epoch shuffles the
/// documents, draws the paddings, and visits the windows in an order of its own.
#[derive(Clone)]
pub struct Packing {
    documents: Arc<dyn Documents>,
    block_length: usize,
    context: usize,
    seed: Option<u64>,
    per_epoch: u64,
    windows: u64,
    epoch: Arc<Mutex<LaidOut>>,
}

/// The epoch last asked for, by number.
type LaidOut = Option<(u64, Arc<Epoch>)>;

/// The layout of one epoch.
struct Epoch {
    /// document, its left padding
    order: Vec<(usize, usize)>,
    /// where each document of `order` ends in the stream
    ends: Vec<usize>,
    /// the window visited at each place
    visits: Vec<u32>,
}

impl std::fmt::Debug for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packing")
            .field("context", &self.context)
            .field("per_epoch", &self.per_epoch)
            .finish_non_exhaustive()
    }
}

impl Packing {
    /// Windows of `context` tokens. `seed` none keeps documents and windows in order and pads
    /// nothing on the left, for validation.
    ///
    /// # Errors
    /// When `context` is no multiple of the block length, or there is less than one window.
    pub fn new(
        documents: Arc<dyn Documents>,
        block_length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Result<Self, TextError> {
        let unit = block_length.max(1);
        if context == 0 || !context.is_multiple_of(unit) {
            return Err(TextError::Choice(format!(
                "--context {context}: must be a multiple of the block length {unit}"
            )));
        }
        // what is there whatever the left paddings
        let least: usize = (0..documents.len())
            .map(|i| (documents.document_len(i) + 1).next_multiple_of(unit))
            .sum();
        let per_epoch = (least / context) as u64;
        if per_epoch == 0 {
            return Err(TextError::Choice(format!(
                "the corpus holds {least} tokens, less than one window of {context}; \
                 lower --context or give more text"
            )));
        }
        if per_epoch > u64::from(u32::MAX) {
            return Err(TextError::Choice(
                "more than 2^32 windows an epoch; raise --context".into(),
            ));
        }
        let epoch = Arc::new(Mutex::new(None));
        Ok(Self { documents, block_length, context, seed, per_epoch, windows: per_epoch, epoch })
    }

    /// The same with `epochs` epochs as a [`Dataset`].
    pub fn with_epochs(mut self, epochs: u64) -> Self {
        self.windows = self.per_epoch * epochs;
        self
    }

    /// Windows an epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        self.per_epoch
    }

    /// Tokens a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Window `index`, counted over all epochs.
    pub fn window(&self, index: u64) -> Window {
        let epoch = self.epoch(index / self.per_epoch);
        let visit = (index % self.per_epoch) as usize;
        let start = epoch.visits.get(visit).map_or(visit, |&w| w as usize) * self.context;
        let mut window = Window {
            ids: Vec::with_capacity(self.context),
            real: Vec::with_capacity(self.context),
        };
        let mut place = epoch.ends.partition_point(|&end| end <= start);
        while window.ids.len() < self.context && place < epoch.order.len() {
            let first = if place == 0 { 0 } else { epoch.ends[place - 1] };
            let (document, left) = epoch.order[place];
            let from = (start + window.ids.len()) - first;
            let until = (epoch.ends[place] - first).min(from + self.context - window.ids.len());
            self.append(document, left, from..until, &mut window);
            place += 1;
        }
        window
    }

    /// Positions `span` of a padded document.
    fn append(
        &self,
        document: usize,
        left: usize,
        span: std::ops::Range<usize>,
        window: &mut Window,
    ) {
        let tokens = self.documents.document_len(document);
        let (text, end) = (left..left + tokens, span.end);
        let before = text.start.min(end).saturating_sub(span.start);
        window.ids.extend(std::iter::repeat_n(PAD, before));
        window.real.extend(std::iter::repeat_n(false, before));
        let inside = text.start.max(span.start)..text.end.min(end);
        if inside.start < inside.end {
            let range = inside.start - left..inside.end - left;
            window.real.extend(std::iter::repeat_n(true, range.len()));
            self.documents.read(document, range, &mut window.ids);
        }
        for position in text.end.max(span.start)..end {
            let is_eos = position == text.end;
            window.ids.push(if is_eos { EOS } else { PAD });
            window.real.push(is_eos);
        }
    }

    /// The windows of step `step` when a step takes `batch`.
    pub fn batch(&self, step: u64, batch: usize) -> Vec<Window> {
        let first = step * batch as u64;
        (first..first + batch as u64).map(|i| self.window(i)).collect()
    }

    fn epoch(&self, number: u64) -> Arc<Epoch> {
        let mut cached = self.epoch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*cached {
            Some((at, epoch)) if *at == number => epoch.clone(),
            _ => {
                let epoch = Arc::new(self.lay_out(number));
                *cached = Some((number, epoch.clone()));
                epoch
            }
        }
    }

    fn lay_out(&self, number: u64) -> Epoch {
        let unit = self.block_length.max(1);
        let mut order: Vec<(usize, usize)> = (0..self.documents.len()).map(|i| (i, 0)).collect();
        let mut visits = Vec::new();
        if let Some(seed) = self.seed {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            order.shuffle(&mut rng);
            if unit > 1 {
                order.iter_mut().for_each(|(_, left)| *left = rng.random_range(0..unit));
            }
            visits = (0..self.per_epoch as u32).collect();
            visits.shuffle(&mut rng);
        }
        let ends = order.iter().scan(0, |end, &(document, left)| {
            *end += (left + self.documents.document_len(document) + 1).next_multiple_of(unit);
            Some(*end)
        });
        Epoch { ends: ends.collect(), order, visits }
    }
}

impl Dataset<Window> for Packing {
    fn get(&self, index: usize) -> Result<Window, DatasetError> {
        Ok(self.window(index as u64))
    }

    fn len(&self) -> usize {
        self.windows as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::Range;

    struct Docs(Vec<Vec<u32>>);

    impl Documents for Docs {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn document_len(&self, index: usize) -> usize {
            self.0[index].len()
        }
        fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
            out.extend_from_slice(&self.0[index][range]);
        }
    }

    /// Documents of the given lengths whose ids tell document and position.
    fn docs(lengths: &[usize]) -> Arc<dyn Documents> {
        let ids = |(d, &n): (usize, &usize)| (0..n).map(|i| (d * 1000 + i + 2) as u32).collect();
        Arc::new(Docs(lengths.iter().enumerate().map(ids).collect()))
    }

    fn pack(lengths: &[usize], length: usize, context: usize, seed: Option<u64>) -> Packing {
        Packing::new(docs(lengths), length, context, seed).unwrap()
    }

    #[test]
    fn vanilla_validation_is_the_documents_in_order() {
        let packing = pack(&[3, 2], 0, 7, None);
        let window = packing.window(0);
        assert_eq!(window.ids, [2, 3, 4, EOS, 1002, 1003, EOS]);
        assert_eq!(window.real, [true; 7]);
    }

    #[test]
    fn too_little_text_and_odd_contexts_are_refused() {
        let error = |length, context| {
            Packing::new(docs(&[5]), length, context, None).unwrap_err().to_string()
        };
        assert!(error(4, 16).contains("8 tokens"), "{}", error(4, 16));
        assert!(error(4, 6).contains("multiple of the block length 4"));
    }

    proptest! {
        /// An epoch without a remainder holds every document once, aligned and padded as asked.
        #[test]
        fn blocks_hold_each_document_once(
            lengths in prop::collection::vec(0_usize..30, 1..12),
            length in 1_usize..6,
            seed: u64,
            epoch in 0_u64..3,
        ) {
            let packing = pack(&lengths, length, length, Some(seed));
            let mut blocks = Vec::new();
            for i in 0..packing.per_epoch {
                let window = packing.window(epoch * packing.per_epoch + i);
                prop_assert_eq!(window.ids.len(), length);
                for (id, real) in window.ids.iter().zip(&window.real) {
                    prop_assert_eq!(*real, *id != PAD);
                }
                // padding, tokens, EOS, padding: real tokens of a block are one run
                let runs = window.real.windows(2).filter(|w| w[0] != w[1]).count();
                prop_assert!(runs <= 2);
                blocks.push(window.ids);
            }
            let mut seen: Vec<u32> =
                blocks.concat().into_iter().filter(|&id| id > PAD).collect();
            seen.sort_unstable();
            let before = seen.len();
            seen.dedup();
            prop_assert_eq!(before, seen.len(), "a token twice");
            // what an epoch may leave out is what the left paddings added to its end
            let total: usize = lengths.iter().sum();
            prop_assert!(total - seen.len() <= length * lengths.len());
        }

        /// Windows of any size are the stream that the layout tells, cut: documents start at blocks,
        /// padding is where it should be, every place of the stream is visited once.
        #[test]
        fn windows_are_the_stream_cut(
            lengths in prop::collection::vec(0_usize..30, 1..12),
            length in 0_usize..6,
            blocks in 1_usize..5,
            seed: Option<u64>,
            number in 0_u64..3,
        ) {
            let unit = length.max(1);
            let context = unit * blocks;
            let least: usize = lengths.iter().map(|n| (n + 1).next_multiple_of(unit)).sum();
            prop_assume!(least >= context);
            let packing = pack(&lengths, length, context, seed);
            prop_assert_eq!(packing.per_epoch as usize, least / context);
            let (mut ids, mut real) = (Vec::new(), Vec::new());
            for &(d, left) in &packing.epoch(number).order {
                prop_assert!(left < unit && (seed.is_some() || left == 0));
                prop_assert_eq!(ids.len() % unit, 0);
                ids.extend(vec![PAD; left]);
                real.extend(vec![false; left]);
                packing.documents.read(d, 0..lengths[d], &mut ids);
                ids.push(EOS);
                real.extend(vec![true; lengths[d] + 1]);
                ids.resize(ids.len().next_multiple_of(unit), PAD);
                real.resize(ids.len(), false);
            }
            let cut: Vec<Window> = ids
                .chunks_exact(context)
                .zip(real.chunks_exact(context))
                .take(packing.per_epoch as usize)
                .map(|(ids, real)| Window { ids: ids.to_vec(), real: real.to_vec() })
                .collect();
            let mut visited = packing.batch(number, packing.per_epoch as usize);
            if seed.is_none() {
                prop_assert_eq!(&visited, &cut);
            }
            let mut cut = cut;
            cut.sort_by(|a, b| a.ids.cmp(&b.ids));
            visited.sort_by(|a, b| a.ids.cmp(&b.ids));
            prop_assert_eq!(visited, cut);
        }

        /// Windows do not depend on what was asked before.
        #[test]
        fn windows_are_a_function_of_seed_and_index(
            lengths in prop::collection::vec(0_usize..40, 1..10),
            seed: u64,
            asked in prop::collection::vec(0_u64..60, 1..20),
        ) {
            prop_assume!(lengths.iter().map(|n| (n + 1).next_multiple_of(4)).sum::<usize>() >= 8);
            let used = pack(&lengths, 4, 8, Some(seed));
            for &index in &asked {
                let fresh = pack(&lengths, 4, 8, Some(seed));
                prop_assert_eq!(used.window(index), fresh.window(index));
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let packing = pack(&[40; 12], 4, 8, Some(1));
        let epoch = |packing: &Packing, e: u64| -> Vec<_> {
            (0..packing.per_epoch).map(|i| packing.window(e * packing.per_epoch + i).ids).collect()
        };
        assert_ne!(epoch(&packing, 0), epoch(&packing, 1));
        assert_ne!(epoch(&packing, 0), epoch(&pack(&[40; 12], 4, 8, Some(2)), 0));
    }
}
