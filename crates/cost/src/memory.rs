//! The memory of a training step.

use block_transformer_family::{
    Conditioning, EmbedderShape, FamilyConfig, Precision, Stacks, TokenDecoderShape,
};

use crate::held::{F32, Holding, Kind, Layers};
use crate::optimizer::OptimizerKind;

/// Number of logits that the loss holds at a time.
const CHUNK_LOGITS: f64 = (1_u64 << 25) as f64;
/// Tensors of the size of the logits at the peak of a composed loss: logits, log-softmax and softmax. The kernel
/// of flex replaces the logits by their gradient.
const LOGIT_TENSORS: f64 = 3.0;
/// Copies of the largest parameter during its update.
const UPDATE_TENSORS: f64 = 5.0;
/// Copies of the largest matrix of a layer during its update by Muon.
const MUON_TENSORS: f64 = 8.0;

/// The settings of a training step that its memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingShape {
    /// Sequences of a micro-batch.
    pub batch: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// [`Precision::F32`] or [`Precision::Bf16`].
    pub precision: Precision,
    /// Whether the activations of a layer are computed again in the backward pass.
    pub recompute: bool,
    /// The operations of the device.
    pub holding: Holding,
    /// The optimizer.
    pub optimizer: OptimizerKind,
}

/// The bytes that training holds at the moment when it holds most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingMemory {
    /// Weights in f32, and copies in other formats for products.
    pub weights: f64,
    /// Gradients.
    pub gradients: f64,
    /// The state of the optimizer: moments of AdamW, velocities of Muon.
    pub optimizer: f64,
    /// Activations of a micro-batch that are kept for the backward pass, and gradients of activations.
    pub activations: f64,
    /// Logits, log-probabilities and probabilities of a part of the rows.
    pub logits: f64,
}

impl TrainingMemory {
    /// Computes the memory of a step of a model on one device.
    pub fn new<C: FamilyConfig>(config: &C, shape: TrainingShape) -> Self {
        let parameters = config.num_params() as f64 * F32;
        let stacks = config.stacks();
        let optimizer = shape.optimizer.state_elements(config) as f64 * F32;
        let narrow = if shape.is_narrow() { 2.0 * stacks.matrix_params() as f64 } else { 0.0 };
        let segments = ModelParts::of(config, shape).0;
        // the sum over the micro-batches before this one
        let sum = if shape.accumulate > 1 { parameters } else { 0.0 };
        let all_gradients: f64 = segments.iter().map(|segment| segment.gradient).sum();
        let (mut kept, mut widened, mut gradients) = (0.0, 0.0, all_gradients);
        let of = |segment: &ModelPart| {
            kept += segment.kept;
            widened += segment.widened;
            gradients -= segment.gradient;
            Self {
                weights: parameters + narrow + widened,
                gradients: sum + gradients,
                optimizer,
                activations: kept + segment.working,
                logits: segment.logits,
            }
        };
        let table = stacks.vocab_size * stacks.context.width.max(token_width(&stacks));
        let matrix = match shape.optimizer {
            OptimizerKind::Adamw => 0.0,
            OptimizerKind::Muon => MUON_TENSORS * stacks.largest_hidden_matrix() as f64,
        };
        let update = Self {
            weights: parameters,
            gradients: parameters,
            optimizer,
            activations: (UPDATE_TENSORS * table as f64).max(matrix) * F32,
            logits: 0.0,
        };
        let moments = segments.iter().map(of);
        moments.fold(update, |most, now| if now.total() > most.total() { now } else { most })
    }

    /// Bytes of activations that the forward pass of a micro-batch leaves for its backward pass.
    pub fn kept<C: FamilyConfig>(config: &C, shape: TrainingShape) -> f64 {
        ModelParts::of(config, shape).0.iter().map(|segment| segment.kept).sum()
    }

    /// Bytes of weights and the state of the optimizer, which a run holds at any time. A checkpoint is written
    /// from a copy of them in the memory of the process.
    pub fn state<C: FamilyConfig>(config: &C, optimizer: OptimizerKind) -> f64 {
        (config.num_params() + optimizer.state_elements(config)) as f64 * F32
    }

    /// Bytes that the loss of `shape.batch` sequences holds at its peak without gradients: weights in f32,
    /// the activations of the largest layer, and logits. `shape.recompute` and `shape.accumulate` do not
    /// matter.
    pub fn evaluation<C: FamilyConfig>(config: &C, shape: TrainingShape) -> f64 {
        let bytes = |segment: &ModelPart| segment.alone + segment.logits_alone;
        let largest = ModelParts::of(config, shape).0.iter().map(bytes).fold(0.0, f64::max);
        config.num_params() as f64 * F32 + largest
    }

