//! The child process: holds a cell, does what the runner says, answers in lines.

mod cell;
mod kernels;
mod score;
mod sweep;
mod timed;
mod verify;

pub use cell::{Held, Models, Outcome, open_models, same_forward};

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};

use crate::machine;
use crate::protocol::{Command, PROTOCOL, Reply};

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

/// Reads commands from standard input until `exit` or its end.
pub fn main() -> Result<()> {
    say(&Reply::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() })?;
    let mut held: Option<Held> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read a command")?;
        let command: Command =
            serde_json::from_str(&line).with_context(|| format!("not a command of protocol {PROTOCOL}: {line}"))?;
        let reply = obey(command, &mut held).unwrap_or_else(|e| Reply::Failed { reason: format!("{e:#}") });
        say(&reply)?;
    }
    Ok(())
}

fn obey(command: Command, held: &mut Option<Held>) -> Result<Reply> {
    match (command, held.as_mut()) {
        (Command::Machine { threads }, _) => {
            Ok(Reply::Machine { roof: machine::measure(threads)?, facts: machine::facts(threads) })
        }
        (Command::Build(build), _) => {
            let (cell, reply) = Held::build(build)?;
            *held = Some(cell);
            Ok(reply)
        }
        (Command::Verify, Some(held)) => verify::verify(held),
        (Command::VerifyAgain { sample }, Some(held)) => verify::verify_again(held, &sample),
        (Command::Run { workload, repetition }, Some(held)) => held.run(workload, repetition),
        (_, None) => bail!("nothing is built yet"),
    }
}
