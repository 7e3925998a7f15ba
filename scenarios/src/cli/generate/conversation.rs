//! `--chat`: a conversation, by the model's own chat template, as the prompt.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use engine::Checkpoint;
use engine::chat::{self, Chat};
use serde_json::{Value, json};

use crate::cli::{Blame, Failure, input};
use crate::stopwatch::utc_now;

/// A conversation from flags or from a file.
#[derive(Args, Clone, Debug)]
pub struct Conversation {
    /// Write the prompt as a turn of a conversation, by the model's own chat template
    #[arg(long)]
    chat: bool,
    /// What the system says before the first turn
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    /// What the user said; repeatable: turns alternate, the first --user, the first --assistant, and so on. --prompt is the
    /// user's last turn
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    user: Vec<String>,
    /// What the assistant answered; as the last turn it is continued
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    assistant: Vec<String>,
    /// All messages: a JSON list of { "role": ..., "content": ... } (- for standard input)
    #[arg(long, value_name = "FILE", requires = "chat", conflicts_with_all = ["system", "user", "assistant", "prompt"])]
    messages: Option<PathBuf>,
    /// Tools that the model may call: a JSON list of schemas
    #[arg(long, value_name = "FILE", requires = "chat")]
    tools: Option<PathBuf>,
}

impl Conversation {
    /// Whether one is asked for.
    pub fn is_meant(&self) -> bool {
        self.chat
    }

    /// The prompt that `target`'s template makes of it; `prompt` is the user's last turn.
    pub fn render(&self, target: &Checkpoint, prompt: Option<&str>) -> Result<String, Failure> {
        let tools = self.tools.as_deref().map(|file| input::json("--tools", file)).transpose()?;
        let Some(template) = chat::choose(&target.facts.chat_templates, tools.is_some()) else {
            let places =
                "chat_template.jinja, `chat_template` of tokenizer_config.json, or the key `tokenizer.chat_template`";
            let problem = "has no chat template";
            return Err(anyhow!("--chat: {} {problem} ({places}); leave out --chat", target.source)).usage();
        };
        let messages = self.messages(prompt)?;
        let now = utc_now();
        let chat = Chat { messages: &messages, tools: tools.as_ref(), names: &target.facts.names, now: &now };
        chat::render(template, &chat)
            .map_err(|problem| anyhow!("--chat: the template of {} says: {problem}", target.source))
            .usage()
    }

    fn messages(&self, prompt: Option<&str>) -> Result<Vec<Value>, Failure> {
        if let Some(file) = &self.messages {
            let list = match input::json("--messages", file)? {
                Value::Array(list) => list,
                Value::Object(mut map) => {
                    map.remove("messages").and_then(|v| v.as_array().cloned()).unwrap_or_default()
                }
                _ => vec![],
            };
            let are_messages = !list.is_empty() && list.iter().all(|message| message["role"].is_string());
            return match are_messages {
                true => Ok(list),
                false => Err(anyhow!(
                    "--messages {}: expected a list of objects, each with a `role` and mostly a `content`",
                    file.display()
                ))
                .usage(),
            };
        }
        let users: Vec<&str> = self.user.iter().map(String::as_str).chain(prompt).collect();
        let answers = self.assistant.len();
        if users.is_empty() || !(users.len() - 1..=users.len()).contains(&answers) {
            return Err(anyhow!(
                "--chat: turns alternate, but there are {} of the user and {answers} of the assistant; give --prompt or --user for \
                 each turn of the user, and --assistant for each answer between them",
                users.len()
            ))
            .usage();
        }
        let message = |role: &str, text: &str| json!({ "role": role, "content": text });
        let mut messages: Vec<Value> = self.system.iter().map(|text| message("system", text)).collect();
        for (turn, text) in users.iter().enumerate() {
            messages.push(message("user", text));
            messages.extend(self.assistant.get(turn).map(|text| message("assistant", text)));
        }
        Ok(messages)
    }
}
