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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::TaskPart;
    use crate::task::Task;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tasks");

    /// The pairs of item `index` behind one example, as text and as a conversation.
    fn prompts(task: &str, shots: &str, index: usize) -> [Vec<Pair>; 2] {
        let toml = format!("task = '{FOLDER}/{task}.jsonl'\nfew_shot = {{ from = '{FOLDER}/{shots}.jsonl', n = 1 }}\n");
        let part: TaskPart = toml::from_str(&toml).expect("a task");
        let task = Task::read(&part, None).expect("readable");
        let render = |messages: &[Value]| {
            let each = messages.iter().map(|m| {
                let text = |field: &str| m[field].as_str().unwrap_or_default();
                format!("<{}>{}</>", text("role"), text("content"))
            });
            Ok(each.collect::<String>() + "<assistant>")
        };
        [None, Some(&render as Render<'_>)].map(|chat| task.pairs(index, 0, chat).expect("a prompt"))
    }

    /// Oracle: what `fewshot_context` and `construct_requests` of lm-evaluation-harness 0.4.13 make of the same files.
    #[test]
    fn examples_and_turns_are_the_harnesss() {
        let [text, chat] = prompts("mmlu", "mmlu-shots", 2);
        let (about, asked) = (
            "The following are multiple choice questions (with answers) about own sums.\n\n",
            "How many sides has a square?\nA. three\nB. four\nC. five\nD. nine\nAnswer:",
        );
        let shot = "How much is two and two?\nA. four\nB. six\nC. one\nD. ten\nAnswer:";
        assert_eq!(text[1].context, format!("{about}{shot} A\n\n{asked}"));
        assert_eq!(text.iter().map(|pair| pair.continuation.as_str()).collect::<Vec<_>>(), [" A", " B", " C", " D"]);
        let turns = format!("<system>{about}</><user>{shot}</><assistant>A</><user>{asked}</><assistant>");
        assert_eq!((chat[3].context.as_str(), chat[3].continuation.as_str()), (turns.as_str(), "D"));

        let [text, chat] = prompts("winogrande", "winogrande-shots", 0);
        let (shot, rest) = ("The rope held the boat, though the boat", "was made of thin china.");
        let asked = "The cup fell on the stone floor and broke, because the floor";
        assert_eq!(text[1].context, format!("{shot} was heavy.\n\n{asked}"));
        assert_eq!(text[1].continuation, format!(" {rest}"));
        assert_eq!(chat[1].context, format!("<user>{shot}</><assistant>was heavy.</><user>{asked}</><assistant>"));
        assert_eq!(chat[1].continuation, rest);

        let [text, chat] = prompts("lambada", "lambada-shots", 0);
        let shot = "The king lost his ring, and the whole court looked for the";
        assert!(text[0].context.starts_with(&format!("{shot}  ring\n\nHe had two dogs")), "{text:?}");
        assert!(chat[0].context.starts_with(&format!("<user>{shot}</><assistant> ring</><user>He had")), "{chat:?}");
        assert_eq!((text[0].continuation.as_str(), chat[0].continuation.as_str()), (" dogs", " dogs"));
    }

    #[test]
    fn a_draw_of_examples_depends_on_seed_and_item_alone() {
        let toml = |limit: &str| {
            format!(
                "task = '{FOLDER}/lambada.jsonl'\n{limit}few_shot = {{ from = '{FOLDER}/lambada.jsonl', n = 3, choose = \"seeded\" }}\n"
            )
        };
        let read = |limit: &str| Task::read(&toml::from_str(&toml(limit)).expect("a task"), None).expect("readable");
        let (whole, cut) = (read(""), read("limit = 2\n"));
        assert_eq!((whole.items.len(), cut.items.len()), (4, 2));
        for index in 0..2 {
            assert_eq!(whole.shots(index, 7), cut.shots(index, 7));
            assert!(!whole.shots(index, 7).contains(&&whole.items[index]), "an item is no example of itself");
        }
        let differs = |index: usize| (0..20).any(|seed| whole.shots(index, seed) != whole.shots(index, seed + 1));
        assert!(differs(0));
    }
}
