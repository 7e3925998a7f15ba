//! What: systematic outlier features put into a model that has none, without changing the function it computes.
//! Source: none of its own; the inverse of what SmoothQuant (arXiv 2211.10438) folds into norms. LLM.int8() (arXiv 2208.07339) §3
//!   describes the phenomenon: a few features of large magnitude at all tokens, in the same dimensions of many layers.
//! Shapes: gain (and bias) of a norm `[hidden]`, and every matrix `[·, hidden]` that reads it.
//! Method: 1. `channels` features are drawn from `seed`, the same in every layer. 2. in a share `layers` of the layers, evenly
//!   spaced, gain and bias of the norms before attention and MLP are multiplied by `scale` there, 3. and the columns of every
//!   matrix that reads the norm are divided by it.
//! Exactness: `scale` a power of two changes no product and no sum in f32 (stored unit-offset gains excepted: they round once).
//! Cost: one pass over the matrices.
//! Not handled: families without a norm before their sublayers. What it makes is a positive control and not evidence of natural
//!   outliers: methods that scale features can undo exactly this. Its tag says `induced`.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::norm_fed::norm_fed;
use super::{NewTensors, TransformError};
use crate::Architecture;
use crate::checkpoint::Tensors;

const NAME: &str = "outliers";

/// How many outliers, how large and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outliers {
    /// Factor on the features: a power of two.
    pub scale: f32,
    /// Features.
    #[serde(default = "paper_channels")]
    pub channels: usize,
    /// Share of the layers, above 0.
    #[serde(default = "all_layers")]
    pub layers: f64,
    /// Which features.
    #[serde(default)]
    pub seed: u64,
}

/// LLM.int8() finds six in a model of 6.7 billion parameters.
fn paper_channels() -> usize {
    6
}

fn all_layers() -> f64 {
    1.0
}

impl Outliers {
    /// `induced32x6`; layers and seed where they are not all and 0.
    pub fn tag(&self) -> String {
        let layers = if self.layers == 1.0 { String::new() } else { format!("-l{}", self.layers) };
        let seed = if self.seed == 0 { String::new() } else { format!("-s{}", self.seed) };
        format!("induced{}x{}{layers}{seed}", self.scale, self.channels)
    }

    /// `a` as it is, when it can have outliers.
    pub fn architecture(&self, a: &Architecture) -> Result<Architecture, TransformError> {
        let refuse = |problem: String| Err(TransformError::Refused { transform: NAME, problem });
        if !(self.scale.is_finite() && self.scale >= 1.0 && self.scale.log2().fract() == 0.0) {
            return refuse(format!(
                "scale = {} is not a power of two from 1 on; 8, 16, 32 and 64 are usual",
                self.scale
            ));
        }
        if !(1..=a.hidden).contains(&self.channels) {
            return refuse(format!("channels = {} is not between 1 and the {} features", self.channels, a.hidden));
        }
        if !(self.layers > 0.0 && self.layers <= 1.0) {
            return refuse(format!("layers = {} is not a share above 0", self.layers));
        }
        norm_fed(a, 0, NAME)?;
        Ok(a.clone())
    }

