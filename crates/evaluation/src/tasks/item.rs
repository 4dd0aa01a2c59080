//! Items of a task, as text.

/// A continuation to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The text before the continuation; may be empty.
    pub context: String,
    /// The text to score, with the white space that separates it from the context.
    pub continuation: String,
}

/// One example of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A question whose most likely option is the model's answer.
    Choice {
        /// The options.
        options: Vec<Prompt>,
        /// Index of the correct option.
        gold: usize,
    },
    /// A continuation that the model should produce greedily.
    Continuation(Prompt),
    /// A document whose likelihood is measured.
    Document {
        /// The text that is scored.
        text: String,
        /// Words of the original text.
        words: usize,
        /// Bytes of the original text.
        bytes: usize,
    },
}

/// Separates a context from an option.
pub(crate) const DELIMITER: &str = " ";

/// Returns a question whose options follow the same context, or the reason why the question is
/// invalid.
pub(crate) fn question(context: &str, options: &[String], gold: usize) -> Result<Item, String> {
    if gold >= options.len() {
        return Err(format!(
            "the correct option is number {gold} (counted from 0), and there are {} options",
            options.len()
        ));
    }
    if options.iter().any(String::is_empty) {
        return Err("an option is empty".into());
    }
    let option = |text: &String| Prompt {
        context: context.into(),
        continuation: format!("{DELIMITER}{text}"),
    };
    Ok(Item::Choice { options: options.iter().map(option).collect(), gold })
}
