//! What: a trained multi-head model re-parametrised as collaborative attention.
//! Source: Cordonnier, Loukas, Jaggi 2020, arXiv 2006.16362, §4.
//! Shapes: W_q, W_k `[h·d_k, D]` become shared projections `[R, D]` and mixing `[h, R]`; values and the rest stay.
//! Method: 1. the heads' W_q^{i}ᵀ·W_k^i are decomposed into R shared terms (see `decomposition`). 2. the content bias
//!   v_i = W_k^{i}ᵀ·b_q^i becomes feature R + i of the key. 3. terms with the key bias are constant along the softmax and left out.
//! Exactness: R = h·d_k keeps every attention weight in real arithmetic; less loses what the decomposition reports.
//! Cost: one decomposition per layer.
//! Not handled: rotary positions, grouped heads, latent attention, q/k norms; the fine-tuning that the paper adds.

use serde::{Deserialize, Serialize};

use super::decomposition::{Heads, decompose};
use super::{NewTensors, TransformError};
use crate::architecture::Positions;
use crate::block::Reader;
use crate::checkpoint::Tensors;
use crate::{Architecture, names};

const NAME: &str = "collaborate";

/// How many features the heads share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collaborate {
    /// Shared features (the paper's D̃_k, here R), at most heads · features per head.
    pub key_dim: usize,
    /// Most rounds of alternating least squares.
    #[serde(default = "rounds")]
    pub rounds: usize,
}

fn rounds() -> usize {
    300
}

/// Shared factors of one layer, and how well they stand for its heads.
#[derive(Debug, Clone)]
pub struct SharedLayer {
    /// Query projection `[R, D]`.
    pub q: Vec<f64>,
    /// Key projection `[R, D]`.
    pub k: Vec<f64>,
    /// Mixing `[h, R]`.
    pub mixing: Vec<f64>,
    /// Content bias of each head `[h, D]`.
    pub content: Vec<f64>,
    /// Relative error of the decomposition.
    pub error: f64,
}

impl Collaborate {
    /// `collab64`.
    pub fn tag(&self) -> String {
        format!("collab{}", self.key_dim)
    }

    /// `a` with shared keys.
    pub fn architecture(&self, a: &Architecture) -> Result<Architecture, TransformError> {
        let refuse = |problem: String| Err(TransformError::Refused { transform: NAME, problem });
        let learned = matches!(a.positions, Positions::Learned { .. });
        if !learned || a.n_kv_heads != a.n_heads || a.latent.is_some() || a.qk_norm.is_some() || a.shared_keys.is_some()
        {
            return refuse(format!(
                "family `{}`: only plain multi-head attention with positions in the embedding can share its keys",
                a.family
            ));
        }
        let most = a.n_heads * a.head_dim;
        if !(1..=most).contains(&self.key_dim) {
            return refuse(format!("key_dim = {} is not between 1 and {most}, all heads' features", self.key_dim));
        }
        Ok(Architecture { shared_keys: Some(self.key_dim), ..a.clone() })
    }

    /// Decomposes layer `layer` of `a`.
    pub fn layer(&self, a: &Architecture, tensors: &dyn Tensors, layer: usize) -> Result<SharedLayer, TransformError> {
        let reader = Reader::new(a, tensors);
        let sources = names::qkv(a, layer);
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let all = wide(&reader.matrix(&sources)?.to_f32());
        let part = a.n_heads * a.head_dim * a.hidden;
        let (q, k) = (&all[..part], &all[part..2 * part]);
        let found = decompose(&Heads { q, k, n: a.n_heads, hidden: a.hidden }, self.key_dim, self.rounds);
        let mut content = vec![0.0; a.n_heads * a.hidden];
        if let Some(bias) = reader.bias(a.biases.qkv, &sources)? {
            for (row, key) in k.chunks_exact(a.hidden).enumerate() {
                let own = &mut content[row / a.head_dim * a.hidden..][..a.hidden];
                own.iter_mut().zip(key).for_each(|(c, k)| *c += f64::from(bias[row]) * k);
            }
        }
        let error = found.errors.last().copied().unwrap_or(f64::NAN);
        Ok(SharedLayer { q: found.q, k: found.k, mixing: found.mixing, content, error })
    }

