//! Metrics for Prometheus. Those that vLLM has too have its names and labels; a request of vLLM is a sequence here.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Label of the model.
const MODEL: &str = "model_name";

/// Upper bounds of vLLM for the time to the first token, in seconds.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// Upper bounds of vLLM for the time between tokens, in seconds, and three below them for small models.
const BETWEEN_TOKENS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// Upper bounds of vLLM for the time of a request, in seconds.
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
/// Upper bounds of tokens.
const TOKENS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0];
/// Upper bounds of sequences.
const SEQUENCES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// All metrics of a server.
pub(crate) struct Metrics {
    registry: Registry,
    /// Answers by path and status.
    pub answers: IntCounterVec,
    /// Open connections.
    pub connections: IntGauge,
}

/// The metrics of a model.
pub(crate) struct ModelMetrics {
    /// Sequences with a slot, and without.
    pub running: IntGauge,
    pub waiting: IntGauge,
    /// Share of slots in use, and the bytes of their caches.
    pub cache_usage: Gauge,
    pub cache_bytes: IntGauge,
    pub slots: IntGauge,
    /// Tokens of prompts, of continuations, and with a score.
    pub prompt_tokens: IntCounter,
    pub new_tokens: IntCounter,
    pub scored_tokens: IntCounter,
    /// Ended sequences by reason.
    pub ended: IntCounterVec,
    /// Requests that were refused, by reason.
    pub rejected: IntCounterVec,
    /// Times of a sequence in seconds: to the first token, between tokens, in all, and without a slot.
    pub first_token: Histogram,
    pub between_tokens: Histogram,
    pub request: Histogram,
    pub queue: Histogram,
    /// Tokens of a sequence.
    pub request_prompt: Histogram,
    pub request_new: Histogram,
    /// Seconds and sequences of a step, and seconds of a batch of scores.
    pub step: Histogram,
    pub step_sequences: Histogram,
    pub scoring: Histogram,
    /// Positions run through a stack, by stack.
    pub positions: IntCounterVec,
    /// Sequences with shared prefixes, by event.
    pub prefixes: IntCounterVec,
    pub prefix_saved: IntCounter,
    pub prefix_entries: IntGauge,
    pub prefix_bytes: IntGauge,
}

