//! Text on top of ids: streaming, stop strings, samples.

use std::ops::ControlFlow;

use block_transformer_generation::{
    GenerationError, Options, PAD, Sampling, TextGenerator, generate, sample_text,
};
use block_transformer_testing::{model, shape};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::FamilyConfig;
use burn::tensor::Device;

fn prompts() -> Vec<String> {
    ["Once", "", "upon a time — ", "日本"].map(String::from).to_vec()
}

fn options() -> Options {
    let sampling = Sampling::at(0.9, 3);
    Options { sampling, max_tokens: 40, eos: None, ..Options::default() }
}

#[test]
fn pieces_add_up_to_the_text_of_all_ids() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let config = shape(name);
        let model = model(&config, &device);
        let generator = TextGenerator::new(&model, &config, &Tokenizer::Bytes, &device).unwrap();
        let mut pieces = vec![String::new(); prompts().len()];
        let completions = generator
            .generate(&prompts(), &options(), &[], |row, text| {
                pieces[row].push_str(text);
                ControlFlow::Continue(())
            })
            .unwrap();
        let ids = Tokenizer::Bytes.encode_batch(&prompts()).unwrap();
        let allowed_vocab = Some(Tokenizer::Bytes.vocab_size());
        let options = Options { allowed_vocab, ..options() };
        let ids =
            generate(&model, &config, &ids, &options, &device, |_, _| ControlFlow::Continue(()));
        for ((completion, pieces), ids) in completions.iter().zip(&pieces).zip(ids.unwrap()) {
            assert!(ids.iter().all(|&id| id != PAD && id < 258));
            assert_eq!(completion.text, Tokenizer::Bytes.decode(&ids), "{name}");
            assert_eq!(&completion.text, pieces, "{name}");
            assert_eq!(completion.tokens, 40);
        }
    }
}

#[test]
fn text_ends_before_a_stop_string() {
    let device = Device::flex();
    let config = shape("prefix");
    let model = model(&config, &device);
    let generator = TextGenerator::new(&model, &config, &Tokenizer::Bytes, &device).unwrap();
    let go_on = |_: usize, _: &str| ControlFlow::Continue(());
    let all = generator.generate(&prompts(), &options(), &[], go_on).unwrap();
    let letters: Vec<char> = all[0].text.chars().collect();
    let stop: String = letters[5..8].iter().collect();
    let mut pieces = String::new();
    let stopped = generator
        .generate(&prompts(), &options(), std::slice::from_ref(&stop), |row, text| {
            if row == 0 {
                pieces.push_str(text);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(stopped[0].text, all[0].text[..all[0].text.find(&stop).unwrap()]);
    assert_eq!(stopped[0].text, pieces);
    assert!(stopped[0].tokens < 40);
    assert!(stopped.iter().all(|completion| !completion.text.contains(&stop)));
}

#[test]
fn a_receiver_that_breaks_gets_no_more() {
    let device = Device::flex();
    let config = shape("vanilla");
    let model = model(&config, &device);
    let generator = TextGenerator::new(&model, &config, &Tokenizer::Bytes, &device).unwrap();
    let mut calls = 0;
    let completions = generator
        .generate(&prompts()[..1], &options(), &[], |_, _| {
            calls += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(calls, 1);
    assert!(completions[0].tokens < 40);
}

#[test]
fn samples_repeat_with_their_seed() {
    let device = Device::flex();
    let config = shape("prefix");
    let model = model(&config, &device);
    let sample =
        |seed| sample_text(&model, &config, &Tokenizer::Bytes, "Once", 20, seed, &device).unwrap();
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn a_tokenizer_with_too_many_ids_is_refused() {
    let device = Device::flex();
    let config = shape("prefix").with_vocab_size(200);
    let model = model(&config, &device);
    let error = TextGenerator::new(&model, &config, &Tokenizer::Bytes, &device).unwrap_err();
    assert!(matches!(error, GenerationError::Vocabulary { tokenizer: 258, model: 200 }));
}
