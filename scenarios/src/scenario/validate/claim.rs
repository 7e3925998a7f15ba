//! Claims that the cells and workloads of their scenario can answer.

use std::collections::BTreeMap;

use super::Faults;
use crate::diagnostic::meant;
use crate::matrix::{self, AXES};
use crate::scenario::{Claim, Measure, Scenario, Select, Workload};

/// Names under which every cell has rows beside its workloads'.
const ALWAYS: [&str; 2] = ["load", "verify"];

/// Checks every claim and that their ids differ.
pub(super) fn check_all(scenario: &Scenario, faults: &mut Faults<'_>) {
    let lists = matrix::lists(scenario);
    let names: Vec<String> = scenario.workloads.iter().map(Workload::name).chain(ALWAYS.map(String::from)).collect();
    let mut seen = BTreeMap::new();
    for (i, claim) in scenario.claims.iter().enumerate() {
        let path = format!("claim[{i}]");
        if let Some(first) = seen.insert(&claim.id, i) {
            faults.add(
                format!("{path}.id"),
                format!("claim `{}` is already number {}", claim.id, first + 1),
                "give each claim its own id",
            );
        }
        check(&path, claim, scenario, &lists, &names, faults);
    }
}

fn check(
    path: &str,
    claim: &Claim,
    scenario: &Scenario,
    lists: &[Vec<String>; 6],
    workloads: &[String],
    faults: &mut Faults<'_>,
) {
    faults.need(
        !claim.parts.is_empty(),
        path,
        "a claim without a part has no number",
        "add a [[claim.part]] with label, measure and rule",
    );
    for (i, part) in claim.parts.iter().enumerate() {
        let part_path = format!("{path}.part[{i}]");
        for (name, select) in part.measure.selections() {
            if let Some(engine) = &select.engine {
                let known: Vec<&str> = scenario.externals.iter().map(|e| e.engine.name()).collect();
                if !known.contains(&engine.as_str()) {
                    let title = format!("no [[external]] has engine `{engine}`");
                    faults.add(format!("{part_path}.measure.{name}.engine"), title, meant(engine, &known, "engines"));
                }
                continue;
            }
            for (axis, (tag, list)) in AXES.iter().zip(select.tags().into_iter().zip(lists)) {
                let Some(tag) = tag.filter(|tag| !list.iter().any(|t| t == *tag)) else { continue };
                let known: Vec<&str> = list.iter().map(String::as_str).collect();
                let title = format!("no cell has {axis} `{tag}`");
                faults.add(format!("{part_path}.measure.{name}.{axis}"), title, meant(tag, &known, "tags"));
            }
        }
        for (field, name) in part.measure.workloads() {
            if !workloads.contains(name) {
                let known: Vec<&str> = workloads.iter().map(String::as_str).collect();
                let title = format!("no workload is called `{name}`");
                faults.add(format!("{part_path}.measure.{field}"), title, meant(name, &known, "workloads"));
            }
        }
        let rule = &part.rule;
        let judged = rule.at_least.is_some() || rule.at_most.is_some();
        let title = "the rule judges nothing: no at_least, no at_most, not report_only";
        faults.need(
            judged || rule.report_only,
            &format!("{part_path}.rule"),
            title,
            "add a bound, or report_only = true",
        );
    }
}

impl Measure {
    /// The cells this measure names, by field.
    pub fn selections(&self) -> Vec<(&'static str, &Select)> {
        match self {
            Measure::Value { cell, .. }
            | Measure::BestPart { cell, .. }
            | Measure::Slope { cell, .. }
            | Measure::Share { cell, .. } => {
                vec![("cell", cell)]
            }
            Measure::Ratio { over, under, .. } => vec![("over", over), ("under", under)],
            Measure::Closure { method, baseline, .. } => vec![("method", method), ("baseline", baseline)],
            Measure::BestRatio { over, under, .. } => {
                over.iter().map(|o| ("over", o)).chain([("under", under)]).collect()
            }
            Measure::SpeedupOverModel { speculative, plain, .. } => {
                vec![("speculative", speculative), ("plain", plain)]
            }
        }
    }
}

impl Measure {
    /// The workloads this measure names, by field.
    fn workloads(&self) -> Vec<(&'static str, &String)> {
        let (first, second) = match self {
            Measure::Ratio { workload, under_workload, .. } => (workload, under_workload.as_ref()),
            Measure::Value { workload, .. }
            | Measure::BestPart { workload, .. }
            | Measure::Closure { workload, .. }
            | Measure::BestRatio { workload, .. }
            | Measure::SpeedupOverModel { workload, .. }
            | Measure::Slope { workload, .. }
            | Measure::Share { workload, .. } => (workload, None),
        };
        let named = [("workload", first.as_ref()), ("under_workload", second)];
        named.into_iter().filter_map(|(field, name)| Some((field, name?))).collect()
    }
}

impl Select {
    /// Tags asked for, in the order of [`AXES`].
    fn tags(&self) -> [Option<&String>; 6] {
        let Select { model, attention, weights, kv, decoding, device, .. } = self;
        [model, attention, weights, kv, decoding, device].map(Option::as_ref)
    }
}
