//! From the answers of an engine to the text of choices.

use std::sync::Arc;

use block_transformer_generation::{Finish, StopFilter, TextEvent, TokenLogProbs};
use block_transformer_text::Tokenizer;

use crate::api::answer::{Choice, Usage};
use crate::api::logprobs::Logprobs;
use crate::api::plan::Plan;
use crate::engine::{Reply, first_allowed};
use crate::error::ApiError;
use crate::model::Model;
use crate::token_text::CountingDecoder;

/// A prompt as the model reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedPrompt {
    pub ids: Vec<u32>,
    /// Its text, for `echo`.
    pub text: String,
    /// Characters before each token, for `echo` with `logprobs`.
    pub offsets: Vec<usize>,
}

/// New text of a choice.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub choice: usize,
    pub text: String,
    pub logprobs: Option<Logprobs>,
    pub finish: Option<&'static str>,
    /// Tokens generated so far.
    pub tokens: usize,
}

/// The choices of a request. They turn answers of the engine into new text.
pub(crate) struct Choices {
    plan: Plan,
    model: Arc<Model>,
    prompts: Vec<EncodedPrompt>,
    prefix: usize,
    states: Vec<State>,
}

/// A choice.
struct State {
    /// Whether the prompt was returned, if it is asked for.
    echoed: bool,
    /// Events before that.
    held: Vec<TextEvent>,
    /// Counts the characters of the continuation for the offsets of its tokens.
    decoder: Option<CountingDecoder<Arc<Tokenizer>>>,
    tokens: usize,
    finished: bool,
    /// Sum and number of log-probabilities.
    log_probs: (f64, usize),
}

