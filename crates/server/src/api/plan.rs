//! Checks of a request.

use block_transformer_generation::{EOS, Options, Sampling};

use crate::api::request::{CompletionRequest, PromptField, Seed, StopField, TextOrIds};
use crate::error::ApiError;
use crate::model::Facts;

/// New tokens if the request names no number, as in the interface of OpenAI.
const MAX_TOKENS: u32 = 16;
/// The most choices of a request.
const CHOICES: usize = 1024;
/// The most likely tokens that can be asked for.
const LOGPROBS: u32 = 20;
/// The most stop strings, and their bytes. All of them are compared after each token.
const STOPS: usize = 256;
const STOP_BYTES: usize = 8 << 10;
/// The most token ids that end a choice.
const STOP_IDS: usize = 1024;
/// The most log-probabilities of an answer, which keeps it below about 100 MB, and the most biases of all choices.
const ENTRIES: usize = 2 << 20;

/// What a request asks for. Its values are in their ranges.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub prompts: Vec<Texts>,
    pub prefix: Option<Texts>,
    /// Choices for each prompt that are returned, and that are generated.
    pub n: usize,
    pub best_of: usize,
    /// Options of the first choice.
    pub options: Options,
    pub stop: Vec<String>,
    pub echo: bool,
    /// Number of most likely tokens.
    pub logprobs: Option<usize>,
    /// Whether tokens are written as their ids.
    pub as_ids: bool,
    pub stream: bool,
    /// Whether a stream ends with the usage, and whether all events have one.
    pub usage: bool,
    pub continuous_usage: bool,
}

/// A text or its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Texts {
    Text(String),
    Ids(Vec<u32>),
}

