//! Packing of documents into training windows. The tokens of window `i` depend only on the
//! documents, the seed and `i`, so that training can resume at any step.

mod contiguous;
mod kind;
mod layout;
mod listed;
mod permutation;
mod streamed;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use block_transformer_text::{EOS, PAD};
use rayon::prelude::*;

use crate::documents::Documents;
use crate::error::DatasetError;
use layout::{Layout, Place, Shape};

pub use kind::WindowKind;
pub use layout::Order;

/// One training sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Token ids, padding included.
    pub ids: Vec<u32>,
    /// For each id, `false` if it is padding.
    pub is_token: Vec<bool>,
}

/// Documents concatenated into a stream, which is cut into windows. Each document consists of its
/// tokens and EOS.
///
/// With [`WindowKind::Documents`], a document starts with a random padding of 0 to
/// `block_length - 1` and is padded at its end to a whole block; so with a block length of 1 there is
/// no padding. Each epoch shuffles the documents, draws new paddings, and shuffles the windows.
/// With [`WindowKind::Contiguous`], the documents keep their order and there is no padding. The
/// stream is a ring. Each epoch draws the token of the ring at which the first window starts, and
/// shuffles the windows.
#[derive(Clone)]
pub struct Packing {
    documents: Arc<dyn Documents>,
    block_length: usize,
    context: usize,
    seed: Option<u64>,
    kind: WindowKind,
    order: Order,
    /// The length of the stream without padding on the left, which differs between epochs.
    tokens: u64,
    windows_per_epoch: u64,
    layout: Arc<Mutex<CachedLayout>>,
}

/// The number and the layout of the epoch that was used last.
type CachedLayout = Option<(u64, Arc<Layout>)>;

impl Packing {
    /// Packs `documents` into windows of `context` tokens. Without a `seed`, documents and windows
    /// keep their order and there is no padding on the left. Validation uses this.
    ///
    /// The order is [`Order::Listed`]. [`PreparedCorpus::packing`](crate::PreparedCorpus::packing)
    /// chooses the order of the corpus.
    ///
    /// # Errors
    /// If `context` is not a positive multiple of `block_length`, or the documents do not fill one
    /// window.
    pub fn new(
        documents: Arc<dyn Documents>,
        block_length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Result<Self, DatasetError> {
        let kind = (WindowKind::Documents, Order::Listed);
        Self::of_kind(kind, documents, block_length, context, seed)
    }

    /// [`new`](Self::new) with windows of the given kind, in the given order.
    pub(crate) fn of_kind(
        (kind, order): (WindowKind, Order),
        documents: Arc<dyn Documents>,
        block_length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Result<Self, DatasetError> {
        if context == 0 || !context.is_multiple_of(block_length) {
            return Err(DatasetError::Context { context, block_length });
        }
        let multiple = if kind == WindowKind::Contiguous { 1 } else { block_length };
        let tokens: usize = (0..documents.len())
            .into_par_iter()
            .map(|i| (documents.document_len(i) + 1).next_multiple_of(multiple))
            .sum();
        let windows_per_epoch = (tokens / context) as u64;
        if windows_per_epoch == 0 {
            return Err(DatasetError::LessThanOneWindow { tokens, context });
        }
        let is_listed = (kind, order) == (WindowKind::Documents, Order::Listed);
        if is_listed && windows_per_epoch > u64::from(u32::MAX) {
            return Err(DatasetError::TooManyWindows(context));
        }
        let (tokens, layout) = (tokens as u64, Arc::default());
        Ok(Self {
            documents,
            block_length,
            context,
            seed,
            kind,
            order,
            tokens,
            windows_per_epoch,
            layout,
        })
    }

    /// The number of windows per epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        self.windows_per_epoch
    }

    /// Returns window `index`, counted over all epochs.
    pub fn window(&self, index: u64) -> Window {
        let layout = self.layout(index / self.windows_per_epoch);
        let visit = (index % self.windows_per_epoch) as usize;
        let mut position = layout.start(visit, self.context);
        let mut window = Window {
            ids: Vec::with_capacity(self.context),
            is_token: Vec::with_capacity(self.context),
        };
        let documents = &*self.documents;
        let mut place = layout.place(documents, position);
        while let Some(at) = place.filter(|_| window.ids.len() < self.context) {
            let from = position - at.first;
            let until = (at.end - at.first).min(from + self.context - window.ids.len());
            self.append(&at, from..until, &mut window);
            place = layout.after(documents, at);
            position = place.map_or(at.end, |next| next.first);
        }
        window
    }

    /// Appends the positions `span` of a padded document to `window`:
    ///
    /// ```text
    /// position   0 ..     left ..       left + tokens        .. whole blocks
    /// content    PAD      tokens        EOS                  PAD
    /// ```
    fn append(&self, place: &Place, span: Range<usize>, window: &mut Window) {
        let (document, left) = (place.document, place.left);
        let tokens = self.documents.document_len(document);
        let (text, end) = (left..left + tokens, span.end);
        let before = text.start.min(end).saturating_sub(span.start);
        window.ids.extend(std::iter::repeat_n(PAD, before));
        window.is_token.extend(std::iter::repeat_n(false, before));
        let inside = text.start.max(span.start)..text.end.min(end);
        if inside.start < inside.end {
            let range = inside.start - left..inside.end - left;
            window.is_token.extend(std::iter::repeat_n(true, range.len()));
            self.documents.read(document, range, &mut window.ids);
        }
        for position in text.end.max(span.start)..end {
            let is_eos = position == text.end;
            window.ids.push(if is_eos { EOS } else { PAD });
            window.is_token.push(is_eos);
        }
    }

    /// Returns the `batch` windows of step `step`.
    pub fn batch(&self, step: u64, batch: usize) -> Vec<Window> {
        let first = step * batch as u64;
        (first..first + batch as u64).map(|i| self.window(i)).collect()
    }

    fn layout(&self, epoch: u64) -> Arc<Layout> {
        let mut cached = self.layout.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*cached {
            Some((number, layout)) if *number == epoch => layout.clone(),
            _ => {
                let &Self { block_length, seed, windows_per_epoch: windows, tokens, .. } = self;
                let kind = (self.kind, self.order);
                // the layout before is not needed while the new one is made
                *cached = None;
                let shape = Shape { block_length, seed, windows };
                let layout = Layout::new(kind, &*self.documents, (shape, tokens), epoch);
                let layout = Arc::new(layout);
                *cached = Some((epoch, layout.clone()));
                layout
            }
        }
    }
}

#[cfg(feature = "burn-dataset")]
impl burn::data::dataset::Dataset<Window> for Packing {
    fn get(&self, index: usize) -> Result<Window, burn::data::dataset::DatasetError> {
        Ok(self.window(index as u64))
    }

