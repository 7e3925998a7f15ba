//! The oracle: the same decoder in f64, one token and one multiply at a time, sharing no code with the fast path.
//!
//! Written from the formulas, for checking and never for speed: no cache, no tiles, no fused products, no threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::TokenId;
use crate::architecture::{Architecture, RopeScaling};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::names::{EMBEDDING, FINAL_NORM, HEAD, in_layer};

struct Weights<'a> {
    a: &'a Architecture,
    tensors: &'a dyn Tensors,
    /// Tensors of the current layer, widened once.
    widened: RefCell<HashMap<String, Rc<Vec<f64>>>>,
}

impl Weights<'_> {
    fn get(&self, name: &str) -> Result<Rc<Vec<f64>>, CheckpointError> {
        if let Some(known) = self.widened.borrow().get(name) {
            return Ok(known.clone());
        }
        let values = Rc::new(self.tensors.get(name)?.data.to_f32().into_iter().map(f64::from).collect::<Vec<_>>());
        self.widened.borrow_mut().insert(name.into(), values.clone());
        Ok(values)
    }

    /// `x·Wᵀ + b` for one row of `x`.
    fn product(&self, x: &[f64], layer: usize, module: &str, biased: bool) -> Result<Vec<f64>, CheckpointError> {
        let w = self.get(&in_layer(layer, &format!("{module}.weight")))?;
        let mut y = matrix_vector(&w, x);
        if biased {
            for (y, b) in y.iter_mut().zip(self.get(&in_layer(layer, &format!("{module}.bias")))?.iter()) {
                *y += b;
            }
        }
        Ok(y)
    }

    fn norm(&self, x: &[f64], name: &str) -> Result<Vec<f64>, CheckpointError> {
        let mean_square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean_square + f64::from(self.a.norm_eps)).sqrt();
        Ok(x.iter().zip(self.get(name)?.iter()).map(|(v, g)| v * factor * g).collect())
    }
}

fn matrix_vector(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn frequency(a: &Architecture, pair: usize) -> f64 {
    let base = f64::from(a.rope.theta).powf(-2.0 * pair as f64 / a.head_dim as f64);
    match a.rope.scaling {
        RopeScaling::None => base,
        RopeScaling::Linear { factor } => base / f64::from(factor),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let (factor, low, high) = (f64::from(factor), f64::from(low_freq_factor), f64::from(high_freq_factor));
            let turns = f64::from(original_max_positions) * base / (2.0 * std::f64::consts::PI);
            match turns {
                t if t > high => base,
                t if t < low => base / factor,
                t => {
                    let ramp = (t - low) / (high - low);
                    base * (ramp + (1.0 - ramp) / factor)
                }
            }
        }
    }
}

fn rotate(a: &Architecture, x: &mut [f64], position: usize) {
    let half = a.head_dim / 2;
    for head in x.chunks_exact_mut(a.head_dim) {
        for pair in 0..half {
            let (sin, cos) = (position as f64 * frequency(a, pair)).sin_cos();
            let (first, second) = (head[pair], head[pair + half]);
            head[pair] = first * cos - second * sin;
            head[pair + half] = second * cos + first * sin;
        }
    }
}

/// Logits `[tokens, vocab]` of one full causal pass.
pub fn logits(a: &Architecture, tensors: &dyn Tensors, tokens: &[TokenId]) -> Result<Vec<Vec<f64>>, CheckpointError> {
    let w = Weights { a, tensors, widened: RefCell::default() };
    let embedding = w.get(EMBEDDING)?;
    let mut x: Vec<Vec<f64>> =
        tokens.iter().map(|t| embedding[t.0 as usize * a.hidden..][..a.hidden].to_vec()).collect();
    for layer in 0..a.n_layers {
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for (position, row) in x.iter().enumerate() {
            let y = w.norm(row, &in_layer(layer, "input_layernorm.weight"))?;
            let part = |name: &str| w.product(&y, layer, &format!("self_attn.{name}"), a.biases.qkv);
            let (mut qi, mut ki) = (part("q_proj")?, part("k_proj")?);
            rotate(a, &mut qi, position);
            rotate(a, &mut ki, position);
            v.push(part("v_proj")?);
            q.push(qi);
            k.push(ki);
        }
        for (position, row) in x.iter_mut().enumerate() {
            let attended = attend(a, &q[position], &k, &v, position);
            let out = w.product(&attended, layer, "self_attn.o_proj", a.biases.out)?;
            row.iter_mut().zip(out).for_each(|(x, o)| *x += o);
            let y = w.norm(row, &in_layer(layer, "post_attention_layernorm.weight"))?;
            let (gate, up) = (
                w.product(&y, layer, "mlp.gate_proj", a.biases.mlp)?,
                w.product(&y, layer, "mlp.up_proj", a.biases.mlp)?,
            );
            let gated: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let down = w.product(&gated, layer, "mlp.down_proj", a.biases.mlp)?;
            row.iter_mut().zip(down).for_each(|(x, d)| *x += d);
        }
        w.widened.borrow_mut().clear();
    }
    let head = if a.tied_head { embedding } else { w.get(HEAD)? };
    x.iter().map(|row| Ok(matrix_vector(&head, &w.norm(row, FINAL_NORM)?))).collect()
}

fn attend(a: &Architecture, q: &[f64], k: &[Vec<f64>], v: &[Vec<f64>], position: usize) -> Vec<f64> {
    let first = a.window.map_or(0, |w| (position + 1).saturating_sub(w));
    let scale = 1.0 / (a.head_dim as f64).sqrt();
    let mut out = vec![0.0; q.len()];
    for head in 0..a.n_heads {
        let kv = head / (a.n_heads / a.n_kv_heads) * a.head_dim;
        let query = &q[head * a.head_dim..][..a.head_dim];
        let scores: Vec<f64> = (first..=position)
            .map(|t| query.iter().zip(&k[t][kv..]).map(|(q, k)| q * k).sum::<f64>() * scale)
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for (t, score) in (first..=position).zip(&scores) {
            let weight = (score - max).exp() / total;
            for d in 0..a.head_dim {
                out[head * a.head_dim + d] += weight * v[t][kv + d];
            }
        }
    }
    out
}
