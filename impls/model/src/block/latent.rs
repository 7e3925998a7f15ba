//! What: multi-head latent attention: one compressed vector per token instead of keys and values per head.
//!
//! Source: DeepSeek-AI 2024 (DeepSeek-V2, arXiv:2405.04434, §2.1.2–2.1.3 and appendix C).
//! Shapes: x `[rows, hidden]`; c `[rows, kv_rank]`; queries `[rows, heads·(nope + rope)]`; out `[rows, heads·value_dim]`.
//! Method: c = norm(W_DKV x), k_R = rope(W_KR x), q = W_Q x with its last `rope` features rotated. Expanded: k = [W_UK c; k_R],
//! v = W_UV c go to the cache, and attention is ordinary. Absorbed: the cache keeps [c; k_R] alone; q' = [W_UKᵀ q; q_R] is
//! scored against it as one key head, and W_UV maps each head's mixture of c to its value.
//! Exactness: both forms compute the same function; they differ by rounding (≤ 1e-4 on logits).
//! Cost: per cached token heads·(nope + rope + value_dim) values expanded, kv_rank + rope absorbed; the absorbed form spends
//! heads·kv_rank·(nope + value_dim) more multiply-adds per row and scores kv_rank + rope features instead of nope + rope.
//! Not handled: choosing the form per Step (expanding at prefill, absorbing at decode).

use cpu_kernels::PackedF32;

use super::read::LatentVectors;
use super::{AttentionOf, BlockVectors, Pass, Trunk, Workspace};
use crate::architecture::{Architecture, Latent, NormKind};
use crate::probe::Site;
use crate::{Activations, HeadShape, KvShape, Linear, ops};

/// What the cache keeps of latent attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LatentForm {
    /// Keys and values of every head.
    #[default]
    Expanded,
    /// The compressed vector and the shared rotary key.
    Absorbed,
}

/// W_UKᵀ and W_UV of each head, for the absorbed form.
pub(super) struct Absorbed {
    /// `[kv_rank, nope]` per head.
    key: Vec<PackedF32>,
    /// `[value_dim, kv_rank]` per head.
    value: Vec<PackedF32>,
}

impl Absorbed {
    pub(super) fn new(trunk: &Trunk, attention: &AttentionOf<Box<dyn Linear>>) -> Option<Absorbed> {
        let (AttentionOf::Latent { kv_up, .. }, Some(l), LatentForm::Absorbed) =
            (attention, trunk.architecture.latent, trunk.latent_form)
        else {
            return None;
        };
        let weights = kv_up.dequantised();
        let (mut key, mut value) = (vec![], vec![]);
        for head in weights.chunks_exact((l.nope_dim + l.value_dim) * l.kv_rank) {
            let (up_key, up_value) = head.split_at(l.nope_dim * l.kv_rank);
            let transposed: Vec<f32> =
                (0..l.kv_rank).flat_map(|c| up_key.iter().skip(c).step_by(l.kv_rank)).copied().collect();
            key.push(PackedF32::pack(&transposed, l.kv_rank, l.nope_dim));
            value.push(PackedF32::pack(up_value, l.value_dim, l.kv_rank));
        }
        Some(Absorbed { key, value })
    }
}

/// Shape of the cache of `a` in `form`.
pub(crate) fn kv_shape(a: &Architecture, l: Latent, form: LatentForm) -> KvShape {
    match form {
        LatentForm::Absorbed => KvShape::latent(a.n_layers, l.kv_rank + l.rope_dim, l.kv_rank),
        LatentForm::Expanded => KvShape {
            key_dim: l.nope_dim + l.rope_dim,
            value_dim: l.value_dim,
            ..KvShape::new(a.n_layers, a.n_heads, a.head_dim)
        },
    }
}

