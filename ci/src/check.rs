//! Base against head under a policy.

use std::collections::{BTreeMap, BTreeSet};

use results::aggregate::unlike_chunks;
use results::metric::Kind;
use results::observation::{Direction, Observation, Status};
use results::run::Run;
use results::summary::{CellSummary, Ending, Role};
use serde::Serialize;

use crate::claims::{self, ClaimGate};
use crate::comparability::{self, Difference};
use crate::estimate::{Estimate, Pairing};
use crate::gate::{self, Circumstances, Gate};
use crate::noise::NoiseFloors;
use crate::policy::{Correction, GateChoice, Policy};
use crate::series::{self, Series, SeriesKey};
use crate::side::Side;
use crate::verdict::{CheckVerdict, Outcome, Weight};

/// How base and head came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Two runs, made at different times: wall-clock is advisory.
    Recorded,
    /// One job that alternated base and head: wall-clock gates.
    Interleaved,
}

/// Permissions of one check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permit {
    /// Compare across machines, labelled.
    pub different_hardware: bool,
}

impl Report {
    /// The rows that a short summary shows: heaviest first.
    pub fn notable(&self) -> Vec<&Gate> {
        let mut rows: Vec<&Gate> = self.gates.iter().filter(|gate| gate.is_notable()).collect();
        rows.sort_by_key(|gate| (std::cmp::Reverse(gate.weight), gate.outcome.word(), gate.title()));
        rows
    }

    /// How many gates found what, in words: `3 pass, 1 regression`.
    pub fn counts(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.gates.iter().for_each(|gate| *counts.entry(gate.outcome.word()).or_default() += 1);
        let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        if words.is_empty() { "no gates".to_owned() } else { words.join(", ") }
    }

    /// The claims whose verdict changed or weighs something.
    pub fn changed_claims(&self) -> Vec<&ClaimGate> {
        self.claims.iter().filter(|claim| claim.weight != Weight::None || claim.base != claim.head).collect()
    }
}

/// How a cell of either side fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellGate {
    /// Cell id.
    pub cell: String,
    /// Short label.
    pub label: String,
    /// `failed`, `new`, `missing` or `not-comparable`.
    pub outcome: Outcome,
    /// What it does to the verdict.
    pub weight: Weight,
    /// Why.
    pub reason: String,
}

/// The whole of a check: the JSON that `--format json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Scenario of the head.
    pub scenario: String,
    /// How base and head came about.
    pub mode: Mode,
    /// Run id of the baseline.
    pub base_run: Option<String>,
    /// Run id of the head.
    pub head_run: String,
    /// The word on the last line.
    pub verdict: CheckVerdict,
    /// Why, in a sentence.
    pub summary: String,
    /// What was ignored while reading either run.
    pub warnings: Vec<String>,
    /// Facts on which the sides disagree.
    pub differences: Vec<Difference>,
    /// Cells with something to say.
    pub cells: Vec<CellGate>,
    /// One row per compared series.
    pub gates: Vec<Gate>,
    /// Every claim of either side.
    pub claims: Vec<ClaimGate>,
    /// Command that measures the head again.
    pub command: String,
}

