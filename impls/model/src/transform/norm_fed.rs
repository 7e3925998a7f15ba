//! The norms before the sublayers of a layer, each with every tensor that reads its output: where features can be scaled or
//! cut without touching anything else.

use super::{NewTensors, TransformError};
use crate::Architecture;
use crate::architecture::{NormPlace, Residual};
use crate::block::Reader;
use crate::checkpoint::Tensors;
use crate::names::{self, Source, in_layer};

/// A norm and what reads it.
pub(super) struct NormFed {
    norm: String,
    readers: Vec<Source>,
}

/// The norms before the sublayers of `layer`; refused where the family has none there.
pub(super) fn norm_fed(
    a: &Architecture,
    layer: usize,
    transform: &'static str,
) -> Result<Vec<NormFed>, TransformError> {
    let [attention, mlp, ..] = a.norm_names();
    let (Some(attention), true) = (attention, a.norm_place != NormPlace::Post && a.norm.has_gain()) else {
        let problem = format!("family `{}` has no norm before its sublayers whose output only they read", a.family);
        return Err(TransformError::Refused { transform, problem });
    };
    let from_norm = match names::latent(a, layer) {
        Some(latent) => vec![latent.q, latent.kv],
        None => names::qkv(a, layer),
    };
    let name = |norm: &str| in_layer(a, layer, norm);
    let up = first_half(a, layer);
    Ok(match (mlp, a.residual) {
        (_, Residual::Parallel { shared_norm: true }) | (None, _) => {
            vec![NormFed { norm: name(attention), readers: [from_norm, up].concat() }]
        }
        (Some(mlp), _) => {
            vec![NormFed { norm: name(attention), readers: from_norm }, NormFed { norm: name(mlp), readers: up }]
        }
    })
}

/// Every tensor that reads the input of the MLP.
fn first_half(a: &Architecture, layer: usize) -> Vec<Source> {
    let (Some(experts), Some(expert_names), true) = (&a.experts, &a.names.experts, a.is_sparse(layer)) else {
        return names::up(a, layer);
    };
    let whole = |part: &str, rows| Source::whole(in_layer(a, layer, part), [rows, a.hidden], false);
    let mut all = vec![whole(expert_names.router, experts.n)];
    for e in 0..experts.n {
        all.extend(names::expert(a, layer, expert_names, &format!("{}{e}", expert_names.expert), experts.ffn).0);
    }
    if let Some(ffn) = experts.shared_ffn {
        all.extend(names::expert(a, layer, expert_names, expert_names.shared, ffn).0);
        if !expert_names.shared_gate.is_empty() {
            all.push(whole(expert_names.shared_gate, 1));
        }
    }
    all
}

impl NormFed {
    /// Multiplies the norm's output at `features` by `by`, and the columns that read them by `readers`.
    pub(super) fn scale(
        &self,
        a: &Architecture,
        tensors: &dyn Tensors,
        features: &[usize],
        [by, readers]: [f32; 2],
        changed: &mut NewTensors,
    ) -> Result<(), TransformError> {
        let reader = Reader::new(a, tensors);
        let mut rewrite = |name: String, edit: &mut dyn FnMut(&mut [f32])| -> Result<(), TransformError> {
            let (shape, mut values) = match changed.remove(&name) {
                Some(found) => found,
                None => {
                    let stored = tensors.get(&name)?;
                    (stored.shape.clone(), stored.data.to_f32())
                }
            };
            edit(&mut values);
            changed.insert(name, (shape, values));
            Ok(())
        };
        // what is stored of a unit-offset norm is its gain less one
        let offset = a.norm.offset();
        rewrite(reader.full_name(&format!("{}.weight", self.norm)), &mut |gain| {
            features.iter().for_each(|&j| gain[j] = (gain[j] + offset) * by - offset);
        })?;
        if a.norm.has_bias() {
            rewrite(reader.full_name(&format!("{}.bias", self.norm)), &mut |bias| {
                features.iter().for_each(|&j| bias[j] *= by);
            })?;
        }
        if readers == 1.0 {
            return Ok(());
        }
        for source in &self.readers {
            let [rows, cols] = source.shape;
            rewrite(reader.full_name(&source.weight()), &mut |values| {
                for &j in features {
                    for row in 0..rows {
                        values[if source.transposed { j * rows + row } else { row * cols + j }] *= readers;
                    }
                }
            })?;
        }
        Ok(())
    }
}
