//! Model cards, in Markdown.

use std::fmt::Write;

use block_transformer_checkpoint::{Lineage, State};
use block_transformer_family::FamilyConfig;
use block_transformer_zoo::{ModelConfig, published_weights};
use serde_json::Value;

/// Rows of the table of losses.
const ROWS: usize = 12;

/// A measurement during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The step, counted from 1.
    pub step: u64,
    /// Training loss before the step, in nats per token.
    pub train: f64,
    /// Validation loss after the step, in nats per token.
    pub validation: Option<f64>,
}

/// What a model card says.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// Its shape.
    pub config: &'a ModelConfig,
    /// The position of the run that made it.
    pub state: &'a State,
    /// Losses of the run, by step; empty if they are not known.
    pub curve: Vec<CurvePoint>,
    /// Name and bytes of a picture of the losses.
    pub picture: Option<(String, Vec<u8>)>,
    /// Results of evaluations, in Markdown.
    pub evaluation: Option<String>,
}

impl Card<'_> {
    /// The card as Markdown, with the header that the hub of Hugging Face reads.
    pub fn to_markdown(&self) -> String {
        let sections = [
            self.header(),
            self.model(),
            self.data(),
            self.training(),
            self.losses(),
            self.evaluations(),
            self.padding(),
            self.making(),
        ];
        sections.concat()
    }

    fn is_vanilla(&self) -> bool {
        matches!(self.config, ModelConfig::Vanilla(_))
    }

    fn header(&self) -> String {
        let library = if self.is_vanilla() { "library_name: transformers\n" } else { "" };
        let tag = if self.is_vanilla() { "gpt_neox" } else { "block-transformer" };
        let licence =
            self.licence().map_or_else(String::new, |licence| format!("license: {licence}\n"));
        format!(
            "---\n{licence}{library}pipeline_tag: text-generation\ntags:\n- {tag}\n---\n\n# {}\n\n",
            self.name
        )
    }

    /// The licence of the published weights that the model was made from, as the hub writes it.
    fn licence(&self) -> Option<String> {
        let mut origins = self.state.lineage.iter().flat_map(Lineage::chain);
        origins.find_map(|lineage| {
            let (id, _) = lineage.source.split_once('@')?;
            let row = published_weights().iter().find(|row| row.hub.as_deref() == Some(id))?;
            Some(row.licence.to_ascii_lowercase())
        })
    }

    fn model(&self) -> String {
        let (config, family) = (self.config, self.config.family());
        let kind =
            if self.is_vanilla() { "vanilla transformer (GPT-NeoX)" } else { "Block Transformer" };
        let load = if self.is_vanilla() {
            "`transformers.AutoModelForCausalLM.from_pretrained` loads this folder."
        } else {
            "`model.safetensors` has the names of the published implementation \
             (https://github.com/itsnamgyu/block-transformer)."
        };
        format!(
            "## Model\n\nA {kind}, arXiv 2406.02657, of the family `{family}`: {} parameters, {} of them outside \
             the token tables and the LM head; {} token ids; contexts of {} tokens. {load}\n\n```json\n{}\n```\n\n",
            config.num_params(),
            config.num_params_non_embedding(),
            config.vocab_size(),
            config.max_position_embeddings(),
            config.to_json(),
        )
    }

    fn data(&self) -> String {
        let name = self.state.corpus.as_ref().and_then(|corpus| corpus.get("name"));
        let train = self.state.train.as_ref().and_then(|train| train.get("corpus"));
        let given = name.or(train).and_then(Value::as_str).filter(|name| !name.is_empty());
        let mixture = self.state.train.as_ref().and_then(|train| train.get("mixture")?.as_array());
        let shares = mixture.into_iter().flatten().map(|share| match share {
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        });
        let shares = shares.collect::<Vec<_>>().join(", ");
        match given {
            _ if !shares.is_empty() => {
                format!(
                    "## Data\n\nThe last training used a mixture of corpora by weight: {shares}.\n\n"
                )
            }
            Some(name) => format!("## Data\n\nThe last training used the corpus `{name}`.\n\n"),
            None => "## Data\n\nThe data is not recorded; see the source of the weights below.\n\n"
                .into(),
        }
    }

    fn training(&self) -> String {
        let state = self.state;
        let mut text = format!("## Training\n\n{} steps, {} tokens", state.step, state.tokens);
        if let Some(context) = state.trained_context {
            _ = write!(text, ", in windows of {context} tokens");
        }
        if state.seconds > 0.0 {
            _ = write!(text, ", {:.0} seconds of computation", state.seconds);
        }
        text.push_str(".\n\n");
        let Some(train) = state.train.as_ref().and_then(Value::as_object) else { return text };
        text.push_str("| setting | value |\n|---|---|\n");
        for (key, value) in train.iter().filter(|(_, value)| !value.is_object() && !value.is_null())
        {
            _ = writeln!(text, "| `{key}` | `{}` |", value.to_string().replace('|', "\\|"));
        }
        text + "\n"
    }

    fn losses(&self) -> String {
        let number =
            |loss: Option<f64>| loss.map_or_else(|| "-".into(), |loss| format!("{loss:.4}"));
        let mut text = format!(
            "## Losses\n\nIn nats per token. Training loss of the last step: {}; validation loss: {}",
            number(self.state.train_loss),
            number(self.state.validation_loss),
        );
        if let Some((step, loss)) = self.state.best {
            _ = write!(text, "; lowest validation loss: {loss:.4}, after step {step}");
        }
        text.push_str(".\n\n");
        if let Some((name, _)) = &self.picture {
            _ = writeln!(text, "![Losses by step]({name})\n");
        }
        let validated: Vec<_> =
            self.curve.iter().filter(|point| point.validation.is_some()).collect();
        if validated.is_empty() {
            return text;
        }
        text.push_str("| step | training | validation |\n|---|---|---|\n");
        let every = validated.len().div_ceil(ROWS);
        let last = validated.len() - 1;
        let shown = |at: &usize| (last - at).is_multiple_of(every);
        for point in (0..=last).filter(shown).map(|at| validated[at]) {
            let validation = number(point.validation);
            _ = writeln!(text, "| {} | {:.4} | {validation} |", point.step, point.train);
        }
        text + "\n"
    }

    fn evaluations(&self) -> String {
        match &self.evaluation {
            Some(text) => format!("## Evaluation\n\n{}\n\n", text.trim()),
            None => "## Evaluation\n\nNo evaluation was given for this card.\n\n".into(),
        }
    }

    fn padding(&self) -> String {
        if self.is_vanilla() {
            return String::new();
        }
        let length = self.config.block_length();
        format!(
            "## Padding\n\nA prompt whose length is not a multiple of {length} is padded at the left of its first block \
             (id 1, masked). In training, the first block of each document is padded at the left by a random number \
             of 0 to {} ids, and each document is padded at the right to the end of its last block.\n\n",
            length.saturating_sub(1),
        )
    }

    fn making(&self) -> String {
        let mut text = "## How it was made\n\n".to_string();
        let versions =
            self.state.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let versions = versions.collect::<Vec<_>>().join(", ");
        if !versions.is_empty() {
            _ = writeln!(text, "Written by {versions}.\n");
        }
        let Some(lineage) = &self.state.lineage else {
            return text + "The training began with new weights.\n";
        };
        for Lineage { made_by, source, sha256, step, .. } in lineage.chain() {
            let steps = step.map_or_else(String::new, |step| format!(" after {step} steps"));
            _ = writeln!(
                text,
                "- `{made_by}` from `{source}`{steps}, SHA-256 of the weights `{sha256}`"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_data_steps_losses_padding_and_origin() {
        let config = &block_transformer_zoo::preset("debug-block").unwrap().model;
        let source = Lineage {
            made_by: "import".into(),
            source: "someone/model@abc".into(),
            sha256: "00ff".into(),
            step: None,
            tokens: None,
            validation_loss: None,
            parent: None,
        };
        let lineage = Lineage {
            made_by: "train".into(),
            step: Some(7),
            parent: Some(Box::new(source.clone())),
            ..source
        };
        let state = State {
            step: 30,
            tokens: 999,
            validation_loss: Some(1.25),
            corpus: Some(serde_json::json!({"name": "books"})),
            train: Some(serde_json::json!({"lr": 0.5, "model": {}})),
            lineage: Some(lineage),
            ..State::default()
        };
        let point =
            |step| CurvePoint { step, train: 2.0, validation: (step % 2 == 0).then_some(1.5) };
        let card = Card {
            name: "mine",
            config,
            state: &state,
            curve: (1..=30).map(point).collect(),
            picture: Some(("loss.png".into(), vec![1])),
            evaluation: Some("| lambada | 0.5 |".into()),
        };
        let text = card.to_markdown();
        for part in [
            "# mine",
            "30 steps, 999 tokens",
            "`books`",
            "validation loss: 1.2500",
            "| `lr` | `0.5` |",
            "![Losses by step](loss.png)",
            "| 30 | 2.0000 | 1.5000 |",
            "| lambada | 0.5 |",
            "padded at the left",
            "- `train` from `someone/model@abc` after 7 steps",
            "- `import` from",
            "arXiv 2406.02657",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("| `model`"), "{text}");
        assert!(text.matches("| 1.5000 |").count() <= ROWS, "{text}");
    }
}
