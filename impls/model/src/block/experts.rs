//! What: a mixture of experts, dropless: rows are grouped by expert and each expert runs once over its rows.
//!
//! Source: Jiang et al. 2024 (Mixtral, arXiv:2401.04088, §2.1); Gale et al. 2022 (MegaBlocks, arXiv:2211.15841, §4: no
//! capacity, no dropped token); Qwen Team 2024 (shared expert with a sigmoid gate); DeepSeek-AI 2024 (groups and
//! sigmoid scores, arXiv:2405.04434 §2.2, arXiv:2412.19437 §2.1.2).
//! Shapes: x `[rows, hidden]` → router logits `[rows, experts]` → per expert `[its rows, hidden]` → `[rows, hidden]`.
//! Method: 1. softmax over all experts, or a sigmoid each; 2. the `top_k` largest (of the best groups), divided by their sum where
//! the family does; 3. a counting
//! sort of (row, expert) pairs by expert; 4. one feed-forward per expert that has rows; 5. weighted sum per row.
//! Exactness: a row's sum runs over its experts in ascending order, so its bits do not depend on the rows beside it.
//! Cost: 2·parameters·rows·top_k/n FLOPs; every expert with a row is read once.
//! Not handled: capacity factors; grouping by device.

use super::{FeedForwardOf, MlpOf, Pass, feed_forward};
use crate::architecture::{Experts, Groups, Scoring};
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

/// Chooses experts from router `logits [rows, experts]`; `bias [experts]` where the family stores one. Visits come sorted by
/// expert, then by row.
pub fn route(experts: &Experts, bias: Option<&[f32]>, logits: &Activations) -> Vec<Visit> {
    let mut visits = Vec::with_capacity(logits.rows() * experts.top_k);
    let mut order: Vec<usize> = vec![];
    for row in 0..logits.rows() {
        let (scores, total) = scores(experts.scoring, logits.row(row));
        let choice: Vec<f32> = match bias {
            Some(bias) => scores.iter().zip(bias).map(|(score, bias)| score + bias).collect(),
            None => scores.clone(),
        };
        order.clear();
        order.extend(0..scores.len());
        if let Some(groups) = experts.groups {
            let seen = best_groups(groups, experts.scoring, &choice);
            order.retain(|expert| seen.contains(&(expert / (scores.len() / groups.n))));
        }
        // stable: of equal logits the first expert wins
        order.sort_by(|&i, &j| choice[j].total_cmp(&choice[i]));
        order.truncate(experts.top_k);
        let chosen: f32 = order.iter().map(|&e| scores[e]).sum();
        let divisor = if experts.renormalise { chosen } else { total };
        let weight = |expert: usize| scores[expert] / divisor * experts.scale;
        visits.extend(order.iter().map(|&expert| Visit { expert, row, weight: weight(expert) }));
    }
    visits.sort_by_key(|visit| (visit.expert, visit.row));
    visits
}

/// Scores of a row, and by what they are divided unless those of the chosen are made to sum to one.
fn scores(scoring: Scoring, logits: &[f32]) -> (Vec<f32>, f32) {
    match scoring {
        Scoring::Softmax => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exps: Vec<f32> = logits.iter().map(|l| (l - max).exp()).collect();
            let total = exps.iter().sum();
            (exps, total)
        }
        Scoring::BiasedSigmoid => (logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(), 1.0),
    }
}

/// The numbers of the groups that a row visits.
fn best_groups(groups: Groups, scoring: Scoring, choice: &[f32]) -> Vec<usize> {
    let counted = if scoring == Scoring::Softmax { 1 } else { 2 };
    let worth = |group: &[f32]| -> f32 {
        let mut best = group.to_vec();
        best.sort_by(|a, b| b.total_cmp(a));
        best.iter().take(counted).sum()
    };
    let worths: Vec<f32> = choice.chunks_exact(choice.len() / groups.n).map(worth).collect();
    let mut order: Vec<usize> = (0..groups.n).collect();
    order.sort_by(|&i, &j| worths[j].total_cmp(&worths[i]));
    order.truncate(groups.top);
    order
}

/// Buffers of a sparse layer.
#[derive(Default)]
pub(super) struct ExpertBuffers {
    logits: Activations,
    rows: Activations,
    out: Activations,
}

/// `ws.normed` → `ws.mlp_out` through the experts.
pub(super) fn forward(
    mlp: &MlpOf<Box<dyn Linear>>,
    [choice_bias, shared_gate]: [Option<&[f32]>; 2],
    pass: &mut Pass<'_>,
) {
    let (MlpOf::Experts { router, experts, shared }, Some(sizes)) = (mlp, &pass.trunk.architecture.experts) else {
        return;
    };
    let layer = pass.layer;
    let x = std::mem::take(&mut pass.ws.normed);
    let mut buffers = std::mem::take(&mut pass.ws.experts);
    let mut sum = std::mem::take(&mut pass.ws.mlp_out);
    pass.tap(Site::RouterIn(layer), &x);
    router.forward(&x, &mut buffers.logits);
    let visits = route(sizes, choice_bias, &buffers.logits);
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
    if let Some(shared) = shared {
        add_shared(shared, shared_gate, &x, &mut buffers.out, &mut sum, pass);
    }
    pass.ws.normed = x;
    pass.ws.experts = buffers;
    pass.ws.mlp_out = sum;
}

/// Adds sigmoid(gate · x) · shared(x) to each row, or shared(x) where there is no gate.
fn add_shared(
    shared: &FeedForwardOf<Box<dyn Linear>>,
    gate: Option<&[f32]>,
    x: &Activations,
    out: &mut Activations,
    sum: &mut Activations,
    pass: &mut Pass<'_>,
) {
    let sites = [Site::GateUpIn(pass.layer), Site::DownIn(pass.layer)];
    feed_forward(shared, [None; 2], sites, x, out, pass);
    for row in 0..x.rows() {
        let sigmoid = |gate| 1.0 / (1.0 + (-ops::dot(&pass.trunk.device, x.row(row), gate)).exp());
        let weight = gate.map_or(1.0, sigmoid);
        ops::add_row(out.row(row), weight, sum.row_mut(row));
    }
}
