//! The child that holds another engine: started, spoken to in lines, never believed and never waited for too long.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ExternalEngine;
use super::export::{ModelShape, TensorPlace};
use crate::scenario::GpuProblem;

/// Version of these messages.
const PROTOCOL: u32 = 1;
/// Longest line that is read.
const MOST_BYTES: u64 = 1 << 20;
/// Lines of standard error kept for a failure's reason.
const KEPT_LINES: usize = 6;
/// How long an adapter that fell silent for good may take to end and to finish its last words.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// How long a silence may last.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the first line: the interpreter starts and imports.
    pub hello: Duration,
    /// Until an answer: a conversion of gigabytes, or a slow repetition.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { hello: Duration::from_secs(180), answer: Duration::from_secs(900) }
    }
}

/// Worker to adapter.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Ask<'a> {
    /// Turn raw f32 tensors into the engine's own file.
    Convert { raw: &'a Path, gguf: &'a Path, weights: &'a str, model: &'a ModelShape, tensors: &'a [TensorPlace] },
    /// Get ready.
    Load {
        threads: usize,
        attention: &'a str,
        kv: &'a str,
        gguf: Option<&'a Path>,
        context_tokens: usize,
        /// Sequences that are decoded together at most.
        sequences: usize,
    },
    /// Attention over the q, k, v of `file`: timed, or computed once into `output`.
    Attention {
        file: &'a Path,
        rows: usize,
        keys: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        causal: bool,
        output: Option<&'a Path>,
    },
    /// A problem of a GPU's ladders, checked against f64 by the adapter, then timed by the device's events: back to back,
    /// or each call behind one that empties the cache.
    GpuKernel { problem: &'a GpuProblem, backend: &'a str, seed: u64, cold: bool },
    /// Logits of every prompt row into `output`.
    Logits { tokens: &'a [u32], output: &'a Path },
    /// One timed pass over a prompt.
    Prefill { tokens: &'a [u32] },
    /// Timed generation after a prompt.
    Decode { tokens: &'a [u32], new_tokens: usize, sequences: usize },
}

/// Adapter to worker.
#[derive(Debug, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Answer {
    /// First line.
    Hello { protocol: u32, engine: String, version: String, facts: Vec<(String, String)> },
    /// Ready.
    Loaded {
        kernels: String,
        /// Nanoseconds that loading alone took, by the adapter's clock; 0 where it does not tell.
        #[serde(default)]
        ns: u64,
    },
    /// Computed.
    Done {},
    /// Computed and timed: nanoseconds of all calls together, by the monotonic clock of the adapter.
    Timed {
        ns: u64,
        calls: u64,
        #[serde(default)]
        peak_rss_bytes: u64,
    },
    /// This engine cannot, or is not here.
    Refused { reason: String },
    /// It tried.
    Failed { reason: String },
}

/// Why an adapter gave no result.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The engine is not installed, or cannot do this: the cell is skipped.
    #[error("{0}")]
    Refused(String),
    /// It crashed, said nonsense or nothing: the cell has failed.
    #[error("{engine}: {problem}")]
    Failed {
        /// The engine.
        engine: &'static str,
        /// What happened.
        problem: String,
    },
}

/// A running adapter; killed when dropped.
pub struct Adapter {
    engine: &'static str,
    /// Version the engine reports.
    pub version: String,
    /// Facts it reports about itself.
    pub facts: Vec<(String, String)>,
    child: Child,
    input: ChildStdin,
    lines: Receiver<Result<String, String>>,
    last_words: Arc<Mutex<Vec<String>>>,
    /// Disconnected when standard error ends.
    words_end: Receiver<()>,
    patience: Patience,
}