/// Creates metrics with the same constant labels and registers them. Names and labels are constants, which a test
/// reads.
struct Registrar<'a> {
    registry: &'a Registry,
    model: Option<&'a str>,
}

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("names and labels of metrics are valid");
        let registered = self.registry.register(Box::new(metric.clone()));
        registered.expect("names of metrics and models are unique");
        metric
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        let options = Opts::new(name, help);
        match self.model {
            Some(model) => options.const_label(MODEL, model),
            None => options,
        }
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(self.options(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(self.options(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(self.options(name, help)))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::from(self.options(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options))
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let of = Registrar { registry: &registry, model: None };
        Self {
            answers: of.counters(
                "block_transformer_http_answers_total",
                "Answers by path and status.",
                &["path", "status"],
            ),
            connections: of.gauge("block_transformer_http_connections", "Open connections."),
            registry,
        }
    }

    /// The metrics of the model `name`, which has none yet. They are listed from now on.
    pub(crate) fn of_model(&self, name: &str) -> ModelMetrics {
        let of = Registrar { registry: &self.registry, model: Some(name) };
        let usage =
            of.options("vllm:kv_cache_usage_perc", "Share of the slots in use, from 0 to 1.");
        let metrics = ModelMetrics {
            running: of.gauge("vllm:num_requests_running", "Sequences that have a slot."),
            waiting: of.gauge("vllm:num_requests_waiting", "Sequences that wait for a slot."),
            cache_usage: of.add(Gauge::with_opts(usage)),
            cache_bytes: of.gauge(
                "block_transformer_kv_cache_used_bytes",
                "Bytes of the KV caches of slots in use.",
            ),
            slots: of.gauge("block_transformer_slots", "Sequences that can be decoded together."),
            prompt_tokens: of.counter("vllm:prompt_tokens_total", "Tokens of prompts."),
            new_tokens: of.counter("vllm:generation_tokens_total", "Generated tokens."),
            scored_tokens: of.counter(
                "block_transformer_scored_tokens_total",
                "Tokens of prompts with a log-probability.",
            ),
            ended: of.counters(
                "vllm:request_success_total",
                "Ended sequences by reason: stop, length, abort or error.",
                &["finished_reason"],
            ),
            rejected: of.counters(
                "block_transformer_rejected_total",
                "Requests that were refused by reason: queue_full or queue_timeout.",
                &["reason"],
            ),
            first_token: of.histogram(
                "vllm:time_to_first_token_seconds",
                "Time from the arrival of a sequence to its first token.",
                FIRST_TOKEN,
            ),
            between_tokens: of.histogram(
                "vllm:inter_token_latency_seconds",
                "Time between the tokens of a sequence.",
                BETWEEN_TOKENS,
            ),
            request: of.histogram(
                "vllm:e2e_request_latency_seconds",
                "Time from the arrival of a sequence to its end.",
                REQUEST,
            ),
            queue: of.histogram(
                "vllm:request_queue_time_seconds",
                "Time for which a sequence waited for a slot.",
                REQUEST,
            ),
            request_prompt: of.histogram(
                "vllm:request_prompt_tokens",
                "Tokens of the prompt of a sequence.",
                TOKENS,
            ),
            request_new: of.histogram(
                "vllm:request_generation_tokens",
                "Generated tokens of a sequence.",
                TOKENS,
            ),
            step: of.histogram(
                "block_transformer_step_seconds",
                "Time of a step.",
                BETWEEN_TOKENS,
            ),
            step_sequences: of.histogram(
                "block_transformer_step_sequences",
                "Sequences with a slot in a step.",
                SEQUENCES,
            ),
            scoring: of.histogram(
                "block_transformer_scoring_seconds",
                "Time of a batch of prompts whose log-probabilities are computed.",
                REQUEST,
            ),
            positions: of.counters(
                "block_transformer_positions_total",
                "Positions run through a stack: block or token.",
                &["stack"],
            ),
            prefixes: of.counters(
                "block_transformer_prefix_sequences_total",
                "Sequences with a prefix that was kept (hit), that was run for them (miss), or whose prompt was run \
                 for another choice (fork); prefixes that made room for others (eviction).",
                &["event"],
            ),
            prefix_saved: of.counter(
                "block_transformer_prefix_saved_positions_total",
                "Positions that were not run because of shared prefixes and prompts.",
            ),
            prefix_entries: of.gauge("block_transformer_prefix_entries", "Kept prefixes."),
            prefix_bytes: of.gauge("block_transformer_prefix_bytes", "Bytes of kept prefixes."),
        };
        // zero before the first
        for reason in ["stop", "length", "abort", "error"] {
            metrics.ended.with_label_values(&[reason]);
        }
        for reason in ["queue_full", "queue_timeout"] {
            metrics.rejected.with_label_values(&[reason]);
        }
        for stack in ["block", "token"] {
            metrics.positions.with_label_values(&[stack]);
        }
        for event in ["hit", "miss", "fork", "eviction"] {
            metrics.prefixes.with_label_values(&[event]);
        }
        metrics
    }

    /// All values in the text format of Prometheus.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("metrics are written to memory");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_names_of_vllm_and_a_value_for_each_model() {
        let metrics = Metrics::new();
        let model = metrics.of_model("a");
        metrics.of_model("b");
        model.new_tokens.inc_by(3);
        model.first_token.observe(0.03);
        let text = String::from_utf8(metrics.text()).unwrap();
        for line in [
            "vllm:generation_tokens_total{model_name=\"a\"} 3",
            "vllm:generation_tokens_total{model_name=\"b\"} 0",
            "vllm:time_to_first_token_seconds_bucket{model_name=\"a\",le=\"0.04\"} 1",
            "vllm:request_success_total{finished_reason=\"stop\",model_name=\"b\"} 0",
            "# TYPE vllm:num_requests_running gauge",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
