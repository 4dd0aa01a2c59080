//! The scorer compared with generation, with the training loss, and with itself in batches of other
//! sizes.

use std::ops::ControlFlow;

use block_transformer_evaluation::{Alignment, EvalError, Request, Scored, Scorer, TokenLogProbs};
use block_transformer_generation::{Options, Sampling, generate};
use block_transformer_testing::{VOCAB, model, prompts_of, shape, shapes};
use block_transformer_zoo::family::CacheFormat;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, PaddingMask, TokenBatch};
use burn::tensor::{Device, Int, Tensor, TensorData};

fn request(context: usize, continuation: usize) -> Request {
    let [context, continuation] = [context, continuation].map(|n| prompts_of([n]).remove(0));
    Request { context, continuation }
}

fn score(scorer: &Scorer<LanguageModel>, requests: &[Request]) -> Vec<Scored> {
    scorer.score(requests, &mut |_, _| ()).unwrap()
}

/// The largest difference between two scores of the same token.
fn difference(a: &[Scored], b: &[Scored]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.log_probs.len(), b.log_probs.len());
        a.log_probs.iter().zip(&b.log_probs)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn greedy_generations_are_greedy_and_become_not_greedy_by_one_other_token() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let prompts = prompts_of(0..9);
        let sampling = Sampling::at(0.0, 0);
        let options = Options { sampling, max_tokens: 10, eos: None, ..Options::default() };
        let go_on = |_: usize, _: u32| ControlFlow::Continue(());
        let written = generate(&model, &prompts, &options, &device, go_on).unwrap();
        let request = |(context, continuation)| Request { context, continuation };
        let greedy: Vec<Request> = prompts.into_iter().zip(written).map(request).collect();
        let scorer = Scorer::new(&model);
        assert!(score(&scorer, &greedy).iter().all(|scored| scored.greedy), "{name}");
        let mut other = greedy.clone();
        other.iter_mut().for_each(|r| r.continuation[7] = (r.continuation[7] + 1) % VOCAB as u32);
        assert!(score(&scorer, &other).iter().all(|scored| !scored.greedy), "{name}");
        // a prompt with its padding in another place is a different prompt: some continuations are
        // not greedy
        let mut shifted = greedy;
        shifted.iter_mut().for_each(|r| {
            let first = r.continuation.remove(0);
            r.context.push(first);
        });
        if config.block_length() > 1 {
            let scores = score(&scorer, &shifted);
            assert!(scores.iter().any(|scored| !scored.greedy), "{name}");
        }
    }
}

#[test]
fn scores_through_caches_are_those_of_whole_sequences() {
    let requests: Vec<Request> = (0..20).map(|i| request(i * 7 % 19, 1 + i * 5 % 11)).collect();
    let mut supported = 0;
    for (name, config) in shapes() {
        let scorer = Scorer::new(&model(&config, &Device::flex()));
        let whole = score(&scorer, &requests);
        let cached = |format| scorer.clone().with_cache(format);
        let Ok(exact) = cached(CacheFormat::F32) else {
            assert!(name.contains("cross"), "{name}");
            continue;
        };
        supported += 1;
        let most = difference(&whole, &score(&exact, &requests));
        assert!(most < 1e-4, "{name}: {most}");
        for (format, least, limit) in
            [(CacheFormat::Bf16, 1e-7, 0.05), (CacheFormat::Int8, 1e-6, 0.1)]
        {
            let most = difference(&whole, &score(&cached(format).unwrap(), &requests));
            assert!((least..limit).contains(&most), "{name}, {format}: {most}");
        }
    }
    assert!(supported > 5);
    // more blocks than are run together
    let (context, continuation) = ([3, 1, 4].repeat(400), [1, 5, 9].repeat(20));
    let long = [Request { context, continuation }];
    let vanilla =
        Scorer::new(&model(&shape("vanilla"), &Device::flex())).with_context(1300).unwrap();
    let [whole, cached] =
        [vanilla.clone(), vanilla.with_cache(CacheFormat::F32).unwrap()].map(|s| score(&s, &long));
    assert!(difference(&whole, &cached) < 1e-4);
}

