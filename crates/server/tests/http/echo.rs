//! Scores of prompts.

use block_transformer_evaluation::{Alignment, Request, Scorer};
use block_transformer_server::ServedModel;
use block_transformer_testing::{model as random_model, prompts_of, shape};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::{Family, FamilyConfig};
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::support::{MAX_TOKENS, TestServer, config, language_model, options, served, texts};

/// The request that the EleutherAI harness sends.
fn harness(model: &str, prompt: Value) -> Value {
    json!({
        "model": model, "prompt": prompt, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234,
        "echo": true
    })
}

/// The list `field` of the log-probabilities of a choice.
fn list<'a>(choice: &'a Value, field: &str) -> &'a Vec<Value> {
    choice["logprobs"][field].as_array().unwrap()
}

/// Checks the rules that the harness depends on, for a prompt of `prompt` tokens.
fn check_rules(choice: &Value, prompt: usize) {
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(choice, field).len(), prompt + 1, "{field}: {choice}");
    }
    let values = list(choice, "token_logprobs");
    for (i, value) in values.iter().enumerate() {
        assert_eq!(value.is_null(), i == 0 && prompt > 0, "entry {i}: {choice}");
        let top = &list(choice, "top_logprobs")[i];
        assert_eq!(top.is_null(), value.is_null());
        if let Some(top) = top.as_object() {
            let largest =
                top.values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max);
            let value = value.as_f64().unwrap();
            assert!(value <= 0.0 && value <= largest, "{choice}");
            // the token itself is there under its text, with the same number unless another has the text
            let own = top[list(choice, "tokens")[i].as_str().unwrap()].as_f64().unwrap();
            assert!(own >= value);
        }
    }
}

#[test]
fn an_echo_has_an_entry_for_each_token_and_one_for_the_new_token() {
    let server = TestServer::with(
        ["prefix", "vanilla", "cls, summation"].map(|name| served(name, options(4))).into(),
        config(),
    );
    for model in ["prefix", "vanilla", "cls, summation"] {
        let lengths = [1, 2, 3, 4, 5, 31, MAX_TOKENS - 1];
        let prompts = prompts_of(lengths);
        let answer = server.complete(&harness(model, json!(prompts)));
        for (index, (length, choice)) in
            lengths.iter().zip(answer["choices"].as_array().unwrap()).enumerate()
        {
            assert_eq!(choice["index"], index);
            check_rules(choice, *length);
        }
        // an empty prompt has no entry but the new one
        check_rules(&server.complete(&harness(model, json!([[]])))["choices"][0], 0);
    }
}

#[test]
fn the_entry_of_the_new_token_is_there_also_if_it_ends_the_text() {
    let server = TestServer::new();
    for model in ["prefix", "vanilla"] {
        // a token that the model chooses ends the text
        let body = json!({"model": model, "prompt": "some text", "max_tokens": 1, "temperature": 0, "logprobs": 1,
                          "echo": true, "return_tokens_as_token_ids": true});
        let choice = &server.complete(&body)["choices"][0];
        let last = list(choice, "tokens")[9].as_str().unwrap().strip_prefix("token_id:").unwrap();
        let last: u32 = last.parse().unwrap();
        assert_eq!(choice["finish_reason"], "length");
        let mut stopped = body.clone();
        stopped["stop_token_ids"] = json!([last]);
        for (temperature, bias) in [(0.0, Value::Null), (0.7, json!({last.to_string(): 100}))] {
            stopped["temperature"] = json!(temperature);
            stopped["logit_bias"] = bias;
            let choice = &server.complete(&stopped)["choices"][0];
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
            assert_eq!(choice["text"], "some text");
            assert_eq!(list(choice, "token_logprobs").len(), 10);
            assert!(list(choice, "token_logprobs")[9].is_number());
        }
        // the end of the document has a text in the lists, but not in the text
        let body = json!({"model": model, "prompt": "some text", "max_tokens": 1, "logprobs": 1, "echo": true,
                          "logit_bias": {"0": 100}});
        let choice = &server.complete(&body)["choices"][0];
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&json!("some text"), &json!("stop"))
        );
        assert_eq!(list(choice, "tokens")[9], "<|endoftext|>");
    }
}

