//! The words of a check, what they weigh, and the exit code they become.

use serde::Serialize;

use crate::policy::Severity;

/// What one gate found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// No worse than the policy allows.
    Pass,
    /// Better by more than the policy's tolerance.
    Improvement,
    /// Worse by more than the policy's tolerance.
    Regression,
    /// The measurement cannot tell.
    Inconclusive,
    /// Shown, never failing.
    Advisory,
    /// The baseline does not have it.
    New,
    /// The head does not have it.
    Missing,
    /// Base and head measured different things.
    NotComparable,
    /// The head's cell crashed, or its answers are wrong.
    Failed,
}

impl Outcome {
    /// The word printed for it.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Improvement => "improvement",
            Outcome::Regression => "regression",
            Outcome::Inconclusive => "inconclusive",
            Outcome::Advisory => "advisory",
            Outcome::New => "new",
            Outcome::Missing => "missing",
            Outcome::NotComparable => "not-comparable",
            Outcome::Failed => "failed",
        }
    }
}

/// What a finding adds to the verdict of the whole check; later ones outweigh earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Nothing.
    None,
    /// Open: fails with `--strict`.
    Open,
    /// A regression or a refuted claim.
    Regression,
    /// A run that failed.
    Failure,
}

impl From<Severity> for Weight {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Regression => Weight::Regression,
            Severity::Inconclusive => Weight::Open,
            Severity::Advisory => Weight::None,
        }
    }
}

/// The word on the last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckVerdict {
    /// Nothing got worse.
    Pass,
    /// Something could not be decided.
    Inconclusive,
    /// There is nothing to compare with.
    NoBaseline,
    /// Base and head measured different things, or on different machines.
    NotComparable,
    /// Something got worse, or a claim was refuted.
    Regression,
    /// A cell failed or is wrong, or the run was not finished.
    RunFailed,
}

impl CheckVerdict {
    /// The word printed for it.
    pub fn word(self) -> &'static str {
        match self {
            CheckVerdict::Pass => "pass",
            CheckVerdict::Inconclusive => "inconclusive",
            CheckVerdict::NoBaseline => "no-baseline",
            CheckVerdict::NotComparable => "not-comparable",
            CheckVerdict::Regression => "regression",
            CheckVerdict::RunFailed => "run-failed",
        }
    }

    /// 0 pass · 1 regression or refuted claim · 3 a run failed · 4 undecided or not comparable, with `strict` only.
    /// (2 is a usage error and never comes from a check that ran.)
    pub fn exit_code(self, strict: bool) -> u8 {
        match self {
            CheckVerdict::Pass => 0,
            CheckVerdict::Regression => 1,
            CheckVerdict::RunFailed => 3,
            CheckVerdict::Inconclusive | CheckVerdict::NoBaseline | CheckVerdict::NotComparable => {
                if strict {
                    4
                } else {
                    0
                }
            }
        }
    }
}

/// Exit code of a command line, policy or path that cannot be used.
pub const EXIT_USAGE: u8 = 2;

/// Exit code of a run directory that cannot be read.
pub const EXIT_RUN_FAILED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        for (verdict, plain, strict) in [
            (CheckVerdict::Pass, 0, 0),
            (CheckVerdict::Inconclusive, 0, 4),
            (CheckVerdict::NoBaseline, 0, 4),
            (CheckVerdict::NotComparable, 0, 4),
            (CheckVerdict::Regression, 1, 1),
            (CheckVerdict::RunFailed, 3, 3),
        ] {
            assert_eq!((verdict.exit_code(false), verdict.exit_code(true)), (plain, strict), "{}", verdict.word());
        }
    }
}
