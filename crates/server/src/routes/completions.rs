//! `POST /v1/completions`

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use block_transformer_evaluation::Request;
use block_transformer_generation::{EOS, Options};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admission::Ticket;
use crate::api::{Choices, Completion, CompletionRequest, EncodedPrompt, Plan, StreamEvent, Texts};
use crate::engine::{Command, Generate, Reply, Score};
use crate::error::{ApiError, ErrorBody, json};
use crate::model::{Facts, Model};
use crate::routes::app::{App, blocking, now};
use crate::routes::body::JsonBody;
use crate::routes::stream::stream;
use crate::token_text::{self, decode};

/// Continues prompts, or scores them.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = CompletionRequest,
    responses(
        (
            status = 200,
            description = "The choices. With `stream`, they come as server-sent events: `data: ` with an object of \
                           this kind for each new text, and `data: [DONE]` at the end",
            content((Completion = "application/json"), (StreamEvent = "text/event-stream"))
        ),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 401, description = "The key is missing or wrong", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 429, description = "The queue is full", body = ErrorBody),
        (status = 500, description = "The model is damaged", body = ErrorBody),
        (status = 503, description = "The models are being loaded, the server ends, or the request waited too long", body = ErrorBody)
    )
)]
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = app.model(request.model.as_deref())?.clone();
    model.check_usable()?;
    let plan = Plan::new(request, &model.facts)?;
    let sequences = plan.prompts.len() * if plan.generates() { plan.best_of } else { 1 };
    let tickets = model.admit(sequences)?;
    let encoder = model.clone();
    let (plan, prompts, prefix) = app.work(plan.bytes(), move || encode(plan, &encoder)).await?;
    // large requests wait for each other before they are encoded, which says nothing about the engine
    let arrived = Instant::now();
    let (sender, receiver) = unbounded_channel();
    let guard = Guard { model: model.clone(), request: app.next_request() };
    submit(&plan, &prompts, &prefix, tickets, arrived, &guard, &sender);
    // the receiver notices the end when the engine has dropped its senders
    drop(sender);
    let heading = Heading::new(&model);
    let choices = Choices::new(plan, model, prompts, prefix.len());
    if choices.plan().stream {
        return stream(heading, choices, receiver, guard).await;
    }
    let replies = collect(receiver).await;
    drop(guard);
    blocking(move || answer(&heading, choices, replies)).await
}

/// What is the same in all events of an answer.
pub(crate) struct Heading {
    pub id: String,
    pub created: u64,
    pub model: Arc<Model>,
}

impl Heading {
    fn new(model: &Arc<Model>) -> Self {
        let id = format!("cmpl-{:032x}", rand::random::<u128>());
        Self { id, created: now(), model: model.clone() }
    }

    /// An answer without choices.
    pub(crate) fn completion(&self) -> Completion<'_> {
        Completion {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model.facts.name,
            system_fingerprint: self.model.facts.fingerprint.as_deref(),
            choices: Vec::new(),
            usage: None,
        }
    }
}

/// Ends everything of a request when it is dropped: at the end of the request, or when the client has gone.
pub(crate) struct Guard {
    model: Arc<Model>,
    request: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.model.send(Command::Cancel(self.request));
    }
}

/// Encodes the prompts and the prefix of a request.
fn encode(mut plan: Plan, model: &Model) -> Result<(Plan, Vec<EncodedPrompt>, Vec<u32>), ApiError> {
    let Facts { max_tokens, max_text, .. } = model.facts;
    let ids_of = |param: &str, text: &str| -> Result<Vec<u32>, ApiError> {
        // what is certainly too long is not encoded
        let may_fit = max_text.is_none_or(|most| text.len() <= most);
        let ids = may_fit.then(|| token_text::encode(&model.tokenizer, text, max_tokens));
        let ids = ids.transpose().map_err(|error| ApiError::text(param, &error))?;
        ids.flatten().ok_or_else(|| ApiError::text_too_long(param, max_tokens))
    };
    let prefix = match plan.prefix.take() {
        None => Vec::new(),
        Some(Texts::Ids(ids)) => ids,
        Some(Texts::Text(text)) => ids_of("prefix", &text)?,
    };
    if prefix.iter().any(|&id| id as usize >= model.facts.vocab) {
        return Err(ApiError::field("prefix", "prefix: the model does not have all of its tokens"));
    }
    let given_as_text: Vec<bool> =
        plan.prompts.iter().map(|prompt| matches!(prompt, Texts::Text(_))).collect();
    let prompts = std::mem::take(&mut plan.prompts).into_iter().map(|prompt| {
        Ok(match prompt {
            Texts::Text(text) => {
                EncodedPrompt { ids: ids_of("prompt", &text)?, text, offsets: Vec::new() }
            }
            Texts::Ids(ids) => EncodedPrompt { ids, ..EncodedPrompt::default() },
        })
    });
    let mut prompts = prompts.collect::<Result<Vec<_>, ApiError>>()?;
    let lengths = prompts.iter().map(|prompt| prompt.ids.len());
    plan.check_lengths(prefix.len(), lengths, &model.facts)?;
    if plan.echo {
        for (prompt, as_text) in prompts.iter_mut().zip(given_as_text) {
            if !as_text || plan.logprobs.is_some() {
                let (text, offsets) = decode(&model.tokenizer, &prompt.ids);
                prompt.offsets = offsets;
                if !as_text {
                    prompt.text = text;
                }
            }
        }
    }
    Ok((plan, prompts, prefix))
}