    /// The tensors that replace q, k and v.
    pub fn tensors(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<NewTensors, TransformError> {
        let new = self.architecture(a)?;
        let reader = Reader::new(a, tensors);
        let mut changed = NewTensors::new();
        for layer in 0..a.n_layers {
            let shared = self.layer(a, tensors, layer)?;
            let (old, part) = (names::qkv(a, layer), a.n_heads * a.head_dim);
            let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
            let values = reader.matrix(&old)?.to_f32()[2 * part * a.hidden..].to_vec();
            let rows = [narrow(&shared.q), narrow(&shared.k), narrow(&shared.content), values].concat();
            let to = &names::qkv(&new, layer)[0];
            changed.insert(reader.full_name(&to.weight()), (to.shape.to_vec(), rows));
            if let Some(bias) = reader.bias(a.biases.qkv, &old)? {
                let zeros = vec![0.0; to.shape[0] - part];
                changed.insert(reader.full_name(&to.bias()), (vec![to.shape[0]], [&zeros, &bias[2 * part..]].concat()));
            }
            let mixing = (vec![a.n_heads, self.key_dim], narrow(&shared.mixing));
            changed.insert(reader.full_name(&names::mixing(a, layer)), mixing);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::RandomTensors;
    use crate::transform::{Rewritten, Transforms};
    use crate::{TokenId, reference};

    const CONFIG: &str = r#"{"model_type":"gpt2","vocab_size":64,"n_positions":32,"n_embd":24,"n_layer":2,"n_head":3,
        "n_inner":32,"activation_function":"gelu_new","layer_norm_epsilon":1e-5,"tie_word_embeddings":true}"#;

    /// A GPT-2 with biases that matter.
    fn checkpoint() -> (Architecture, Box<dyn Tensors>) {
        let a = Architecture::from_json(Path::new("config.json"), CONFIG).expect("a GPT-2");
        let random = RandomTensors::new(a.clone(), 5);
        let mut biases = NewTensors::new();
        for layer in 0..a.n_layers {
            let name = Reader::new(&a, &random).full_name(&names::qkv(&a, layer)[0].bias());
            biases.insert(name, (vec![72], (0..72).map(|i| ((i * 37 % 19) as f32 - 9.0) / 6.0).collect()));
        }
        (a, Box::new(Rewritten::new(Box::new(random), biases)))
    }

    fn logits(a: &Architecture, tensors: &dyn Tensors) -> Vec<f64> {
        let tokens: Vec<TokenId> = (0..12).map(|i| TokenId(i * 5 % 64)).collect();
        reference::logits(a, tensors, &tokens).expect("logits").concat()
    }

    #[test]
    fn full_rank_keeps_the_logits_and_half_does_not() {
        let (a, tensors) = checkpoint();
        let plain = logits(&a, &*tensors);
        let largest = |other: Vec<f64>| plain.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let with = |key_dim: usize| {
            let collaborate = Some(Collaborate { key_dim, rounds: 100 });
            let (a, tensors) = checkpoint();
            let (a, tensors) = Transforms { collaborate, ..Transforms::default() }.apply(a, tensors).expect("applies");
            largest(logits(&a, &*tensors))
        };
        assert!(with(24) < 1e-4, "{}", with(24));
        assert!(with(12) > 1e-2, "{}", with(12));
    }

    #[test]
    fn what_cannot_share_keys_is_refused() {
        let llama = Architecture::llama(64, 24, 2, [3, 3, 8], 32);
        assert!(Collaborate { key_dim: 12, rounds: 1 }.architecture(&llama).is_err());
        let (gpt2, _) = checkpoint();
        assert!(Collaborate { key_dim: 25, rounds: 1 }.architecture(&gpt2).is_err());
    }
}