    fn len(&self) -> usize {
        self.windows_per_epoch as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    /// Documents of the given lengths, with ids that encode document and position.
    fn docs(lengths: &[usize]) -> Arc<dyn Documents> {
        let ids = |(d, &n): (usize, &usize)| (0..n).map(|i| (d * 1000 + i + 2) as u32).collect();
        Arc::new(Docs(lengths.iter().enumerate().map(ids).collect()))
    }

    fn pack(lengths: &[usize], length: usize, context: usize, seed: Option<u64>) -> Packing {
        Packing::new(docs(lengths), length, context, seed).unwrap()
    }

    fn streamed(lengths: &[usize], length: usize, context: usize, seed: Option<u64>) -> Packing {
        of_kind((WindowKind::Documents, Order::Streamed), lengths, length, context, seed)
    }

    pub(super) fn contiguous(
        lengths: &[usize],
        length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Packing {
        of_kind((WindowKind::Contiguous, Order::Listed), lengths, length, context, seed)
    }

    fn of_kind(
        kind: (WindowKind, Order),
        lengths: &[usize],
        length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Packing {
        Packing::of_kind(kind, docs(lengths), length, context, seed).unwrap()
    }

    /// The documents in stream order, each with the length of its padding on the left.
    fn order(packing: &Packing, epoch: u64) -> Vec<(usize, usize)> {
        let (layout, documents) = (packing.layout(epoch), &*packing.documents);
        let first = layout.place(documents, 0);
        let places = std::iter::successors(first, |place| layout.after(documents, *place));
        places.map(|place| (place.document, place.left)).collect()
    }

    #[test]
    fn vanilla_validation_is_the_documents_in_order() {
        let packing = pack(&[3, 2], 1, 7, None);
        let window = packing.window(0);
        assert_eq!(window.ids, [2, 3, 4, EOS, 1002, 1003, EOS]);
        assert_eq!(window.is_token, [true; 7]);
    }

    #[test]
    fn too_little_text_and_incomplete_blocks_are_refused() {
        let error = |length, context| {
            Packing::new(docs(&[5]), length, context, None).err().unwrap().to_string()
        };
        assert!(error(4, 16).contains("8 positions"), "{}", error(4, 16));
        assert!(error(4, 6).contains("multiple of the block length 4"));
    }

    proptest! {
        /// The windows are the consecutive parts of the stream that the layout describes, each once;
        /// in the stream, documents start at block boundaries and padding is marked.
        #[test]
        fn windows_are_the_parts_of_the_stream(
            lengths in prop::collection::vec(0_usize..30, 1..200),
            streams: bool,
            length in 1_usize..6,
            blocks in 1_usize..5,
            seed: Option<u64>,
            number in 0_u64..3,
        ) {
            let context = length * blocks;
            let least: usize = lengths.iter().map(|n| (n + 1).next_multiple_of(length)).sum();
            prop_assume!(least >= context);
            let make = if streams { streamed } else { pack };
            let packing = make(&lengths, length, context, seed);
            prop_assert_eq!(packing.windows_per_epoch as usize, least / context);
            let order = order(&packing, number);
            let mut documents: Vec<usize> = order.iter().map(|&(d, _)| d).collect();
            documents.sort_unstable();
            prop_assert_eq!(documents, (0..lengths.len()).collect::<Vec<_>>());
            let (mut ids, mut is_token) = (Vec::new(), Vec::new());
            for (d, left) in order {
                prop_assert!(left < length && (seed.is_some() || left == 0));
                prop_assert_eq!(ids.len() % length, 0);
                ids.extend(vec![PAD; left]);
                is_token.extend(vec![false; left]);
                packing.documents.read(d, 0..lengths[d], &mut ids);
                ids.push(EOS);
                is_token.extend(vec![true; lengths[d] + 1]);
                ids.resize(ids.len().next_multiple_of(length), PAD);
                is_token.resize(ids.len(), false);
            }
            let windows = ids.chunks_exact(context).zip(is_token.chunks_exact(context));
            let mut cut: Vec<Window> = windows
                .take(packing.windows_per_epoch as usize)
                .map(|(ids, is_token)| Window { ids: ids.to_vec(), is_token: is_token.to_vec() })
                .collect();
            let mut visited = packing.batch(number, packing.windows_per_epoch as usize);
            if seed.is_none() {
                prop_assert_eq!(&visited, &cut);
            }
            cut.sort_by(|a, b| a.ids.cmp(&b.ids));
            visited.sort_by(|a, b| a.ids.cmp(&b.ids));
            prop_assert_eq!(visited, cut);
        }

        /// A window does not depend on the windows read before it.
        #[test]
        fn windows_are_a_function_of_seed_and_index(
            lengths in prop::collection::vec(0_usize..40, 1..10),
            seed: u64,
            kind in 0_usize..3,
            asked in prop::collection::vec(0_u64..60, 1..20),
        ) {
            prop_assume!(lengths.iter().map(|n| n + 1).sum::<usize>() >= 8);
            let make = [pack, streamed, contiguous][kind];
            let used = make(&lengths, 4, 8, Some(seed));
            for &index in &asked {
                let fresh = make(&lengths, 4, 8, Some(seed));
                prop_assert_eq!(used.window(index), fresh.window(index));
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        for make in [pack, streamed, contiguous] {
            let packing = make(&[40; 12], 4, 8, Some(1));
            let epoch = |packing: &Packing, e: u64| -> Vec<_> {
                (0..packing.windows_per_epoch)
                    .map(|i| packing.window(e * packing.windows_per_epoch + i).ids)
                    .collect()
            };
            assert_ne!(epoch(&packing, 0), epoch(&packing, 1));
            assert_ne!(epoch(&packing, 0), epoch(&make(&[40; 12], 4, 8, Some(2)), 0));
        }
    }

    #[test]
    fn without_a_seed_both_orders_are_the_same() {
        let lengths: Vec<usize> = (0..300).map(|i| i * 7 % 50).collect();
        let (listed, streamed) = (pack(&lengths, 3, 12, None), streamed(&lengths, 3, 12, None));
        let all = listed.windows_per_epoch as usize;
        assert_eq!(listed.batch(0, all), streamed.batch(0, all));
    }

    /// Runs that were begun before a change must be resumable after it.
    #[test]
    fn the_orders_do_not_change() {
        let lengths: Vec<usize> = (0..100).map(|i| i * 13 % 40).collect();
        let hash = |packing: &Packing| {
            let windows = packing.batch(0, 3 * packing.windows_per_epoch as usize);
            let ids = windows.iter().flat_map(|window| &window.ids);
            crc32fast::hash(&ids.flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())
        };
        assert_eq!(hash(&pack(&lengths, 4, 16, Some(3))), 3_399_292_734);
        assert_eq!(hash(&streamed(&lengths, 4, 16, Some(3))), 2_838_553_131);
        assert_eq!(hash(&contiguous(&lengths, 4, 16, Some(3))), 1_439_957_563);
    }
}
