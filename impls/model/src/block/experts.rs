//! What: a mixture of experts, dropless: rows are grouped by expert and each expert runs once over its rows.
//!
//! Source: Jiang et al. 2024 (Mixtral, arXiv:2401.04088, §2.1); Gale et al. 2022 (MegaBlocks, arXiv:2211.15841, §4: no
//! capacity, no dropped token); Qwen Team 2024 (shared expert with a sigmoid gate).
//! Shapes: x `[rows, hidden]` → router logits `[rows, experts]` → per expert `[its rows, hidden]` → `[rows, hidden]`.
//! Method: 1. softmax over all experts; 2. the `top_k` largest, divided by their sum where the family does; 3. a counting
//! sort of (row, expert) pairs by expert; 4. one feed-forward per expert that has rows; 5. weighted sum per row.
//! Exactness: a row's sum runs over its experts in ascending order, so its bits do not depend on the rows beside it.
//! Cost: 2·parameters·rows·top_k/n FLOPs; every expert with a row is read once.
//! Not handled: capacity factors; grouping by device.

use super::{FeedForwardOf, MlpOf, Pass, feed_forward};
use crate::architecture::Experts;
use crate::probe::Site;
use crate::{Activations, Linear, ops};

/// One row's visit to an expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visit {
    /// The expert.
    pub expert: usize,
    /// The row.
    pub row: usize,
    /// Its share in the row's output.
    pub weight: f32,
}

/// Chooses experts from router `logits [rows, experts]`; visits come sorted by expert, then by row.
pub fn route(experts: &Experts, logits: &Activations) -> Vec<Visit> {
    let mut visits = Vec::with_capacity(logits.rows() * experts.top_k);
    let mut order: Vec<usize> = vec![];
    for row in 0..logits.rows() {
        let logits = logits.row(row);
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = logits.iter().map(|l| (l - max).exp()).collect();
        let total: f32 = exps.iter().sum();
        order.clear();
        order.extend(0..logits.len());
        // stable: of equal logits the first expert wins
        order.sort_by(|&i, &j| exps[j].total_cmp(&exps[i]));
        order.truncate(experts.top_k);
        let chosen: f32 = order.iter().map(|&e| exps[e]).sum();
        let divisor = if experts.renormalise { chosen } else { total };
        visits.extend(order.iter().map(|&expert| Visit { expert, row, weight: exps[expert] / divisor }));
    }
    visits.sort_by_key(|visit| (visit.expert, visit.row));
    visits
}

/// Buffers of a sparse layer.
#[derive(Default)]
pub(super) struct ExpertBuffers {
    logits: Activations,
    rows: Activations,
    out: Activations,
}

/// `ws.normed` → `ws.mlp_out` through the experts.
pub(super) fn forward(mlp: &MlpOf<Box<dyn Linear>>, shared_gate: Option<&[f32]>, pass: &mut Pass<'_>) {
    let (MlpOf::Experts { router, experts, shared }, Some(sizes)) = (mlp, &pass.trunk.architecture.experts) else {
        return;
    };
    let layer = pass.layer;
    let x = std::mem::take(&mut pass.ws.normed);
    let mut buffers = std::mem::take(&mut pass.ws.experts);
    let mut sum = std::mem::take(&mut pass.ws.mlp_out);
    pass.tap(Site::RouterIn(layer), &x);
    router.forward(&x, &mut buffers.logits);
    let visits = route(sizes, &buffers.logits);
    sum.reshape(x.rows(), x.cols());
    sum.as_mut_slice().fill(0.0);
    for visits in visits.chunk_by(|a, b| a.expert == b.expert) {
        let expert = visits[0].expert;
        let rows: Vec<u32> = visits.iter().map(|visit| visit.row as u32).collect();
        ops::gather_rows(&pass.trunk.device, &x, &rows.into(), &mut buffers.rows);
        let sites = [Site::ExpertIn(layer, expert), Site::ExpertDownIn(layer, expert)];
        feed_forward(&experts[expert], [None; 2], sites, &buffers.rows, &mut buffers.out, pass);
        for (i, visit) in visits.iter().enumerate() {
            ops::add_row(buffers.out.row(i), visit.weight, sum.row_mut(visit.row));
        }
    }
    if let (Some(shared), Some(gate)) = (shared, shared_gate) {
        add_shared(shared, gate, &x, &mut buffers.out, &mut sum, pass);
    }
    pass.ws.normed = x;
    pass.ws.experts = buffers;
    pass.ws.mlp_out = sum;
}

/// Adds sigmoid(gate · x) · shared(x) to each row.
fn add_shared(
    shared: &FeedForwardOf<Box<dyn Linear>>,
    gate: &[f32],
    x: &Activations,
    out: &mut Activations,
    sum: &mut Activations,
    pass: &mut Pass<'_>,
) {
    let sites = [Site::GateUpIn(pass.layer), Site::DownIn(pass.layer)];
    feed_forward(shared, [None; 2], sites, x, out, pass);
    for row in 0..x.rows() {
        let weight = 1.0 / (1.0 + (-ops::dot(&pass.trunk.device, x.row(row), gate)).exp());
        ops::add_row(out.row(row), weight, sum.row_mut(row));
    }
}
