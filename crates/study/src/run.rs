//! The runs that a study declares.

use std::collections::BTreeMap;

use block_transformer_cost::training_flops;
use block_transformer_datasets::TokenizerChoice;
use block_transformer_text::Tokenizer;
use block_transformer_training::{TrainConfig, TrainError, Uptrain};
use block_transformer_zoo::{FamilyConfig, ModelConfig};
use serde::Deserialize;
use toml::{Table, Value};

use crate::declaration::{RATES, Study};
use crate::error::StudyError;
use crate::identity::{run_id, shape_id};
use crate::merge::merge;
use crate::rates::Rates;
use crate::shape::Shape;

/// Values of axes by axis: what distinguishes a run from the others of its study.
pub type Labels = BTreeMap<String, String>;

/// Vocabularies are rounded up to a multiple of this value, as in training.
const VOCAB_MULTIPLE: usize = 64;
/// Tokens of a byte-level tokenizer.
const BYTES: Tokenizer = Tokenizer::Bytes;
/// Validations and checkpoints of a run, if the declaration does not say how often.
const VALIDATIONS: u64 = 8;
const CHECKPOINTS: u64 = 20;

/// A run of a study.
#[derive(Clone, Debug)]
pub struct Run {
    /// The values of the axes.
    pub labels: Labels,
    /// The identity: a name from the configuration, without folder and device. It does not depend on the study.
    pub id: String,
    /// The identity of the model's shape.
    pub shape: String,
    /// The configuration, with the corpus by its name, and without folder and device.
    pub config: TrainConfig,
    /// The identity of the run whose weights it begins with.
    pub from: Option<String>,
    /// Keys of the model that are replaced when the trained model is measured, such as a scaling of its positions.
    pub read: Option<Value>,
    /// Whether its learning rate is that of a sweep which has not been measured: its identity is not final.
    pub is_open: bool,
}

impl Run {
    /// The name within the study: the values of its axes, the seed last.
    pub fn name(&self) -> String {
        name(&self.labels)
    }

    /// `trained`, the configuration of the trained model, with the keys that are replaced when it is measured.
    pub(crate) fn read_model(&self, trained: &ModelConfig) -> Result<ModelConfig, String> {
        let Some(read) = &self.read else { return Ok(trained.clone()) };
        let over = read.as_table().ok_or("read: must be a table of keys of the model")?;
        let mut model = Table::try_from(trained).map_err(|error| error.to_string())?;
        merge(&mut model, over);
        let model = ModelConfig::deserialize(Value::Table(model));
        model.map_err(|error| format!("read: {error}"))
    }

    /// Tokens that the run trains on, padding included.
    pub fn tokens(&self) -> u64 {
        let step = self.config.batch * self.config.accumulate * self.config.context;
        self.config.steps * step as u64
    }
}

/// The name of the runs with these labels.
pub(crate) fn name(labels: &Labels) -> String {
    let rest = labels.iter().filter(|(axis, _)| *axis != "seed");
    let words = rest.map(|(axis, value)| {
        let is_number = value.starts_with(|c: char| c.is_ascii_digit());
        if is_number { format!("{axis} {value}") } else { value.clone() }
    });
    let seed = labels.get("seed").map(|seed| format!("seed {seed}"));
    words.chain(seed).collect::<Vec<_>>().join(", ")
}

/// The keys of a run before they are a configuration.
struct Draft {
    labels: Labels,
    table: Table,
}

impl Study {
    /// The runs at a scale, in the order of training. Learning rates that follow from a sweep are those of
    /// `rates`; without them, the runs are open.
    ///
    /// # Errors
    /// When the study has no runs at this scale, or a run is not valid.
    pub fn runs(&self, scale: &str, rates: Option<&Rates>) -> Result<Vec<Run>, StudyError> {
        let drafts = self.drafts(scale);
        if drafts.is_empty() {
            let (study, scale, known) = (self.name.clone(), scale.into(), self.scales().join(", "));
            return Err(StudyError::NoRuns { study, scale, known });
        }
        let mut runs: Vec<Run> = Vec::new();
        for draft in drafts {
            let run = self.run(draft, rates, &runs)?;
            if runs.iter().any(|other| other.labels == run.labels) {
                return Err(self.invalid(format!("grid: the run {} is declared twice", run.name())));
            }
            runs.push(run);
        }
        Ok(runs)
    }