impl Plan {
    /// Checks a request to the model with these facts.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(crate) fn new(mut request: CompletionRequest, facts: &Facts) -> Result<Self, ApiError> {
        let prompts = prompts(request.prompt.take(), facts)?;
        let sampling = sampling(&request)?;
        let n = range("n", request.n.unwrap_or(1), 1, CHOICES as u32)? as usize;
        let best_of = request.best_of.unwrap_or(n as u32);
        let best_of = range("best_of", best_of, 1, CHOICES as u32)? as usize;
        if best_of < n {
            return Err(ApiError::field(
                "best_of",
                format!("best_of {best_of}: must be at least n, {n}"),
            ));
        }
        let choices = prompts.len().saturating_mul(best_of);
        if choices > CHOICES {
            let message = format!(
                "prompt: {} prompts with {best_of} choices each are {choices} choices; a request can have {CHOICES}",
                prompts.len()
            );
            return Err(ApiError::field("prompt", message));
        }
        let stream = request.stream.unwrap_or(false);
        if stream && best_of > n {
            let message =
                "best_of: the best choices are known at the end only; leave out stream or best_of";
            return Err(ApiError::field("best_of", message));
        }
        if request.stream_options.is_some() && !stream {
            let message = "stream_options: only a request with \"stream\": true can have it";
            return Err(ApiError::field("stream_options", message));
        }
        if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            let message = "suffix: the models cannot fill a gap before a text; leave it out";
            return Err(ApiError::field("suffix", message));
        }
        let logprobs = request.logprobs.map(|count| range("logprobs", count, 0, LOGPROBS));
        let logprobs = logprobs.transpose()?.map(|count| count as usize);
        let echo = request.echo.unwrap_or(false);
        let prefix = request.prefix.map(|prefix| prefix_ids(prefix, facts)).transpose()?;
        if echo && prefix.is_some() {
            let message = "prefix: cannot be used with echo; put it in front of the prompt";
            return Err(ApiError::field("prefix", message));
        }
        let usage = request.stream_options.unwrap_or_default();
        let max_tokens = request.max_tokens.unwrap_or(MAX_TOKENS) as usize;
        let options = Options {
            sampling,
            max_tokens,
            eos: (!request.ignore_eos.unwrap_or(false)).then_some(EOS),
            stop_tokens: stop_tokens(request.stop_token_ids, facts)?,
            logit_bias: logit_bias(&request.logit_bias.unwrap_or_default(), facts)?,
            // the ranks of choices need the log-probabilities of their tokens
            logprobs: logprobs.or((best_of > n).then_some(0)),
            allowed_vocab: None,
            rng_stream: 0,
        };
        Ok(Self {
            prompts,
            prefix,
            n,
            best_of,
            options,
            stop: stops(request.stop)?,
            echo,
            logprobs,
            as_ids: request.return_tokens_as_token_ids.unwrap_or(false),
            stream,
            usage: usage.include_usage.unwrap_or(false),
            continuous_usage: usage.continuous_usage_stats.unwrap_or(false),
        })
    }

    /// Bytes of the texts and ids that are to be encoded or decoded.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |texts: &Texts| match texts {
            Texts::Text(text) => text.len(),
            Texts::Ids(ids) => size_of_val(ids.as_slice()),
        };
        self.prompts.iter().chain(&self.prefix).map(bytes).sum()
    }

    /// Whether the prompts are scored.
    pub(crate) fn scores(&self) -> bool {
        self.echo && self.logprobs.is_some()
    }

    /// Whether the only new token is that of the last score, so that nothing is decoded.
    pub(crate) fn takes_next_from_scores(&self) -> bool {
        let Options { sampling, max_tokens, logit_bias, .. } = &self.options;
        self.scores() && *max_tokens == 1 && sampling.temperature == 0.0 && logit_bias.is_empty()
    }

    /// Whether sequences are decoded.
    pub(crate) fn generates(&self) -> bool {
        let only_scores = self.scores() && self.options.max_tokens == 0;
        !only_scores && !self.takes_next_from_scores()
    }

    /// Whether the end of the only new token is found by the server, so that its log-probability is reported also if
    /// it ends the choice.
    pub(crate) fn ends_itself(&self) -> bool {
        self.options.max_tokens == 1 && self.logprobs.is_some()
    }

    /// Whether a new token ends a choice.
    pub(crate) fn ends(&self, token: u32) -> bool {
        self.options.eos == Some(token) || self.options.stop_tokens.contains(&token)
    }

    /// Checks the tokens of each prompt, after `prefix` tokens.
    ///
    /// # Errors
    /// When a sequence is too long, or the answer would be.
    pub(crate) fn check_lengths(
        &self,
        prefix: usize,
        prompts: impl ExactSizeIterator<Item = usize>,
        facts: &Facts,
    ) -> Result<(), ApiError> {
        let (new, limit) = (self.options.max_tokens, facts.max_tokens);
        if prefix >= limit {
            return Err(ApiError::text_too_long("prefix", limit));
        }
        let biases = self.options.logit_bias.len().saturating_mul(self.best_of);
        if biases.saturating_mul(prompts.len()) > ENTRIES {
            let message = format!(
                "logit_bias: {} values for each choice; over all choices, {ENTRIES} are allowed",
                self.options.logit_bias.len()
            );
            return Err(ApiError::field("logit_bias", message));
        }
        let mut entries = 0_usize;
        for prompt in prompts {
            // an empty prompt is one EOS, and a prefix is padded on its own
            let known = match prefix {
                0 => prompt.max(1),
                prefix => prefix.next_multiple_of(facts.block_length).saturating_add(prompt),
            };
            if known.saturating_add(new) > limit {
                return Err(ApiError::too_long(known, new, limit));
            }
            let tokens = if self.echo { prompt + new } else { new };
            let of_token = self.logprobs.map_or(0, |top| top + 1);
            entries = entries.saturating_add(tokens * of_token * self.n);
        }
        if entries > ENTRIES {
            let message = format!(
                "logprobs: the answer could have {entries} log-probabilities, and {ENTRIES} are allowed; ask for \
                 fewer choices, prompts or logprobs in a request"
            );
            return Err(ApiError::field("logprobs", message));
        }
        Ok(())
    }
}

fn prompts(field: Option<PromptField>, facts: &Facts) -> Result<Vec<Texts>, ApiError> {
    let wrong = |message: &str| Err(ApiError::field("prompt", message));
    let prompts: Vec<Texts> = match field {
        None => return wrong("prompt: is missing; give a text or token ids"),
        Some(PromptField::Text(text)) => vec![Texts::Text(text)],
        Some(PromptField::Texts(texts)) => texts.into_iter().map(Texts::Text).collect(),
        Some(PromptField::Ids(ids)) => vec![Texts::Ids(ids)],
        Some(PromptField::Lists(lists)) => lists.into_iter().map(Texts::Ids).collect(),
    };
    if prompts.is_empty() {
        return wrong("prompt: the list is empty; give a text or token ids");
    }
    prompts.iter().try_for_each(|prompt| check_ids("prompt", prompt, facts))?;
    Ok(prompts)
}

fn prefix_ids(field: TextOrIds, facts: &Facts) -> Result<Texts, ApiError> {
    let prefix = match field {
        TextOrIds::Text(text) => Texts::Text(text),
        TextOrIds::Ids(ids) => Texts::Ids(ids),
    };
    check_ids("prefix", &prefix, facts)?;
    Ok(prefix)
}

