//! Text: streaming, stop strings, cancelling, samples.

use std::ops::ControlFlow;

use block_transformer_family::FamilyConfig;
use block_transformer_generation::{
    Completion, Finish, GenerationError, Limits, Options, PAD, Sampling, TextEngine, TextGenerator,
    generate, sample_text,
};
use block_transformer_testing::{model, shape};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::LanguageModel;
use burn::tensor::Device;

const PROMPTS: [&str; 4] = ["Once", "", "upon a time — ", "日本"];

fn options() -> Options {
    let sampling = Sampling::at(0.9, 3);
    Options { sampling, max_tokens: 40, eos: None, ..Options::default() }
}

/// Continues all prompts and checks that the reported pieces make up each text.
fn continued(model: &LanguageModel, stop: &[String]) -> Vec<Completion> {
    let device = Device::flex();
    let generator = TextGenerator::new(model, Tokenizer::Bytes, &device);
    let mut pieces = PROMPTS.map(|_| String::new());
    let completions =
        generator.generate(&PROMPTS.map(String::from), &options(), stop, |i, event| {
            pieces[i].push_str(&event.text);
            ControlFlow::Continue(())
        });
    let completions = completions.unwrap().all;
    assert!(completions.iter().map(|completion| &completion.text).eq(&pieces));
    completions
}

#[test]
fn pieces_are_the_text_of_all_ids() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let model = model(&shape(name), &device);
        let ids = Tokenizer::Bytes.encode_batch(&PROMPTS.map(String::from)).unwrap();
        let allowed_vocab = Some(Tokenizer::Bytes.vocab_size());
        let options = Options { allowed_vocab, ..options() };
        let ids = generate(&model, &ids, &options, &device, |_, _| ControlFlow::Continue(()));
        for (completion, ids) in continued(&model, &[]).iter().zip(ids.unwrap()) {
            assert!(ids.iter().all(|&id| id != PAD && id < 258));
            assert_eq!(completion.text, Tokenizer::Bytes.decode(&ids), "{name}");
            assert_eq!(completion.tokens, 40);
        }
    }
}

/// Three characters inside the text.
fn middle(completion: &Completion) -> String {
    completion.text.chars().skip(5).take(3).collect()
}

#[test]
fn text_ends_before_a_stop_string() {
    let model = model(&shape("prefix"), &Device::flex());
    let all = continued(&model, &[]);
    let stop = middle(&all[0]);
    let stopped = continued(&model, std::slice::from_ref(&stop));
    assert_eq!(stopped[0].text, all[0].text[..all[0].text.find(&stop).unwrap()]);
    assert!(stopped[0].tokens < 40);
    assert!(stopped.iter().all(|completion| !completion.text.contains(&stop)));
}

