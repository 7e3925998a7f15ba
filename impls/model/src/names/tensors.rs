//! Every tensor that an architecture has, with its shape: what random weights draw and what parameters are counted from.

use super::{Source, down, expert, in_layer, latent, mixing, out, qkv, up};
use crate::architecture::{Architecture, NormKind, Positions, QkNormScope, Scoring};

/// Names (with the family's usual prefix) and stored shapes.
pub fn tensors(a: &Architecture) -> Vec<(String, Vec<usize>)> {
    let (names, prefix) = (a.names, a.names.prefixes[0]);
    let mut all = List { a, tensors: vec![] };
    all.add(format!("{}.weight", names.embedding), vec![a.vocab_size, a.embedding_dim]);
    if let Positions::Learned { offset } = a.positions {
        all.add(format!("{}.weight", names.positions), vec![a.max_positions + offset, a.hidden]);
    }
    if a.embedding_norm {
        all.norm(names.embedding_norm, a.hidden);
    }
    if a.embedding_dim != a.hidden {
        all.add(format!("{}.weight", names.project[0]), vec![a.hidden, a.embedding_dim]);
        all.add(format!("{}.weight", names.project[1]), vec![a.embedding_dim, a.hidden]);
    }
    if a.final_norm {
        all.norm(names.final_norm, a.hidden);
    }
    for layer in 0..a.n_layers {
        all.layer(layer);
    }
    let mut tensors: Vec<_> = all.tensors.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect();
    if !a.tied_head {
        tensors.push((format!("{}.weight", names.head), vec![a.vocab_size, a.embedding_dim]));
    }
    if a.biases.head {
        tensors.push((format!("{}.bias", names.head), vec![a.vocab_size]));
    }
    tensors
}

/// Stored shape of the tensor called `name`, or nothing when the architecture has none of that name.
pub fn shape_of(a: &Architecture, name: &str) -> Option<Vec<usize>> {
    tensors(a).into_iter().find(|(known, _)| known == name).map(|(_, shape)| shape)
}

struct List<'a> {
    a: &'a Architecture,
    tensors: Vec<(String, Vec<usize>)>,
}

impl List<'_> {
    fn add(&mut self, name: String, shape: Vec<usize>) {
        self.tensors.push((name, shape));
    }

    fn norm(&mut self, name: &str, width: usize) {
        if !name.is_empty() && self.a.norm.has_gain() {
            self.add(format!("{name}.weight"), vec![width]);
            if self.a.norm.has_bias() {
                self.add(format!("{name}.bias"), vec![width]);
            }
        }
    }

    fn matrix(&mut self, source: &Source, biased: bool) {
        let [rows, cols] = source.shape;
        self.add(source.weight(), if source.transposed { vec![cols, rows] } else { vec![rows, cols] });
        if biased {
            self.add(source.bias(), vec![rows]);
        }
    }

    fn layer(&mut self, layer: usize) {
        let a = self.a;
        for norm in a.norm_names().into_iter().flatten() {
            self.norm(&in_layer(a, layer, norm), a.hidden);
        }
        match (latent(a, layer), a.latent) {
            (Some(sources), Some(l)) => {
                self.matrix(&sources.q, a.biases.qkv && sources.q_up.is_some());
                if let (Some(up), Some(rank)) = (&sources.q_up, l.q_rank) {
                    self.add(in_layer(a, layer, "self_attn.q_a_layernorm.weight"), vec![rank]);
                    self.matrix(up, false);
                }
                self.matrix(&sources.kv, a.biases.qkv);
                self.add(in_layer(a, layer, "self_attn.kv_a_layernorm.weight"), vec![l.kv_rank]);
                self.matrix(&sources.kv_up, false);
            }
            _ => {
                qkv(a, layer).iter().for_each(|source| self.matrix(source, a.biases.qkv));
                self.qk_norms(layer);
                if let Some(rank) = a.shared_keys {
                    self.add(mixing(a, layer), vec![a.n_heads, rank]);
                }
            }
        }
        self.matrix(&out(a, layer), a.biases.out);
        match (&a.experts, &a.names.experts) {
            (Some(experts), Some(names)) if a.is_sparse(layer) => {
                self.add(format!("{}.weight", in_layer(a, layer, names.router)), vec![experts.n, a.hidden]);
                let routed = (0..experts.n).map(|e| (format!("{}{e}", names.expert), experts.ffn));
                let shared = experts.shared_ffn.map(|ffn| (names.shared.to_string(), ffn));
                for (module, ffn) in routed.chain(shared) {
                    let (up, down) = expert(a, layer, names, &module, ffn);
                    up.iter().chain([&down]).for_each(|source| self.matrix(source, false));
                }
                if experts.scoring == Scoring::BiasedSigmoid {
                    self.add(in_layer(a, layer, names.choice_bias), vec![experts.n]);
                }
                if experts.shared_ffn.is_some() && !names.shared_gate.is_empty() {
                    self.add(format!("{}.weight", in_layer(a, layer, names.shared_gate)), vec![1, a.hidden]);
                }
            }
            _ => {
                up(a, layer).iter().for_each(|source| self.matrix(source, a.biases.mlp));
                self.matrix(&down(a, layer), a.biases.mlp);
            }
        }
    }

    fn qk_norms(&mut self, layer: usize) {
        let a = self.a;
        let Some(norm) = a.qk_norm else { return };
        for (name, heads) in a.names.qk_norms.iter().zip([a.n_heads, a.n_kv_heads]) {
            let name = in_layer(a, layer, name);
            let shape = match norm.scope {
                QkNormScope::Head => vec![a.head_dim],
                QkNormScope::Row => vec![heads * a.head_dim],
                QkNormScope::EachHead if name.contains("{}") => {
                    (0..heads).for_each(|h| {
                        self.add(format!("{}.weight", name.replace("{}", &h.to_string())), vec![a.head_dim])
                    });
                    continue;
                }
                QkNormScope::EachHead => vec![heads, a.head_dim],
            };
            self.add(format!("{name}.weight"), shape.clone());
            if norm.kind == NormKind::Layer {
                self.add(format!("{name}.bias"), shape);
            }
        }
    }
}
