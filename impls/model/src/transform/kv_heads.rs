//! What: fewer key/value heads for a checkpoint that was trained with more.
//! Source: Ainslie et al. 2023, GQA, arXiv 2305.13245, §2.1 and figure 4 (mean, first, random).
//! Shapes: k and v projections [h·d, D] and biases [h·d] become [G·d, D] and [G·d]; everything else stays.
//! Method: 1. query head i reads group ⌊i·G/h⌋, so group g covers the old heads g·h/G .. (g+1)·h/G. 2. each new head is the mean of
//!   its group's heads, the first of them, or drawn anew from N(0, deviation²), which should be the recipe's. Weights are pooled before
//!   the rotary embedding, which is the same in every head.
//! Exactness: G = h with mean or first changes no value (a mean of one head is that head); fewer heads lose what the heads of a
//!   group do not share, by construction. The mean is taken in f64.
//! Cost: one pass over the k and v projections.
//! Not handled: G that does not divide the number of key/value heads.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::{NewTensors, TransformError};
use crate::checkpoint::Tensors;
use crate::{Architecture, names};

const NAME: &str = "kv_heads";
/// Standard deviation of a new head's weights where none is given.
const INITIAL_DEVIATION: f64 = 0.02;

/// How many key/value heads to keep and how to make them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvHeads {
    /// Key/value heads afterwards (G): 1 is multi-query attention.
    pub groups: usize,
    /// How a head of the new kind comes out of a group of old ones.
    #[serde(default)]
    pub method: KvMethod,
    /// Seed of the random method.
    #[serde(default)]
    pub seed: u64,
    /// Standard deviation of the random method's weights: what the model's own training began with.
    #[serde(default = "usual_deviation")]
    pub deviation: f64,
}

fn usual_deviation() -> f64 {
    INITIAL_DEVIATION
}

/// How several heads become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvMethod {
    /// The mean of the group's projection matrices.
    #[default]
    Mean,
    /// The group's first head.
    First,
    /// Drawn anew.
    Random,
}

impl KvHeads {
    /// `kv2-mean`; the random method says its seed when it is not 0.
    pub fn tag(&self) -> String {
        let seed = if self.seed == 0 { String::new() } else { format!("-s{}", self.seed) };
        let method = match self.method {
            KvMethod::Mean => "mean",
            KvMethod::First => "first",
            KvMethod::Random => "random",
        };
        let random = self.method == KvMethod::Random && self.deviation != INITIAL_DEVIATION;
        let deviation = if random { format!("-d{}", self.deviation) } else { String::new() };
        format!("kv{}-{method}{seed}{deviation}", self.groups)
    }

    /// `a` with the new number of key/value heads.
    pub fn architecture(&self, a: &Architecture) -> Result<Architecture, TransformError> {
        if a.names.qkv != names::LLAMA.qkv || a.qk_norm.is_some() || a.latent.is_some() {
            let problem = format!("family `{}` does not keep k and v as projections of their own", a.family);
            return Err(TransformError::Refused { transform: NAME, problem });
        }
        if self.groups == 0 || !a.n_kv_heads.is_multiple_of(self.groups) {
            let problem = format!("groups = {} does not divide the {} key/value heads", self.groups, a.n_kv_heads);
            return Err(TransformError::Refused { transform: NAME, problem });
        }
        Ok(Architecture { n_kv_heads: self.groups, ..a.clone() })
    }

    /// The projections of `a` that change.
    pub fn tensors(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<NewTensors, TransformError> {
        let new = self.architecture(a)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut changed = NewTensors::new();
        for layer in 0..a.n_layers {
            for part in
                ["self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.k_proj.bias", "self_attn.v_proj.bias"]
            {
                let name = names::tensor_in_layer(a, layer, part);
                if let Some(shape) = names::shape_of(&new, &name) {
                    let old = tensors.get(&name)?.data.to_f32();
                    changed.insert(name, (shape, self.pooled(&old, a.n_kv_heads, part.ends_with("bias"), &mut rng)));
                }
            }
        }
        Ok(changed)
    }

    /// `old`, the `heads` heads of one projection in order, as `self.groups` heads.
    fn pooled(&self, old: &[f32], heads: usize, is_bias: bool, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let (size, group) = (old.len() / heads, heads / self.groups);
        let of = |g: usize, member: usize| &old[(g * group + member) * size..][..size];
        let mut new = Vec::with_capacity(self.groups * size);
        for g in 0..self.groups {
            match self.method {
                KvMethod::First => new.extend_from_slice(of(g, 0)),
                KvMethod::Mean => new.extend((0..size).map(|i| {
                    let sum: f64 = (0..group).map(|member| f64::from(of(g, member)[i])).sum();
                    (sum / group as f64) as f32
                })),
                KvMethod::Random if is_bias => new.extend(std::iter::repeat_n(0.0, size)),
                KvMethod::Random => new.extend((0..size).map(|_| (self.deviation * normal(rng)) as f32)),
            }
        }
        new
    }
}

/// A draw from N(0, 1), by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, angle) = (1.0 - rng.random::<f64>(), std::f64::consts::TAU * rng.random::<f64>());
    (-2.0 * u.ln()).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(groups: usize, method: KvMethod, old: &[f32], heads: usize) -> Vec<f32> {
        let spec = KvHeads { groups, method, seed: 3, deviation: INITIAL_DEVIATION };
        spec.pooled(old, heads, false, &mut ChaCha8Rng::seed_from_u64(spec.seed))
    }

    #[test]
    fn groups_are_blocks_of_neighbours() {
        // four heads of two values each
        let old = [1.0, 10.0, 3.0, 30.0, 5.0, 50.0, 9.0, 90.0];
        assert_eq!(pooled(2, KvMethod::Mean, &old, 4), [2.0, 20.0, 7.0, 70.0]);
        assert_eq!(pooled(2, KvMethod::First, &old, 4), [1.0, 10.0, 5.0, 50.0]);
        assert_eq!(pooled(1, KvMethod::Mean, &old, 4), [4.5, 45.0]);
        assert_eq!(pooled(4, KvMethod::Mean, &old, 4), old);
    }

    #[test]
    fn new_heads_have_the_deviation_they_should() {
        let drawn = pooled(2, KvMethod::Random, &[0.0; 40_000], 4);
        let variance = drawn.iter().map(|v| f64::from(v * v)).sum::<f64>() / drawn.len() as f64;
        assert_eq!(drawn.len(), 20_000);
        assert!((variance.sqrt() / INITIAL_DEVIATION - 1.0).abs() < 0.02, "{}", variance.sqrt());
        assert_eq!(drawn, pooled(2, KvMethod::Random, &[0.0; 40_000], 4), "same seed, same heads");
    }
}