#[test]
fn break_ends_generation() {
    let device = Device::flex();
    let model = model(&shape("vanilla"), &device);
    let generator = TextGenerator::new(&model, Tokenizer::Bytes, &device);
    let mut calls = 0;
    let completions = generator.generate(&["Once".into()], &options(), &[], |_, _| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert!(calls == 1 && completions.unwrap().all[0].tokens < 40);
}

#[test]
fn samples_repeat_with_their_seed() {
    let device = Device::flex();
    let model = model(&shape("prefix"), &device);
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

#[test]
fn texts_that_come_and_go_get_what_they_get_alone() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let model = model(&shape(name), &device);
        let alone = continued(&model, &[]);
        // two of the prompts stop at a string of their text
        let stops = [vec![middle(&alone[0])], vec![], vec![middle(&alone[2])], vec![]];
        let limits = Limits { max_sequences: 2, max_tokens: 80 };
        let mut engine = TextEngine::new(&model, Tokenizer::Bytes, limits, &device).unwrap();
        // the text so far and the end of each sequence
        let mut texts: Vec<(String, Option<Finish>)> = Vec::new();
        for round in 0.. {
            if round < 40 {
                let prompt = round % 4;
                let options = Options { rng_stream: prompt, ..options() };
                let id = engine.submit(PROMPTS[prompt], &options, &stops[prompt]).unwrap();
                assert_eq!(id.index(), round);
                texts.push((String::new(), None));
                if round % 6 == 5 {
                    assert!(engine.cancel(id) && !engine.cancel(id));
                }
            } else if engine.is_idle() {
                break;
            }
            for event in engine.step().unwrap() {
                let (text, finish) = &mut texts[event.id.index()];
                assert_eq!(*finish, None, "an event after the last one");
                assert!(event.finish.is_some() || !event.text.is_empty());
                text.push_str(&event.text);
                *finish = event.finish;
                let prompt = event.id.index() % 4;
                let whole = &alone[prompt].text;
                match event.finish {
                    None => assert!(whole.starts_with(&**text), "{name}"),
                    Some(Finish::Cancelled) => assert!(event.text.is_empty()),
                    Some(Finish::Length) => {
                        assert_eq!((&*text, event.tokens), (whole, 40), "{name}");
                    }
                    Some(Finish::Stop) => {
                        let end = whole.find(&stops[prompt][0]).unwrap();
                        assert_eq!(*text, whole[..end], "{name}");
                    }
                    Some(other) => panic!("{name}: {other:?}"),
                }
            }
        }
        for reason in [Finish::Cancelled, Finish::Length, Finish::Stop] {
            assert!(texts.iter().any(|text| text.1 == Some(reason)), "{name}: {reason:?}");
        }
        assert!(texts.iter().all(|text| text.1.is_some()));
        assert_eq!((engine.engine().running(), engine.engine().waiting()), (0, 0));
    }
}

#[test]
fn chosen_tokens_are_reported_with_the_text_they_belong_to() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let model = model(&shape(name), &device);
        let alone = continued(&model, &[]);
        let stop = middle(&alone[0]);
        let limits = Limits { max_sequences: 4, max_tokens: 80 };
        let mut engine = TextEngine::new(&model, Tokenizer::Bytes, limits, &device).unwrap();
        let submit = |engine: &mut TextEngine, prompt: usize, logprobs, stop: &[String]| {
            let options = Options { rng_stream: prompt, logprobs, ..options() };
            engine.submit(PROMPTS[prompt], &options, stop).unwrap()
        };
        let whole = submit(&mut engine, 2, Some(3), &[]);
        let stopped = submit(&mut engine, 0, Some(0), std::slice::from_ref(&stop));
        let without = submit(&mut engine, 1, None, &[]);
        let cancelled = submit(&mut engine, 3, Some(1), &[]);
        let mut chosen = vec![Vec::new(); 4];
        let (mut steps, mut texts) = (0, vec![String::new(); 4]);
        while !engine.is_idle() {
            steps += 1;
            if steps == 12 {
                assert!(engine.cancel(cancelled));
            }
            for event in engine.step().unwrap() {
                let index = event.id.index();
                texts[index].push_str(&event.text);
                chosen[index].extend(event.chosen);
                let count = if event.id == without { 0 } else { event.tokens };
                assert_eq!(chosen[index].len(), count, "{name}");
            }
        }
        let decoded = |index: usize| {
            let ids: Vec<u32> = chosen[index].iter().map(|chosen| chosen.token).collect();
            Tokenizer::Bytes.decode(&ids)
        };
        assert_eq!(decoded(whole.index()), alone[2].text, "{name}");
        assert_eq!(chosen[whole.index()].len(), 40);
        // the tokens of the stop string are reported too
        let text = &texts[stopped.index()];
        assert!(decoded(stopped.index()).starts_with(&format!("{text}{stop}")), "{name}");
        assert_eq!(chosen[cancelled.index()].len(), 11, "{name}");
        for (id, count) in [(whole, 3), (stopped, 0), (cancelled, 1)] {
            let of = &chosen[id.index()];
            assert!(of.iter().all(|chosen| chosen.logprobs.top.len() == count), "{name}");
        }
    }
}