impl Choices {
    /// The choices for `prompts` after `prefix` tokens.
    pub(crate) fn new(
        plan: Plan,
        model: Arc<Model>,
        prompts: Vec<EncodedPrompt>,
        prefix: usize,
    ) -> Self {
        let states = (0..prompts.len() * plan.best_of).map(|choice| {
            let prompt = &prompts[choice / plan.best_of];
            let before = if plan.echo { prompt.text.chars().count() } else { 0 };
            let decoder =
                plan.logprobs.map(|_| CountingDecoder::new(model.tokenizer.clone(), false, before));
            State {
                echoed: !plan.echo,
                held: Vec::new(),
                decoder,
                tokens: 0,
                finished: false,
                log_probs: (0.0, 0),
            }
        });
        let states = states.collect();
        Self { plan, model, prompts, prefix, states }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the engine has to score a prompt.
    pub(crate) fn needs_scores(plan: &Plan, prompt: &EncodedPrompt) -> bool {
        plan.scores() && (plan.takes_next_from_scores() || prompt.ids.len() > 1)
    }

    /// The text that is known without the engine.
    pub(crate) fn begin(&mut self) -> Result<Vec<Delta>, ApiError> {
        let mut deltas = Vec::new();
        for prompt in 0..self.prompts.len() {
            if self.plan.echo && !Self::needs_scores(&self.plan, &self.prompts[prompt]) {
                self.echo(prompt, &[], &mut deltas)?;
            }
        }
        Ok(deltas)
    }

    /// Takes an answer of the engine, and returns the text that is known now.
    ///
    /// # Errors
    /// When the request cannot be answered.
    pub(crate) fn take(&mut self, reply: Reply) -> Result<Vec<Delta>, ApiError> {
        let mut deltas = Vec::new();
        match reply {
            Reply::Failed(error) => return Err(error),
            Reply::Scores { prompt, scores } => self.echo(prompt, &scores, &mut deltas)?,
            Reply::Event { choice, event } => self.event(choice, event, &mut deltas)?,
        }
        Ok(deltas)
    }

    /// Whether all choices are complete.
    pub(crate) fn are_finished(&self) -> bool {
        self.states.iter().all(|state| state.finished)
    }

    /// Tokens of a prompt and of its prefix.
    pub(crate) fn prompt_tokens(&self, choice: usize) -> usize {
        self.prefix + self.prompts[choice / self.plan.best_of].ids.len()
    }

    /// The numbers of tokens so far.
    pub(crate) fn usage(&self) -> Usage {
        let prompts: usize = self.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let new = self.states.iter().map(|state| state.tokens).sum();
        Usage::new(prompts + self.prefix * self.prompts.len(), new)
    }

    /// Returns a prompt for all of its choices, and what was held back until then.
    fn echo(
        &mut self,
        prompt: usize,
        scores: &[TokenLogProbs],
        deltas: &mut Vec<Delta>,
    ) -> Result<(), ApiError> {
        let encoded = &self.prompts[prompt];
        let ends = !self.plan.generates() && !self.plan.takes_next_from_scores();
        let (known, next) = match scores {
            [known @ .., next] if self.plan.takes_next_from_scores() => (known, Some(next)),
            known => (known, None),
        };
        let logprobs =
            self.plan.logprobs.map(|_| prompt_logprobs(encoded, known, &self.plan, &self.model));
        let logprobs = logprobs.transpose()?;
        for choice in prompt * self.plan.best_of..(prompt + 1) * self.plan.best_of {
            let mut delta = Delta {
                choice,
                text: encoded.text.clone(),
                logprobs: logprobs.clone(),
                finish: ends.then_some("length"),
                tokens: 0,
            };
            let state = &mut self.states[choice];
            state.echoed = true;
            if let Some(next) = next {
                add_next(&mut delta, state, next, &self.plan, &self.model)?;
            }
            state.finished |= delta.finish.is_some();
            deltas.push(delta);
        }
        for choice in prompt * self.plan.best_of..(prompt + 1) * self.plan.best_of {
            for event in std::mem::take(&mut self.states[choice].held) {
                self.event(choice, event, deltas)?;
            }
        }
        Ok(())
    }

    fn event(
        &mut self,
        choice: usize,
        event: TextEvent,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), ApiError> {
        let state = &mut self.states[choice];
        if !state.echoed {
            state.held.push(event);
            return Ok(());
        }
        let TextEvent { mut text, mut tokens, chosen, finish, .. } = event;
        let mut finish = match finish {
            None => None,
            Some(Finish::Length) => Some("length"),
            Some(Finish::Eos | Finish::Stop) => Some("stop"),
            Some(Finish::NotFinite) => return Err(ApiError::not_finite()),
            Some(Finish::Cancelled) => return Err(ApiError::draining()),
        };
        for token in &chosen {
            state.log_probs.0 += token.logprobs.log_prob;
            state.log_probs.1 += 1;
        }
        let ends = chosen.last().is_some_and(|last| self.plan.ends(last.token));
        if self.plan.ends_itself() && ends {
            text.clear();
            finish = Some("stop");
            // an end counts as no token, as where the engine finds it
            tokens = 0;
        }
        state.tokens = tokens;
        let texts = &self.model.loaded()?.texts;
        let logprobs = state.decoder.as_mut().map(|decoder| {
            let mut logprobs = Logprobs::default();
            for token in &chosen {
                let (offset, _) = decoder.push(token.token);
                let TokenLogProbs { log_prob, top } = &*token.logprobs;
                logprobs.add((token.token, *log_prob), top, offset, texts, self.plan.as_ids);
            }
            logprobs
        });
        state.finished |= finish.is_some();
        deltas.push(Delta { choice, text, logprobs, finish, tokens });
        Ok(())
    }

    /// The mean log-probability of the tokens of a choice.
    fn mean_log_prob(&self, choice: usize) -> f64 {
        let (sum, count) = self.states[choice].log_probs;
        sum / count.max(1) as f64
    }

    /// Joins all text of each choice, and returns the best `n` choices of each prompt.
    pub(crate) fn join(&self, deltas: Vec<Delta>) -> Vec<Choice> {
        let mut all: Vec<Choice> = self.states.iter().map(|_| Choice::default()).collect();
        for Delta { choice, text, logprobs, finish, .. } in deltas {
            let joined = &mut all[choice];
            joined.text += &text;
            joined.finish_reason = joined.finish_reason.or(finish);
            match (&mut joined.logprobs, logprobs) {
                (Some(joined), Some(later)) => joined.append(later),
                (joined @ None, later) => *joined = later,
                (Some(_), None) => {}
            }
        }
        let mut all: Vec<Option<Choice>> = all.into_iter().map(Some).collect();
        let mut best = Vec::with_capacity(self.prompts.len() * self.plan.n);
        for prompt in 0..self.prompts.len() {
            let first = prompt * self.plan.best_of;
            let mut order: Vec<usize> = (first..first + self.plan.best_of).collect();
            if self.plan.best_of > self.plan.n {
                order.sort_by(|&a, &b| self.mean_log_prob(b).total_cmp(&self.mean_log_prob(a)));
            }
            for choice in order.into_iter().take(self.plan.n) {
                let index = best.len();
                best.extend(all[choice].take().map(|choice| Choice { index, ..choice }));
            }
        }
        best
    }
}

/// The log-probabilities of the tokens of a prompt, of which the first has none.
fn prompt_logprobs(
    prompt: &EncodedPrompt,
    scores: &[TokenLogProbs],
    plan: &Plan,
    model: &Model,
) -> Result<Logprobs, ApiError> {
    let texts = &model.loaded()?.texts;
    let mut logprobs = Logprobs::default();
    let mut tokens = prompt.ids.iter().zip(&prompt.offsets);
    if let Some((&first, &offset)) = tokens.next() {
        logprobs.add_first(texts.text(first, plan.as_ids), offset);
    }
    if tokens.len() != scores.len() {
        return Err(ApiError::internal("the scores do not belong to the prompt"));
    }
    for ((&id, &offset), TokenLogProbs { log_prob, top }) in tokens.zip(scores) {
        let top = &top[..top.len().min(plan.logprobs.unwrap_or(0))];
        logprobs.add((id, *log_prob), top, offset, texts, plan.as_ids);
    }
    Ok(logprobs)
}

/// Adds the most likely token after a prompt. Without one that can be chosen, the engine chooses it.
fn add_next(
    delta: &mut Delta,
    state: &mut State,
    next: &TokenLogProbs,
    plan: &Plan,
    model: &Model,
) -> Result<(), ApiError> {
    let Some(chosen) = first_allowed(&next.top, model.facts.tokenizer_vocab) else { return Ok(()) };
    let texts = &model.loaded()?.texts;
    if let Some(logprobs) = &mut delta.logprobs {
        let decoder = state.decoder.as_mut();
        let (offset, _) = decoder.map(|decoder| decoder.push(chosen.0)).unwrap_or_default();
        let top = &next.top[..next.top.len().min(plan.logprobs.unwrap_or(0))];
        logprobs.add(chosen, top, offset, texts, plan.as_ids);
    }
    let ends = plan.ends(chosen.0);
    state.tokens = usize::from(!ends);
    state.log_probs = (chosen.1, 1);
    delta.tokens = state.tokens;
    delta.finish = Some(match ends {
        true => "stop",
        false => {
            let mut filter = StopFilter::new(&plan.stop)?;
            let text = filter.push(&model.tokenizer.decode(&[chosen.0]));
            let stopped = filter.stopped();
            delta.text += &text;
            delta.text += &filter.finish();
            if stopped { "stop" } else { "length" }
        }
    });
    Ok(())
}
