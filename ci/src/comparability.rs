//! Whether two runs may be compared: same question, same inputs, same machine.

use std::collections::BTreeMap;

use results::observation::Fact;
use serde::Serialize;

use crate::policy::{ComparableRule, matches};
use crate::side::Side;

/// A fact on which base and head disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `run`, `machine`, or a cell id.
    pub scope: String,
    /// Key of the fact.
    pub key: String,
    /// What the baseline recorded.
    pub base: Option<String>,
    /// What the head recorded.
    pub head: Option<String>,
    /// Whether `--allow-different-hardware` waives it.
    pub waivable: bool,
}

impl Difference {
    /// One line: the key and both values.
    pub fn describe(&self) -> String {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "not recorded".to_owned());
        let (base, head) = (side(&self.base), side(&self.head));
        match self.scope.as_str() {
            "run" | "machine" => format!("{}: {base} -> {head}", self.key),
            cell => format!("{} of {cell}: {base} -> {head}", self.key),
        }
    }

    /// Whether it concerns the whole run, not one cell.
    pub fn is_global(&self) -> bool {
        matches!(self.scope.as_str(), "run" | "machine")
    }
}

/// Every difference that the policy cares about. A fact that only one side recorded is a difference: nobody knows.
pub fn differences(base: &Side, head: &Side, rule: &ComparableRule) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut must_agree = |key: &str, base: String, head: String| {
        if base != head {
            let scope = "run".to_owned();
            found.push(Difference { scope, key: key.to_owned(), base: Some(base), head: Some(head), waivable: false });
        }
    };
    must_agree("scenario", base.summary.scenario.clone(), head.summary.scenario.clone());
    must_agree("schema", base.summary.schema_version.to_string(), head.summary.schema_version.to_string());

    let (base_facts, head_facts) = (relevant(&base.run.facts, rule), relevant(&head.run.facts, rule));
    let shared_cell = |scope: &str| base.cell(scope).is_some() && head.cell(scope).is_some();
    let mut keys: Vec<_> = base_facts.keys().chain(head_facts.keys()).collect();
    keys.sort();
    keys.dedup();
    for &&(scope, key) in &keys {
        let (was, is) = (base_facts.get(&(scope, key)), head_facts.get(&(scope, key)));
        let comparable_scope = matches!(scope, "run" | "machine") || shared_cell(scope);
        if was != is && comparable_scope {
            found.push(Difference {
                scope: scope.to_owned(),
                key: key.to_owned(),
                base: was.map(|text| (*text).to_owned()),
                head: is.map(|text| (*text).to_owned()),
                waivable: listed(&rule.hardware, key),
            });
        }
    }
    found
}

fn relevant<'a>(facts: &'a [Fact], rule: &ComparableRule) -> BTreeMap<(&'a str, &'a str), &'a str> {
    let wanted = |fact: &&Fact| listed(&rule.hardware, &fact.key) || listed(&rule.inputs, &fact.key);
    facts.iter().filter(wanted).map(|fact| ((fact.scope.as_str(), fact.key.as_str()), fact.value.as_str())).collect()
}

fn listed(patterns: &[String], key: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, key))
}