/// Sends the commands of a request to the engine.
fn submit(
    plan: &Plan,
    prompts: &[EncodedPrompt],
    prefix: &[u32],
    tickets: Vec<Ticket>,
    arrived: Instant,
    guard: &Guard,
    reply: &UnboundedSender<Reply>,
) {
    let mut tickets = tickets.into_iter();
    for (index, prompt) in prompts.iter().enumerate() {
        let first = index * plan.best_of;
        let count = if plan.generates() { plan.best_of } else { 1 };
        let mut own: Vec<Ticket> = tickets.by_ref().take(count).collect();
        let generate = |tickets| {
            let options = (first..first + plan.best_of).map(|choice| options(plan, choice));
            Box::new(Generate {
                request: guard.request,
                first,
                prefix: prefix.to_vec(),
                prompt: prompt.ids.clone(),
                options: options.collect(),
                stop: plan.stop.clone(),
                tickets,
                arrived,
                reply: reply.clone(),
            })
        };
        if Choices::needs_scores(plan, prompt) {
            let score = Score {
                request: guard.request,
                prompt: index,
                known: prompt.ids.len(),
                tokens: request_of(&prompt.ids, plan),
                top: top(plan),
                ticket: if plan.generates() { None } else { own.pop() },
                next: plan.takes_next_from_scores().then(|| generate(Vec::new())),
                arrived,
                reply: reply.clone(),
            };
            guard.model.send(Command::Score(Box::new(score)));
        }
        if plan.generates() {
            guard.model.send(Command::Generate(generate(own)));
        }
    }
}

/// The options of a choice. Its random stream is its number, so that it does not depend on other requests.
fn options(plan: &Plan, choice: usize) -> Options {
    let mut options = Options { rng_stream: choice, ..plan.options.clone() };
    if plan.ends_itself() {
        (options.eos, options.stop_tokens) = (None, Vec::new());
    }
    options
}

/// The tokens to score: all after the first, and in place of the next token any.
fn request_of(ids: &[u32], plan: &Plan) -> Request {
    let (context, known) = ids.split_at(ids.len().min(1));
    let mut continuation = known.to_vec();
    if plan.takes_next_from_scores() {
        continuation.push(EOS);
    }
    Request { context: context.to_vec(), continuation }
}

/// The number of most likely tokens to ask for. One of the first eight can be chosen, except from a model without
/// training.
fn top(plan: &Plan) -> usize {
    let asked = plan.logprobs.unwrap_or(0);
    if plan.takes_next_from_scores() { asked.max(8) } else { asked }
}

/// Receives everything of a request.
async fn collect(mut receiver: UnboundedReceiver<Reply>) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(reply) = receiver.recv().await {
        let is_last = matches!(reply, Reply::Failed(_));
        replies.push(reply);
        if is_last {
            break;
        }
    }
    replies
}

/// Writes the answer.
fn answer(
    heading: &Heading,
    mut choices: Choices,
    replies: Vec<Reply>,
) -> Result<Response, ApiError> {
    let mut deltas = choices.begin()?;
    for reply in replies {
        deltas.append(&mut choices.take(reply)?);
    }
    if !choices.are_finished() {
        return Err(ApiError::engine());
    }
    let completion = Completion {
        choices: choices.join(deltas),
        usage: Some(Some(choices.usage())),
        ..heading.completion()
    };
    Ok(json(StatusCode::OK, &completion))
}
