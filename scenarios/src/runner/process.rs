//! A worker process: started, spoken to in lines, never waited for longer than it has a right to.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command as System, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::protocol::{Command, PROTOCOL, Reply};
use crate::stop::{LOOK, Stop};
use crate::stopwatch::Stopwatch;

/// Longest silence of a worker; building and scoring report progress much more often.
const SILENCE: Duration = Duration::from_secs(1800);
/// Lines of standard error kept for a failure's reason.
const KEPT_LINES: usize = 12;

/// This process's own file, also after a compiler has put another in its place.
const OWN_FILE: &str = "/proc/self/exe";

/// A binary that can be a worker.
#[derive(Debug, Clone)]
pub struct Program {
    /// What is started.
    file: PathBuf,
    /// What it is called.
    name: PathBuf,
    stop: Stop,
}

impl Program {
    /// This binary, and this build of it: a run that is going must not change builds because somebody compiled.
    pub fn this(stop: &Stop) -> Result<Program> {
        let name = std::env::current_exe().context("cannot find this program's own file, needed to start workers")?;
        let own = PathBuf::from(OWN_FILE);
        let file = if own.exists() { own } else { name.clone() };
        Ok(Program { file, name, stop: stop.clone() })
    }

    /// Another build.
    pub fn at(path: PathBuf, stop: &Stop) -> Program {
        Program { file: path.clone(), name: path, stop: stop.clone() }
    }

    /// Hash of the file: what tells builds apart of which nothing else does.
    pub fn blake3(&self) -> String {
        let hash = || {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut std::fs::File::open(&self.file)?, &mut hasher)?;
            std::io::Result::Ok(hasher.finalize().to_hex().to_string())
        };
        hash().unwrap_or_else(|error| format!("unknown ({error})"))
    }

    /// Starts a worker and hears its first line.
    pub fn start(&self) -> Result<Worker> {
        self.stop.check()?;
        let mut command = System::new(&self.file);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // a group of its own: Ctrl-C reaches the runner alone, which then ends the group with all that the worker started
            command.arg0(&self.name).process_group(0);
        }
        let mut child = command.spawn().with_context(|| format!("{}: cannot start a worker", self.name.display()))?;
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
        let mut worker = Worker { child, input, replies, last_words, stop: self.stop.clone() };
        match worker.next()? {
            Reply::Hello { protocol: PROTOCOL, .. } => Ok(worker),
            Reply::Hello { protocol, version } => {
                bail!(
                    "{}: worker of version {version} speaks protocol {protocol}, this program {PROTOCOL}",
                    self.name.display()
                )
            }
            _ => bail!("{}: does not answer as a worker", self.name.display()),
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
    stop: Stop,
}

impl Worker {
    /// Sends `command` and waits for its outcome; progress lines go to `progress`. An error means that the worker is gone,
    /// or, where it is a [`crate::stop::Stopped`], that the run should end.
    pub fn call(&mut self, command: &Command, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Reply> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.stop.check()?;
        if self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush()).is_err() {
            return Err(self.died());
        }
        loop {
            match self.next()? {
                Reply::Progress { text, done, of } => progress(&text, done, of),
                reply => return Ok(reply),
            }
        }
    }

    fn next(&mut self) -> Result<Reply> {
        let silence = Stopwatch::start();
        loop {
            match self.replies.recv_timeout(LOOK) {
                Ok(line) => {
                    return serde_json::from_str(&line).with_context(|| {
                        let start: String = line.chars().take(200).collect();
                        format!("a worker said something that is not a reply: {start}")
                    });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.died()),
                Err(RecvTimeoutError::Timeout) => self.stop.check()?,
            }
            if silence.seconds() > SILENCE.as_secs_f64() {
                bail!("the worker said nothing for {} s and was stopped", SILENCE.as_secs())
            }
        }
    }

    /// The error of a worker that is gone: its failure, unless the run is to end.
    fn died(&mut self) -> anyhow::Error {
        match self.stop.check_after_a_death() {
            Err(stopped) => stopped.into(),
            Ok(()) => anyhow::anyhow!("{}", self.obituary()),
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
        // a worker that is done leaves on its own when its input closes; one that hangs must not outlive the run, nor may
        // the other engine that it holds
        #[cfg(unix)]
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
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
