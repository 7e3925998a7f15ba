//! From an item to the texts that are scored: pairs of a context and its continuation.
//!
//! Source: `ConfigurableTask.fewshot_context` and `construct_requests` of lm-evaluation-harness 0.4: an example is its context, a space, its
//! answer and an empty line; in a conversation, examples are turns of their own and nothing is put before an answer.

use serde_json::{Value, json};

use super::{Ask, Item};

/// Stands between a context and an answer.
const DELIMITER: &str = " ";
/// Stands behind an example.
const BETWEEN: &str = "\n\n";

/// What makes a prompt of messages, or says why it cannot.
pub type Render<'a> = &'a dyn Fn(&[Value]) -> Result<String, String>;

/// A context, and what is scored behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is read.
    pub context: String,
    /// What is scored.
    pub continuation: String,
}

/// The pairs of `item`, one for each answer, with the examples `shots` before it.
pub fn pairs(item: &Item, shots: &[&Item], chat: Option<Render<'_>>) -> Result<Vec<Pair>, String> {
    let before = Before { system: description(item), shots: shots.iter().map(|shot| example(shot)).collect() };
    let delimiter = if chat.is_some() { "" } else { DELIMITER };
    let pair = |asked: &str, continuation: String| {
        let context = match chat {
            None => before.text(asked),
            Some(render) => render(&before.messages(asked))?,
        };
        Ok(Pair { context, continuation })
    };
    match &item.ask {
        Ask::Choose { context, answers, .. } => {
            let Pair { context, .. } = pair(context, String::new())?;
            let each =
                |answer: &String| Pair { context: context.clone(), continuation: format!("{delimiter}{answer}") };
            Ok(answers.iter().map(each).collect())
        }
        Ask::Fill { contexts, rest } => {
            contexts.iter().map(|context| pair(context, format!("{delimiter}{rest}"))).collect()
        }
        // the target has its own space
        Ask::Complete { context, target } => Ok(vec![pair(context, target.clone())?]),
    }
}

/// What MMLU says before its questions.
fn description(item: &Item) -> String {
    item.subject.as_ref().map_or(String::new(), |subject| {
        let subject = subject.replace('_', " ");
        format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
    })
}

/// Question and answer of an example.
fn example(item: &Item) -> (String, String) {
    match &item.ask {
        Ask::Choose { context, answers, .. } => (context.clone(), answers[item.gold].clone()),
        Ask::Fill { contexts, rest } => (contexts[item.gold].clone(), rest.clone()),
        // with the target's own space there are two, as in the harness
        Ask::Complete { context, target } => (context.clone(), target.clone()),
    }
}

struct Before {
    system: String,
    shots: Vec<(String, String)>,
}

impl Before {
    fn text(&self, asked: &str) -> String {
        let shots = self.shots.iter().map(|(question, answer)| format!("{question}{DELIMITER}{answer}{BETWEEN}"));
        format!("{}{}{asked}", self.system, shots.collect::<String>())
    }

    fn messages(&self, asked: &str) -> Vec<Value> {
        let message = |role: &str, text: &str| json!({ "role": role, "content": text });
        let system = (!self.system.is_empty()).then(|| message("system", &self.system));
        let shots =
            self.shots.iter().flat_map(|(question, answer)| [message("user", question), message("assistant", answer)]);
        system.into_iter().chain(shots).chain([message("user", asked)]).collect()
    }
}
