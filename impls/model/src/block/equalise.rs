//! Dividing the inputs of a layer's matrices per feature, exactly: s multiplies the columns of every matrix that reads an
//! input, 1/s goes into what makes that input. The layer computes the same function but for rounding.
//!
//! | place | made by | refused when |
//! |---|---|---|
//! | [`Place::NormFed`] | gain and bias of the norm before | the norm's output also feeds the residual stream |
//! | [`Place::AttentionOut`] | rows of V, because attention is linear in V | heads share their values, attention is latent |
//! | [`Place::Down`] | rows of `up`, because the product is linear in them | the MLP is neither gated nor ReLU, experts |

use serde::{Deserialize, Serialize};

use super::matrix::{Matrix, MatrixValues, NormWeights};
use super::parts::{AttentionOf, BlockOf, MlpOf};
use super::read::BlockVectors;
use crate::Parameters;
use crate::architecture::{Architecture, NormPlace, Residual};
use crate::probe::Site;

/// What makes the input of some matrices of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A norm: q, k, v or gate, up, or both where they share one.
    NormFed,
    /// Attention: its output projection.
    AttentionOut,
    /// The first half of the MLP: down.
    Down,
}

/// An input that can be divided: what makes it, and where the matrices read it. The first site sees every row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divisible {
    /// What makes it.
    pub place: Place,
    /// Where it passes; all sites carry the same values (experts: some of the rows).
    pub sites: Vec<Site>,
    maker: Maker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    AttentionNorm,
    MlpNorm,
    Values,
    Up,
}

/// The inputs of `layer` that can be divided exactly in a model of `a`.
pub fn divisible<M>(a: &Architecture, layer: usize, vectors: &BlockVectors, matrices: &BlockOf<M>) -> Vec<Divisible> {
    let mut all = vec![];
    let qkv = Site::QkvIn(layer);
    let mlp = match &matrices.mlp {
        MlpOf::Dense(_) => vec![Site::GateUpIn(layer)],
        MlpOf::Experts { experts, shared, .. } => std::iter::once(Site::RouterIn(layer))
            .chain((0..experts.len()).map(|e| Site::ExpertIn(layer, e)))
            .chain(shared.iter().map(|_| Site::GateUpIn(layer)))
            .collect(),
    };
    let norm_fed = |sites, maker| Divisible { place: Place::NormFed, sites, maker };
    if a.norm_place != NormPlace::Post && a.norm.has_gain() {
        let shared = a.residual == Residual::Parallel { shared_norm: true };
        if vectors.norms.attention.is_some() {
            let sites = if shared { [vec![qkv], mlp.clone()].concat() } else { vec![qkv] };
            all.push(norm_fed(sites, Maker::AttentionNorm));
        }
        if vectors.norms.mlp.is_some() && !shared && vectors.shared_gate.is_none() {
            all.push(norm_fed(mlp, Maker::MlpNorm));
        }
    }
    if a.online_hadamard {
        // a factor per feature does not pass through what mixes the features
        return all;
    }
    let own_values = a.n_heads == a.n_kv_heads && a.shared_keys.is_none() && a.clip_qkv.is_none();
    if own_values && matches!(matrices.attention, AttentionOf::Grouped { .. }) {
        all.push(Divisible { place: Place::AttentionOut, sites: vec![Site::OutIn(layer)], maker: Maker::Values });
    }
    let linear_in_up = a.gated || a.activation == cpu_kernels::Activation::Relu;
    if linear_in_up && matches!(matrices.mlp, MlpOf::Dense(_)) {
        all.push(Divisible { place: Place::Down, sites: vec![Site::DownIn(layer)], maker: Maker::Up });
    }
    all
}

/// Divides `input` by `s [features]`, positive: columns of its readers times s, its maker over s.
///
/// # Panics
/// If `s` has another length than the input, or `input` does not come from [`divisible`] of this layer.
pub fn divide(
    a: &Architecture,
    layer: usize,
    input: &Divisible,
    s: &[f32],
    vectors: &mut BlockVectors,
    matrices: BlockOf<Matrix>,
) -> BlockOf<Matrix> {
    let inverse: Vec<f32> = s.iter().map(|s| 1.0 / s).collect();
    let made = match input.maker {
        Maker::AttentionNorm => {
            scale_norm(vectors.norms.attention.as_mut(), &inverse);
            None
        }
        Maker::MlpNorm => {
            scale_norm(vectors.norms.mlp.as_mut(), &inverse);
            None
        }
        Maker::Values => {
            let first = (a.n_heads + a.n_kv_heads) * a.head_dim;
            scale_bias(vectors.qkv_bias.as_mut(), first, &inverse);
            Some((Site::QkvIn(layer), first))
        }
        Maker::Up => {
            let first = if a.gated { a.ffn } else { 0 };
            scale_bias(vectors.gate_up_bias.as_mut(), first, &inverse);
            Some((Site::GateUpIn(layer), first))
        }
    };
    let scaled = matrices.try_map(layer, &mut |slot, mut matrix: Matrix| {
        if input.sites.contains(&slot.site) {
            matrix.scale_columns(s);
        }
        if let Some((site, first)) = made
            && slot.site == site
        {
            matrix.scale_rows(first, &inverse);
        }
        Ok::<Matrix, std::convert::Infallible>(matrix)
    });
    let Ok(scaled) = scaled;
    scaled
}

fn scale_norm(norm: Option<&mut NormWeights>, by: &[f32]) {
    let norm = norm.expect("`divisible` names norms that exist");
    norm.gain.iter_mut().zip(by).for_each(|(gain, by)| *gain *= by);
    norm.bias.iter_mut().zip(by).for_each(|(bias, by)| *bias *= by);
}

fn scale_bias(bias: Option<&mut Parameters>, first: usize, by: &[f32]) {
    let Some(bias) = bias else { return };
    bias[first..].iter_mut().zip(by).for_each(|(bias, by)| *bias *= by);
}

impl Matrix {
    fn values_mut(&mut self) -> &mut Vec<f32> {
        if !matches!(self.values, MatrixValues::F32(_)) {
            self.values = MatrixValues::F32(self.to_f32());
        }
        match &mut self.values {
            MatrixValues::F32(values) => values,
            _ => unreachable!("made f32 above"),
        }
    }

    /// W·diag(s); the values become f32.
    ///
    /// # Panics
    /// If `s.len() != cols`.
    pub fn scale_columns(&mut self, s: &[f32]) {
        assert_eq!(s.len(), self.cols, "one factor per column");
        let cols = self.cols;
        for row in self.values_mut().chunks_mut(cols) {
            row.iter_mut().zip(s).for_each(|(w, s)| *w *= s);
        }
    }

    /// Rows `first..first + s.len()` times s; the values become f32.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn scale_rows(&mut self, first: usize, s: &[f32]) {
        assert!(first + s.len() <= self.rows, "rows {first}.. of {} times {} factors", self.rows, s.len());
        let cols = self.cols;
        for (row, s) in self.values_mut()[first * cols..].chunks_mut(cols).zip(s) {
            row.iter_mut().for_each(|w| *w *= s);
        }
    }
}
