//! Tasks: items with one right answer, put to a model as text and judged by the likelihood of each answer.
//!
//! Source: EleutherAI's lm-evaluation-harness 0.4, whose prompts, scores and cuts these are, so that a number here is the number there:
//! [`mod@file`] and [`layout`] read the published files as its task definitions do, [`prompt`] writes the context of an item as
//! `fewshot_context` does, [`mod@encode`] cuts it into tokens as `_encode_pair` and `_loglikelihood_tokens` do. [`passkey`] hides keys in
//! long texts, which no published file does for a chosen length.

mod encode;
mod file;
mod layout;
mod passkey;
mod prompt;

use std::path::Path;

use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use results::trace::{Hidden, Judged};

pub use encode::{Request, encode};
pub use layout::Layout;
pub use prompt::{Pair, Render};

use crate::scenario::{PasskeyPart, ShotChoice, TaskPart};

/// Why a task cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TaskError {
    /// File, and line where it is one line's fault.
    pub place: String,
    /// What is wrong, what was expected, what to do.
    pub problem: String,
}

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its name in the file, or its line.
    pub id: String,
    /// What it is about, where the layout says (MMLU).
    pub subject: Option<String>,
    /// The question.
    pub ask: Ask,
    /// Index of the right answer.
    pub gold: usize,
    /// Where its answer is hidden, where it is.
    pub hidden: Option<Hidden>,
}

/// How a question is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// One context, and answers that may follow it.
    Choose {
        /// What stands before the answer.
        context: String,
        /// The answers.
        answers: Vec<String>,
        /// How they are judged.
        judged: Judged,
    },
    /// Contexts that differ in what fills a gap, and one text that follows them all.
    Fill {
        /// The contexts, each with its filling.
        contexts: Vec<String>,
        /// What follows.
        rest: String,
    },
    /// A text whose end is to be said.
    Complete {
        /// The text without its end.
        context: String,
        /// The end, with the space before it.
        target: String,
    },
}

impl Item {
    /// How it is judged.
    pub fn judged(&self) -> Judged {
        match &self.ask {
            Ask::Choose { judged, .. } => *judged,
            Ask::Fill { .. } => Judged::PlainChoice,
            Ask::Complete { .. } => Judged::LastWord,
        }
    }

    /// Its answers as the task has them, whose lengths count.
    pub fn answers(&self) -> Vec<&str> {
        match &self.ask {
            Ask::Choose { answers, .. } => answers.iter().map(String::as_str).collect(),
            Ask::Fill { contexts, .. } => contexts.iter().map(String::as_str).collect(),
            Ask::Complete { target, .. } => vec![target],
        }
    }
}

/// A task, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What is asked.
    pub items: Vec<Item>,
    /// Where examples come from.
    pool: Vec<Item>,
    n_shots: usize,
    choose: ShotChoice,
}

impl Task {
    /// Reads what `part` of the scenario file `file` names.
    pub fn read(part: &TaskPart, file: Option<&Path>) -> Result<Task, TaskError> {
        let (layout, mut items) = file::read(&part.task, part.layout, part.labels.as_deref(), file)?;
        items.truncate(part.limit.unwrap_or(usize::MAX));
        let Some(shots) = &part.few_shot else {
            return Ok(Task { items, pool: vec![], n_shots: 0, choose: ShotChoice::First });
        };
        let (_, pool) = file::read(&shots.from, Some(layout), shots.labels.as_deref(), file)?;
        let task = Task { items, pool, n_shots: shots.n, choose: shots.choose };
        for item in &task.items {
            let fitting = task.fitting(item).len();
            if fitting < shots.n {
                let subject = item.subject.as_ref().map_or(String::new(), |subject| format!(" about {subject}"));
                let problem = format!(
                    "has {fitting} examples{subject} for item {}, and {} are wanted; lower few_shot.n or give more examples",
                    item.id, shots.n
                );
                return Err(TaskError { place: shots.from.clone(), problem });
            }
        }
        Ok(task)
    }

    /// Examples that may stand before `item`.
    fn fitting(&self, item: &Item) -> Vec<&Item> {
        let fits = |example: &&Item| example.ask != item.ask && example.subject == item.subject;
        self.pool.iter().filter(fits).collect()
    }

    /// The examples before item number `index`; a draw depends on `seed` and `index` alone, so that a limit changes no prompt.
    pub fn shots(&self, index: usize, seed: u64) -> Vec<&Item> {
        let mut fitting = self.fitting(&self.items[index]);
        if self.choose == ShotChoice::Seeded {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(index as u64);
            fitting.shuffle(&mut random);
        }
        fitting.truncate(self.n_shots);
        fitting
    }

    /// Contexts and continuations of item number `index`.
    pub fn pairs(&self, index: usize, seed: u64, chat: Option<Render<'_>>) -> Result<Vec<Pair>, String> {
        prompt::pairs(&self.items[index], &self.shots(index, seed), chat)
    }
}

/// The texts of `part`, by `seed`; `tokens` counts those of a text.
pub fn hidden_keys(
    part: &PasskeyPart,
    seed: u64,
    tokens: &dyn Fn(&str) -> Result<usize, String>,
) -> Result<Task, String> {
    let items = passkey::items(part, seed, tokens)?;
    Ok(Task { items, pool: vec![], n_shots: 0, choose: ShotChoice::First })
}

/// Bytes of the file that `given` names, for its hash.
pub fn text(given: &str, file: Option<&Path>) -> Result<String, TaskError> {
    file::text(given, file)
}
