//! Solved examples before each prompt, in the form and the random order of the EleutherAI harness 0.4.13.

use std::path::PathBuf;

use crate::error::EvalError;
use crate::tasks::item::{DELIMITER, Item, Prompt};
use crate::tasks::python::Random;

/// The harness's seed of the examples (`fewshot_random_seed`). Each task starts with it.
const SEED: u32 = 1234;
/// The largest size in bytes of the examples of all prompts, which are held in memory.
const MAX_TEXT: usize = 1 << 30;
/// Separates examples, and the last example from the prompt (the harness's `fewshot_delimiter`).
const BETWEEN: &str = "\n\n";

/// The examples of a task.
#[derive(Clone, Debug)]
pub(crate) struct Examples {
    /// The items from which examples are drawn.
    pub pool: Vec<Item>,
    /// The file that they were read from.
    pub file: PathBuf,
    /// Whether one more example is drawn than is used, and an example that is the item itself is left out. The
    /// harness does so for a task without a test split (its `fewshot_split` and `test_split` are equal, because
    /// both are `None`).
    pub one_more: bool,
}

impl Examples {
    /// Puts `count` examples before the prompt of each item.
    ///
    /// # Errors
    /// When the pool has too few examples, the examples have more than 1 GiB, or an item is a document.
    pub(crate) fn put_before(&self, items: &mut [Item], count: usize) -> Result<(), EvalError> {
        self.put_within(items, count, MAX_TEXT)
    }

    /// [`put_before`](Self::put_before), with at most `most` bytes of examples.
    fn put_within(&self, items: &mut [Item], count: usize, most: usize) -> Result<(), EvalError> {
        let drawn = count + usize::from(self.one_more);
        if drawn > self.pool.len() {
            return Err(EvalError::Examples {
                path: self.file.clone(),
                found: self.pool.len(),
                needed: drawn,
            });
        }
        let (mut random, mut bytes) = (Random::new(SEED), 0);
        for item in items {
            let drawn = random.sample(self.pool.len(), drawn);
            let others = drawn
                .into_iter()
                .map(|i| &self.pool[i])
                .filter(|other| !self.one_more || *other != item);
            let examples: String = others.take(count).map(solved).collect();
            let prompts = if let Item::Choice { options, .. } = item { options.len() } else { 1 };
            bytes += prompts * examples.len();
            if bytes > most {
                return Err(EvalError::ManyExamples);
            }
            let before = |prompt: &mut Prompt| prompt.context.insert_str(0, &examples);
            match item {
                Item::Choice { options, .. } => options.iter_mut().for_each(before),
                Item::Continuation(prompt) => before(prompt),
                Item::Document { .. } => return Err(EvalError::NoExamples),
            }
        }
        Ok(())
    }
}

/// The text of a solved example: `doc_to_text`, `target_delimiter`, `doc_to_target`, `fewshot_delimiter`.
fn solved(item: &Item) -> String {
    match item {
        Item::Choice { options, gold } => {
            let Prompt { context, continuation } = &options[*gold];
            format!("{context}{continuation}{BETWEEN}")
        }
        // the harness's target starts with a blank, and the delimiter is another one
        Item::Continuation(Prompt { context, continuation }) => {
            format!("{context}{DELIMITER}{continuation}{BETWEEN}")
        }
        Item::Document { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::item::question;

    fn choice(name: usize) -> Item {
        let options = ["no".to_string(), format!("yes {name}")];
        question(&format!("Question: {name}\nAnswer:"), &options, 1).unwrap()
    }

    fn context(item: &Item) -> &str {
        match item {
            Item::Choice { options, .. } => &options[0].context,
            Item::Continuation(prompt) => &prompt.context,
            Item::Document { .. } => "",
        }
    }

    /// The numbers of the examples in a prompt.
    fn numbers(item: &Item) -> Vec<usize> {
        let parts = context(item).split("\n\n").filter_map(|part| part.split_once(" yes "));
        parts.map(|(_, number)| number.parse().unwrap()).collect()
    }

    #[test]
    fn examples_are_those_that_python_draws_with_the_seed_of_the_harness() {
        // r = random.Random(1234); [r.sample(range(100), 3) for _ in range(2)]
        let drawn = [[99, 56, 14], [0, 11, 74]];
        let pool = (0..100).map(choice).collect();
        let mut examples = Examples { pool, file: PathBuf::new(), one_more: false };
        let mut items = [choice(1000), choice(1001)];
        examples.put_before(&mut items, 3).unwrap();
        assert_eq!(items.each_ref().map(numbers), drawn);
        // with one more: [r.sample(range(100), 4)[:3] for _ in range(2)]
        examples.one_more = true;
        let mut items = [choice(1000), choice(1001)];
        examples.put_before(&mut items, 3).unwrap();
        assert_eq!(items.each_ref().map(numbers), [[99, 56, 14], [11, 74, 4]]);
        // an item that is drawn is not its own example
        let mut items = [choice(56)];
        examples.put_before(&mut items, 3).unwrap();
        assert_eq!(numbers(&items[0]), [99, 14, 0]);
        let expected = "Question: 99\nAnswer: yes 99\n\nQuestion: 14\nAnswer: yes 14\n\n\
                        Question: 0\nAnswer: yes 0\n\nQuestion: 56\nAnswer:";
        assert_eq!(context(&items[0]), expected);
    }

    #[test]
    fn a_target_with_a_blank_gets_two_and_small_pools_are_an_error() {
        let word = |context: &str, word: &str| {
            Item::Continuation(Prompt { context: context.into(), continuation: format!(" {word}") })
        };
        let file = PathBuf::from("pool.jsonl");
        let examples = Examples { pool: vec![word("a b", "c")], file, one_more: false };
        let mut items = [word("d e", "f")];
        examples.put_before(&mut items, 1).unwrap();
        assert_eq!(context(&items[0]), "a b  c\n\nd e");
        let error = examples.put_before(&mut items, 2).unwrap_err().to_string();
        assert!(error.contains("pool.jsonl") && error.contains('2'), "{error}");
        let document = Item::Document { text: "a".into(), words: 1, bytes: 1 };
        assert!(matches!(examples.put_before(&mut [document], 1), Err(EvalError::NoExamples)));
    }

    #[test]
    fn examples_that_do_not_fit_into_the_memory_are_an_error() {
        let pool = (0..2).map(choice).collect();
        let examples = Examples { pool, file: PathBuf::new(), one_more: false };
        let items: Vec<Item> = (2..9).map(choice).collect();
        let put = |most| examples.put_within(&mut items.clone(), 2, most);
        // seven items with two options and two examples of 27 bytes each
        put(7 * 2 * 2 * 27).unwrap();
        assert!(matches!(put(7 * 2 * 2 * 27 - 1), Err(EvalError::ManyExamples)));
    }
}