    fn drafts(&self, scale: &str) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for grid in self.grids.iter().filter(|grid| grid.is_at(scale)) {
            let mut combinations = vec![Vec::new()];
            for (axis, values) in &grid.axes {
                let with = |before: &Vec<(String, Value)>| {
                    let before = before.clone();
                    values.iter().map(move |value| {
                        before.iter().cloned().chain([(axis.clone(), value.clone())]).collect()
                    })
                };
                combinations = combinations.iter().flat_map(with).collect();
            }
            for values in combinations {
                let mut table = Table::new();
                self.train(scale).for_each(|train| lay(&mut table, train));
                let mut labels = Labels::new();
                let mut keys = Vec::new();
                for (axis, value) in values {
                    let label = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                    let tables: Vec<&Table> = self.value(scale, &axis, &label).collect();
                    if tables.is_empty() {
                        keys.push((axis.clone(), value));
                    } else {
                        tables.into_iter().for_each(|over| lay(&mut table, over));
                    }
                    labels.insert(axis, label);
                }
                // an axis that is a key comes last: a size may have a rate, and an axis `lr` replaces it
                for (key, value) in keys {
                    let mut over = Table::from_iter([(key.clone(), value)]);
                    if Shape::KEYS.contains(&key.as_str()) {
                        over = Table::from_iter([("shape".to_string(), over.into())]);
                    }
                    lay(&mut table, &over);
                }
                lay(&mut table, &grid.set);
                drafts.push(Draft { labels, table });
            }
        }
        drafts
    }

    fn run(&self, draft: Draft, rates: Option<&Rates>, before: &[Run]) -> Result<Run, StudyError> {
        let Draft { labels, mut table } = draft;
        let shown = name(&labels);
        let invalid = |reason: &str| self.invalid(format!("run {shown}: {reason}"));
        let failed = |source: TrainError| StudyError::Run {
            study: self.name.clone(),
            run: shown.clone(),
            source: Box::new(source),
        };
        let shape = table.remove("shape").ok_or_else(|| invalid("shape: needed"))?;
        let shape =
            Shape::deserialize(shape).map_err(|error| invalid(&format!("shape: {error}")))?;
        let rates = self.lr(&mut table, &shape, rates).map_err(|reason| invalid(&reason))?;
        let from = self.source(&mut table, &labels, before).map_err(|reason| invalid(&reason))?;
        let (model, read) = (table.remove("model"), table.remove("read"));
        let flops = table.remove("flops").map(|flops| number(&flops).ok_or(flops));
        let flops = flops
            .transpose()
            .map_err(|flops| invalid(&format!("flops: {flops} is not a number")))?;
        if let Some(flops) = flops {
            let steps = |table: &Table| self.steps(table.clone(), &shape, flops);
            let steps = steps(&table).map_err(|reason| invalid(&reason))?;
            table.remove("tokens");
            table.insert("steps".into(), Value::Integer(steps));
        }
        complete(&mut table).map_err(|reason| invalid(&reason))?;
        let preset = table.get("preset").and_then(Value::as_str).unwrap_or("small-block");
        let config = TrainConfig::from_preset(preset).map_err(failed)?;
        let mut config = config.with(&table).map_err(failed)?;
        let vocab_size = vocab_size(&config.tokenizer).unwrap_or_else(|| config.model.vocab_size());
        let mut of_shape =
            shape.model(vocab_size, config.context).map_err(|reason| invalid(&reason))?;
        if let Some(Value::Table(over)) = &model {
            merge(&mut of_shape, over);
        }
        let of_model = Table::from_iter([("model".to_string(), Value::Table(of_shape))]);
        config = config.with(&of_model).map_err(failed)?;
        config.corpus.clone_from(&self.corpus);
        config.check().map_err(failed)?;
        config.model.check().map_err(|error| failed(error.into()))?;
        if config.uptrain != Uptrain::Off && from.is_none() {
            return Err(invalid(
                "uptrain: needs `from`, the labels of the run that it begins with",
            ));
        }
        let id = run_id(&config, from.as_deref())?;
        let shape = shape_id(&config.model, config.precision)?;
        let run = Run { labels, id, shape, config, from, read, is_open: rates };
        run.read_model(&run.config.model).map_err(|reason| invalid(&reason))?;
        Ok(run)
    }

    /// The steps that need `flops` FLOPs.
    fn steps(&self, mut table: Table, shape: &Shape, flops: f64) -> Result<i64, String> {
        table.insert("steps".into(), Value::Integer(1));
        table.remove("tokens");
        complete(&mut table)?;
        let preset = table.get("preset").and_then(Value::as_str).unwrap_or("small-block");
        let config = TrainConfig::from_preset(preset).and_then(|config| config.with(&table));
        let config = config.map_err(|error| crate::error::key_and_cause(&error))?;
        let vocab = vocab_size(&config.tokenizer).unwrap_or_else(|| config.model.vocab_size());
        let model = shape.model(vocab, config.context)?;
        let model =
            ModelConfig::deserialize(Value::Table(model)).map_err(|error| error.to_string())?;
        let step = (config.batch * config.accumulate * config.context) as f64;
        Ok((flops / (training_flops(&model, config.context) * step)).round().max(1.0) as i64)
    }

    /// Sets the learning rate. Returns whether it still depends on a sweep.
    fn lr(&self, table: &mut Table, shape: &Shape, rates: Option<&Rates>) -> Result<bool, String> {
        let factor = match table.remove("lr_factor") {
            None => 1.0,
            Some(factor) => number(&factor)
                .filter(|factor| *factor > 0.0)
                .ok_or_else(|| format!("lr_factor: {factor} must be a number above 0"))?,
        };
        if table.get("lr").and_then(Value::as_str) != Some(RATES) {
            let reason = "lr_factor: multiplies the rate of a sweep, and needs lr = \"rates\"";
            return if factor == 1.0 { Ok(false) } else { Err(reason.into()) };
        }
        table.remove("lr");
        let Some(rates) = rates else { return Ok(true) };
        let family = shape.family();
        let rate = rates.rate(family, shape.width, factor);
        let rate = rate.ok_or_else(|| format!("lr: no rate was measured for {family} models"))?;
        table.insert("lr".into(), Value::Float(rate));
        Ok(false)
    }

    /// The run that `from` names by its labels. Its seed is that of the run itself.
    fn source(
        &self,
        table: &mut Table,
        labels: &Labels,
        before: &[Run],
    ) -> Result<Option<String>, String> {
        let Some(Value::Table(wanted)) = table.remove("from") else { return Ok(None) };
        let mut wanted: Labels = wanted
            .iter()
            .map(|(axis, value)| {
                let label = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                (axis.clone(), label)
            })
            .collect();
        if let Some(seed) = labels.get("seed") {
            wanted.entry("seed".into()).or_insert_with(|| seed.clone());
        }
        let fits =
            |run: &&Run| wanted.iter().all(|(axis, value)| run.labels.get(axis) == Some(value));
        let found = before.iter().find(fits).map(|run| run.id.clone());
        found
            .map(Some)
            .ok_or_else(|| format!("from: no run before it has the labels {}", name(&wanted)))
    }
}

