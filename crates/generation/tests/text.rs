//! Text: streaming, stop strings, cancelling, samples.

use std::ops::ControlFlow;

use block_transformer_family::FamilyConfig;
use block_transformer_generation::{
    Completion, Finish, GenerationError, Limits, Options, PAD, Sampling, TextEngine, TextEvent,
    TextGenerator, generate, sample_text,
};
use block_transformer_testing::{model, shape};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;

fn prompts() -> Vec<String> {
    ["Once", "", "upon a time — ", "日本"].map(String::from).to_vec()
}

fn options() -> Options {
    let sampling = Sampling::at(0.9, 3);
    Options { sampling, max_tokens: 40, eos: None, ..Options::default() }
}

fn go_on(_: usize, _: &TextEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn pieces_are_the_text_of_all_ids() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let config = shape(name);
        let model = model(&config, &device);
        let generator = TextGenerator::new(&model, Tokenizer::Bytes, &device);
        let mut pieces = vec![String::new(); prompts().len()];
        let completions = generator
            .generate(&prompts(), &options(), &[], |row, event| {
                pieces[row].push_str(&event.text);
                ControlFlow::Continue(())
            })
            .unwrap();
        let ids = Tokenizer::Bytes.encode_batch(&prompts()).unwrap();
        let allowed_vocab = Some(Tokenizer::Bytes.vocab_size());
        let options = Options { allowed_vocab, ..options() };
        let ids = generate(&model, &ids, &options, &device, |_, _| ControlFlow::Continue(()));
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
    let generator = TextGenerator::new(&model, Tokenizer::Bytes, &device);
    let all = generator.generate(&prompts(), &options(), &[], go_on).unwrap();
    let letters: Vec<char> = all[0].text.chars().collect();
    let stop: String = letters[5..8].iter().collect();
    let mut pieces = String::new();
    let stopped = generator
        .generate(&prompts(), &options(), std::slice::from_ref(&stop), |row, event| {
            if row == 0 {
                pieces.push_str(&event.text);
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
fn break_ends_generation() {
    let device = Device::flex();
    let config = shape("vanilla");
    let model = model(&config, &device);
    let generator = TextGenerator::new(&model, Tokenizer::Bytes, &device);
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
    let sample = |seed| sample_text(&model, Tokenizer::Bytes, "Once", 20, seed, &device).unwrap();
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn a_tokenizer_with_too_many_ids_is_refused() {
    let device = Device::flex();
    let model = model(&shape("prefix").with_vocab_size(200), &device);
    let limits = Limits { max_sequences: 1, max_tokens: 9 };
    let error = TextEngine::new(&model, Tokenizer::Bytes, limits, &device).unwrap_err();
    assert!(matches!(error, GenerationError::Vocabulary { tokenizer: 258, model: 200 }));
}

/// A sequence of a [`TextEngine`] with its text so far.
struct Text {
    prompt: usize,
    text: String,
    finish: Option<Finish>,
}

#[test]
fn texts_that_come_and_go_get_what_they_get_alone() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let model = model(&shape(name), &device);
        let generator = TextGenerator::new(&model, Tokenizer::Bytes, &device);
        let alone = generator.generate(&prompts(), &options(), &[], go_on).unwrap();
        // two of the prompts stop at a string of their text
        let stop_of = |completion: &Completion| completion.text.chars().skip(5).take(3).collect();
        let stops = [vec![stop_of(&alone[0])], vec![], vec![stop_of(&alone[2])], vec![]];
        let limits = Limits { max_sequences: 2, max_tokens: 80 };
        let mut engine = TextEngine::new(&model, Tokenizer::Bytes, limits, &device).unwrap();
        let mut texts: Vec<Text> = Vec::new();
        for round in 0.. {
            if round < 40 {
                let prompt = round % 4;
                let options = Options { rng_stream: prompt, ..options() };
                let id = engine.submit(&prompts()[prompt], &options, &stops[prompt]).unwrap();
                assert_eq!(id.index(), round);
                texts.push(Text { prompt, text: String::new(), finish: None });
                if round % 6 == 5 {
                    assert!(engine.cancel(id) && !engine.cancel(id));
                }
            }
            if round >= 40 && engine.is_idle() {
                break;
            }
            for event in engine.step().unwrap() {
                let text = &mut texts[event.id.index()];
                assert_eq!(text.finish, None, "an event after the last one");
                assert!(event.finish.is_some() || !event.text.is_empty());
                text.text += &event.text;
                text.finish = event.finish;
                let (whole, prompt) = (&alone[text.prompt].text, text.prompt);
                match event.finish {
                    None => assert!(whole.starts_with(&text.text), "{name}"),
                    Some(Finish::Cancelled) => assert!(event.text.is_empty()),
                    Some(Finish::Length) => {
                        assert_eq!((&text.text, event.tokens), (whole, 40), "{name}");
                    }
                    Some(Finish::Stop) => {
                        let end = whole.find(&stops[prompt][0]).unwrap();
                        assert_eq!(text.text, whole[..end], "{name}");
                    }
                    Some(other) => panic!("{name}: {other:?}"),
                }
            }
        }
        for reason in [Finish::Cancelled, Finish::Length, Finish::Stop] {
            assert!(texts.iter().any(|text| text.finish == Some(reason)), "{name}: {reason:?}");
        }
        assert!(texts.iter().all(|text| text.finish.is_some()));
        assert_eq!((engine.engine().running(), engine.engine().waiting()), (0, 0));
    }
}

#[test]
fn engines_can_move_to_another_thread() {
    fn send<T: Send + 'static>() {}
    send::<TextEngine>();
}