#[test]
fn scores_do_not_depend_on_the_batch() {
    let requests: Vec<Request> = (0..40).map(|i| request(i * 7 % 19, 1 + i * 5 % 11)).collect();
    for (name, config) in shapes() {
        let scorer = Scorer::new(&model(&config, &Device::flex()));
        let mut last = (0, 0);
        let progress = &mut |done, total| last = (done, total);
        let together = scorer.score(&requests, progress).unwrap();
        assert_eq!(last, (requests.len() as u64, requests.len() as u64));
        for batch_tokens in [1, 50, 200] {
            let scorer = scorer.clone().with_batch_tokens(batch_tokens).unwrap();
            let scores = score(&scorer, &requests);
            let most = difference(&together, &scores);
            // flex sums products of few rows and of many rows in different orders. Attention
            // without a scale amplifies this rounding.
            let tolerance = if name == "cross-attention" { 2e-3 } else { 2e-5 };
            assert!(most < tolerance, "{name}, {batch_tokens} tokens: {most}");
            assert!(together.iter().zip(&scores).all(|(a, b)| a.greedy == b.greedy), "{name}");
        }
    }
}

#[test]
fn log_probabilities_of_a_window_are_the_negated_training_losses() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let (model, length) = (model(&config, &device), config.block_length());
        let window = prompts_of([48]).remove(0);
        let (context, continuation) = window.split_at(length);
        let request = Request { context: context.into(), continuation: continuation.into() };
        let scored = score(&Scorer::new(&model), &[request]).remove(0);
        let ids: Vec<i64> = window.iter().map(|&id| i64::from(id)).collect();
        let losses = model.losses(&TokenBatch {
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 48]), &device),
            is_token: PaddingMask::full(),
            block_length: length,
        });
        let losses: Vec<f64> = losses.losses.into_data().iter::<f64>().collect();
        assert_eq!(losses.len(), scored.log_probs.len());
        for (loss, log_prob) in losses.iter().zip(&scored.log_probs) {
            assert!((loss + log_prob).abs() < 2e-5, "{name}: {loss}, {log_prob}");
        }
    }
}

