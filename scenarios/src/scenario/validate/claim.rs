//! Claims that the cells and workloads of their scenario can answer.

use std::collections::BTreeMap;

use super::Faults;
use super::rule;
use crate::diagnostic::meant;
use crate::matrix::{self, AXES};
use crate::scenario::{Claim, Measure, Scenario, Select, Workload};

/// Names under which every cell has rows beside its workloads'.
const ALWAYS: [&str; 2] = ["load", "verify"];

/// Checks every claim and that their ids differ.
pub(super) fn check_all(scenario: &Scenario, faults: &mut Faults<'_>) {
    let lists = matrix::known_tags(scenario);
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
        one_source(&part_path, &part.measure, scenario, faults);
        rule::check(&format!("{part_path}.rule"), claim.tier, &part.measure, &part.rule, faults);
    }
}

/// Where several workloads give the same metric, the measure says which of them it means.
fn one_source(path: &str, measure: &Measure, scenario: &Scenario, faults: &mut Faults<'_>) {
    // the best part is looked for by its name; where two workloads hold it, the judge says so
    let found_by_name = matches!(measure, Measure::BestPart { .. });
    if found_by_name || measure.workloads().iter().any(|(field, _)| *field == "workload") {
        return;
    }
    for metric in measure.metrics() {
        let mut sources: Vec<String> =
            scenario.workloads.iter().filter(|w| w.may_measure(metric)).map(Workload::name).collect();
        if is_memory(metric) && !sources.is_empty() {
            sources.push("load".into());
        }
        if sources.len() > 1 {
            let title = format!("`{metric}` may come from {}", sources.join(" and "));
            let help = format!("name the one that the claim is about, e.g. workload = \"{}\"", sources[0]);
            return faults.add(format!("{path}.measure"), title, help);
        }
    }
    if let Measure::Closure { protocol: None, .. } = measure {
        let protocols = scenario.workloads.iter().find_map(|workload| match workload {
            Workload::Perplexity { protocols, .. } if protocols.len() > 1 => Some(protocols),
            _ => None,
        });
        if let Some(protocols) = protocols {
            let title = "the text is scored by several protocols";
            let help = format!(
                "name the one that the claim is about, e.g. protocol = \"{}-{}\"",
                protocols[0].rule, protocols[0].window
            );
            faults.add(format!("{path}.measure"), title, help);
        }
    }
}

/// Memory that every workload with a model reports, and loading too.
fn is_memory(metric: &str) -> bool {
    metric.ends_with("_bytes") && results::metric::metric(metric).is_some()
}

impl Workload {
    /// Whether it may have rows of `metric`. Which values an identity has is known only when it has run, so each of them may.
    fn may_measure(&self, metric: &str) -> bool {
        let (base, part) = metric.split_once(':').unwrap_or((metric, ""));
        if base == "check" {
            return false;
        }
        let (speed, kernel) = (base.starts_with("roof_"), base.starts_with("us_per_call") || base.ends_with("op_s"));
        let known = results::metric::metric(base).is_some();
        let speculation = ["acceptance", "draft", "verify_ms", "accepted", "target_runs", "tokens_per_run"];
        let of_model = is_memory(metric) || known && speculation.iter().any(|start| base.starts_with(start));
        let scored = ["ppl", "nll", "bits_per_byte", "delta_nll", "kl_", "top1"];
        // a kernel's part is `op/rung/shape`, and roofs speak of phases as well as of kernels
        let has = |mut ops: Box<dyn Iterator<Item = (String, String)> + '_>| {
            ops.any(|(op, shape)| part.starts_with(&format!("{op}/")) && part.ends_with(&format!("/{shape}")))
        };
        match self {
            Workload::Perplexity { .. } => known && scored.iter().any(|start| base.starts_with(start)),
            Workload::Task(_) | Workload::Passkey(_) => {
                let of_items = ["acc", "exact_match", "target_", "answer_nll", "cut_items"];
                known && of_items.iter().any(|start| base.starts_with(start)) && !base.starts_with("accept")
            }
            Workload::Sensitivity { .. } => base.starts_with("sensitivity_") || base.starts_with("mixture_"),
            Workload::Prefill { .. } => base.starts_with("prefill_") || (speed && part.is_empty()) || is_memory(metric),
            Workload::Decode { .. } => base.starts_with("decode_") || (speed && part.is_empty()) || of_model,
            Workload::Generate { .. } => {
                ["ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "chunk_tokens"].contains(&base) || of_model
            }
            Workload::Kernels { kernels } if kernel || speed => {
                has(Box::new(kernels.iter().map(|k| (k.op.clone(), format!("{}x{}x{}", k.rows, k.n, k.k)))))
            }
            Workload::GpuKernels { problems, .. } if kernel || speed => {
                has(Box::new(problems.iter().map(|p| (p.op().to_string(), p.shape()))))
            }
            Workload::Kernels { .. } | Workload::GpuKernels { .. } => false,
            Workload::AttentionSweep { .. } => {
                base.starts_with("attention_") || base.starts_with("projections_") || (speed && part.is_empty())
            }
            Workload::KnownAnswer { .. } => metric == "us_per_call",
            Workload::Identity { .. } => !known && !base.starts_with("attention_") && !base.starts_with("projections_"),
        }
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