impl Adapter {
    /// Starts `engine` under the interpreter `python` and hears its first line.
    pub fn start(engine: ExternalEngine, python: &Path, patience: Patience) -> Result<Adapter, AdapterError> {
        let name = engine.name();
        let mut child = Command::new(python)
            .args(["-u", "-c", &engine.source()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| {
                AdapterError::Refused(format!("{name} needs Python: {} cannot be started ({e}); install Python 3.9 or newer, or name another with --python PATH", python.display()))
            })?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(AdapterError::Failed { engine: name, problem: "the adapter has no pipes".into() });
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let line = bounded_line(&mut output);
                let ends = matches!(line, None | Some(Err(_)));
                if line.is_some_and(|line| sender.send(line).is_err()) || ends {
                    break;
                }
            }
        });
        let last_words = Arc::<Mutex<Vec<String>>>::default();
        let heard = last_words.clone();
        let (held_while_listening, words_end) = channel();
        std::thread::spawn(move || {
            listen(errors, &heard);
            drop(held_while_listening);
        });
        let (version, facts) = (String::new(), vec![]);
        let mut adapter =
            Adapter { engine: name, version, facts, child, input, lines, last_words, words_end, patience };
        match adapter.next(patience.hello)? {
            Answer::Hello { protocol: PROTOCOL, engine, version, facts } if engine == name => {
                (adapter.version, adapter.facts) = (version, facts);
                Ok(adapter)
            }
            other => Err(adapter.failed(format!("its first line was {other:?}"))),
        }
    }

    /// Sends `ask` and waits for its answer.
    pub fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, AdapterError> {
        let mut line = serde_json::to_string(ask).map_err(|e| self.failed(e.to_string()))?;
        line.push('\n');
        if self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush()).is_err() {
            return Err(self.died());
        }
        self.next(self.patience.answer)
    }

    /// Sends `ask` and expects nanoseconds, calls and the engine's peak memory.
    pub fn timed(&mut self, ask: &Ask<'_>) -> Result<(u64, u64, u64), AdapterError> {
        match self.ask(ask)? {
            Answer::Timed { ns, calls, peak_rss_bytes } => Ok((ns, calls, peak_rss_bytes)),
            other => Err(self.failed(format!("no time but {other:?}"))),
        }
    }

    /// Sends `ask` and expects that it is done.
    pub fn done(&mut self, ask: &Ask<'_>) -> Result<(), AdapterError> {
        match self.ask(ask)? {
            Answer::Done {} | Answer::Timed { .. } => Ok(()),
            other => Err(self.failed(format!("unexpected {other:?}"))),
        }
    }

    fn next(&mut self, patience: Duration) -> Result<Answer, AdapterError> {
        let line = match self.lines.recv_timeout(patience) {
            Ok(Ok(line)) => line,
            Ok(Err(problem)) => return Err(self.failed(problem)),
            Err(RecvTimeoutError::Timeout) => {
                return Err(self.failed(format!("no answer for {} s; it was stopped", patience.as_secs_f64())));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.died()),
        };
        match serde_json::from_str(&line) {
            Ok(Answer::Refused { reason }) => Err(AdapterError::Refused(reason)),
            Ok(Answer::Failed { reason }) => Err(self.failed(reason)),
            Ok(answer) => Ok(answer),
            Err(_) => {
                let start: String = line.chars().take(120).collect();
                Err(self.failed(format!("said something that is not an answer: {start}")))
            }
        }
    }

    fn failed(&self, problem: String) -> AdapterError {
        AdapterError::Failed { engine: self.engine, problem }
    }

    fn died(&mut self) -> AdapterError {
        // standard error may end after standard output, and whoever closed the one may keep the other open for ever
        if self.words_end.recv_timeout(LAST_MOMENT) == Err(RecvTimeoutError::Timeout) {
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        let words = self.last_words.lock().unwrap_or_else(|e| e.into_inner()).join(" | ");
        self.failed(format!("the adapter ended with {status}{}{words}", if words.is_empty() { "" } else { ": " }))
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line, none at the end; an endless one is an error and not a full memory.
fn bounded_line(output: &mut impl BufRead) -> Option<Result<String, String>> {
    let mut bytes = vec![];
    match output.by_ref().take(MOST_BYTES).read_until(b'\n', &mut bytes) {
        Err(error) => Some(Err(error.to_string())),
        Ok(0) => None,
        Ok(n) if n as u64 == MOST_BYTES && !bytes.ends_with(b"\n") => {
            Some(Err(format!("a line is longer than {MOST_BYTES} bytes")))
        }
        Ok(_) => Some(Ok(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

fn listen(errors: impl Read, heard: &Mutex<Vec<String>>) {
    let mut errors = BufReader::new(errors);
    while let Some(Ok(line)) = bounded_line(&mut errors) {
        let mut heard = heard.lock().unwrap_or_else(|e| e.into_inner());
        if heard.len() == KEPT_LINES {
            heard.remove(0);
        }
        heard.push(line.trim_end().chars().take(300).collect());
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Far longer than an answer takes on a loaded machine.
    const LONG: Duration = Duration::from_secs(60);
    /// For an answer that never comes.
    const SHORT: Duration = Duration::from_millis(300);
    const ALL_COMES: Patience = Patience { hello: LONG, answer: LONG };

    /// What happens when the interpreter is this shell script.
    fn with(script: &str, patience: Patience) -> String {
        let folder = tempfile::tempdir().expect("temporary folder");
        let python = folder.path().join("python");
        std::fs::write(&python, format!("#!/bin/sh\n{script}\n")).expect("script");
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("mode");
        loop {
            let answer = match Adapter::start(ExternalEngine::PyTorch, &python, patience) {
                Err(error) => error.to_string(),
                Ok(mut adapter) => match adapter.ask(&Ask::Prefill { tokens: &[1] }) {
                    Err(error) => error.to_string(),
                    Ok(answer) => format!("{answer:?}"),
                },
            };
            // a test beside this one may have forked while the script was being written, and holds it open until it execs
            if !answer.contains("Text file busy") {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn says(script: &str, patience: Patience, expected: &str) {
        let answer = with(script, patience);
        assert!(answer.contains(expected), "`{script}` gave `{answer}`, not `{expected}`");
    }

    const HELLO: &str = r#"echo '{"say":"hello","protocol":1,"engine":"pytorch","version":"2","facts":[]}'"#;

    #[test]
    fn nonsense_and_death_have_their_reasons() {
        says("echo hello", ALL_COMES, "not an answer: hello");
        says("echo sad >&2; exit 3", ALL_COMES, "exit status: 3: sad");
        says("exec 1>&-; echo late >&2; exit 3", ALL_COMES, "exit status: 3: late");
        assert_eq!(with(r#"echo '{"say":"refused","reason":"pip install torch"}'"#, ALL_COMES), "pip install torch");
        says("head -c 2000000 /dev/zero", ALL_COMES, "longer than");
        let other = r#"echo '{"say":"hello","protocol":9,"engine":"pytorch","version":"2","facts":[]}'"#;
        says(other, ALL_COMES, "first line");
        says(&format!("{HELLO}; read x; echo '{{\"say\":\"timed\",\"ns\":5,\"calls\":1}}'"), ALL_COMES, "ns: 5");
    }

    #[test]
    fn silence_has_its_reason() {
        says("exec sleep 99", Patience { hello: SHORT, ..ALL_COMES }, "no answer for 0.3 s");
        says(&format!("{HELLO}; exec sleep 99"), Patience { answer: SHORT, ..ALL_COMES }, "no answer for 0.3 s");
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        let error = Adapter::start(ExternalEngine::LlamaCpp, Path::new("/no/such/python"), Patience::default());
        let text = error.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("/no/such/python") && text.contains("--python"), "{text}");
    }
}