/// Compares `head` with `baseline`.
pub fn check(baseline: &Run, head: &Run, policy: &Policy, mode: Mode, permit: Permit) -> Report {
    let (baseline, head) = (&Side::from(baseline), &Side::from(head));
    let differences = comparability::differences(baseline, head, &policy.comparable);
    let waived = |difference: &Difference| difference.waivable && permit.different_hardware;
    let refused = differences.iter().any(|difference| difference.is_global() && !waived(difference));
    let mut cells = head_cells(head);
    let mut gates = Vec::new();
    if !refused {
        let comparison = Comparison {
            baseline,
            head,
            policy,
            mode,
            different_hardware: differences.iter().any(waived),
            refused_cells: differences
                .iter()
                .filter(|difference| !difference.is_global() && !waived(difference))
                .map(|difference| (difference.scope.as_str(), difference.describe()))
                .collect(),
        };
        cells.extend(comparison.coverage());
        gates = comparison.gates();
    }
    let claims = claims::judge(Some(&baseline.run.claims), &head.run.claims, &policy.claims);
    let open = if refused { vec![] } else { doubts(baseline, &gates, &claims) };
    finish(
        Report {
            scenario: head.summary.scenario.clone(),
            mode,
            base_run: Some(baseline.summary.run_id.clone()),
            head_run: head.summary.run_id.clone(),
            verdict: if refused { CheckVerdict::NotComparable } else { CheckVerdict::Pass },
            summary: String::new(),
            warnings: [&baseline.run.warnings[..], &head.run.warnings, &words(baseline, head, &gates, mode)].concat(),
            differences,
            cells,
            gates,
            claims,
            command: head.summary.command.clone(),
        },
        head,
        open,
    )
}

/// Why "none worse" would say more than the two runs show.
fn doubts(baseline: &Side, gates: &[Gate], claims: &[ClaimGate]) -> Vec<String> {
    // rows that were lost on the way leave nothing to compare with
    let mut open: Vec<String> =
        baseline.run.warnings.iter().map(|lost| format!("the baseline is damaged: {lost}")).collect();
    if baseline.run.summary.is_none() {
        open.push("the baseline has no summary.json, so it was killed early or is damaged".to_owned());
    } else if !baseline.summary.complete {
        open.push("the baseline was not finished, so it does not show everything that could have got worse".to_owned());
    }
    let compared = gates.iter().any(|gate| gate.base.is_some() && gate.head.is_some())
        || claims.iter().any(|claim| claim.base.is_some() && claim.head.is_some());
    if !compared {
        open.push(
            "nothing was compared: base and head have no measured value and no judged claim in common".to_owned(),
        );
    }
    open
}

/// Words for a run of which no cell was measured: nothing can get worse in it.
fn unmeasured_head(head: &Side) -> Vec<String> {
    let cells = &head.summary.cells;
    if cells.is_empty() || cells.iter().any(|cell| cell.status == Status::Ok) {
        return vec![];
    }
    let skipped: Vec<_> = cells.iter().filter(|cell| cell.status == Status::Skipped).collect();
    let why = skipped.first().map_or_else(String::new, |cell| format!(" ({}: {})", cell.label, cell.reason));
    vec![format!("no cell of the run to judge was measured; {} of {} were skipped{why}", skipped.len(), cells.len())]
}

/// What a reader must know before believing the gates.
fn words(baseline: &Side, head: &Side, gates: &[Gate], mode: Mode) -> Vec<String> {
    let mut words = unmeasured_head(head);
    let timed = gates.iter().any(|gate| gate.kind == Kind::Timing && gate.head.is_some());
    let has_control = head.summary.cells.iter().any(|cell| cell.role == Role::AaControl && cell.status == Status::Ok);
    if mode == Mode::Interleaved && timed && !has_control {
        words.push(
            "no second copy of the reference was measured, so the noise of this job is not known: a slow-down only has to exceed \
             the policy's min_effect"
                .to_owned(),
        );
    }
    if baseline.run.claims.is_empty() && !head.run.claims.is_empty() {
        let n = head.run.claims.len();
        words.push(format!("the baseline has no judged claims, so the head's {n} are judged without one"));
    }
    words
}

/// What can be said of a run without a baseline: whether its cells ended well and its claims stand.
pub fn check_alone(head: &Run, policy: &Policy) -> Report {
    let head = &Side::from(head);
    finish(
        Report {
            scenario: head.summary.scenario.clone(),
            mode: Mode::Recorded,
            base_run: None,
            head_run: head.summary.run_id.clone(),
            verdict: CheckVerdict::NoBaseline,
            summary: String::new(),
            warnings: [&head.run.warnings[..], &unmeasured_head(head)].concat(),
            differences: Vec::new(),
            cells: head_cells(head),
            gates: Vec::new(),
            claims: claims::judge(None, &head.run.claims, &policy.claims),
            command: head.summary.command.clone(),
        },
        head,
        vec![],
    )
}

