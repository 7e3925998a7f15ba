//! Where the matrices and vectors of a layer lie in a checkpoint: what reading follows, and writing back.

use super::matrix::NormWeights;
use super::parts::{AttentionOf, BlockOf, FeedForwardOf, MlpOf};
use super::read::BlockVectors;
use crate::architecture::Architecture;
use crate::names::{self, Source, in_layer};

/// The tensors whose rows make each matrix of `layer`, one below the other.
pub fn sources(a: &Architecture, layer: usize) -> BlockOf<Vec<Source>> {
    let out = vec![names::out(a, layer)];
    let attention = match names::latent(a, layer) {
        None => AttentionOf::Grouped { qkv: names::qkv(a, layer), out },
        Some(latent) => AttentionOf::Latent {
            q: vec![latent.q],
            q_up: latent.q_up.map(|source| vec![source]),
            kv: vec![latent.kv],
            kv_up: vec![latent.kv_up],
            out,
        },
    };
    let mlp = match (&a.experts, &a.names.experts) {
        (Some(sizes), Some(experts)) if a.is_sparse(layer) => {
            let feed_forward = |module: &str, ffn: usize| {
                let (gate_up, down) = names::expert(a, layer, experts, module, ffn);
                FeedForwardOf { gate_up, down: vec![down] }
            };
            MlpOf::Experts {
                router: vec![Source::whole(in_layer(a, layer, experts.router), [sizes.n, a.hidden], false)],
                experts: (0..sizes.n).map(|e| feed_forward(&format!("{}{e}", experts.expert), sizes.ffn)).collect(),
                shared: sizes.shared_ffn.map(|ffn| feed_forward(experts.shared, ffn)),
            }
        }
        _ => MlpOf::Dense(FeedForwardOf { gate_up: names::up(a, layer), down: vec![names::down(a, layer)] }),
    };
    BlockOf { attention, mlp }
}

impl BlockVectors {
    /// The vectors that dividing inputs may have changed, as a checkpoint stores them: (name without prefix, values).
    pub fn stored(&self, a: &Architecture, layer: usize) -> Vec<(String, Vec<f32>)> {
        let mut all = vec![];
        let norms = [&self.norms.attention, &self.norms.mlp, &self.norms.attention_out, &self.norms.mlp_out];
        for (name, norm) in a.norm_names().into_iter().zip(norms) {
            let (Some(name), Some(NormWeights { gain, bias }), true) = (name, norm, a.norm.has_gain()) else {
                continue;
            };
            let name = in_layer(a, layer, name);
            all.push((format!("{name}.weight"), gain.iter().map(|g| g - a.norm.offset()).collect()));
            if a.norm.has_bias() {
                all.push((format!("{name}.bias"), bias.to_vec()));
            }
        }
        let places = sources(a, layer);
        if let (AttentionOf::Grouped { qkv, .. }, Some(bias)) = (&places.attention, &self.qkv_bias) {
            biases(qkv, bias, &mut all);
        }
        if let (MlpOf::Dense(dense), Some(bias)) = (&places.mlp, &self.gate_up_bias) {
            biases(&dense.gate_up, bias, &mut all);
        }
        all
    }
}

/// Undoes the stacking of a bias: each source gets its rows back, in its own order.
fn biases(sources: &[Source], stacked: &[f32], all: &mut Vec<(String, Vec<f32>)>) {
    let mut rest = stacked;
    for source in sources {
        let mut values = vec![0.0; source.shape[0]];
        for rows in &source.rows {
            let (these, behind) = rest.split_at(rows.len());
            values[rows.clone()].copy_from_slice(these);
            rest = behind;
        }
        all.push((source.bias(), values));
    }
}
