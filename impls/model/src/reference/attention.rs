//! Attention of the oracle: projections, q/k norms, rotation, softmax; ordinary and latent.

use super::weights::{Weights, norm};
use crate::architecture::{Architecture, Latent, NormKind, Positions, QkNormScope, Rope, RopeScaling};
use crate::checkpoint::CheckpointError;
use crate::names::{self, in_layer};

/// Queries, keys and values of one row, heads one after the other.
struct Row {
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
}

/// The attention sublayer for normed rows `x`.
pub(super) fn attend(
    a: &Architecture,
    w: &Weights<'_>,
    layer: usize,
    x: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>, CheckpointError> {
    let rotation = a.rope_of(layer).map(|rope| Rotation { rope, length: x.len() });
    let rows = x
        .iter()
        .enumerate()
        .map(|(position, x)| match a.latent {
            None if a.shared_keys.is_some() => shared(a, w, layer, x),
            None => grouped(a, w, layer, x, position, rotation.as_ref()),
            Some(latent) => expanded(a, w, layer, latent, x, position, rotation.as_ref()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let n_kv_heads = if a.latent.is_some() || a.shared_keys.is_some() { a.n_heads } else { a.n_kv_heads };
    let mixed = (0..rows.len()).map(|position| mix(a, layer, n_kv_heads, &rows, position));
    mixed
        .map(|row| {
            let row = if a.online_hadamard { super::hadamard(&row, a.n_heads, a.value_dim()) } else { row };
            w.product(&[names::out(a, layer)], a.biases.out, &row)
        })
        .collect()
}

fn grouped(
    a: &Architecture,
    w: &Weights<'_>,
    layer: usize,
    x: &[f64],
    position: usize,
    rotation: Option<&Rotation<'_>>,
) -> Result<Row, CheckpointError> {
    let all = w.product(&names::qkv(a, layer), a.biases.qkv, x)?;
    let (q_dim, kv_dim) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
    let (q, kv) = all.split_at(q_dim);
    let (k, v) = kv.split_at(kv_dim);
    let mut q = qk_norm(a, w, layer, 0, q)?;
    let mut k = qk_norm(a, w, layer, 1, k)?;
    let mut v = v.to_vec();
    if let Some(bound) = a.clip_qkv.map(f64::from) {
        [&mut q, &mut k, &mut v].into_iter().flatten().for_each(|x| *x = x.clamp(-bound, bound));
    }
    if let Some(rotation) = rotation {
        q.chunks_exact_mut(a.head_dim)
            .chain(k.chunks_exact_mut(a.head_dim))
            .for_each(|head| rotation.apply(head, position));
    }
    Ok(Row { q, k, v })
}

/// Collaborative attention, each head's query and key written out: score = Σ_r m[r]·q[r]·k[r] + the head's content feature.
fn shared(a: &Architecture, w: &Weights<'_>, layer: usize, x: &[f64]) -> Result<Row, CheckpointError> {
    let all = w.product(&names::qkv(a, layer), a.biases.qkv, x)?;
    let rank = a.shared_keys.unwrap_or_default();
    let (shared_q, rest) = all.split_at(rank);
    let (shared_k, v) = rest.split_at(rank + a.n_heads);
    let mixing = w.get(&names::mixing(a, layer))?;
    let (mut q, mut k) = (vec![], vec![]);
    for head in 0..a.n_heads {
        q.extend((0..rank).map(|r| mixing[head * rank + r] * shared_q[r]));
        q.extend((0..a.n_heads).map(|other| if other == head { 1.0 } else { 0.0 }));
        k.extend_from_slice(shared_k);
    }
    Ok(Row { q, k, v: v.to_vec() })
}

fn qk_norm(
    a: &Architecture,
    w: &Weights<'_>,
    layer: usize,
    which: usize,
    x: &[f64],
) -> Result<Vec<f64>, CheckpointError> {
    let Some(kind) = a.qk_norm else { return Ok(x.to_vec()) };
    let eps = f64::from(a.norm_eps);
    let name = in_layer(a, layer, a.names.qk_norms[which]);
    let bias = |name: &str| match kind.kind {
        NormKind::Layer => w.get(&format!("{name}.bias")).map(|b| b.to_vec()),
        _ => Ok(vec![0.0; x.len()]),
    };
    if kind.scope == QkNormScope::Row {
        return Ok(norm(x, kind.kind, eps, &w.get(&format!("{name}.weight"))?, Some(&bias(&name)?)));
    }
    let mut out = vec![];
    for (head, x) in x.chunks_exact(a.head_dim).enumerate() {
        let own = name.replace("{}", &head.to_string());
        let gain = w.get(&format!("{own}.weight"))?;
        let at = if gain.len() > a.head_dim { head * a.head_dim } else { 0 };
        out.extend(norm(x, kind.kind, eps, &gain[at..at + a.head_dim], Some(&bias(&own)?)));
    }
    Ok(out)
}

fn expanded(
    a: &Architecture,
    w: &Weights<'_>,
    layer: usize,
    l: Latent,
    x: &[f64],
    position: usize,
    rotation: Option<&Rotation<'_>>,
) -> Result<Row, CheckpointError> {
    let Some(sources) = names::latent(a, layer) else { unreachable!("a latent architecture has latent sources") };
    let rms = |x: &[f64], name: &str| -> Result<Vec<f64>, CheckpointError> {
        let gain = w.get(&in_layer(a, layer, &format!("self_attn.{name}.weight")))?;
        Ok(norm(x, NormKind::Rms, f64::from(Latent::NORM_EPS), &gain, None))
    };
    let mut q = w.product(&[sources.q], a.biases.qkv && sources.q_up.is_some(), x)?;
    if let Some(up) = sources.q_up {
        q = w.product(&[up], false, &rms(&q, "q_a_layernorm")?)?;
    }
    let mut kv = w.product(&[sources.kv], a.biases.qkv, x)?;
    let mut rotary = kv.split_off(l.kv_rank);
    let up = w.product(&[sources.kv_up], false, &rms(&kv, "kv_a_layernorm")?)?;
    if let Some(rotation) = rotation {
        rotation.apply(&mut rotary, position);
        q.chunks_exact_mut(l.nope_dim + l.rope_dim).for_each(|head| rotation.apply(&mut head[l.nope_dim..], position));
    }
    let (mut k, mut v) = (vec![], vec![]);
    for head in up.chunks_exact(l.nope_dim + l.value_dim) {
        k.extend(&head[..l.nope_dim]);
        k.extend(&rotary);
        v.extend(&head[l.nope_dim..]);
    }
    Ok(Row { q, k, v })
}

/// What a step back costs the scores of `head`: with n heads 2^(−b·i/n) for i = 1..n when n is a power of two; else those of
/// the power below, then the odd ones of the power above.
fn slope(a: &Architecture, head: usize) -> f64 {
    let Positions::Alibi(alibi) = a.positions else { return 0.0 };
    let bias = f64::from(alibi.max_bias);
    let below = 2_usize.pow(a.n_heads.ilog2());
    let exponent = if head < below {
        (head + 1) as f64 / below as f64
    } else {
        (2 * (head - below) + 1) as f64 / (2 * below) as f64
    };
    (-bias * exponent).exp2()
}

/// softmax(q·kᵀ)·v of the row at `position`, heads one after the other.
fn mix(a: &Architecture, layer: usize, n_kv_heads: usize, rows: &[Row], position: usize) -> Vec<f64> {
    let (key_dim, value_dim) = (a.key_dim(), a.value_dim());
    let first = a.windows[layer].map_or(0, |w| (position + 1).saturating_sub(w));
    let scale = f64::from(a.attention_scale) / if a.scale_by_layer { (layer + 1) as f64 } else { 1.0 };
    let mut out = vec![0.0; a.n_heads * value_dim];
    for head in 0..a.n_heads {
        let kv = head / (a.n_heads / n_kv_heads);
        let query = &rows[position].q[head * key_dim..][..key_dim];
        let score = |t: usize| {
            let score = query.iter().zip(&rows[t].k[kv * key_dim..]).map(|(q, k)| q * k).sum::<f64>() * scale;
            let capped = a.attention_softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
            capped - slope(a, head) * (position - t) as f64
        };
        let scores: Vec<f64> = (first..=position).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for (t, score) in (first..=position).zip(&scores) {
            let weight = (score - max).exp() / total;
            for d in 0..value_dim {
                out[head * value_dim + d] += weight * rows[t].v[kv * value_dim + d];
            }
        }
    }
    out
}

/// Rotation of one sequence of known length.
struct Rotation<'a> {
    rope: &'a Rope,
    length: usize,
}

impl Rotation<'_> {
    fn apply(&self, head: &mut [f64], position: usize) {
        let half = self.rope.dim / 2;
        let factor = f64::from(self.rope.attention_factor);
        for pair in 0..half {
            let (sin, cos) = (position as f64 * self.frequency(pair)).sin_cos();
            let (i, j) = if self.rope.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
            let (first, second) = (head[i], head[j]);
            head[i] = factor * (first * cos - second * sin);
            head[j] = factor * (second * cos + first * sin);
        }
    }

    fn frequency(&self, pair: usize) -> f64 {
        let (dim, mut theta) = (self.rope.dim as f64, f64::from(self.rope.theta));
        if let RopeScaling::Dynamic { factor, original_max_positions } = self.rope.scaling {
            let (factor, original) = (f64::from(factor), f64::from(original_max_positions));
            let grown = factor * (self.length as f64).max(original) / original - (factor - 1.0);
            theta *= grown.powf(dim / (dim - 2.0));
        }
        let base = theta.powf(-2.0 * pair as f64 / dim);
        match &self.rope.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => base,
            RopeScaling::Linear { factor } => base / f64::from(*factor),
            RopeScaling::LongRope { short, long, original_max_positions } => {
                let beyond = self.length as f64 > f64::from(*original_max_positions);
                base / f64::from(if beyond { long[pair] } else { short[pair] })
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                let turns = f64::from(*original_max_positions) * base / (2.0 * std::f64::consts::PI);
                let (low, high) = (f64::from(*low_freq_factor), f64::from(*high_freq_factor));
                // share of the frequency that is kept
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                base * (kept + (1.0 - kept) / f64::from(*factor))
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_max_positions } => {
                let original = f64::from(*original_max_positions);
                let dimension = |turns: f32| {
                    dim * (original / (f64::from(turns) * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                let ramp = ((pair as f64 - low) / if low == high { 0.001 } else { high - low }).clamp(0.0, 1.0);
                base * (1.0 - ramp) + base / f64::from(*factor) * ramp
            }
        }
    }
}
