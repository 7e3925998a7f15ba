//! What must be the same when a run is continued, and what a reader must know of its sittings.

use std::collections::{BTreeMap, BTreeSet};

use results::observation::Fact;
use results::run::{Run, sitting_of, sitting_scope};

use super::{Asked, RunRequest};
use crate::machine;

/// Facts that tell one build from another.
const BUILD: [&str; 5] = ["infermark_version", "git_commit", "rustc", "build", "program_blake3"];
/// Key of the caveats of a sitting.
pub const CAVEAT: &str = "caveat";
/// Key of the other program of a run that compares two builds.
pub const BASE_PROGRAM: &str = "base_program_blake3";

/// Why a run cannot be continued as asked; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Refuses to continue a run whose numbers would not belong together: other weights, texts, scenario or processor, or, unless
/// the caller allows it, another build.
pub fn check_same(before: &Run, now: &[Fact], request: &RunRequest) -> Result<(), Refusal> {
    let decides = |key: &str| {
        let begins = ["scenario_blake3", "text_blake3", "model_", "draft_", "threads"];
        begins.iter().any(|begin| key.starts_with(begin))
    };
    let changed = |scope: &str, key: &str, new: &str| match before.values(scope, key).iter().find(|old| **old != new) {
        Some(old) => Err(Refusal(format!(
            "cannot resume: `{key}` was {old} and is now {new}; their rows do not belong in one run, start a new one"
        ))),
        None => Ok(()),
    };
    if !before.values("run", BASE_PROGRAM).is_empty() {
        return Err(Refusal(format!(
            "cannot resume: {} compares two builds, and only bench-against can measure both; start it again",
            request.output.display()
        )));
    }
    for fact in now.iter().filter(|f| decides(&f.key)) {
        changed("run", &fact.key, &fact.value)?;
    }
    let cpu = machine::facts(0).into_iter().find(|(key, _)| key == "cpu_model").map_or(String::new(), |(_, v)| v);
    changed("machine", "cpu_model", &cpu)?;
    match other_build(before, now) {
        Some(difference) if !request.allow_other_build => Err(Refusal(format!(
            "cannot resume: this program is another build than the one that made the rows of {}: {difference}. Continue with that \
             program, start a new run, or give --allow-other-build: a caveat then says which rows are whose",
            request.output.display()
        ))),
        _ => Ok(()),
    }
}

/// How this build differs from those that made the rows so far; a fact that they did not state decides nothing.
fn other_build(before: &Run, now: &[Fact]) -> Option<String> {
    let differs = |fact: &&Fact| {
        BUILD.contains(&fact.key.as_str()) && before.values("run", &fact.key).iter().any(|old| *old != fact.value)
    };
    let differences = now.iter().filter(differs).map(|fact| {
        let was = before.fact("run", &fact.key).unwrap_or_default();
        format!("`{}` was {was} and is now {}", fact.key, fact.value)
    });
    let differences: Vec<String> = differences.collect();
    (!differences.is_empty()).then(|| differences.join(", "))
}

/// What the sittings themselves give a reader to know: their own caveats, and rows of different builds.
pub fn caveats(run: &Run) -> Vec<String> {
    let mut sittings: BTreeMap<u32, Vec<&Fact>> = BTreeMap::new();
    for fact in &run.facts {
        if let Some(sitting) = sitting_of(&fact.scope) {
            sittings.entry(sitting).or_default().push(fact);
        }
    }
    let mut caveats = vec![];
    for (sitting, facts) in &sittings {
        let named = if sittings.len() > 1 { format!("Sitting {sitting}: ") } else { String::new() };
        let own = facts.iter().filter(|fact| fact.key == CAVEAT).map(|fact| format!("{named}{}", fact.value));
        caveats.extend(own);
        caveats.extend(of_another_build(run, *sitting, facts));
    }
    caveats.extend(not_verified_again(run));
    caveats
}

/// That a sitting was stopped between its repetitions and the check of logits that follows them.
fn not_verified_again(run: &Run) -> Option<String> {
    let timed = run.summary.iter().flat_map(|summary| &summary.workloads).filter(|w| w.timed);
    let timed: Vec<&str> = timed.map(|w| w.name.as_str()).collect();
    let of = |wanted: &dyn Fn(&str) -> bool| -> BTreeSet<u32> {
        let rows = run.observations.iter().filter(|row| row.value.is_some() && wanted(&row.workload));
        rows.map(|row| row.sitting).collect()
    };
    let verified = of(&|workload| workload == "verify");
    let again = of(&|workload| workload == "verify-again");
    let open: Vec<String> = of(&|workload| timed.contains(&workload))
        .iter()
        .filter(|sitting| verified.contains(sitting) && !again.contains(sitting))
        .map(u32::to_string)
        .collect();
    (!open.is_empty()).then(|| {
        format!(
            "Repetitions of sitting {} were checked before they were timed and not after: the sitting was stopped in between.",
            open.join(" and ")
        )
    })
}

/// That the rows of `sitting` come from another build than the first ones.
fn of_another_build(run: &Run, sitting: u32, facts: &[&Fact]) -> Option<String> {
    if !run.observations.iter().any(|row| row.sitting == sitting) {
        return None;
    }
    let first = |key: &str| {
        let stated = run.values(&sitting_scope(0), key).first().copied();
        stated.or_else(|| run.values("run", key).first().copied())
    };
    let differs = facts.iter().filter(|fact| BUILD.contains(&fact.key.as_str()));
    let differs = differs.filter_map(|fact| {
        let first = first(&fact.key).filter(|first| *first != fact.value)?;
        Some(format!("{} {} instead of {first}", fact.key, fact.value))
    });
    let differs: Vec<String> = differs.collect();
    (!differs.is_empty()).then(|| {
        format!(
            "The rows of sitting {sitting} were made by another build than those of sitting 0 ({}). Cells are compared inside a \
             sitting only, but a median over sittings is no single program's.",
            differs.join(", ")
        )
    })
}

/// Facts that an earlier sitting has not stated yet.
pub fn news(before: &Run, facts: Vec<Fact>) -> Vec<Fact> {
    let is_new = |fact: &Fact| {
        !before.facts.iter().any(|old| (&old.scope, &old.key, &old.value) == (&fact.scope, &fact.key, &fact.value))
    };
    facts.into_iter().filter(is_new).collect()
}

impl Asked {
    /// The command that continues the run with another value of a field of its budget.
    pub fn continue_with_seconds(&self, seconds: f64) -> String {
        format!("{} --set budget.seconds={}", self.continue_with, seconds.ceil())
    }
}