#[test]
fn a_stop_token_passes_on_the_text_before_it() {
    let device = Device::flex();
    let model = model(&shape("prefix"), &device);
    let prompt = Tokenizer::Bytes.encode(PROMPTS[0]).unwrap();
    let all = Options { allowed_vocab: Some(Tokenizer::Bytes.vocab_size()), ..options() };
    let ids = generate(&model, &[prompt], &all, &device, |_, _| ControlFlow::Continue(()));
    let ids = ids.unwrap().remove(0);
    let end = ids.iter().position(|id| *id == ids[20]).unwrap();
    let before = Tokenizer::Bytes.decode(&ids[..end]);
    // text that may be the start of a stop string is held back until the end
    let stop = [format!("{}\0", before.chars().last().unwrap())];
    let options = Options { stop_tokens: vec![ids[20]], ..options() };
    let generator = TextGenerator::new(&model, Tokenizer::Bytes, &device);
    let go_on = |_: usize, _: &_| ControlFlow::Continue(());
    let ours = generator.generate(&[PROMPTS[0].into()], &options, &stop, go_on).unwrap();
    let expected = Completion { text: before, tokens: end, finish: Some(Finish::Stop) };
    assert_eq!(ours.all, [expected]);
}

#[test]
fn choices_after_a_prefix_have_their_own_text() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let model = model(&shape(name), &device);
        let limits = Limits { max_sequences: 2, max_tokens: 100 };
        let new = || TextEngine::new(&model, Tokenizer::Bytes, limits, &device).unwrap();
        let [prefix, prompt] =
            ["A long time ago, ", "日本"].map(|text| Tokenizer::Bytes.encode(text).unwrap());
        let choices: Vec<Options> =
            (0..5).map(|rng_stream| Options { rng_stream, ..options() }).collect();
        let run = |engine: &mut TextEngine, choices: &[Options], stop: &[String]| {
            let ids = engine.submit_choices(&prefix, &prompt, choices, stop).unwrap();
            assert!(engine.cancel(ids[ids.len() - 1]));
            let mut texts = vec![(String::new(), None); ids.len()];
            while !engine.is_idle() {
                for event in engine.step().unwrap() {
                    let text = &mut texts[ids.iter().position(|id| *id == event.id).unwrap()];
                    text.0.push_str(&event.text);
                    text.1 = event.finish;
                }
            }
            assert_eq!(texts.pop(), Some((String::new(), Some(Finish::Cancelled))));
            texts
        };
        // each choice beside one that is cancelled at once
        let alone = |stop: &[String]| -> Vec<_> {
            let one = |of: &Options| run(&mut new(), &[of.clone(), of.clone()], stop).remove(0);
            choices[..4].iter().map(one).collect()
        };
        let whole = run(&mut new(), &choices, &[]);
        assert_eq!(whole, alone(&[]), "{name}");
        assert!(whole.iter().all(|(_, finish)| *finish == Some(Finish::Length)));
        let stop: String = whole[1].0.chars().skip(3).take(2).collect();
        let mut engine = new();
        let stopped = run(&mut engine, &choices, std::slice::from_ref(&stop));
        assert_eq!(stopped, alone(std::slice::from_ref(&stop)), "{name}");
        assert_eq!(stopped[1].1, Some(Finish::Stop));
        assert!(whole[1].0.starts_with(&stopped[1].0) && !stopped[1].0.contains(&stop));
        let none = engine.submit_choices(&prefix, &prompt, &choices, &[String::new()]).unwrap_err();
        assert!(matches!(none, GenerationError::EmptyStop));
        assert!(engine.is_idle());
    }
}

#[test]
fn engines_can_move_to_another_thread() {
    fn send<T: Send + 'static>() {}
    send::<TextEngine>();
}
