//! Speculative decoding's measured speed-up beside its formula.
//!
//! Source: Leviathan et al. 2023 (arXiv 2211.17192), theorem 3.8, with the verification's cost kept: the paper takes a
//! pass over γ + 1 tokens to cost one plain step, which holds where weights stream from memory and not on a CPU whose
//! cache holds the model.

use std::collections::BTreeMap;

use decoding::DecodingSpec;
use decoding::identities::expected_tokens;
use results::statistics::{median, median_interval};

use super::evidence::Evidence;
use super::measure::{Measured, SEED};
use crate::cell::Cell;
use crate::scenario::Select;

/// One repetition of both cells.
struct Repetition {
    /// plain / speculative time per token.
    speedup: f64,
    /// Acceptance of decided drafts.
    alpha: f64,
    /// Time of one drafted token, in plain steps.
    c: f64,
    /// Time of one verification, in plain steps.
    v: f64,
}

impl Repetition {
    fn predicted(&self, gamma: usize) -> f64 {
        expected_tokens(self.alpha, gamma) / (gamma as f64 * self.c + self.v)
    }
}

/// Measured speed-up over the predicted one; repetitions are pairs.
pub fn over_model(
    evidence: &Evidence<'_>,
    workload: Option<&str>,
    speculative: &Select,
    plain: &Select,
) -> Result<Measured, String> {
    let (speculative, plain) = (evidence.cell(speculative)?, evidence.cell(plain)?);
    let DecodingSpec::Speculative(spec) = &speculative.spec.decoding else {
        return Err(format!("{} does not speculate", speculative.label));
    };
    let gamma = spec.gamma;
    let repetitions = repetitions(evidence, workload, speculative, plain, gamma)?;
    let ratios: Vec<f64> = repetitions.iter().map(|r| r.speedup / r.predicted(gamma)).collect();
    let interval = median_interval(&ratios, SEED)
        .ok_or_else(|| format!("{} and {} share no repetition", speculative.label, plain.label))?;
    let middle = |figure: &dyn Fn(&Repetition) -> f64| {
        median(&repetitions.iter().map(figure).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let note = format!(
        "measured {:.2}×, predicted {:.2}× from α = {:.2}, c = {:.2}, v = {:.2} at γ = {gamma}",
        middle(&|r| r.speedup),
        middle(&|r| r.predicted(gamma)),
        middle(&|r| r.alpha),
        middle(&|r| r.c),
        middle(&|r| r.v)
    );
    let bounds = (interval.n > 1).then_some((interval.low, interval.high));
    Ok(Measured { value: interval.estimate, interval: bounds, unit: "×".into(), n: interval.n, note })
}

fn repetitions(
    evidence: &Evidence<'_>,
    workload: Option<&str>,
    speculative: &Cell,
    plain: &Cell,
    gamma: usize,
) -> Result<Vec<Repetition>, String> {
    // drafts are accepted under other workloads too: all numbers of the formula come from the one that timed the steps
    let timed = evidence.metric(plain, workload, "decode_ms_per_token")?;
    let workload = timed.first().map(|row| row.workload.as_str());
    let by_repetition = |cell: &Cell, metric: &str| -> Result<BTreeMap<(u32, u32), f64>, String> {
        let rows = evidence.metric(cell, workload, metric)?;
        Ok(rows.iter().filter_map(|row| Some(((row.sitting, row.repetition), row.value?))).collect())
    };
    let step = by_repetition(plain, "decode_ms_per_token")?;
    let token = by_repetition(speculative, "decode_ms_per_token")?;
    let alpha = by_repetition(speculative, "acceptance_alpha")?;
    let draft = by_repetition(speculative, "draft_ms_per_run")?;
    let verify = by_repetition(speculative, "verify_ms_per_run")?;
    let of = |(key, step): (&(u32, u32), &f64)| {
        Some(Repetition {
            speedup: step / token.get(key)?,
            alpha: *alpha.get(key)?,
            c: draft.get(key)? / gamma as f64 / step,
            v: verify.get(key)? / step,
        })
    };
    Ok(step.iter().filter_map(of).collect())
}
