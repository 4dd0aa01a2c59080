//! The formulas compared with the operations that the engine counts, and with each other.

use std::path::Path;

use block_transformer_cost::{
    Lengths, Machine, Phases, Prediction, Sizes, Workload, decode, largest_batch, prefill,
    published,
};
use block_transformer_family::{CacheFormat, Precision, StackShape};
use block_transformer_generation::{Engine, Limits, Options, PositionCounts, Work};
use block_transformer_layers::neox::NeoXConfig;
use block_transformer_testing::shape;
use block_transformer_zoo::{FamilyConfig, ModelConfig};
use burn::tensor::Device;

const F32: Sizes = Sizes { weights: 4.0, values: 4.0, cache: CacheFormat::F32 };

fn preset(name: &str) -> &'static ModelConfig {
    &block_transformer_zoo::preset(name).unwrap().model
}

/// Returns the FLOPs of the matrix products that an engine has counted.
fn counted_flops(config: &ModelConfig, work: &Work) -> f64 {
    let stack = |stack: &NeoXConfig, positions: PositionCounts| {
        let (h, m) = (stack.hidden_size, stack.intermediate());
        let all = positions.run * StackShape::from(stack).matrix_params();
        2 * (all - (positions.run - positions.finished) * (h * h + 2 * h * m))
    };
    let flops = match config {
        ModelConfig::Vanilla(c) => {
            stack(&c.stack, work.token) + 2 * work.logits * c.vocab_size * c.stack.hidden_size
        }
        ModelConfig::Block(c) => {
            let block_transformer_zoo::block::TokenDecoderConfig::NeoX(decoder) = &c.token_decoder
            else {
                panic!("no T5 here")
            };
            let (d, h) = (c.block_decoder.hidden_size, decoder.stack.hidden_size);
            stack(&c.block_decoder, work.block)
                + 2 * work.expanded * d * h * c.expansion()
                + stack(&decoder.stack, work.token)
                + 2 * work.logits * c.vocab_size * h
        }
        other => panic!("no sizes of {}", other.family()),
    };
    flops as f64
}

#[test]
fn flops_match_the_counts_of_the_engine() {
    // on flex, the prompts of these models, which are not prepared, run in smaller chunks
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let device = Device::ndarray();
    for name in ["prefix", "unequal widths", "length 1", "summation", "vanilla"] {
        let config = shape(name);
        let model = config.init(0, &device);
        let length = config.block_length();
        // the last block is never an input, but the formulas count it
        for (rows, prompt, blocks) in [(1, 5, 1), (3, 24, 2), (1, 2400, 3)] {
            let tokens = prompt + blocks * length;
            let limits = Limits { max_sequences: rows, max_tokens: tokens };
            let mut engine = Engine::new(&model, limits, &device).unwrap();
            let options = Options { max_tokens: blocks * length, eos: None, ..Options::default() };
            for _ in 0..rows {
                engine.submit(&vec![7; prompt], &options).unwrap();
            }
            while !engine.is_idle() {
                engine.step().unwrap();
            }
            let matrices = |phases: Phases| phases.total().matrix_flops;
            let written = matrices(decode(&config, rows, prompt, F32)) * (blocks * length) as f64;
            let one_step = match &config {
                ModelConfig::Vanilla(c) => 2 * StackShape::from(&c.stack).matrix_params(),
                ModelConfig::Block(c) => {
                    let stack = StackShape::from(&c.block_decoder);
                    2 * c.embeddings_per_block() * stack.matrix_params()
                }
                other => panic!("no sizes of {}", other.family()),
            };
            let read = matrices(prefill(&config, prompt, F32));
            let expected = rows as f64 * (read - one_step as f64) + written;
            let counted = counted_flops(&config, &engine.work());
            assert!((counted - expected).abs() < 1e-9 * counted, "{counted} {expected}");
        }
    }
}

#[test]
fn the_cost_of_a_token_of_the_85m_models_matches_the_readme_of_the_engine() {
    let token = |name: &str, context| decode(preset(name), 1, context, F32).total();
    let (block, vanilla) = (token("block-170m", 0), token("vanilla-160m", 0));
    assert!((block.matrix_flops / 1e6 - 203.0).abs() < 0.5, "{}", block.matrix_flops);
    assert!((block.weights / 1e6 - 368.0).abs() < 0.5, "{}", block.weights);
    assert!((vanilla.matrix_flops / 1e6 - 247.0).abs() < 0.5, "{}", vanilla.matrix_flops);
    assert!((vanilla.weights / 1e6 - 494.0).abs() < 0.5, "{}", vanilla.weights);
    // with blocks, a layer reads a sixteenth of the keys and values, and only half of the layers
    // cache the context
    let read = |name: &str| (token(name, 4096).caches - token(name, 0).caches) / 4096.0;
    assert_eq!((read("block-170m"), read("vanilla-160m")), (2304.0, 73728.0));
}

#[test]
fn no_prediction_exceeds_its_bound() {
    for machine in ["h100", "a100"] {
        let machine = Machine::open(Path::new(machine)).unwrap();
        for preset in block_transformer_zoo::presets() {
            for lengths in ["2048:128", "128:2048", "5:3"] {
                let lengths: Lengths = lengths.parse().unwrap();
                let limits = largest_batch(&preset.model, &machine, lengths.total()).unwrap();
                let predict = |batch| {
                    let workload = Workload::Lengths(lengths);
                    Prediction::new(&preset.model, &machine, workload, batch)
                };
                let (fits, alone) = (predict(limits.max_sequences), predict(1));
                for prediction in [&fits, &alone] {
                    assert!(prediction.rate > 0.0 && prediction.rate <= prediction.bound);
                }
                assert!(fits.rate > alone.rate, "{} {lengths}", preset.name);
            }
        }
    }
}

#[test]
fn the_largest_batch_fills_the_memory_in_half_precision() {
    let mut machine = Machine::open(Path::new("h100")).unwrap();
    let batch = |machine: &Machine| {
        largest_batch(preset("vanilla-160m"), machine, 2176).unwrap().max_sequences as f64
    };
    // 12 layers of 768, keys and values, 2 bytes
    let cache = 2175.0 * 12.0 * 768.0 * 2.0 * 2.0;
    let half = batch(&machine);
    assert!(half * cache < 80e9 && half * cache > 0.97 * 80e9, "{half}");
    machine.precision = Precision::F32;
    assert!((half / batch(&machine) - 2.0).abs() < 0.02);
    machine.memory = 1e6;
    let error = largest_batch(preset("vanilla-160m"), &machine, 2176).unwrap_err().to_string();
    assert!(error.contains("1000000"), "{error}");
}

#[test]
fn published_measurements_belong_to_presets() {
    for name in ["vanilla-160m", "vanilla-410m", "block-170m", "block-420m"] {
        preset(name);
        for lengths in ["2048:128", "128:2048"] {
            assert!(published(name, lengths.parse().unwrap()).unwrap().rate > 0.0);
        }
    }
    assert!(published("block-33m", "2048:128".parse().unwrap()).is_none());
    for wrong in ["2048", "0:4", "4:0", "a:4", "4:-1", ""] {
        assert!(wrong.parse::<Lengths>().is_err(), "{wrong}");
    }
}
