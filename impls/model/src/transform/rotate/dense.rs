//! A weight matrix in f64 while it is rewritten, whichever way the checkpoint stores it.

use super::rotation::Rotation;
use crate::block::{NormWeights, Reader};
use crate::checkpoint::CheckpointError;
use crate::names::Source;
use crate::transform::NewTensors;

/// A whole tensor `[rows, cols]` = `[out_features, in_features]` and the bias beside it.
#[derive(Clone)]
pub(super) struct Dense {
    source: Source,
    values: Vec<f64>,
    /// `[rows]`.
    bias: Option<Vec<f64>>,
}

impl Dense {
    /// Reads the tensor of `source` and its bias; zeros stand for a bias that it `gains`.
    pub(super) fn read(
        reader: &Reader<'_>,
        source: &Source,
        biased: bool,
        gains: bool,
    ) -> Result<Dense, CheckpointError> {
        let whole = [Source::whole(source.name.clone(), source.shape, source.transposed)];
        let values = reader.matrix(&whole)?.to_f32().into_iter().map(f64::from).collect();
        let bias = reader.bias(biased, &whole)?.map(|bias| bias.into_iter().map(f64::from).collect());
        let [source] = whole;
        let bias = bias.or_else(|| gains.then(|| vec![0.0; source.shape[0]]));
        Ok(Dense { source, values, bias })
    }

    /// The same values under another name, with a bias of its own.
    pub(super) fn copy_as(&self, name: &str, bias: Option<Vec<f32>>, gains: bool) -> Dense {
        let bias = bias.map(|bias| bias.into_iter().map(f64::from).collect());
        let bias = bias.or_else(|| gains.then(|| vec![0.0; self.source.shape[0]]));
        Dense { source: Source { name: name.into(), ..self.source.clone() }, values: self.values.clone(), bias }
    }

    /// Name without prefix.
    pub(super) fn name(&self) -> &str {
        &self.source.name
    }

    /// Input features.
    pub(super) fn cols(&self) -> usize {
        self.source.shape[1]
    }

    /// Reads `norm`(x) of an unrotated stream → reads the plain norm of Q·x: rows w become Q·(gain∘w), and w·(norm's bias) is added
    /// to the bias.
    pub(super) fn fold_input(&mut self, norm: &NormWeights, q: &Rotation) {
        let cols = self.cols();
        for (row, values) in self.values.chunks_exact_mut(cols).enumerate() {
            if let Some(bias) = &mut self.bias {
                bias[row] += values.iter().zip(&*norm.bias).map(|(w, b)| w * f64::from(*b)).sum::<f64>();
            }
            values.iter_mut().zip(&*norm.gain).for_each(|(w, gain)| *w *= f64::from(*gain));
            q.apply(values);
        }
    }

    /// Writes to an unrotated stream → writes Q times that, less its mean where `centred`; the bias with it.
    pub(super) fn fold_output(&mut self, q: &Rotation, centred: bool) {
        let [rows, cols] = self.source.shape;
        let mut columns = transposed(&self.values, rows, cols);
        let bias = self.bias.iter_mut().map(|bias| &mut bias[..]);
        for column in columns.chunks_exact_mut(rows).chain(bias) {
            if centred {
                centre(column);
            }
            q.apply(column);
        }
        self.values = transposed(&columns, cols, rows);
    }

    /// Every row becomes Q·row, less its mean first where `centred`: a table of vectors of the stream.
    pub(super) fn rotate_rows(&mut self, q: &Rotation, centred: bool) {
        let cols = self.cols();
        for row in self.values.chunks_exact_mut(cols) {
            if centred {
                centre(row);
            }
            q.apply(row);
        }
    }

    /// Reads groups of features that are multiplied by R now.
    pub(super) fn rotate_input_groups(&mut self, r: &Rotation) {
        self.values.chunks_exact_mut(r.n()).for_each(|group| r.apply(group));
    }

    /// Reads runs of features that are mixed by R ⊗ 1 now, as many as R is wide.
    pub(super) fn rotate_input_runs(&mut self, r: &Rotation) {
        let (cols, n) = (self.cols(), r.n());
        let run = cols / n;
        let mut places = vec![0.0; n];
        for row in self.values.chunks_exact_mut(cols) {
            for at in 0..run {
                places.iter_mut().enumerate().for_each(|(i, p)| *p = row[i * run + at]);
                r.apply(&mut places);
                places.iter().enumerate().for_each(|(i, p)| row[i * run + at] = *p);
            }
        }
    }

    /// The outputs `rows` (tensor, row), one after the other, are multiplied by R.
    pub(super) fn rotate_outputs(parts: &mut [Dense], rows: &[(usize, usize)], r: &Rotation) {
        let Some(&(first, _)) = rows.first() else { return };
        let cols = parts[first].cols();
        let mut group = vec![0.0; rows.len()];
        for col in 0..cols {
            group.iter_mut().zip(rows).for_each(|(g, &(part, row))| *g = parts[part].values[row * cols + col]);
            r.apply(&mut group);
            group.iter().zip(rows).for_each(|(g, &(part, row))| parts[part].values[row * cols + col] = *g);
        }
        if parts[first].bias.is_some() {
            let at = |parts: &[Dense], part: usize, row: usize| parts[part].bias.as_ref().map_or(0.0, |bias| bias[row]);
            group.iter_mut().zip(rows).for_each(|(g, &(part, row))| *g = at(parts, part, row));
            r.apply(&mut group);
            for (g, &(part, row)) in group.iter().zip(rows) {
                parts[part].bias.iter_mut().for_each(|bias| bias[row] = *g);
            }
        }
    }

    /// Adds the tensor, as the checkpoint stores such, and its bias to `changed`; `full` is its name with prefix.
    pub(super) fn store(self, full: &str, changed: &mut NewTensors) {
        let [rows, cols] = self.source.shape;
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let stored = match self.source.transposed {
            true => (vec![cols, rows], narrow(transposed(&self.values, rows, cols))),
            false => (vec![rows, cols], narrow(self.values)),
        };
        changed.insert(format!("{full}.weight"), stored);
        if let Some(bias) = self.bias {
            changed.insert(format!("{full}.bias"), (vec![rows], narrow(bias)));
        }
    }
}

/// `[cols, rows]` of row-major `[rows, cols]`.
fn transposed(values: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; values.len()];
    for (i, row) in values.chunks_exact(cols.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, v)| out[j * rows + i] = *v);
    }
    out
}

/// x less its mean.
fn centre(x: &mut [f64]) {
    let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
    x.iter_mut().for_each(|v| *v -= mean);
}