    /// The tensors of `a` that change.
    pub fn tensors(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<NewTensors, TransformError> {
        self.architecture(a)?;
        let features = features(a.hidden, self.channels, self.seed);
        let n = ((a.n_layers as f64 * self.layers).round() as usize).clamp(1, a.n_layers);
        let mut changed = NewTensors::new();
        for layer in (0..n).map(|i| i * a.n_layers / n) {
            for norm in norm_fed(a, layer, NAME)? {
                norm.scale(a, tensors, &features, [self.scale, 1.0 / self.scale], &mut changed)?;
            }
        }
        Ok(changed)
    }
}

/// `n` different ones of `hidden` features, drawn from `seed`, in order.
pub(super) fn features(hidden: usize, n: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<usize> = (0..hidden).collect();
    for i in 0..n {
        let from = rng.random_range(i..hidden);
        all.swap(i, from);
    }
    all.truncate(n);
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::RandomTensors;
    use crate::transform::{Transforms, ZeroFeatures};
    use crate::{TokenId, reference};

    /// A family of each kind of norm, layout and MLP.
    const CONFIGS: [&str; 4] = [
        r#"{"model_type":"llama","vocab_size":64,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":3,
            "num_attention_heads":3,"num_key_value_heads":1,"max_position_embeddings":32,"hidden_act":"silu"}"#,
        r#"{"model_type":"gpt2","vocab_size":64,"n_positions":32,"n_embd":24,"n_layer":3,"n_head":3,
            "n_inner":32,"activation_function":"gelu_new","layer_norm_epsilon":1e-5,"tie_word_embeddings":true}"#,
        r#"{"model_type":"mixtral","vocab_size":64,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":3,
            "num_attention_heads":3,"num_key_value_heads":3,"max_position_embeddings":32,"hidden_act":"silu",
            "num_local_experts":4,"num_experts_per_tok":2}"#,
        r#"{"model_type":"phi","vocab_size":64,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":3,
            "num_attention_heads":3,"max_position_embeddings":32,"hidden_act":"gelu_new","partial_rotary_factor":0.5}"#,
    ];

    fn logits(config: &str, transforms: Transforms) -> Vec<f64> {
        let a = Architecture::from_json(Path::new("config.json"), config).expect("a family");
        let random = Box::new(RandomTensors::new(a.clone(), 5));
        let (a, tensors) = transforms.apply(a, random).expect("applies");
        let tokens: Vec<TokenId> = (0..12).map(|i| TokenId(i * 5 % 64)).collect();
        reference::logits(&a, &*tensors, &tokens).expect("logits").concat()
    }

    #[test]
    fn the_function_stays_in_every_family() {
        for config in CONFIGS {
            let plain = logits(config, Transforms::default());
            for (scale, layers) in [(8.0, 1.0), (64.0, 0.3)] {
                let outliers = Some(Outliers { scale, channels: 4, layers, seed: 3 });
                let with = logits(config, Transforms { outliers, ..Transforms::default() });
                let worst = plain.iter().zip(&with).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-10, "{worst}: {config}");
            }
            let zero = |features| Some(ZeroFeatures { features, channels: None, seed: 0 });
            let cut = logits(config, Transforms { zero_features: zero(vec![1, 2, 3]), ..Transforms::default() });
            let worst = plain.iter().zip(&cut).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst > 1e-3, "cutting features has to show: {config}");
        }
    }

    #[test]
    fn features_are_scaled_where_they_should_be_and_nowhere_else() {
        let a = Architecture::from_json(Path::new("config.json"), CONFIGS[0]).expect("a Llama");
        let tensors = RandomTensors::new(a.clone(), 5);
        let outliers = Outliers { scale: 16.0, channels: 2, layers: 0.34, seed: 1 };
        let changed = outliers.tensors(&a, &tensors).expect("applies");
        let chosen = features(24, 2, 1);
        // one layer of three: two norms, q, k, v, gate and up
        assert_eq!(changed.len(), 7);
        let (_, gain) = &changed["model.layers.0.input_layernorm.weight"];
        assert!((0..24).all(|j| gain[j] == if chosen.contains(&j) { 16.0 } else { 1.0 }), "{gain:?}");
        let (shape, up) = &changed["model.layers.0.mlp.up_proj.weight"];
        let old = tensors.get("model.layers.0.mlp.up_proj.weight").expect("there").data.to_f32();
        assert_eq!(shape, &[40, 24]);
        let by = |j: usize| if chosen.contains(&j) { 1.0 / 16.0 } else { 1.0 };
        assert!(up.iter().zip(&old).enumerate().all(|(at, (new, old))| *new == old * by(at % 24)));
    }

    #[test]
    fn features_are_different_and_repeat_with_the_seed() {
        let drawn = features(256, 6, 0);
        assert_eq!((drawn.len(), drawn.windows(2).all(|w| w[0] < w[1])), (6, true));
        assert_eq!(drawn, features(256, 6, 0));
        assert_ne!(drawn, features(256, 6, 1));
        assert_eq!(features(3, 3, 9), [0, 1, 2]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let llama = Architecture::from_json(Path::new("config.json"), CONFIGS[0]).expect("a Llama");
        let good = Outliers { scale: 32.0, channels: 6, layers: 1.0, seed: 0 };
        assert_eq!(
            (good.tag(), Outliers { layers: 0.25, seed: 2, ..good.clone() }.tag()),
            ("induced32x6".into(), "induced32x6-l0.25-s2".into())
        );
        assert!(good.architecture(&llama).is_ok());
        for bad in [
            Outliers { scale: 3.0, ..good.clone() },
            Outliers { scale: f32::NAN, ..good.clone() },
            Outliers { channels: 25, ..good.clone() },
            Outliers { channels: 0, ..good.clone() },
            Outliers { layers: 0.0, ..good.clone() },
        ] {
            assert!(bad.architecture(&llama).is_err(), "{bad:?}");
        }
        let post = Architecture { norm_place: crate::architecture::NormPlace::Post, ..llama };
        assert!(good.architecture(&post).is_err());
    }
}
