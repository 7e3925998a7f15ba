//! Collaborative attention: what re-parametrising a trained model keeps.

use anyhow::Result;
use model::probe::{Probe, Site};
use model::transform::{Collaborate, SharedLayer};
use model::{Activations, Architecture, Step, TokenId};

use super::{SEQ, at, engine, largest_difference, prompts, session, value};
use crate::worker::{Held, Outcome, progress};

/// Tokens whose pairs are scored.
const TOKENS: usize = 48;

/// Inputs of the q, k, v projection of each layer.
#[derive(Default)]
struct Inputs(Vec<Activations>);

impl Probe for Inputs {
    fn tap(&mut self, site: Site, x: &Activations) {
        if matches!(site, Site::QkvIn(_)) {
            self.0.push(x.clone());
        }
    }
}

/// `score_difference` of each layer (x) between the model's attention scores and those of its shared form at full rank, on real
/// activations; a score is taken less its row's mean over visible keys, because softmax does not see constants.
/// `decomposition_error` at a quarter, half, three quarters and all of the rank (x), worst layer, and how often it rises.
pub fn full_rank(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let Some(models) = &held.models else { return Ok(Outcome::Refused("no model is open".into())) };
    let (a, tensors) = (&models.target.architecture, &*models.target.tensors);
    let full = a.n_heads * a.head_dim;
    let of = |key_dim: usize| Collaborate { key_dim, rounds: 300 };
    if let Err(refused) = of(full).architecture(a) {
        return Ok(Outcome::Refused(refused.to_string()));
    }
    let prompt = match &models.target.tokenizer {
        Some(_) => prompts(held, 1, TOKENS)?.pop().unwrap_or_default(),
        None => (0..TOKENS).map(|i| TokenId((i * 7919 % a.vocab_size) as u32)).collect(),
    };
    let mut inputs = Inputs::default();
    let step = Step::extend(SEQ, 0, &prompt);
    session(engine, TOKENS)?.forward_probed(&step, Some(&mut inputs))?;
    let mut events = vec![];
    for (layer, x) in inputs.0.iter().enumerate() {
        let shared = of(full).layer(a, tensors, layer)?;
        let (_, matrices) = model::block::read_layer(a, tensors, layer)?;
        let model::block::AttentionOf::Grouped { qkv, .. } = matrices.attention else { continue };
        let bias = model::block::Reader::new(a, tensors).bias(a.biases.qkv, &model::names::qkv(a, layer))?;
        let plain = plain_scores(a, &qkv.to_f32(), bias.as_deref(), x);
        let worst = largest_difference(plain.into_iter().zip(shared_scores(a, &shared, x)));
        events.push(value("score_difference", at(layer), worst));
    }
    let mut last = f64::INFINITY;
    let mut rises = 0;
    for quarter in 1..=4 {
        progress("decomposing", quarter, 4);
        let key_dim = (full * quarter / 4).max(1);
        let mut worst = 0.0f64;
        for layer in 0..a.n_layers {
            worst = worst.max(of(key_dim).layer(a, tensors, layer)?.error);
        }
        rises += usize::from(worst > last);
        last = worst;
        events.push(value("decomposition_error", at(key_dim), worst));
    }
    events.push(value("decomposition_error_rises", 0.0, at(rises)));
    Ok(events.into())
}

fn products(w: &[f64], x: &[f32]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum()).collect()
}

/// Scores of every head and visible pair, each row less its mean.
fn centred(a: &Architecture, rows: usize, score: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    let mut all = vec![];
    for head in 0..a.n_heads {
        for i in 0..rows {
            let row: Vec<f64> = (0..=i).map(|j| score(head, i, j) * f64::from(a.attention_scale)).collect();
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            all.extend(row.iter().map(|s| s - mean));
        }
    }
    all
}

fn plain_scores(a: &Architecture, qkv: &[f32], bias: Option<&[f32]>, x: &Activations) -> Vec<f64> {
    let w: Vec<f64> = qkv.iter().map(|&v| f64::from(v)).collect();
    let add = |mut y: Vec<f64>| {
        y.iter_mut().zip(bias.unwrap_or_default()).for_each(|(y, b)| *y += f64::from(*b));
        y
    };
    let rows: Vec<Vec<f64>> = (0..x.rows()).map(|i| add(products(&w, x.row(i)))).collect();
    let (d, keys) = (a.head_dim, a.n_heads * a.head_dim);
    centred(a, x.rows(), |head, i, j| (0..d).map(|f| rows[i][head * d + f] * rows[j][keys + head * d + f]).sum())
}

fn shared_scores(a: &Architecture, shared: &SharedLayer, x: &Activations) -> Vec<f64> {
    let of = |w: &[f64]| -> Vec<Vec<f64>> { (0..x.rows()).map(|i| products(w, x.row(i))).collect() };
    let (q, k, content) = (of(&shared.q), of(&shared.k), of(&shared.content));
    let rank = q[0].len();
    centred(a, x.rows(), |head, i, j| {
        let mixing = &shared.mixing[head * rank..][..rank];
        mixing.iter().zip(&q[i]).zip(&k[j]).map(|((m, q), k)| m * q * k).sum::<f64>() + content[j][head]
    })
}
