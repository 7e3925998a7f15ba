//! Speculative decoding: how often a draft is right, and what the drafts cost.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace};

const CLOCK: &str = "clock frequency and neighbours";
const SEEDED: &str = "none between runs with equal seed; the text decides how predictable it is";

/// Share of drafted tokens that the target accepted.
pub const ACCEPTANCE_RATE: Definition = Definition {
    id: "acceptance_rate",
    formula_id: "acceptance_rate@1",
    formula: "accepted / drafted over one generation; tokens drafted after a rejected one count as drafted",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| share(ledger.accepted, ledger.drafted)),
};

/// Acceptance rate in the sense of the formula for expected tokens.
pub const ACCEPTANCE_ALPHA: Definition = Definition {
    id: "acceptance_alpha",
    formula_id: "acceptance_alpha@1",
    formula: "accepted / decided, decided = drafted tokens before which nothing was rejected: alpha of (1 - alpha^(gamma+1)) / (1 - alpha)",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| share(ledger.accepted, ledger.decided)),
};

/// Acceptance by draft position.
pub const ACCEPTANCE_AT: Definition = Definition {
    id: "acceptance_at",
    formula_id: "acceptance_at@1",
    formula: "accepted_at[i] / drafted_at[i]; x = draft position i, counted from 0",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: acceptance_at,
};

/// Tokens gained per run of the target model.
pub const TOKENS_PER_RUN: Definition = Definition {
    id: "tokens_per_run",
    formula_id: "tokens_per_run@1",
    formula: "emitted / target_runs; the bonus is included: each target run emits its accepted drafts plus one token of its own",
    unit: "tok",
    direction: Direction::Higher,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| share(ledger.emitted, ledger.target_runs)),
};

/// Share of time spent drafting.
pub const DRAFT_SHARE: Definition = Definition {
    id: "draft_share",
    formula_id: "draft_share@1",
    formula: "draft time / (draft time + verify time)",
    unit: "1",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: "clock frequency and neighbours, partly cancelling",
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| share(ledger.draft_ns, ledger.draft_ns + ledger.verify_ns)),
};

/// Time of drafting per target run.
pub const DRAFT_MS_PER_RUN: Definition = Definition {
    id: "draft_ms_per_run",
    formula_id: "draft_ms_per_run@1",
    formula: "draft time / target_runs",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| milliseconds(ledger.draft_ns, ledger.target_runs)),
};

/// Time of one verification.
pub const VERIFY_MS_PER_RUN: Definition = Definition {
    id: "verify_ms_per_run",
    formula_id: "verify_ms_per_run@1",
    formula: "verify time / target_runs; a last pass that verifies no draft is in the time and not in the runs",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| milliseconds(ledger.verify_ns, ledger.target_runs)),
};

/// Drafted tokens.
pub const DRAFTED_TOKENS: Definition = Definition {
    id: "drafted_tokens",
    formula_id: "drafted_tokens@1",
    formula: "tokens proposed by the draft over one generation",
    unit: "tok",
    direction: Direction::None,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| Some(ledger.drafted as f64)),
};

/// Accepted tokens.
pub const ACCEPTED_TOKENS: Definition = Definition {
    id: "accepted_tokens",
    formula_id: "accepted_tokens@1",
    formula: "drafted tokens that the target accepted over one generation, bonus tokens excluded",
    unit: "tok",
    direction: Direction::Higher,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| Some(ledger.accepted as f64)),
};

/// Forward passes of the target model.
pub const TARGET_RUNS: Definition = Definition {
    id: "target_runs",
    formula_id: "target_runs@1",
    formula: "verification passes of the target model over one generation, prompt pass excluded",
    unit: "1",
    direction: Direction::Lower,
    kind: Kind::Deterministic,
    noise: SEEDED,
    pooled: false,
    derive: |trace| per_ledger(trace, |ledger| Some(ledger.target_runs as f64)),
};

struct Ledger {
    drafted: u64,
    decided: u64,
    accepted: u64,
    target_runs: u64,
    emitted: u64,
    draft_ns: u64,
    verify_ns: u64,
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn milliseconds(ns: u64, runs: u64) -> Option<f64> {
    (runs > 0).then(|| ns as f64 / runs as f64 / 1e6)
}

fn per_ledger(trace: &Trace, figure: fn(&Ledger) -> Option<f64>) -> Vec<Value> {
    let ledgers = trace.events.iter().filter_map(|event| match *event {
        Event::Speculation { drafted, decided, accepted, target_runs, emitted, draft_ns, verify_ns, .. } => {
            Some(Ledger { drafted, decided, accepted, target_runs, emitted, draft_ns, verify_ns })
        }
        _ => None,
    });
    ledgers.enumerate().filter_map(|(item, ledger)| Some(Value::new(item, figure(&ledger)?))).collect()
}

fn acceptance_at(trace: &Trace) -> Vec<Value> {
    let mut values = Vec::new();
    for event in &trace.events {
        let Event::Speculation { drafted_at, accepted_at, .. } = event else { continue };
        for (position, (drafted, accepted)) in drafted_at.iter().zip(accepted_at).enumerate() {
            if let Some(rate) = share(*accepted, *drafted) {
                values.push(Value::new(values.len(), rate).at(position as f64));
            }
        }
    }
    values
}