    /// Returns all bytes.
    pub fn total(&self) -> f64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.logits
    }

    /// Returns the largest micro-batch, at most `most` sequences, with which a step fits into `bytes`;
    /// `None` if not even one sequence fits.
    pub fn largest_batch<C: FamilyConfig>(
        config: &C,
        shape: TrainingShape,
        bytes: f64,
        most: usize,
    ) -> Option<usize> {
        largest(most, |batch| Self::new(config, TrainingShape { batch, ..shape }).total() <= bytes)
    }
}

/// Returns the largest batch, at most `most`, that fits; `None` if a batch of 1 does not.
pub fn largest(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    // the largest batch that fits is below `over`, and at least `fitting`
    let (mut fitting, mut over) = (0, most.saturating_add(1));
    while over - fitting > 1 {
        // small batches first, which most machines run
        let next = if over > most { (2 * fitting).clamp(1, most) } else { fitting.midpoint(over) };
        if fits(next) {
            fitting = next;
            if fitting == most {
                break;
            }
        } else {
            over = next;
        }
    }
    (fitting > 0).then_some(fitting)
}

impl TrainingShape {
    /// Whether the operands of products are bf16.
    fn is_narrow(&self) -> bool {
        self.precision == Precision::Bf16
    }
}

/// The width of the stack before the LM head.
fn token_width(stacks: &Stacks) -> usize {
    stacks.token.map_or(stacks.context.width, |token| token.stack.width)
}

/// A part of the model, in bytes of one micro-batch.
#[derive(Clone, Copy, Debug, Default)]
struct ModelPart {
    /// Kept from the forward pass to the backward pass.
    kept: f64,
    /// f32 copies of bf16 weights that products keep.
    widened: f64,
    /// Held by a forward pass without gradients while it runs this part.
    alone: f64,
    /// More, while the backward pass of this part runs.
    working: f64,
    /// Logits, while the loss is computed, with and without gradients.
    logits: f64,
    logits_alone: f64,
    /// Gradients of parameters, from the backward pass of this part on.
    gradient: f64,
}

/// The parts of a model, in the order of the forward pass.
struct ModelParts(Vec<ModelPart>);

impl ModelParts {
    fn of<C: FamilyConfig>(config: &C, shape: TrainingShape) -> Self {
        let stacks = config.stacks();
        let (rows, l) = (shape.batch as f64, stacks.block_length as f64);
        let blocks = shape.context as f64 / l;
        let (e, width) = (stacks.embeddings_per_block as f64, stacks.context.width as f64);
        let layers = |kind, stack, time| Layers {
            kind,
            shape: stack,
            time,
            holding: shape.holding,
            narrow: shape.is_narrow(),
        };
        let mut segments = Self(vec![ModelPart::default()]);
        if let Some(EmbedderShape { encoder, joined, projection_params }) = stacks.embedder {
            if let Some((stack, positions)) = encoder {
                let time = positions as f64;
                let (h, positions) = (stack.width as f64, rows * blocks * time);
                // the norm of the embeddings
                segments.0[0].kept = positions * (2.0 * h + 2.0) * F32;
                segments.stack(layers(Kind::Roberta, stack, time), positions, shape);
            }
            if projection_params > 0 {
                let kept = rows * blocks * joined as f64 * F32;
                segments.linear(kept, projection_params, shape);
            }
        }
        // without blocks, the last token is never an input
        let time = if stacks.token.is_some() { blocks * e } else { blocks - 1.0 };
        let context = layers(Kind::NeoX, stacks.context, time);
        segments.stack(context, rows * time, shape);
        segments.norm(width, rows * time, shape);
        let mut outputs = rows * time;
        if let Some(token) = &stacks.token {
            // the last context embedding has no block to predict
            let written = rows * (blocks - 1.0);
            let expansion = token.expansion_params(stacks.context.width, 1);
            segments.linear(
                written * e * width * F32,
                expansion / stacks.embeddings_per_block,
                shape,
            );
            outputs = written * l;
            segments.token_decoder(token, written, l, &layers, shape);
        }
        segments.loss(config, outputs, shape);
        segments
    }