/// Checks that the model has all ids.
fn check_ids(param: &str, texts: &Texts, facts: &Facts) -> Result<(), ApiError> {
    let Texts::Ids(ids) = texts else { return Ok(()) };
    ids.iter().try_for_each(|&id| check_id(param, id, facts))
}

fn check_id(param: &str, id: u32, facts: &Facts) -> Result<(), ApiError> {
    if (id as usize) < facts.vocab {
        return Ok(());
    }
    let message =
        format!("{param}: the model has no token id {id}; the highest is {}", facts.vocab - 1);
    Err(ApiError::field(param, message))
}

fn sampling(request: &CompletionRequest) -> Result<Sampling, ApiError> {
    let in_range = |param: &str, value: Option<f64>, default: f64, from: f64, to: f64| {
        let value = value.unwrap_or(default);
        if value >= from && value <= to {
            return Ok(value);
        }
        let message = match to.is_finite() {
            true => format!("{param} {value}: must be from {from} to {to}"),
            false => format!("{param} {value}: must be at least {from}"),
        };
        Err(ApiError::field(param, message))
    };
    let temperature = in_range("temperature", request.temperature, 1.0, 0.0, f64::INFINITY)?;
    let top_p = request.top_p.unwrap_or(1.0);
    if !(top_p > 0.0 && top_p <= 1.0) {
        let message = format!("top_p {top_p}: must be above 0 and at most 1");
        return Err(ApiError::field("top_p", message));
    }
    let min_p = in_range("min_p", request.min_p, 0.0, 0.0, 1.0)?;
    let top_k = match request.top_k.unwrap_or(-1) {
        -1 | 0 => None,
        k @ 1.. => Some(k as usize),
        k => return Err(ApiError::field("top_k", format!("top_k {k}: must be at least -1"))),
    };
    let penalty = |param, value| in_range(param, value, 0.0, -2.0, 2.0);
    Ok(Sampling {
        temperature,
        top_k,
        top_p: (top_p < 1.0).then_some(top_p),
        min_p: (min_p > 0.0).then_some(min_p),
        presence_penalty: penalty("presence_penalty", request.presence_penalty)?,
        frequency_penalty: penalty("frequency_penalty", request.frequency_penalty)?,
        seed: request.seed.map_or_else(rand::random, |Seed(seed)| seed),
    })
}

fn stop_tokens(ids: Option<Vec<u32>>, facts: &Facts) -> Result<Vec<u32>, ApiError> {
    let (ids, param) = (ids.unwrap_or_default(), "stop_token_ids");
    if ids.len() > STOP_IDS {
        let message = format!("{param}: {} ids, and {STOP_IDS} are allowed", ids.len());
        return Err(ApiError::field(param, message));
    }
    ids.iter().try_for_each(|&id| check_id(param, id, facts))?;
    Ok(ids)
}

fn logit_bias(
    bias: &std::collections::BTreeMap<String, f64>,
    facts: &Facts,
) -> Result<Vec<(u32, f32)>, ApiError> {
    let param = "logit_bias";
    let one = |(key, &value): (&String, &f64)| {
        // another form of an id could be a second key for it
        let id = key.parse().ok().filter(|id: &u32| id.to_string() == *key).ok_or_else(|| {
            ApiError::field(param, format!("{param}: the key {key:?} is not a token id"))
        })?;
        if id as usize >= facts.tokenizer_vocab {
            let message = format!("{param}: the tokenizer has no token id {id}");
            return Err(ApiError::field(param, message));
        }
        if !(-100.0..=100.0).contains(&value) {
            let message = format!("{param}: {value} for {key}: must be from -100 to 100");
            return Err(ApiError::field(param, message));
        }
        Ok((id, value as f32))
    };
    bias.iter().map(one).collect()
}

fn stops(field: Option<StopField>) -> Result<Vec<String>, ApiError> {
    let stops = match field {
        None => return Ok(Vec::new()),
        Some(StopField::One(stop)) => vec![stop],
        Some(StopField::Many(stops)) => stops,
    };
    let bytes: usize = stops.iter().map(String::len).sum();
    if stops.len() > STOPS || bytes > STOP_BYTES {
        let message = format!(
            "stop: {} strings with {bytes} bytes; {STOPS} strings with {STOP_BYTES} bytes are allowed",
            stops.len()
        );
        return Err(ApiError::field("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "stop: a string must not be empty"));
    }
    Ok(stops)
}

fn range(param: &str, value: u32, from: u32, to: u32) -> Result<u32, ApiError> {
    if (from..=to).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::field(param, format!("{param} {value}: must be from {from} to {to}")))
}
