//! Decoding of one block of every sequence, as a captured graph.
//!
//! Everything that changes from block to block is in device tensors whose memory stays the same:
//! slots, positions, the tokens of the last blocks, random numbers and sampling settings. A closure
//! appends the last blocks, starts the next ones and chooses all of their tokens. After some runs it is
//! captured. Later runs replay the graph, which takes one or two uploads (three when the sampling settings
//! change), one launch and one read.
//!
//! A graph has a fixed number of rows and a bound of the context length, both rounded up. Rows without
//! a sequence write to the first position of unused slots. Running a block twice has the same effect as
//! running it once, so that the runs before a capture do no harm.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use block_transformer_family::{BlockDecoding, PaddingMask, Work};
use block_transformer_layers::{Draw, Draws, Indices, Positions, choose, refresh_ints};
use block_transformer_text::PAD;
use burn::tensor::{Device, Graph, Int, Tensor, TensorData, capture};

use crate::sampler::Sampler;
use crate::scheduler::FinishedBlock;

/// Runs before a capture. They compile kernels and fill memory pools.
const RUNS_BEFORE_CAPTURE: usize = 3;
/// Graphs that are kept. Each holds the memory of its temporary tensors.
const KEPT: usize = 8;
/// Positions that a kernel of the block decoder attends to in one part. The bounds of the context are
/// this number times a power of two.
const PART: usize = 64;

/// The decoding state of a model, shared with the closures.
#[derive(Clone)]
pub(crate) struct SharedDecoding(Arc<Mutex<Box<dyn BlockDecoding>>>);

impl SharedDecoding {
    pub(crate) fn new(decoding: Box<dyn BlockDecoding>) -> Self {
        Self(Arc::new(Mutex::new(decoding)))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Box<dyn BlockDecoding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last complete block of a sequence, which is not in the cache yet.
#[derive(Clone, Debug)]
pub(crate) struct LastBlock {
    pub slot: usize,
    /// Blocks before it in the slot.
    pub before: usize,
    pub ids: Vec<u32>,
}

impl LastBlock {
    /// The block, to be appended without a graph.
    pub(crate) fn finished(&self) -> FinishedBlock<'_> {
        FinishedBlock { slot: self.slot, before: self.before, ids: &self.ids, left: 0 }
    }
}

/// Sizes of caches and blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GraphSizes {
    pub slots: usize,
    /// Blocks per slot.
    pub blocks: usize,
    pub block_length: usize,
    pub positions_per_block: usize,
}

/// The graphs of an engine.
pub(crate) struct BlockGraphs {
    decoding: SharedDecoding,
    device: Device,
    sizes: GraphSizes,
    /// The most recently used graph is the last.
    graphs: Vec<BlockGraph>,
    /// A graph belongs to the thread that captured it, as its stream does.
    thread: Option<ThreadId>,
}

type Closure = Box<dyn FnMut() -> Tensor<1, Int> + Send>;

enum BlockRun {
    Closure(Closure),
    /// A device without graphs runs the closure of it again.
    Graph(Box<Graph<Tensor<1, Int>, Closure>>),
}

struct BlockGraph {
    rows: usize,
    /// Blocks that a slot may hold, the new one included.
    blocks: usize,
    inputs: Arc<Mutex<BlockInputs>>,
    /// The contents of the settings on the device.
    settings: Vec<Draw>,
    /// `None` only while a capture owns the closure.
    run: Option<BlockRun>,
    runs: usize,
    per_row: Work,
}

/// The inputs of a block, in memory that stays the same.
struct BlockInputs {
    /// Slots, numbers of the last blocks, and their tokens by place: `[(2 + block_length) * rows]`
    ids: Tensor<1, Int>,
    rows: usize,
    draws: Draws,
}

impl BlockGraphs {
    pub(crate) fn new(decoding: SharedDecoding, device: Device, sizes: GraphSizes) -> Self {
        Self { decoding, device, sizes, graphs: Vec::new(), thread: None }
    }

    /// Decodes the blocks that follow `last`, whose rows are in slot order like `samplers`. Returns
    /// their tokens on the device, `[rows or more * block_length]`; -1 stands for logits that are not
    /// finite.
    pub(crate) fn run(
        &mut self,
        last: &[LastBlock],
        samplers: &mut [&mut Sampler],
        vocab: usize,
    ) -> Tensor<1, Int> {
        let thread = std::thread::current().id();
        if self.thread.replace(thread) != Some(thread) {
            self.graphs.clear();
        }
        let (rows, blocks) = self.sizes.rounded(last);
        let known = self.graphs.iter().position(|of| (of.rows, of.blocks) == (rows, blocks));
        let mut graph = match known {
            Some(index) => self.graphs.remove(index),
            None => BlockGraph::new(&self.decoding, &self.device, rows, blocks, self.sizes),
        };
        graph.refresh(last, samplers, vocab, self.sizes);
        let before = self.decoding.get().work();
        let block = graph.next(&self.device);
        let mut decoding = self.decoding.get();
        if graph.runs == 1 {
            graph.per_row = decoding.work().per_row(before, rows);
        }
        decoding.set_work(before.plus(graph.per_row, last.len()));
        drop(decoding);
        if self.graphs.len() == KEPT {
            self.graphs.remove(0);
        }
        self.graphs.push(graph);
        block
    }

    /// Gives up all graphs.
    pub(crate) fn clear(&mut self) {
        self.graphs.clear();
    }