    /// Adds a stack of layers that runs `positions` positions.
    fn stack(&mut self, layers: Layers, positions: f64, shape: TrainingShape) {
        let count = layers.shape.layers;
        if count == 0 {
            return;
        }
        let params = (layers.shape.matrix_params() / count) as f64;
        let widened = shape.widened(params);
        let (kept, working) = (positions * layers.kept(), positions * layers.working());
        let gradient = params * F32;
        let alone = positions * layers.alone();
        let layer = if shape.recompute {
            // the input of the layer stays; its weights are narrow, and so are their gradients until
            // the end
            let gradient = if shape.is_narrow() { gradient / 2.0 } else { gradient };
            let input = positions * layers.shape.width as f64 * F32;
            let working = kept + working + widened;
            ModelPart { kept: input, alone, working, gradient, ..ModelPart::default() }
        } else {
            ModelPart { kept, widened, alone, working, gradient, ..ModelPart::default() }
        };
        self.0.extend(std::iter::repeat_n(layer, count));
    }

    /// Adds the final norm of a stack of `width`.
    fn norm(&mut self, width: f64, positions: f64, shape: TrainingShape) {
        let values = match shape.holding {
            Holding::Flex => width + 2.0,
            Holding::Cube => width,
        };
        let kept = positions * values * F32;
        self.0.push(ModelPart { kept, ..ModelPart::default() });
    }

    /// Adds a product with `params` parameters that keeps `kept` bytes of f32.
    fn linear(&mut self, kept: f64, params: usize, shape: TrainingShape) {
        let kept =
            if shape.is_narrow() && shape.holding == Holding::Cube { kept / 2.0 } else { kept };
        let (params, working) = (params as f64, kept);
        let (widened, gradient) = (shape.widened(params), params * F32);
        self.0.push(ModelPart { kept, widened, working, gradient, ..ModelPart::default() });
    }

    /// Adds the token decoder, which writes `blocks` blocks of `l` tokens.
    fn token_decoder(
        &mut self,
        token: &TokenDecoderShape,
        blocks: f64,
        l: f64,
        layers: &dyn Fn(Kind, block_transformer_family::StackShape, f64) -> Layers,
        shape: TrainingShape,
    ) {
        let (stack, width) = (token.stack, token.stack.width as f64);
        let (states, time) = (token.vectors as f64, token.first_positions() as f64 + l - 1.0);
        let kind = match token.conditioning {
            Conditioning::CrossAttention => {
                // keys and values of the states in every layer, and their inputs
                let inner = 2.0 * stack.kv_values() as f64 / 2.0;
                let inputs = if shape.is_narrow() { 2.0 * stack.layers as f64 } else { 1.0 };
                let kept = blocks * states * (inner + inputs * width) * F32;
                self.0.push(ModelPart { kept, working: kept, ..ModelPart::default() });
                Kind::T5 { states: token.vectors }
            }
            Conditioning::Prefix | Conditioning::Summation => Kind::NeoX,
        };
        self.stack(layers(kind, stack, time), blocks * time, shape);
        self.norm(width, blocks * time, shape);
    }

    /// Adds the LM head and the loss of `rows` tokens. The first part gets the gradients of all
    /// parameters that no other part has.
    fn loss<C: FamilyConfig>(&mut self, config: &C, rows: f64, shape: TrainingShape) {
        let stacks = config.stacks();
        let (vocab, width) = (stacks.vocab_size as f64, token_width(&stacks) as f64);
        let head = vocab * width * F32;
        let tied = stacks.token.is_some_and(|token| token.tied_head);
        let (hidden, chunk) = (rows * width * F32, (CHUNK_LOGITS / vocab).max(1.0));
        let copies = if shape.is_narrow() && !tied { 2.0 * head } else { 0.0 };
        let logits = |rows: f64| rows * vocab * F32;
        let (working, in_training) = if shape.holding == Holding::Flex && !shape.is_narrow() {
            // the kernel divides the rows evenly, and holds both gradients with the last part of the logits
            (hidden + head, logits(rows / (rows / chunk).ceil()))
        } else {
            // of several parts of the logits, the gradients of the parts before are held
            let before = if rows > chunk { hidden + 2.0 * head } else { 0.0 };
            (before + copies, LOGIT_TENSORS * logits(rows.min(chunk)))
        };
        self.0.push(ModelPart {
            kept: hidden,
            alone: hidden,
            working,
            logits: in_training,
            logits_alone: LOGIT_TENSORS * logits(rows.min(chunk)),
            gradient: head,
            ..ModelPart::default()
        });
        let known: f64 = self.0.iter().map(|segment| segment.gradient).sum();
        self.0[0].gradient = (config.num_params() as f64 * F32 - known).max(0.0);
    }
}

impl TrainingShape {
    /// Bytes of the f32 copies of `params` bf16 weights that products keep: flex multiplies in f32.
    fn widened(&self, params: f64) -> f64 {
        if self.is_narrow() && self.holding == Holding::Flex { params * F32 } else { 0.0 }
    }
}