/// Heads as the attention variant sees them.
pub(super) fn head_shape(a: &Architecture, l: Latent, form: LatentForm) -> HeadShape {
    let shape = kv_shape(a, l, form);
    HeadShape {
        n_key_heads: shape.n_key_heads,
        n_value_heads: shape.n_value_heads,
        key_dim: shape.key_dim,
        value_dim: shape.value_dim,
        ..HeadShape::new(a.n_heads, shape.n_key_heads, shape.key_dim)
    }
}

/// `ws.normed` → `ws.projected`.
pub(super) fn attend(
    linears: &AttentionOf<Box<dyn Linear>>,
    vectors: &BlockVectors,
    absorbed: Option<&Absorbed>,
    pass: &mut Pass<'_>,
    ws: &mut Workspace,
) {
    let (AttentionOf::Latent { q, q_up, kv, kv_up, out }, Some(own), Some(l)) =
        (linears, &vectors.latent, pass.trunk.architecture.latent)
    else {
        return;
    };
    let (trunk, layer) = (pass.trunk, pass.layer);
    pass.tap(Site::QkvIn(layer), &ws.normed);
    queries(&**q, q_up.as_deref(), own, pass, ws);
    ops::linear(&trunk.device, &**kv, &ws.normed, own.kv_bias.as_ref(), &mut ws.qkv);
    ops::split_columns(&trunk.device, &ws.qkv, [(&mut ws.k, l.kv_rank), (&mut ws.rotary, l.rope_dim)]);
    ops::norm(&trunk.device, NormKind::Rms, &own.kv_norm, Latent::NORM_EPS, &ws.k, &mut ws.v);
    if let Some(rope) = trunk.architecture.rope() {
        ops::rope(&trunk.device, rope, &mut ws.rotary, l.rope_dim, &ws.inputs.turn);
        rotate_queries(trunk, l, ws);
    }
    let shape = trunk.head_shape(layer);
    match absorbed {
        None => {
            pass.tap(Site::LatentUpIn(layer), &ws.v);
            kv_up.forward(&ws.v, &mut ws.gated);
            expand(&ws.gated, &ws.rotary, l, &mut ws.k, &mut ws.v);
            pass.kv.append(layer, pass.step, &ws.k, &ws.v);
            trunk.attention.forward(pass.step, layer, &shape, &ws.q, pass.kv, &mut ws.attended);
        }
        Some(absorbed) => {
            pass.tap(Site::LatentUpIn(layer), &ws.v);
            join_columns(&ws.v, &ws.rotary, &mut ws.k);
            ws.v.reshape(ws.k.rows(), 0);
            pass.kv.append(layer, pass.step, &ws.k, &ws.v);
            absorb_queries(trunk, absorbed, l, ws);
            trunk.attention.forward(pass.step, layer, &shape, &ws.q, pass.kv, &mut ws.gated);
            per_head(trunk, &absorbed.value, (&ws.gated, l.kv_rank), (&mut ws.attended, l.value_dim));
        }
    }
    pass.tap(Site::OutIn(layer), &ws.attended);
    ops::linear(&trunk.device, &**out, &ws.attended, vectors.out_bias.as_ref(), &mut ws.projected);
}

fn queries(q: &dyn Linear, q_up: Option<&dyn Linear>, own: &LatentVectors, pass: &mut Pass<'_>, ws: &mut Workspace) {
    let (trunk, layer) = (pass.trunk, pass.layer);
    let (Some(up), Some(norm)) = (q_up, &own.q_norm) else {
        return ops::linear(&trunk.device, q, &ws.normed, own.q_bias.as_ref(), &mut ws.q);
    };
    ops::linear(&trunk.device, q, &ws.normed, own.q_bias.as_ref(), &mut ws.qkv);
    ops::norm(&trunk.device, NormKind::Rms, norm, Latent::NORM_EPS, &ws.qkv, &mut ws.gated);
    pass.tap(Site::QueryUpIn(layer), &ws.gated);
    up.forward(&ws.gated, &mut ws.q);
}

