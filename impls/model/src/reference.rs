//! The oracle: the same decoder in f64, one token and one multiply at a time, sharing no arithmetic with the fast path.
//!
//! Written from the formulas, for checking and never for speed: no cache, no tiles, no fused products, no threads.

mod attention;
mod weights;

use crate::TokenId;
use crate::architecture::{Activation, Architecture, Experts, NormPlace, Positions, Residual, Scoring};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::names;
use weights::{Weights, add, matrix_vector};

/// Logits `[tokens, vocab]` of one full causal pass.
pub fn logits(a: &Architecture, tensors: &dyn Tensors, tokens: &[TokenId]) -> Result<Vec<Vec<f64>>, CheckpointError> {
    let w = Weights::new(a, tensors);
    let mut x = embed(a, &w, tokens)?;
    for layer in 0..a.n_layers {
        block(a, &w, layer, &mut x)?;
        w.forget();
    }
    let head = if a.tied_head { a.names.embedding } else { a.names.head };
    x.into_iter()
        .map(|mut row| {
            if a.final_norm {
                row = w.norm(&row, a.names.final_norm)?;
            }
            if a.embedding_dim != a.hidden {
                row = matrix_vector(&w.get(&format!("{}.weight", a.names.project[1]))?, &row);
            }
            let mut logits = matrix_vector(&w.get(&format!("{head}.weight"))?, &row);
            if a.biases.head {
                add(&mut logits, &w.get(&format!("{}.bias", a.names.head))?, 1.0);
            }
            let cap = |l: f64| a.logit_softcap.map_or(l, |cap| f64::from(cap) * (l / f64::from(cap)).tanh());
            Ok(logits.into_iter().map(|l| cap(l * f64::from(a.logit_scale))).collect())
        })
        .collect()
}

