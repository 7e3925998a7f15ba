//! Tensors of the oracle, widened to f64, and the operations that need nothing else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::architecture::{Architecture, NormKind};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::names::Source;

pub(super) struct Weights<'a> {
    a: &'a Architecture,
    tensors: &'a dyn Tensors,
    prefix: &'static str,
    /// Tensors of the current layer, widened once.
    widened: RefCell<HashMap<String, Rc<Vec<f64>>>>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(a: &'a Architecture, tensors: &'a dyn Tensors) -> Weights<'a> {
        let has = |prefix: &&&str| tensors.contains(&format!("{prefix}{}.weight", a.names.embedding));
        let prefix = a.names.prefixes.iter().find(has).unwrap_or(&a.names.prefixes[0]);
        Weights { a, tensors, prefix, widened: RefCell::default() }
    }

    /// Drops what was widened; tensors outside the layers are widened again when they are needed.
    pub(super) fn forget(&self) {
        self.widened.borrow_mut().clear();
    }

    pub(super) fn get(&self, name: &str) -> Result<Rc<Vec<f64>>, CheckpointError> {
        if let Some(known) = self.widened.borrow().get(name) {
            return Ok(known.clone());
        }
        let head = name.starts_with(&format!("{}.", self.a.names.head));
        let full = if head { name.to_string() } else { format!("{}{name}", self.prefix) };
        let values = Rc::new(self.tensors.get(&full)?.data.to_f32().into_iter().map(f64::from).collect::<Vec<_>>());
        self.widened.borrow_mut().insert(name.into(), values.clone());
        Ok(values)
    }

    /// `x·Wᵀ + b` for one row of `x`, the rows of W taken from `sources`.
    pub(super) fn product(&self, sources: &[Source], biased: bool, x: &[f64]) -> Result<Vec<f64>, CheckpointError> {
        let mut y = vec![];
        for source in sources {
            let w = self.get(&source.weight())?;
            let [n_rows, cols] = source.shape;
            for row in source.rows.iter().flat_map(Clone::clone) {
                let at = |col: usize| if source.transposed { w[col * n_rows + row] } else { w[row * cols + col] };
                let mut sum: f64 = (0..cols).map(|col| at(col) * x[col]).sum();
                if biased {
                    sum += self.get(&source.bias())?[row];
                }
                y.push(sum);
            }
        }
        Ok(y)
    }

    /// A norm of the residual stream.
    pub(super) fn norm(&self, x: &[f64], name: &str) -> Result<Vec<f64>, CheckpointError> {
        let kind = self.a.norm;
        let gain = match kind {
            NormKind::LayerBare => Rc::new(vec![1.0; x.len()]),
            _ => self.get(&format!("{name}.weight"))?,
        };
        let bias = kind.has_bias().then(|| self.get(&format!("{name}.bias"))).transpose()?;
        Ok(norm(x, self.a.norm, f64::from(self.a.norm_eps), &gain, bias.as_ref().map(|b| &b[..])))
    }
}

pub(super) fn norm(x: &[f64], kind: NormKind, eps: f64, gain: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Rms | NormKind::RmsUnitOffset => 0.0,
        _ => x.iter().sum::<f64>() / n,
    };
    let factor = 1.0 / (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
    let offset = f64::from(kind.offset());
    x.iter()
        .enumerate()
        .map(|(i, v)| (v - mean) * factor * (gain[i] + offset) + bias.map_or(0.0, |bias| bias[i]))
        .collect()
}

pub(super) fn matrix_vector(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// `y += factor · x`.
pub(super) fn add(y: &mut [f64], x: &[f64], factor: f64) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * x);
}