/// The keys that state the length of a run; one replaces the others.
const LENGTHS: [&str; 3] = ["steps", "tokens", "flops"];

/// Merges `over` over the keys of a run.
fn lay(table: &mut Table, over: &Table) {
    if LENGTHS.iter().any(|key| over.contains_key(*key)) {
        LENGTHS.iter().for_each(|key| {
            table.remove(*key);
        });
    }
    merge(table, over);
}

/// A whole number or one with decimals.
fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|value| value as f64))
}

/// Replaces keys that are convenient in a declaration by those of the configuration: `tokens` by `steps`, and a
/// `warmup` below 1, a share of the steps, by their number.
fn complete(table: &mut Table) -> Result<(), String> {
    if let Some(tokens) = table.get("tokens").and_then(number) {
        let part = |key| table.get(key).and_then(number).unwrap_or(1.0).max(1.0);
        let step = part("batch") * part("accumulate") * part("context");
        table.remove("tokens");
        table.insert("steps".into(), Value::Integer((tokens / step).round().max(1.0) as i64));
    }
    let steps = table.get("steps").and_then(Value::as_integer);
    let steps = steps.ok_or("steps: needed, or the number of tokens as `tokens`")?;
    if let Some(share) = table.get("warmup").and_then(Value::as_float) {
        if !(0.0..1.0).contains(&share) {
            return Err(format!("warmup {share}: must be a number of steps, or a share below 1.0"));
        }
        table.insert("warmup".into(), Value::Integer((steps as f64 * share).round() as i64));
    }
    let every = |parts: u64| Value::Integer((steps / parts as i64).max(1));
    table.entry("validate_every").or_insert_with(|| every(VALIDATIONS));
    table.entry("checkpoint_every").or_insert_with(|| every(CHECKPOINTS));
    Ok(())
}

/// The vocabulary of a model over the ids of a tokenizer; `None` where it follows from a file.
fn vocab_size(tokenizer: &TokenizerChoice) -> Option<usize> {
    let ids = match tokenizer {
        TokenizerChoice::Bytes => BYTES.vocab_size(),
        TokenizerChoice::Bpe(ids) => *ids,
        TokenizerChoice::File(_) => return None,
    };
    Some(ids.next_multiple_of(VOCAB_MULTIPLE))
}