/// Rotates the last `rope_dim` features of every query head.
fn rotate_queries(trunk: &Trunk, l: Latent, ws: &mut Workspace) {
    let Some(rope) = trunk.architecture.rope() else { return };
    let head = l.nope_dim + l.rope_dim;
    ws.spare.reshape(ws.q.rows(), ws.q.cols() / head * l.rope_dim);
    for (to, from) in ws.spare.as_mut_slice().chunks_exact_mut(l.rope_dim).zip(ws.q.as_slice().chunks_exact(head)) {
        to.copy_from_slice(&from[l.nope_dim..]);
    }
    ops::rope(&trunk.device, rope, &mut ws.spare, l.rope_dim, &ws.inputs.turn);
    for (from, to) in ws.spare.as_slice().chunks_exact(l.rope_dim).zip(ws.q.as_mut_slice().chunks_exact_mut(head)) {
        to[l.nope_dim..].copy_from_slice(from);
    }
}

/// Each head's key [W_UK c; k_R] and value from `up [rows, heads·(nope + value_dim)]`.
fn expand(up: &Activations, rotary: &Activations, l: Latent, k: &mut Activations, v: &mut Activations) {
    let (rows, part, key) = (up.rows(), l.nope_dim + l.value_dim, l.nope_dim + l.rope_dim);
    let heads = up.cols() / part;
    k.reshape(rows, heads * key);
    v.reshape(rows, heads * l.value_dim);
    for row in 0..rows {
        for (head, up) in up.row(row).chunks_exact(part).enumerate() {
            let to = &mut k.row_mut(row)[head * key..][..key];
            to[..l.nope_dim].copy_from_slice(&up[..l.nope_dim]);
            to[l.nope_dim..].copy_from_slice(rotary.row(row));
            v.row_mut(row)[head * l.value_dim..][..l.value_dim].copy_from_slice(&up[l.nope_dim..]);
        }
    }
}

fn join_columns(a: &Activations, b: &Activations, y: &mut Activations) {
    y.reshape(a.rows(), a.cols() + b.cols());
    for row in 0..a.rows() {
        let (left, right) = y.row_mut(row).split_at_mut(a.cols());
        left.copy_from_slice(a.row(row));
        right.copy_from_slice(b.row(row));
    }
}

/// `ws.q` = each head's [W_UKᵀ q; q_R].
fn absorb_queries(trunk: &Trunk, absorbed: &Absorbed, l: Latent, ws: &mut Workspace) {
    let (head, wide) = (l.nope_dim + l.rope_dim, l.kv_rank + l.rope_dim);
    ws.spare.reshape(ws.q.rows(), absorbed.key.len() * wide);
    for (from, to) in ws.q.as_slice().chunks_exact(head).zip(ws.spare.as_mut_slice().chunks_exact_mut(wide)) {
        to[l.kv_rank..].copy_from_slice(&from[l.nope_dim..]);
    }
    per_head(trunk, &absorbed.key, (&ws.q, head), (&mut ws.spare, wide));
    std::mem::swap(&mut ws.q, &mut ws.spare);
}

/// y_h = W_h x_h for every head, from the first features of heads `x_width` wide to those of heads `y_width` wide.
fn per_head(
    trunk: &Trunk,
    weights: &[PackedF32],
    (x, x_width): (&Activations, usize),
    (y, y_width): (&mut Activations, usize),
) {
    let rows = x.rows();
    if y.cols() != weights.len() * y_width || y.rows() != rows {
        y.reshape(rows, weights.len() * y_width);
    }
    let (mut input, mut output) = (vec![], vec![]);
    for (head, w) in weights.iter().enumerate() {
        input.clear();
        (0..rows).for_each(|row| input.extend_from_slice(&x.row(row)[head * x_width..][..w.k()]));
        output.resize(rows * w.n(), 0.0);
        w.forward(trunk.device.cpu(), &input, rows, &mut output);
        for (row, from) in output.chunks_exact(w.n()).enumerate() {
            y.row_mut(row)[head * y_width..][..w.n()].copy_from_slice(from);
        }
    }
}