fn embed(a: &Architecture, w: &Weights<'_>, tokens: &[TokenId]) -> Result<Vec<Vec<f64>>, CheckpointError> {
    let table = w.get(&format!("{}.weight", a.names.embedding))?;
    let mut rows = vec![];
    for (position, token) in tokens.iter().enumerate() {
        let row = &table[token.0 as usize * a.embedding_dim..][..a.embedding_dim];
        let mut row: Vec<f64> = row.iter().map(|v| v * f64::from(a.embedding_scale)).collect();
        if a.embedding_dim != a.hidden {
            row = matrix_vector(&w.get(&format!("{}.weight", a.names.project[0]))?, &row);
        }
        if let Positions::Learned { offset } = a.positions {
            let positions = w.get(&format!("{}.weight", a.names.positions))?;
            add(&mut row, &positions[(position + offset) * a.hidden..][..a.hidden], 1.0);
        }
        if a.embedding_norm {
            row = w.norm(&row, a.names.embedding_norm)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

fn block(a: &Architecture, w: &Weights<'_>, layer: usize, x: &mut [Vec<f64>]) -> Result<(), CheckpointError> {
    let [attention_norm, mlp_norm, attention_out, mlp_out] =
        a.norm_names().map(|name| name.map(|name| names::in_layer(a, layer, name)));
    let apply = |name: &Option<String>, row: &[f64]| match name {
        Some(name) => w.norm(row, name),
        None => Ok(row.to_vec()),
    };
    let post = a.norm_place == NormPlace::Post;
    let before = |name: &Option<String>| if post { None } else { name.clone() };
    let after = |name: &Option<String>| if post { name.clone() } else { None };
    let factor = f64::from(a.residual_scale);
    let entered = x.iter().map(|row| apply(&before(&attention_norm), row)).collect::<Result<Vec<_>, _>>()?;
    let attended = attention::attend(a, w, layer, &entered)?;
    for ((row, entered), attended) in x.iter_mut().zip(&entered).zip(attended) {
        let attended = apply(&attention_out, &attended)?;
        let entered = match a.residual {
            Residual::Serial => {
                add(row, &attended, factor);
                *row = apply(&after(&attention_norm), row)?;
                apply(&before(&mlp_norm), row)?
            }
            Residual::Parallel { shared_norm: true } => entered.clone(),
            Residual::Parallel { shared_norm: false } => apply(&mlp_norm, row)?,
        };
        let fed = apply(&mlp_out, &mlp(a, w, layer, &entered)?)?;
        if a.residual != Residual::Serial {
            add(row, &attended, factor);
        }
        add(row, &fed, factor);
        *row = apply(&after(&mlp_norm), row)?;
    }
    Ok(())
}

/// What each chosen expert contributes, by the formulas.
fn shares(experts: &Experts, logits: &[f64], bias: &[f64]) -> Vec<(f64, usize)> {
    let all: f64 = logits.iter().map(|l| l.exp()).sum();
    let score = |e: usize| match experts.scoring {
        Scoring::Softmax => logits[e].exp() / all,
        Scoring::BiasedSigmoid => 1.0 / (1.0 + (-logits[e]).exp()),
    };
    let largest = |values: Vec<f64>, n: usize| {
        let mut places: Vec<usize> = (0..values.len()).collect();
        places.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
        places.truncate(n);
        places
    };
    let mut choice: Vec<f64> = (0..experts.n).map(|e| score(e) + bias[e]).collect();
    if let Some(groups) = experts.groups {
        let size = experts.n / groups.n;
        let counted = if experts.scoring == Scoring::Softmax { 1 } else { 2 };
        let worth = |group: &[f64]| largest(group.to_vec(), counted).into_iter().map(|e| group[e]).sum();
        let visited = largest(choice.chunks(size).map(worth).collect(), groups.top);
        let out = (0..experts.n).filter(|e| !visited.contains(&(e / size)));
        out.for_each(|e| choice[e] = f64::NEG_INFINITY);
    }
    let chosen = largest(choice, experts.top_k);
    let sum: f64 = chosen.iter().map(|&e| score(e)).sum();
    let divisor = if experts.renormalise { sum } else { 1.0 };
    chosen.into_iter().map(|e| (score(e) / divisor * f64::from(experts.scale), e)).collect()
}

fn mlp(a: &Architecture, w: &Weights<'_>, layer: usize, x: &[f64]) -> Result<Vec<f64>, CheckpointError> {
    let (Some(experts), Some(names)) = (&a.experts, a.names.experts.as_ref().filter(|_| a.is_sparse(layer))) else {
        return feed_forward(a, w, &names::up(a, layer), names::down(a, layer), a.biases.mlp, x);
    };
    let name = |part: &str| format!("{}.weight", names::in_layer(a, layer, part));
    let logits = matrix_vector(&w.get(&name(names.router))?, x);
    let bias = match experts.scoring {
        Scoring::Softmax => vec![0.0; experts.n],
        Scoring::BiasedSigmoid => w.get(&names::in_layer(a, layer, names.choice_bias))?.to_vec(),
    };
    let mut out = vec![0.0; a.hidden];
    for (share, e) in shares(experts, &logits, &bias) {
        let (up, down) = names::expert(a, layer, names, &format!("{}{e}", names.expert), experts.ffn);
        add(&mut out, &feed_forward(a, w, &up, down, false, x)?, share);
    }
    if let Some(ffn) = experts.shared_ffn {
        let (up, down) = names::expert(a, layer, names, names.shared, ffn);
        let gated = !names.shared_gate.is_empty();
        let gate = if gated { matrix_vector(&w.get(&name(names.shared_gate))?, x)[0] } else { f64::INFINITY };
        add(&mut out, &feed_forward(a, w, &up, down, false, x)?, 1.0 / (1.0 + (-gate).exp()));
    }
    Ok(out)
}

fn feed_forward(
    a: &Architecture,
    w: &Weights<'_>,
    up: &[names::Source],
    down: names::Source,
    biased: bool,
    x: &[f64],
) -> Result<Vec<f64>, CheckpointError> {
    let up = w.product(up, biased, x)?;
    let mut inner: Vec<f64> = if a.gated {
        let (gate, up) = up.split_at(up.len() / 2);
        gate.iter().zip(up).map(|(g, u)| activate(a.activation, *g) * u).collect()
    } else {
        up.iter().map(|v| activate(a.activation, *v)).collect()
    };
    if a.online_hadamard {
        inner = hadamard(&inner, inner.len(), 1);
    }
    w.product(&[down], biased, &inner)
}

/// (H ⊗ 1)·x for `n` runs of `run` values, by the definition of H's entries.
fn hadamard(x: &[f64], n: usize, run: usize) -> Vec<f64> {
    let matrix = cpu_kernels::Hadamard::new(n);
    let value = |at: usize| (0..n).map(|j| f64::from(matrix.sign(at / run, j)) * x[j * run + at % run]).sum::<f64>();
    (0..x.len()).map(|at| value(at) / (matrix.order() as f64).sqrt()).collect()
}

fn activate(activation: Activation, x: f64) -> f64 {
    use std::f64::consts::{FRAC_2_PI, SQRT_2};
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / SQRT_2)),
        Activation::GeluTanh => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// The error function by Simpson's rule on its integral.
fn erf(x: f64) -> f64 {
    let (n, h) = (400, x.clamp(-6.0, 6.0) / 400.0);
    let f = |i: usize| (-(i as f64 * h).powi(2)).exp();
    let inner: f64 = (1..n).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(0) + inner + f(n)) * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
}
