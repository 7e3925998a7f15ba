//! The oracle: the same encoder–decoder in f64, from the formulas, sharing no code with the fast path.
//!
//! For checking and never for speed: no cache, no tiles, no stacked products, no threads.

use cpu_kernels::Activation;

use super::{EMBEDDINGS, EncoderDecoderShape, LOGITS_BIAS};
use crate::TokenId;
use crate::checkpoint::{CheckpointError, Tensors};

type Rows = Vec<Vec<f64>>;

struct Weights<'a> {
    shape: &'a EncoderDecoderShape,
    tensors: &'a dyn Tensors,
}

/// What a row may look at.
#[derive(Clone, Copy)]
enum Sees {
    Past,
    All,
}

impl Weights<'_> {
    fn get(&self, name: &str) -> Result<Vec<f64>, CheckpointError> {
        Ok(self.tensors.get(name)?.data.to_f32().into_iter().map(f64::from).collect())
    }

    /// `x·Wᵀ + b`.
    fn affine(&self, x: &Rows, name: &str) -> Result<Rows, CheckpointError> {
        let (w, b) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        let one = |x: &Vec<f64>| {
            let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            w.chunks_exact(x.len()).zip(&b).map(|(row, b)| dot(row) + b).collect()
        };
        Ok(x.iter().map(one).collect())
    }

    fn norm(&self, x: &Rows, name: &str) -> Result<Rows, CheckpointError> {
        let (gain, bias) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        let one = |x: &Vec<f64>| {
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            let deviation = (variance + f64::from(self.shape.norm_eps)).sqrt();
            x.iter().zip(gain.iter().zip(&bias)).map(|(v, (g, b))| (v - mean) / deviation * g + b).collect()
        };
        Ok(x.iter().map(one).collect())
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Rows, CheckpointError> {
        let h = self.shape.hidden;
        let table = self.embedding()?;
        let scale = if self.shape.scale_embedding { (h as f64).sqrt() } else { 1.0 };
        let one = |(position, token): (usize, &TokenId)| {
            let mut row: Vec<f64> = table[token.0 as usize * h..][..h].iter().map(|v| v * scale).collect();
            for i in 0..h.div_ceil(2) {
                let angle = position as f64 * (-(2.0 * i as f64 / h as f64) * 10000f64.ln()).exp();
                row[i] += angle.sin();
                if i + h.div_ceil(2) < h {
                    row[i + h.div_ceil(2)] += angle.cos();
                }
            }
            row
        };
        Ok(tokens.iter().enumerate().map(one).collect())
    }

    fn embedding(&self) -> Result<Vec<f64>, CheckpointError> {
        let name = EMBEDDINGS.iter().find(|name| self.tensors.contains(name)).unwrap_or(&EMBEDDINGS[0]);
        self.get(name)
    }

    fn attend(&self, x: &Rows, memory: &Rows, name: &str, n_heads: usize, sees: Sees) -> Result<Rows, CheckpointError> {
        let part = |rows: &Rows, part: &str| self.affine(rows, &format!("{name}.{part}"));
        let (q, k, v) = (part(x, "q_proj")?, part(memory, "k_proj")?, part(memory, "v_proj")?);
        let d = self.shape.hidden / n_heads;
        let mut mixed: Rows = vec![vec![0.0; self.shape.hidden]; x.len()];
        for (row, mixed) in mixed.iter_mut().enumerate() {
            let n_seen = match sees {
                Sees::Past => row + 1,
                Sees::All => memory.len(),
            };
            for features in (0..n_heads).map(|head| head * d..(head + 1) * d) {
                let dot = |k: &Vec<f64>| features.clone().map(|f| q[row][f] * k[f]).sum::<f64>() / (d as f64).sqrt();
                let scores: Vec<f64> = k[..n_seen].iter().map(dot).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                for (score, v) in scores.iter().zip(&v) {
                    features.clone().for_each(|f| mixed[f] += (score - most).exp() / total * v[f]);
                }
            }
        }
        part(&mixed, "out_proj")
    }

    /// One sublayer: `norm(x + f(x))`, or `x + f(norm(x))`.
    fn sublayer(
        &self,
        x: &Rows,
        norm: &str,
        f: impl Fn(&Rows) -> Result<Rows, CheckpointError>,
    ) -> Result<Rows, CheckpointError> {
        let sum = |x: &Rows, y: Rows| -> Rows {
            x.iter().zip(y).map(|(x, y)| x.iter().zip(y).map(|(x, y)| x + y).collect()).collect()
        };
        if self.shape.pre_norm {
            return Ok(sum(x, f(&self.norm(x, norm)?)?));
        }
        self.norm(&sum(x, f(x)?), norm)
    }

    fn feed_forward(&self, x: &Rows, layer: &str) -> Result<Rows, CheckpointError> {
        let mut inner = self.affine(x, &format!("{layer}.fc1"))?;
        inner.iter_mut().flatten().for_each(|v| *v = activated(self.shape.activation, *v));
        self.affine(&inner, &format!("{layer}.fc2"))
    }

    fn stack(&self, side: &str, mut x: Rows, source: Option<&Rows>) -> Result<Rows, CheckpointError> {
        let stack = if source.is_some() { self.shape.decoder } else { self.shape.encoder };
        let sees = if source.is_some() { Sees::Past } else { Sees::All };
        for layer in (0..stack.n_layers).map(|layer| format!("model.{side}.layers.{layer}")) {
            let name = |part: &str| format!("{layer}.{part}");
            x = self.sublayer(&x, &name("self_attn_layer_norm"), |x| {
                self.attend(x, x, &name("self_attn"), stack.n_heads, sees)
            })?;
            if let Some(source) = source {
                x = self.sublayer(&x, &name("encoder_attn_layer_norm"), |x| {
                    self.attend(x, source, &name("encoder_attn"), stack.n_heads, Sees::All)
                })?;
            }
            x = self.sublayer(&x, &name("final_layer_norm"), |x| self.feed_forward(x, &layer))?;
        }
        if self.shape.pre_norm { self.norm(&x, &format!("model.{side}.layer_norm")) } else { Ok(x) }
    }
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
    }
}

/// The error function: its Maclaurin series near zero, the continued fraction of erfc in the tail.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..=60).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below);
    x.signum() * (1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt()))
}

/// Logits `[target, vocab]` of one full pass over `source` and `target`.
pub fn logits(
    shape: &EncoderDecoderShape,
    tensors: &dyn Tensors,
    source: &[TokenId],
    target: &[TokenId],
) -> Result<Vec<Vec<f64>>, CheckpointError> {
    let w = Weights { shape, tensors };
    let source = w.stack("encoder", w.embed(source)?, None)?;
    let x = w.stack("decoder", w.embed(target)?, Some(&source))?;
    let (head, h) = (w.embedding()?, shape.hidden);
    let bias = if tensors.contains(LOGITS_BIAS) { w.get(LOGITS_BIAS)? } else { vec![0.0; shape.vocab_size] };
    let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    Ok(x.iter().map(|x| head.chunks_exact(h).zip(&bias).map(|(row, b)| dot(row, x) + b).collect()).collect())
}