#[test]
fn scores_are_those_of_eval() {
    let server = TestServer::new();
    let prompts = prompts_of([2, 3, 9, 40, 77, 100]);
    for name in ["prefix", "vanilla"] {
        let model = language_model(name);
        let scorer = Scorer::new(&model).with_context(MAX_TOKENS).unwrap();
        let scorer = scorer.with_alignment(Alignment::Published);
        let answer = server.complete(&harness(name, json!(prompts)));
        for (ids, choice) in prompts.iter().zip(answer["choices"].as_array().unwrap()) {
            // any context: the split of a text does not matter for this alignment
            for context in [1, ids.len() / 2, ids.len() - 1] {
                let (context, continuation) = ids.split_at(context);
                let request =
                    Request { context: context.into(), continuation: continuation.into() };
                let scored = scorer.score(&[request], &mut |_, _| {}).unwrap().remove(0);
                let values = &list(choice, "token_logprobs")[context.len()..ids.len()];
                let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
                assert_eq!(values, scored.log_probs, "{name}");
                let tops = &list(choice, "top_logprobs")[context.len()..ids.len()];
                let is_greedy = values.iter().zip(tops).all(|(value, top)| {
                    let values = top.as_object().unwrap().values();
                    values.map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max) == *value
                });
                assert_eq!(is_greedy, scored.greedy);
            }
        }
    }
}

#[test]
fn scores_do_not_depend_on_other_prompts() {
    // the matrices of models with these ids can be prepared or not
    let sizes = [("prefix", 272), ("vanilla", 272), ("prefix", 260), ("vanilla", 260)];
    let name = |(shape, vocab): (&str, usize)| format!("{shape} {vocab}");
    let models = sizes.map(|(shape_name, vocab)| {
        let config = shape(shape_name).with_vocab_size(vocab);
        let model = config.clone();
        let load = move || Ok(random_model(&model, &Device::flex()).prepared());
        ServedModel::new(name((shape_name, vocab)), &config, Tokenizer::Bytes, options(4), load)
    });
    let server = TestServer::with(models.into(), config());
    let prompts = prompts_of([2, 50, 3, 17, 90, 4, 33]);
    for model in sizes.map(name) {
        let model = model.as_str();
        let together = server.complete(&harness(model, json!(prompts)));
        for (prompt, choice) in prompts.iter().zip(together["choices"].as_array().unwrap()) {
            let alone = server.complete(&harness(model, json!([prompt])));
            assert_eq!(alone["choices"][0]["logprobs"], choice["logprobs"]);
        }
    }
}

#[test]
fn prompts_are_scored_without_a_new_token() {
    let server = TestServer::new();
    let body = |max_tokens: usize| {
        json!({"prompt": ["some text", "x", ""], "max_tokens": max_tokens, "temperature": 0,
               "logprobs": 2, "echo": true})
    };
    let (scored, continued) = (server.complete(&body(0)), server.complete(&body(3)));
    assert_eq!(texts(&scored), ["some text", "x", ""]);
    assert_eq!(scored["usage"]["completion_tokens"], 0);
    for (choice, (longer, tokens)) in scored["choices"]
        .as_array()
        .unwrap()
        .iter()
        .zip(continued["choices"].as_array().unwrap().iter().zip([9, 1, 0]))
    {
        assert_eq!(choice["finish_reason"], "length");
        assert_eq!(list(choice, "tokens").len(), tokens);
        assert_eq!(list(longer, "tokens").len(), tokens + 3);
        assert_eq!(list(choice, "token_logprobs")[..], list(longer, "token_logprobs")[..tokens]);
    }
    // without log-probabilities, an echo is the text alone
    let echo = server.complete(&json!({"prompt": "some text", "max_tokens": 0, "echo": true}));
    assert_eq!(texts(&echo), ["some text"]);
    assert!(echo["choices"][0]["logprobs"].is_null());
    let nothing = server.complete(&json!({"prompt": "some text", "max_tokens": 0}));
    assert_eq!(
        (&texts(&nothing)[..], nothing["choices"][0]["finish_reason"].as_str()),
        (&["".to_string()][..], Some("length"))
    );
}

#[test]
fn offsets_count_characters_of_the_text() {
    let server = TestServer::new();
    for echo in [true, false] {
        let body =
            json!({"prompt": "aé日b", "max_tokens": 12, "seed": 3, "logprobs": 0, "echo": echo});
        let choice = &server.complete(&body)["choices"][0];
        let text = choice["text"].as_str().unwrap();
        let offsets: Vec<usize> =
            list(choice, "text_offset").iter().map(|at| at.as_u64().unwrap() as usize).collect();
        assert!(offsets.is_sorted() && *offsets.last().unwrap() <= text.chars().count());
        if echo {
            // a, two bytes, three bytes, b, and the first new token
            assert_eq!(offsets[..8], [0, 1, 1, 2, 2, 2, 3, 4]);
            assert!(text.starts_with("aé日b"));
        } else {
            assert_eq!((offsets.len(), offsets[0]), (12, 0));
        }
        // with 0, there is the token itself
        let tops = list(choice, "top_logprobs").iter().filter_map(Value::as_object);
        assert!(tops.clone().count() > 0);
        tops.for_each(|top| assert_eq!(top.len(), 1));
    }
}