#[test]
fn scores_of_tokens_are_those_of_requests_with_the_most_likely_tokens() {
    let requests: Vec<Request> = (0..20).map(|i| request(i * 7 % 19, 1 + i * 5 % 11)).collect();
    for (name, config) in shapes() {
        let plain = Scorer::new(&model(&config, &Device::flex())).with_batch_tokens(90).unwrap();
        let published = plain.clone().with_alignment(Alignment::Published);
        let cached = plain.clone().with_cache(CacheFormat::F32).ok();
        let cached = cached.into_iter().flat_map(|scorer| {
            [Alignment::Generation, Alignment::Published]
                .map(|at| scorer.clone().with_alignment(at))
        });
        for scorer in [plain, published].into_iter().chain(cached) {
            let expected = score(&scorer, &requests);
            for top in [0, 1, 5, VOCAB + 7] {
                let found = scorer.score_tokens(&requests, top).unwrap();
                assert_eq!(found.len(), requests.len());
                for ((found, scored), request) in found.iter().zip(&expected).zip(&requests) {
                    let log_probs = found.iter().map(|token| token.log_prob.to_bits());
                    let expected = scored.log_probs.iter().map(|x| x.to_bits());
                    assert!(log_probs.eq(expected), "{name}, top {top}");
                    for (token, own) in found.iter().zip(&request.continuation) {
                        assert_eq!(token.top.len(), top.min(VOCAB));
                        assert!(token.top.is_sorted_by(|a, b| a.1 >= b.1), "{name}");
                        let of_own = token.top.iter().find(|(id, _)| id == own);
                        assert!(of_own.is_none_or(|(_, log_prob)| *log_prob == token.log_prob));
                        assert!(of_own.is_some() || top < VOCAB);
                        if top > VOCAB {
                            let total: f64 = token.top.iter().map(|x| x.1.exp()).sum();
                            assert!((total - 1.0).abs() < 1e-5, "{name}: {total}");
                        }
                    }
                    if top > 0 {
                        let is_first =
                            |(token, own): (&TokenLogProbs, &u32)| token.top[0].0 == *own;
                        let greedy = found.iter().zip(&request.continuation).all(is_first);
                        assert_eq!(greedy, scored.greedy, "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_first_of_the_most_likely_tokens_is_the_greedy_choice() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let prompts = prompts_of(0..9);
        let options = Options { max_tokens: 10, eos: None, ..Options::default() };
        let go_on = |_: usize, _: u32| ControlFlow::Continue(());
        let written = generate(&model, &prompts, &options, &device, go_on).unwrap();
        let request = |(context, continuation)| Request { context, continuation };
        let requests: Vec<Request> = prompts.into_iter().zip(written).map(request).collect();
        let found = Scorer::new(&model).score_tokens(&requests, 2).unwrap();
        for (found, request) in found.iter().zip(&requests) {
            let first: Vec<u32> = found.iter().map(|token| token.top[0].0).collect();
            assert_eq!(first, request.continuation, "{name}");
        }
    }
}

#[test]
fn tokens_beyond_the_context_are_cut_from_the_left() {
    for name in ["vanilla", "prefix"] {
        let wide = Scorer::new(&model(&shape(name), &Device::flex())).with_context(64).unwrap();
        let scorer = wide.clone().with_context(16).unwrap();
        for continuation in [1, 4, 5, 16] {
            let long = request(50, continuation);
            // the context and the last target have one token more than the model reads
            let kept = long.context[50 - (17 - continuation)..].to_vec();
            let cut = Request { context: kept, ..long.clone() };
            let [long, cut] = [[long], [cut]];
            let scored = score(&scorer, &long);
            assert_eq!(difference(&scored, &score(&wide, &cut)), 0.0);
            assert!(difference(&scored, &score(&wide, &long)) > 1e-3);
        }
    }
}

#[test]
fn invalid_requests_are_rejected() {
    let model = model(&shape("prefix"), &Device::flex());
    let scorer = Scorer::new(&model).with_context(8).unwrap();
    let error = |context: Vec<u32>, continuation: Vec<u32>| {
        scorer.score(&[Request { context, continuation }], &mut |_, _| ()).unwrap_err()
    };
    assert!(matches!(error(vec![], vec![]), EvalError::EmptyContinuation));
    let error_of_tokens = scorer.score_tokens(&[Request::default()], 1).unwrap_err();
    assert!(matches!(error_of_tokens, EvalError::EmptyContinuation));
    assert!(scorer.score_tokens(&[], 1).unwrap().is_empty());
    assert!(matches!(error(vec![260], vec![2]), EvalError::TokenId { id: 260, vocab_size: VOCAB }));
    assert!(matches!(error(vec![2], vec![300]), EvalError::TokenId { id: 300, .. }));
    assert!(matches!(error(vec![2], vec![2; 9]), EvalError::TooLong { tokens: 9, context: 8 }));
    assert!(matches!(scorer.clone().with_context(0), Err(EvalError::Zero("context"))));
    assert!(score(&scorer, &[]).is_empty());
}

#[test]
fn the_published_alignment_does_not_depend_on_the_end_of_the_context() {
    for (name, config) in shapes() {
        let l = config.block_length();
        let usual = Scorer::new(&model(&config, &Device::flex()));
        let published = usual.clone().with_alignment(Alignment::Published);
        let ids = prompts_of([23]).remove(0);
        let split = |at: usize| {
            let (context, continuation) = ids.split_at(at);
            [Request { context: context.into(), continuation: continuation.into() }]
        };
        let whole = score(&published, &split(1)).remove(0);
        for at in 1..ids.len() {
            let found = score(&published, &split(at));
            let expected =
                Scored { log_probs: whole.log_probs[at - 1..].into(), ..found[0].clone() };
            let most = difference(&found, &[expected]);
            assert!(most < 1e-4, "{name} {at}: {most}");
            // the padding of both is the same where the context has one token more than whole blocks
            let most = difference(&found, &score(&usual, &split(at)));
            assert!((most < 1e-4) == (at % l == 1 % l), "{name} {at}: {most}");
            if let Ok(cached) = published.clone().with_cache(CacheFormat::F32) {
                let most = difference(&found, &score(&cached, &split(at)));
                assert!(most < 1e-4, "{name} {at}, cached: {most}");
            }
        }
    }
}
