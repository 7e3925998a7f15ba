//! What became of each paper's claim between base and head.

use results::claim::{ClaimResult, Verdict};
use serde::Serialize;

use crate::policy::ClaimRule;
use crate::verdict::Weight;

/// One claim of the head beside the baseline's verdict on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClaimGate {
    /// Claim id.
    pub id: String,
    /// The claim in one sentence.
    pub statement: String,
    /// The baseline's verdict, where it has the claim.
    pub base: Option<Verdict>,
    /// The head's verdict; absent when the head no longer tests the claim.
    pub head: Option<Verdict>,
    /// What it does to the verdict of the check.
    pub weight: Weight,
    /// What happened, in words.
    pub reason: String,
}

/// Judges every claim of either side, the head's first.
pub fn judge(base: Option<&[ClaimResult]>, head: &[ClaimResult], rule: &ClaimRule) -> Vec<ClaimGate> {
    let baseline = base.unwrap_or_default();
    let mut gates: Vec<ClaimGate> = head
        .iter()
        .map(|claim| {
            let was = baseline.iter().find(|old| old.id == claim.id).map(|old| old.verdict);
            let (weight, what) = weigh(was, claim.verdict, rule);
            let reason = if claim.reason.is_empty() { what } else { format!("{what}: {}", claim.reason) };
            ClaimGate {
                id: claim.id.clone(),
                statement: claim.statement.clone(),
                base: was,
                head: Some(claim.verdict),
                weight,
                reason,
            }
        })
        .collect();
    let gone = baseline.iter().filter(|old| head.iter().all(|claim| claim.id != old.id));
    gates.extend(gone.map(|old| ClaimGate {
        id: old.id.clone(),
        statement: old.statement.clone(),
        base: Some(old.verdict),
        head: None,
        weight: if old.verdict.is_confirmed() { Weight::Open } else { Weight::None },
        reason: "no longer tested".to_owned(),
    }));
    gates
}

fn weigh(was: Option<Verdict>, is: Verdict, rule: &ClaimRule) -> (Weight, String) {
    let before = was.map_or("not in the baseline".to_owned(), |verdict| format!("was {}", verdict.word()));
    if is == Verdict::Failed {
        return (Weight::Failure, format!("its measurement failed ({before})"));
    }
    if is.is_refuted() {
        return if was.is_some_and(Verdict::is_refuted) {
            (rule.known.into(), "known: the baseline refutes it too".to_owned())
        } else {
            (rule.refuted.into(), format!("refuted ({before})"))
        };
    }
    match was {
        Some(verdict) if verdict.is_confirmed() && !is.is_confirmed() => {
            (Weight::Open, format!("no longer confirmed ({before})"))
        }
        Some(verdict) if verdict == is => (Weight::None, "unchanged".to_owned()),
        _ => (Weight::None, before),
    }
}
