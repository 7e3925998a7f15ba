//! Tasks in TOML: which items, and how they are put to a model.

use serde::Deserialize;

use crate::task::Layout;

/// A file of items whose answers are judged by likelihood.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPart {
    /// `embedded:NAME`, or a JSONL file (relative to the scenario file).
    pub task: String,
    /// How its lines are written; told from the fields of the first line where it is left out.
    pub layout: Option<Layout>,
    /// A second file with one label a line, for a layout that keeps labels apart (PIQA).
    pub labels: Option<String>,
    /// Only this many items, from the first.
    pub limit: Option<usize>,
    /// Examples before each item.
    pub few_shot: Option<FewShot>,
    /// Whether the question is a turn of a conversation, by the model's own chat template.
    #[serde(default)]
    pub chat: bool,
    /// Tokens that the model sees at most; its own window where it is left out. Longer contexts lose their beginning.
    pub window: Option<usize>,
}

/// Worked examples that stand before an item.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// Where they come from: `embedded:NAME`, or a JSONL file of the task's own layout.
    pub from: String,
    /// Labels of that file, where its layout keeps them apart.
    pub labels: Option<String>,
    /// How many.
    pub n: usize,
    /// Which ones.
    #[serde(default)]
    pub choose: ShotChoice,
}

/// Which examples stand before an item; never the item itself, and where items have subjects, those of its subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShotChoice {
    /// The first ones of the file, the same for every item.
    #[default]
    First,
    /// Drawn for each item, from the scenario's seed.
    Seeded,
}

/// A key hidden in a long text of no matter, generated from the scenario's seed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasskeyPart {
    /// Tokens of the whole text with its question and answer; each text comes as near as whole sentences allow.
    pub lengths: Vec<usize>,
    /// Where the key stands: 0 is the beginning of the text, 1 its end.
    #[serde(default = "default_depths")]
    pub depths: Vec<f64>,
    /// Texts per length and depth.
    #[serde(default = "default_items")]
    pub items: usize,
    /// Keys to choose from, the right one included.
    #[serde(default = "default_choices")]
    pub choices: usize,
}

impl TaskPart {
    /// Name in results: `task-hellaswag`, with `-5shot`, `-chat` and `-window256` where they apply.
    pub fn name(&self) -> String {
        let shots = self.few_shot.as_ref().map_or(String::new(), |shots| format!("-{}shot", shots.n));
        let window = self.window.map_or(String::new(), |window| format!("-window{window}"));
        format!("task-{}{shots}{}{window}", super::workload::stem(&self.task), if self.chat { "-chat" } else { "" })
    }
}

impl PasskeyPart {
    /// Name in results: `passkey-512-1024`.
    pub fn name(&self) -> String {
        let lengths: Vec<String> = self.lengths.iter().map(usize::to_string).collect();
        format!("passkey-{}", lengths.join("-"))
    }
}

fn default_depths() -> Vec<f64> {
    vec![0.0, 0.25, 0.5, 0.75, 1.0]
}

fn default_items() -> usize {
    5
}

fn default_choices() -> usize {
    4
}
