//! The child process: holds a cell, does what the runner says, answers in lines.

mod cell;
pub mod counted;
mod gpu;
mod kernels;
pub mod score;
mod sensitivity;
pub mod sweep;
pub mod task;
mod timed;
mod verify;

pub use cell::{Held, Models, Outcome, build_engine, calibration_windows, open_models, same_forward};
pub use verify::dequantised;

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine::EngineError;

use crate::external::HeldExternal;
use crate::machine::{self, Patience};
use crate::protocol::{Command, PROTOCOL, Reply};

/// How long a worker whose runner is gone may still take.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Writes one reply; a runner that is gone ends the worker.
fn say(reply: &Reply) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    out.flush().context("the runner is gone")
}

/// Tells the runner how far a long part is.
pub fn progress(text: &str, done: usize, of: usize) {
    // a lost progress line is not worth a lost result
    let _ = say(&Reply::Progress { text: text.into(), done, of });
}

/// What a worker holds.
enum Holding {
    /// An engine of ours.
    Ours(Box<Held>),
    /// Another engine.
    External(Box<HeldExternal>),
}

/// Reads commands from standard input until `exit` or its end.
pub fn main() -> Result<()> {
    say(&Reply::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() })?;
    let mut held: Option<Holding> = None;
    let (sender, commands) = channel();
    std::thread::spawn(move || listen(&sender));
    let outcome = serve(&commands, &mut held);
    // a runner that ends a worker kills it: whoever comes here was left alone, by a runner that was killed itself
    if let Some(Holding::External(held)) = held {
        held.abandon();
    }
    outcome
}

/// Passes commands on. Their end means that the runner is gone: a worker in the midst of long work would go on with it, and
/// disturb whatever is measured next, so it is given a moment to end and then ended, with the other engine that it holds.
fn listen(sender: &Sender<std::io::Result<String>>) {
    for line in std::io::stdin().lock().lines() {
        if sender.send(line).is_err() {
            return;
        }
    }
    // the receiver hears of the end when it next listens
    let _ = sender.send(Err(std::io::ErrorKind::UnexpectedEof.into()));
    std::thread::sleep(LAST_MOMENT);
    #[cfg(unix)]
    if rustix::process::getpgrp() == rustix::process::getpid() {
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
    }
    std::process::exit(1);
}

fn serve(commands: &Receiver<std::io::Result<String>>, held: &mut Option<Holding>) -> Result<()> {
    for line in commands {
        let line = match line {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            line => line.context("cannot read a command")?,
        };
        let command: Command =
            serde_json::from_str(&line).with_context(|| format!("not a command of protocol {PROTOCOL}: {line}"))?;
        let reply = obey(command, held).unwrap_or_else(|e| Reply::Failed { reason: format!("{e:#}") });
        say(&reply)?;
    }
    Ok(())
}

/// Parts that do not go together only on some models, which no plan can know, are refused and have not failed.
fn refusal(error: anyhow::Error) -> Result<Reply> {
    match error.downcast_ref::<EngineError>() {
        Some(EngineError::Unsupported(unsupported)) => Ok(Reply::Refused { reason: unsupported.to_string() }),
        _ => Err(error),
    }
}

fn obey(command: Command, held: &mut Option<Holding>) -> Result<Reply> {
    match (command, held.as_mut()) {
        (Command::Machine { threads, again }, _) => {
            let patience = if again { Patience::Short } else { Patience::Long };
            Ok(Reply::Machine { roof: machine::measure(threads, patience)?, facts: machine::facts(threads) })
        }
        (Command::Build(build), _) => {
            let (cell, reply) = match HeldExternal::wanted(&build)? {
                None => match Held::build(build) {
                    Ok((held, reply)) => (Some(Holding::Ours(Box::new(held))), reply),
                    Err(error) => (None, refusal(error)?),
                },
                Some(part) => HeldExternal::build(build, part)
                    .map(|(held, reply)| (held.map(|held| Holding::External(Box::new(held))), reply))?,
            };
            *held = cell;
            Ok(reply)
        }
        (Command::Verify, Some(Holding::Ours(held))) => verify::verify(held),
        (Command::Verify, Some(Holding::External(held))) => held.verify(),
        (Command::VerifyAgain { sample }, Some(Holding::Ours(held))) => verify::verify_again(held, &sample),
        (Command::VerifyAgain { sample }, Some(Holding::External(held))) => held.verify_again(&sample),
        (Command::Run { workload, repetition, roof }, Some(Holding::Ours(held))) => {
            held.roof = roof.or(held.roof);
            held.run(workload, repetition)
        }
        (Command::Run { workload, repetition, roof }, Some(Holding::External(held))) => {
            held.roof = roof.or(held.roof);
            held.run(workload, repetition)
        }
        (_, None) => bail!("nothing is built yet"),
    }
}