/// Failed and wrong cells of the head.
fn head_cells(head: &Side) -> Vec<CellGate> {
    let bad = head.summary.cells.iter().filter(|cell| matches!(cell.status, Status::Failed | Status::Wrong));
    bad.map(|cell| CellGate {
        cell: cell.id.clone(),
        label: cell.label.clone(),
        outcome: Outcome::Failed,
        weight: Weight::Failure,
        reason: match cell.status {
            Status::Wrong => format!("wrong answers: {}", cell.reason),
            _ => cell.reason.clone(),
        },
    })
    .collect()
}

/// Fills in the verdict and its sentence. What failed outweighs what got worse, and that what is open: a gate or claim, or one of
/// the doubts `open` about the comparison as a whole.
fn finish(mut report: Report, head: &Side, open_doubts: Vec<String>) -> Report {
    let weights = || {
        let cells = report.cells.iter().map(|cell| cell.weight);
        let gates = report.gates.iter().map(|gate| gate.weight);
        cells.chain(gates).chain(report.claims.iter().map(|claim| claim.weight))
    };
    let heaviest = weights().max().unwrap_or(Weight::None);
    let count = |weight: Weight| weights().filter(|found| *found == weight).count();
    let (failures, worse, open) = (count(Weight::Failure), count(Weight::Regression), count(Weight::Open));
    let verdict = match (heaviest, report.verdict) {
        _ if !head.summary.complete => CheckVerdict::RunFailed,
        (Weight::Failure, _) => CheckVerdict::RunFailed,
        (Weight::Regression, _) => CheckVerdict::Regression,
        (_, given @ (CheckVerdict::NotComparable | CheckVerdict::NoBaseline)) => given,
        (Weight::Open, _) => CheckVerdict::Inconclusive,
        (Weight::None, CheckVerdict::Pass) if !open_doubts.is_empty() => CheckVerdict::Inconclusive,
        (Weight::None, given) => given,
    };
    let judged = format!("{} gates and {} claims", report.gates.len(), report.claims.len());
    report.summary = match verdict {
        CheckVerdict::RunFailed if !head.summary.complete && head.summary.ending == Some(Ending::Skipped) => {
            format!("the run to judge measured nothing. {}", head.summary.missing.join(" "))
        }
        CheckVerdict::RunFailed if !head.summary.complete => {
            "the run to judge was not finished: continue it with `infermark run --resume`, or measure again".to_owned()
        }
        CheckVerdict::RunFailed => format!("{failures} of the head's cells or claims failed or are wrong"),
        CheckVerdict::Regression => format!("{worse} got worse, {open} open, of {judged}"),
        CheckVerdict::NotComparable => {
            let facts: Vec<String> = report.differences.iter().map(Difference::describe).collect();
            format!("base and head differ in what must agree: {}", facts.join("; "))
        }
        CheckVerdict::NoBaseline => "there is no baseline; name one with `--baseline DIR`".to_owned(),
        CheckVerdict::Inconclusive if open == 0 => open_doubts.join("; "),
        CheckVerdict::Inconclusive => format!("{open} open, none worse, of {judged}"),
        CheckVerdict::Pass => format!("none worse, of {judged}"),
    };
    if verdict != CheckVerdict::Inconclusive || open > 0 {
        report.warnings.extend(open_doubts);
    }
    report.verdict = verdict;
    report
}

/// What a run says of a workload of a cell that it did not measure.
fn unmeasured(run: &Run, key: &SeriesKey) -> Option<String> {
    let of_key = |row: &&Observation| row.cell == key.cell && row.workload == key.workload;
    let row = run.observations.iter().filter(of_key).find(|row| row.status != Status::Ok && !row.reason.is_empty())?;
    Some(format!("{}: {}", row.status.word(), row.reason))
}

