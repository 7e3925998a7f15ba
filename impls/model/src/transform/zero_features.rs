//! What: some features of the hidden state set to zero before every attention and MLP.
//! Source: LLM.int8() (arXiv 2208.07339) §4.1: what a model loses without its outlier features, and without as many others.
//! Shapes: gain and bias of each norm before a sublayer, `[hidden]`.
//! Method: 1. features are listed, or drawn from a seed as `outliers` draws them. 2. gain and bias of every such norm are 0 there.
//! Exactness: the features are exactly 0 for every reader; the residual stream keeps them.
//! Cost: none but the norms.
//! Not handled: families without a norm before their sublayers.

use serde::{Deserialize, Serialize};

use super::norm_fed::norm_fed;
use super::outliers::features;
use super::{NewTensors, TransformError};
use crate::Architecture;
use crate::checkpoint::Tensors;

const NAME: &str = "zero_features";

/// Which features to cut: listed, or so many drawn from a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZeroFeatures {
    /// By number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<usize>,
    /// How many are drawn; the same as `outliers` with this seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Which are drawn.
    pub seed: u64,
}

impl ZeroFeatures {
    /// `zeroed-3.17` of listed features, `zeroed6` or `zeroed6-s1` of drawn ones.
    pub fn tag(&self) -> String {
        let listed = self.features.iter().map(usize::to_string).collect::<Vec<_>>().join(".");
        match (self.channels, self.seed) {
            (None, _) => format!("zeroed-{listed}"),
            (Some(n), 0) => format!("zeroed{n}"),
            (Some(n), seed) => format!("zeroed{n}-s{seed}"),
        }
    }

    /// `a` as it is, when it has such features.
    pub fn architecture(&self, a: &Architecture) -> Result<Architecture, TransformError> {
        let refuse = |problem: String| Err(TransformError::Refused { transform: NAME, problem });
        if self.channels.is_some() != self.features.is_empty() {
            return refuse("list `features`, or say how many `channels` to draw, not both".into());
        }
        if let Some(wrong) = self.features.iter().find(|&&j| j >= a.hidden) {
            return refuse(format!("feature {wrong} is beyond the model's {} features", a.hidden));
        }
        if self.channels.is_some_and(|n| !(1..=a.hidden).contains(&n)) {
            return refuse(format!("channels is not between 1 and the model's {} features", a.hidden));
        }
        norm_fed(a, 0, NAME)?;
        Ok(a.clone())
    }

    /// The tensors of `a` that change.
    pub fn tensors(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<NewTensors, TransformError> {
        self.architecture(a)?;
        let drawn = self.channels.map(|n| features(a.hidden, n, self.seed));
        let cut = drawn.unwrap_or_else(|| self.features.clone());
        let mut changed = NewTensors::new();
        for layer in 0..a.n_layers {
            for norm in norm_fed(a, layer, NAME)? {
                norm.scale(a, tensors, &cut, [0.0, 1.0], &mut changed)?;
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_or_drawn_but_not_both() {
        let a = Architecture::llama(64, 24, 2, [3, 3, 8], 32);
        let listed = ZeroFeatures { features: vec![3, 17], ..ZeroFeatures::default() };
        let drawn = ZeroFeatures { channels: Some(6), seed: 1, ..ZeroFeatures::default() };
        assert_eq!((listed.tag(), drawn.tag()), ("zeroed-3.17".into(), "zeroed6-s1".into()));
        assert!(listed.architecture(&a).is_ok() && drawn.architecture(&a).is_ok());
        for bad in [
            ZeroFeatures::default(),
            ZeroFeatures { channels: Some(2), ..listed.clone() },
            ZeroFeatures { features: vec![24], ..listed },
            ZeroFeatures { channels: Some(25), ..drawn },
        ] {
            assert!(bad.architecture(&a).is_err(), "{bad:?}");
        }
    }
}
