//! A worker process: started, spoken to in lines, never waited for longer than it has a right to.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command as System, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::protocol::{Command, PROTOCOL, Reply};

/// Longest silence of a worker; building and scoring report progress much more often.
const SILENCE: Duration = Duration::from_secs(1800);
/// Lines of standard error kept for a failure's reason.
const KEPT_LINES: usize = 12;

/// A binary that can be a worker.
#[derive(Debug, Clone)]
pub struct Program(PathBuf);

impl Program {
    /// This binary.
    pub fn this() -> Result<Program> {
        Ok(Program(std::env::current_exe().context("cannot find this program's own file, needed to start workers")?))
    }

    /// Another build.
    pub fn at(path: PathBuf) -> Program {
        Program(path)
    }

    /// Starts a worker and hears its first line.
    pub fn start(&self) -> Result<Worker> {
        let mut child = System::new(&self.0)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot start a worker", self.0.display()))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("a worker has no pipes");
        };
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(|l| l.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let last_words = Arc::<Mutex<Vec<String>>>::default();
        let heard = last_words.clone();
        std::thread::spawn(move || listen(errors, &heard));
        let mut worker = Worker { child, input, replies, last_words };
        match worker.next()? {
            Reply::Hello { protocol: PROTOCOL, .. } => Ok(worker),
            Reply::Hello { protocol, version } => {
                bail!(
                    "{}: worker of version {version} speaks protocol {protocol}, this program {PROTOCOL}",
                    self.0.display()
                )
            }
            _ => bail!("{}: does not answer as a worker", self.0.display()),
        }
    }
}

fn listen(errors: impl Read, heard: &Mutex<Vec<String>>) {
    for line in BufReader::new(errors).lines().map_while(|l| l.ok()) {
        let mut heard = heard.lock().unwrap_or_else(|e| e.into_inner());
        if heard.len() == KEPT_LINES {
            heard.remove(0);
        }
        heard.push(line);
    }
}

/// A running worker; killed when dropped.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    replies: Receiver<String>,
    last_words: Arc<Mutex<Vec<String>>>,
}

impl Worker {
    /// Sends `command` and waits for its outcome; progress lines go to `progress`. An error means the worker is gone.
    pub fn call(&mut self, command: &Command, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Reply> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        if self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush()).is_err() {
            bail!("{}", self.obituary());
        }
        loop {
            match self.next()? {
                Reply::Progress { text, done, of } => progress(&text, done, of),
                reply => return Ok(reply),
            }
        }
    }

    fn next(&mut self) -> Result<Reply> {
        match self.replies.recv_timeout(SILENCE) {
            Ok(line) => serde_json::from_str(&line).with_context(|| {
                format!("a worker said something that is not a reply: {}", line.chars().take(200).collect::<String>())
            }),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the worker said nothing for {} s and was stopped", SILENCE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{}", self.obituary()),
        }
    }

    /// How the worker died, with its last words.
    fn obituary(&mut self) -> String {
        let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        let hint = if status.contains("SIGKILL") || status.contains("signal: 9") {
            " (killed: out of memory is the usual cause)"
        } else {
            ""
        };
        let words = self.last_words.lock().unwrap_or_else(|e| e.into_inner()).join(" | ");
        format!("the worker ended with {status}{hint}{}{words}", if words.is_empty() { "" } else { ": " })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // a worker that is done leaves on its own when its input closes; one that hangs must not outlive the run
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reason inside a reply that is not the hoped-for one.
pub fn reason(reply: &Reply) -> String {
    match reply {
        Reply::Failed { reason } | Reply::Refused { reason } => reason.clone(),
        other => format!("unexpected reply {other:?}").chars().take(200).collect(),
    }
}