/// Two runs that may be compared.
struct Comparison<'a> {
    baseline: &'a Side<'a>,
    head: &'a Side<'a>,
    policy: &'a Policy,
    mode: Mode,
    different_hardware: bool,
    /// Cells whose inputs or hardware differ, with the difference.
    refused_cells: BTreeMap<&'a str, String>,
}

/// A compared series, before the correction that needs all of them.
struct Candidate<'a> {
    key: SeriesKey,
    kind: Kind,
    head: &'a Series,
    estimate: Estimate,
    noise_floor: Option<f64>,
    /// Why base and head have no better and worse here.
    unranked: Option<String>,
}

impl Comparison<'_> {
    /// Cells that only one side measured, and those that may not be compared.
    fn coverage(&self) -> Vec<CellGate> {
        let measured = |run: &Side| -> BTreeMap<String, CellSummary> {
            let ok = run.summary.cells.iter().filter(|cell| cell.status == Status::Ok);
            ok.map(|cell| (cell.id.clone(), cell.clone())).collect()
        };
        let (base, head) = (measured(self.baseline), measured(self.head));
        let mut found = Vec::new();
        for cell in base.values().filter(|cell| !head.contains_key(&cell.id)) {
            let reason = match self.head.cell(&cell.id) {
                Some(now) if now.status == Status::Skipped => format!("skipped: {}", now.reason),
                Some(_) => continue, // failed or wrong: already listed
                None => "the head does not have this cell".to_owned(),
            };
            let weight = self.missing();
            found.push(CellGate {
                cell: cell.id.clone(),
                label: cell.label.clone(),
                outcome: Outcome::Missing,
                weight,
                reason,
            });
        }
        found.extend(head.values().filter(|cell| !base.contains_key(&cell.id)).map(|cell| CellGate {
            cell: cell.id.clone(),
            label: cell.label.clone(),
            outcome: Outcome::New,
            weight: Weight::None,
            reason: "the baseline does not have this cell".to_owned(),
        }));
        found.extend(self.refused_cells.iter().map(|(cell, reason)| CellGate {
            cell: (*cell).to_owned(),
            label: self.head.cell(cell).map_or_else(|| (*cell).to_owned(), |found| found.label.clone()),
            outcome: Outcome::NotComparable,
            weight: Weight::Open,
            reason: reason.clone(),
        }));
        found
    }

    fn missing(&self) -> Weight {
        if self.different_hardware { Weight::None } else { self.policy.coverage.missing.into() }
    }

    fn gates(&self) -> Vec<Gate> {
        let (base, head) =
            (series::collect(&self.baseline.run.observations), series::collect(&self.head.run.observations));
        let floors = NoiseFloors::measure(&[(self.baseline, &base), (self.head, &head)]);
        let both_ok = |id: &&str| self.baseline.is_ok(id) && self.head.is_ok(id);
        let ids = self.head.summary.cells.iter().map(|cell| cell.id.as_str());
        let shared: BTreeSet<&str> = ids.filter(both_ok).filter(|id| !self.refused_cells.contains_key(id)).collect();
        let gated =
            |key: &SeriesKey| shared.contains(key.cell.as_str()) && self.policy.gate(&key.metric) != GateChoice::Ignore;

        let (mut rows, mut candidates) = (Vec::new(), Vec::new());
        for (key, was) in base.iter().filter(|(key, _)| gated(key)) {
            match head.get(key) {
                None => rows.push(self.one_sided(key, was, Outcome::Missing, self.missing())),
                Some(now) => match was.mismatch(now) {
                    Some(reason) => {
                        let row = self.one_sided(key, now, Outcome::NotComparable, Weight::Open);
                        rows.push(Gate { reason, ..row });
                    }
                    None => candidates.push(Candidate {
                        key: key.clone(),
                        kind: self.policy.gate(&key.metric).kind(now.kind),
                        head: now,
                        estimate: Estimate::new(was, now, self.policy.gate(&key.metric).kind(now.kind), self.pairing()),
                        noise_floor: floors.of(key),
                        unranked: unranked(key, &base, &head),
                    }),
                },
            }
        }
        for (key, now) in head.iter().filter(|(key, _)| gated(key) && !base.contains_key(key)) {
            rows.push(self.one_sided(key, now, Outcome::New, Weight::None));
        }
        rows.extend(self.judge(candidates));
        rows.sort_by(|a, b| {
            let place = |gate: &Gate| (gate.cell.clone(), gate.workload.clone(), gate.metric.clone());
            place(a).cmp(&place(b)).then(a.x.partial_cmp(&b.x).unwrap_or(std::cmp::Ordering::Equal))
        });
        rows
    }

    fn pairing(&self) -> Pairing {
        match self.mode {
            Mode::Interleaved => Pairing::Interleaved,
            Mode::Recorded => Pairing::Recorded,
        }
    }

    fn one_sided(&self, key: &SeriesKey, series: &Series, outcome: Outcome, weight: Weight) -> Gate {
        let (what, run) = match outcome {
            Outcome::Missing => ("the head has no value", self.head.run),
            _ => ("the baseline has no value", self.baseline.run),
        };
        let why = unmeasured(run, key).map_or_else(String::new, |why| format!(": {why}"));
        let mut row = Gate::without_estimate(key, series.kind, outcome, weight, format!("{what}{why}"));
        row.unit = series.unit.clone();
        self.place(&mut row);
        row
    }

    fn place(&self, row: &mut Gate) {
        if let Some(cell) = self.head.cell(&row.cell) {
            row.label = cell.label.clone();
            row.axes = cell.axes.clone();
        }
    }

    /// Time gates share one level, so their p-values are corrected together before any is judged.
    fn judge(&self, candidates: Vec<Candidate>) -> Vec<Gate> {
        let tested: Vec<usize> = (0..candidates.len())
            .filter(|&index| candidates[index].kind == Kind::Timing && candidates[index].estimate.p.is_some())
            .collect();
        let raw: Vec<f64> = tested.iter().filter_map(|&index| candidates[index].estimate.p).collect();
        let corrected = match self.policy.timing.correction {
            Correction::BenjaminiHochberg => results::statistics::benjamini_hochberg(&raw),
            Correction::None => raw,
        };
        let adjusted: BTreeMap<usize, f64> = tested.into_iter().zip(corrected).collect();
        let judged = candidates.into_iter().enumerate().map(|(index, candidate)| {
            let Candidate { key, kind, head, estimate, noise_floor, unranked } = candidate;
            let direction = if unranked.is_some() { Direction::None } else { head.direction };
            let adjusted_p = adjusted.get(&index).copied();
            let circumstances = Circumstances {
                policy: self.policy,
                interleaved: self.mode == Mode::Interleaved,
                different_hardware: self.different_hardware,
                noise_floor,
                advisory: self.policy.gate(&key.metric) == GateChoice::Advisory,
                adjusted_p,
            };
            let finding = gate::judge(&key.metric, kind, direction, &estimate, &circumstances);
            let reason = unranked.map_or(finding.reason.clone(), |why| format!("{}; {why}", finding.reason));
            let mut row = Gate::without_estimate(&key, kind, finding.outcome, finding.weight, reason);
            self.place(&mut row);
            Gate {
                unit: head.unit.clone(),
                direction,
                base: Some(estimate.base),
                head: Some(estimate.head),
                change: estimate.change(),
                p: estimate.p,
                adjusted_p,
                otherwise: finding.otherwise,
                ..row
            }
        });
        judged.collect()
    }
}

/// Gaps between chunks do not rank a base and a head that emit unequally many tokens at once.
fn unranked(key: &SeriesKey, base: &BTreeMap<SeriesKey, Series>, head: &BTreeMap<SeriesKey, Series>) -> Option<String> {
    let chunks = key.sibling("chunk_tokens");
    let (base, head) = (base.get(&chunks)?, head.get(&chunks)?);
    (key.metric == "itl_ms").then(|| unlike_chunks(&head.samples, &base.samples))?
}
