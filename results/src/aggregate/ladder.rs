//! Kernels on one problem: which rung stands for a cell when another cell has none of the same name.

use std::collections::BTreeMap;

use super::{Groups, Key};
use crate::metric::kernel::{Variant, variant};

/// What a kernel computes, whatever its rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Problem<'a> {
    cell: &'a str,
    workload: &'a str,
    base: &'a str,
    op: &'a str,
    shape: &'a str,
    x: Option<u64>,
}

/// The first rung of every problem of every cell, by metric id.
pub(super) struct Ladders<'a>(BTreeMap<Problem<'a>, (Order, &'a str)>);

/// Sitting, repetition, item: a ladder runs from its plainest rung upwards, so the rung that ran first is the base.
type Order = (u32, u32, u32);

impl<'a> Ladders<'a> {
    /// The ladders in these groups.
    pub(super) fn of(groups: &Groups<'a>) -> Ladders<'a> {
        let mut first: BTreeMap<Problem<'a>, (Order, &'a str)> = BTreeMap::new();
        for (key, rows) in groups {
            let Some(problem) = problem(key, key.cell) else { continue };
            let order = rows.iter().map(|row| (row.sitting, row.repetition, row.item)).min();
            let Some(entry) = order.map(|order| (order, key.metric)) else { continue };
            let known = first.entry(problem).or_insert(entry);
            *known = entry.min(*known);
        }
        Ladders(first)
    }

    /// The group of the first rung that `cell` has on the problem of `key`; `None` where `key` is no kernel's.
    pub(super) fn first<'b>(&self, key: &Key<'b>, cell: &'b str) -> Option<Key<'b>>
    where
        'a: 'b,
    {
        let (_, metric) = self.0.get(&problem(key, cell)?)?;
        Some(Key { cell, metric, ..*key })
    }
}

fn problem<'a>(key: &Key<'a>, cell: &'a str) -> Option<Problem<'a>> {
    let Variant { op, shape, .. } = variant(key.metric)?;
    let base = key.metric.split(':').next()?;
    Some(Problem { cell, workload: key.workload, base, op, shape, x: key.x })
}
