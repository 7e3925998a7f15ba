//! The baseline that a command line names: a run, or the newest fitting run of a folder of runs. What was named and cannot be a
//! baseline is an error and never "no baseline": a slip of the pen must not open the gate.

use std::path::{Path, PathBuf};

use results::run::Run;

use crate::CheckError;
use crate::command::holds_run;
use crate::comparability;
use crate::policy::Policy;
use crate::side::Side;

/// Scenarios that an error lists before it stops.
const MOST_LISTED: usize = 8;

/// A baseline, and what a reader must know about how it was found.
pub struct Baseline {
    /// The run.
    pub run: Run,
    /// Words about runs that were passed over.
    pub notes: Vec<String>,
}

/// The baseline for `head` that `path` names.
pub fn find(path: &Path, head: &Run, policy: &Policy) -> Result<Baseline, CheckError> {
    let refuse = |problem: String| CheckError::Baseline { path: path.to_owned(), problem };
    const EXPECTED: &str = "expected a run directory that `infermark run` wrote, or a folder of such directories";
    if !path.exists() {
        return Err(refuse(format!("there is no such folder; {EXPECTED}")));
    }
    if !path.is_dir() {
        return Err(refuse(format!("is a file; {EXPECTED}")));
    }
    let wanted = Side::from(head).summary.scenario.clone();
    if holds_run(path) {
        let run = Run::load(path).map_err(|error| refuse(format!("this run cannot be read: {error}")))?;
        let scenario = Side::from(&run).summary.scenario.clone();
        if scenario != wanted {
            return Err(refuse(format!(
                "is a run of {}, and the run to judge is one of {}; a baseline must be of the same scenario (`infermark compare` lays \
                 any two runs side by side)",
                named(&scenario),
                named(&wanted)
            )));
        }
        return Ok(Baseline { run, notes: vec![] });
    }
    let folders = runs_in(path).map_err(|error| refuse(format!("cannot be listed: {error}")))?;
    if folders.is_empty() {
        return Err(refuse(format!("holds no run; {EXPECTED}")));
    }
    newest(&folders, head, policy).map_err(|Unfit { others, unreadable }| {
        let mut problem = format!("none of its {} runs is of the scenario {}", folders.len(), named(&wanted));
        if !others.is_empty() {
            problem += &format!("; there are runs of {}", listed(&others));
        }
        if !unreadable.is_empty() {
            problem += &format!("; these cannot be read: {}", unreadable.join("; "));
        }
        refuse(problem)
    })
}

/// Why no run of a folder will do.
struct Unfit {
    others: Vec<String>,
    unreadable: Vec<String>,
}

/// The newest run of the head's scenario: one from like hardware first, a finished one first.
fn newest(folders: &[PathBuf], head: &Run, policy: &Policy) -> Result<Baseline, Unfit> {
    let head = Side::from(head);
    let (mut fitting, mut others, mut unreadable) = (vec![], vec![], vec![]);
    for folder in folders {
        let run = match Run::load(folder) {
            Ok(run) => run,
            Err(error) => {
                unreadable.push(error.to_string());
                continue;
            }
        };
        let side = Side::from(&run);
        if side.summary.scenario != head.summary.scenario {
            others.push(side.summary.scenario.clone());
            continue;
        }
        let like = comparability::differences(&side, &head, &policy.comparable).is_empty();
        let rank = (like, side.summary.complete, side.summary.started.clone());
        fitting.push((rank, run));
    }
    let notes =
        unreadable.iter().map(|problem| format!("a run among the baselines was passed over: {problem}")).collect();
    match fitting.into_iter().max_by(|(a, _), (b, _)| a.cmp(b)) {
        Some((_, run)) => Ok(Baseline { run, notes }),
        None => Err(Unfit { others, unreadable }),
    }
}

fn runs_in(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let mut folders: Vec<PathBuf> = entries.into_iter().filter(|folder| holds_run(folder)).collect();
    folders.sort();
    Ok(folders)
}

/// A scenario as a sentence names it.
fn named(scenario: &str) -> String {
    if scenario.is_empty() { "a scenario that it does not name".to_owned() } else { format!("`{scenario}`") }
}

fn listed(scenarios: &[String]) -> String {
    let mut names: Vec<&String> = scenarios.iter().collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(MOST_LISTED);
    let shown: Vec<String> = names.into_iter().take(MOST_LISTED).map(|name| named(name)).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