    /// Whether the graph that was used last is one that the device replays itself.
    pub(crate) fn replayed(&self) -> bool {
        let run = self.graphs.last().and_then(|graph| graph.run.as_ref());
        run.is_some_and(|run| matches!(run, BlockRun::Graph(graph) if graph.is_hardware()))
    }
}

impl GraphSizes {
    /// The rows and the blocks per slot of the graph for these rows.
    fn rounded(&self, last: &[LastBlock]) -> (usize, usize) {
        let rows = last.len().next_power_of_two().min(self.slots);
        let most = last.iter().map(|block| block.before + 1).max().unwrap_or(1);
        let parts = (most * self.positions_per_block).div_ceil(PART).next_power_of_two();
        (rows, (parts * PART / self.positions_per_block).min(self.blocks))
    }
}

impl BlockGraph {
    fn new(
        decoding: &SharedDecoding,
        device: &Device,
        rows: usize,
        blocks: usize,
        sizes: GraphSizes,
    ) -> Self {
        let length = sizes.block_length;
        let inputs = BlockInputs {
            ids: Tensor::zeros([(2 + length) * rows], device),
            rows,
            draws: Draws::zeros([rows, length], device),
        };
        let inputs = Arc::new(Mutex::new(inputs));
        let (state, shared) = (decoding.clone(), inputs.clone());
        let closure = move || {
            let inputs = shared.lock().unwrap_or_else(PoisonError::into_inner);
            inputs.block(&mut **state.get(), blocks)
        };
        Self {
            rows,
            blocks,
            inputs,
            settings: Vec::new(),
            run: Some(BlockRun::Closure(Box::new(closure))),
            runs: 0,
            per_row: Work::default(),
        }
    }

    /// Uploads the inputs of the next block.
    fn refresh(
        &mut self,
        last: &[LastBlock],
        samplers: &mut [&mut Sampler],
        vocab: usize,
        sizes: GraphSizes,
    ) {
        let (rows, length) = (self.rows, sizes.block_length);
        // rows without a sequence
        let unused = (0..sizes.slots)
            .filter(|slot| last.binary_search_by_key(slot, |block| block.slot).is_err());
        let slots = last.iter().map(|block| block.slot).chain(unused).take(rows);
        let mut ids: Vec<i64> = slots.map(|slot| slot as i64).collect();
        ids.resize(2 * rows, 0);
        for (row, block) in last.iter().enumerate() {
            ids[rows + row] = block.before as i64;
        }
        for place in 0..length {
            let tokens = last.iter().map(|block| i64::from(block.ids[place]));
            ids.extend(tokens.chain(std::iter::repeat_n(0, rows - last.len())));
        }
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        refresh_ints(&mut inputs.ids, TensorData::new(ids, [(2 + length) * rows]));

        let mut settings: Vec<Draw> =
            samplers.iter().map(|sampler| sampler.on_device(vocab)).collect();
        settings.resize(rows, Draw::greedy(vocab));
        if settings != self.settings {
            inputs.draws.refresh_settings(&settings);
            self.settings = settings;
        }
        if !samplers.iter().all(|sampler| sampler.is_greedy()) {
            let mut noise = vec![0.0_f32; rows * length];
            for (noise, sampler) in noise.chunks_mut(length).zip(samplers) {
                noise.iter_mut().for_each(|noise| *noise = sampler.noise());
            }
            inputs.draws.refresh_noise(TensorData::new(noise, [rows * length]));
        }
    }

    /// Runs the block.
    fn next(&mut self, device: &Device) -> Tensor<1, Int> {
        self.runs += 1;
        match self.run.take() {
            Some(BlockRun::Closure(mut closure)) => {
                if self.runs <= RUNS_BEFORE_CAPTURE {
                    let block = closure();
                    self.run = Some(BlockRun::Closure(closure));
                    return block;
                }
                self.run = Some(BlockRun::Graph(Box::new(capture(device, closure))));
            }
            run => self.run = run,
        }
        let Some(BlockRun::Graph(graph)) = &mut self.run else {
            unreachable!("a closure was either run or captured")
        };
        // SAFETY: the closure owns the decoding state and the inputs, so that all memory of the graph
        // lives as long as the graph. The engine is borrowed exclusively, and the graph was captured
        // on this thread, whose stream orders uploads, replays and reads.
        unsafe { graph.replay() }.clone()
    }
}

impl BlockInputs {
    /// Appends the last blocks and decodes the next ones, `[rows * block_length]`. A slot holds at most
    /// `blocks` blocks.
    fn block(&self, decoding: &mut dyn BlockDecoding, blocks: usize) -> Tensor<1, Int> {
        let ([all], rows) = (self.ids.dims(), self.rows);
        let length = all / rows - 2;
        let part = |first: usize| self.ids.clone().narrow(0, first * rows, rows);
        let bounded = |bound: usize, first: usize| Indices::bounded(vec![bound; rows], part(first));
        let at = Positions::Slots { slots: bounded(usize::MAX, 0), starts: bounded(blocks - 1, 1) };
        let ids = self.ids.clone().narrow(0, 2 * rows, length * rows).reshape([length, rows]);
        let ids = ids.swap_dims(0, 1).reshape([rows, 1, length]);
        let states = decoding.append(ids, &PaddingMask::full(), &at);
        let mut logits = decoding.start(states);
        let mut block = Tensor::zeros([rows * length], &self.ids.device());
        let all: Vec<usize> = (0..rows).collect();
        for place in 0..length {
            let ids = choose(&logits, &self.draws, &mut block, place, PAD as usize);
            let ids = ids.expect("only a device that chooses tokens gets here");
            if place + 1 < length {
                logits = decoding.decode(&all, ids);
            }
        }
        block
    }
}
