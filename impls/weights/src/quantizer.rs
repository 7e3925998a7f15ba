//! How codes are chosen. A quantizer sees a matrix and, if it asks for them, statistics of the inputs; what it emits
//! says nothing about how it was chosen, so every quantizer shares the formats.

pub mod awq;
pub mod bit_planes;
pub mod codebook;
pub mod double_quantization;
pub mod e8p;
pub mod ggml;
pub mod gptq;
mod grid;
pub mod int8;
mod inverse_factor;
mod lattice_search;
mod levels;
pub mod microscaling;
pub mod round_to_nearest;
pub mod salient;
pub mod smooth;

use cpu_kernels::{CodebookCodes, GroupCodes};
use ndarray::ArrayView2;

use crate::CalibrationStats;

use salient::SalientCodes;

pub use grid::Grid;

/// Chooses the codes of a matrix.
pub trait Quantizer {
    /// `weight [out_features, in_features]`, `stats` of the inputs `[·, in_features]` → codes.
    fn quantize(&self, weight: ArrayView2<f32>, stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError>;
}

/// Codes with what is needed to read them.
#[derive(Debug, Clone)]
pub enum Quantized {
    /// w = scales\[row\] · (code − zeros\[row\]).
    Int8 {
        /// `[n, k]`, −127 … 127.
        codes: Vec<i8>,
        /// `[n]`.
        scales: Vec<f32>,
        /// Code of weight 0, `[n]`; empty where all are 0.
        zeros: Vec<i32>,
        /// Rows (out features).
        n: usize,
        /// Columns (in features).
        k: usize,
    },
    /// w = scale · (code − zero), constants per row and group of columns.
    Group(GroupCodes),
    /// w = table\[code\] · scale, a scale per row and block of columns.
    Codebook(CodebookCodes),
    /// As [`Quantized::Group`], with some columns beside the codes in f16.
    Salient(SalientCodes),
    /// 8 weights a code, a scale per row, of the weight or of the weight between two Hadamard transforms.
    Lattice(Box<e8p::TurnedLattice>),
}

impl Quantized {
    /// The weights that the codes stand for, `[n, k]` row-major, columns in input order.
    pub fn dequantise(&self) -> Vec<f32> {
        match self {
            Quantized::Int8 { codes, scales, zeros, k, .. } => codes
                .chunks(*k)
                .zip(scales)
                .enumerate()
                .flat_map(|(row, (codes, &scale))| {
                    let zero = zeros.get(row).copied().unwrap_or(0);
                    codes.iter().map(move |&code| scale * (i32::from(code) - zero) as f32)
                })
                .collect(),
            Quantized::Group(codes) => dequantise_group(codes),
            Quantized::Codebook(codes) => dequantise_codebook(codes),
            Quantized::Salient(codes) => dequantise_salient(codes),
            Quantized::Lattice(codes) => codes.dequantise(),
        }
    }
}

fn dequantise_group(codes: &GroupCodes) -> Vec<f32> {
    let n_groups = codes.k.div_ceil(codes.group);
    let mut out = vec![0.0; codes.n * codes.k];
    for (row, out) in out.chunks_mut(codes.k).enumerate() {
        for (position, &code) in codes.codes[row * codes.k..][..codes.k].iter().enumerate() {
            let group = row * n_groups + position / codes.group;
            let column = codes.order.as_ref().map_or(position, |order| order[position] as usize);
            out[column] = codes.scales[group] * (code as f32 - codes.zeros[group]);
        }
    }
    out
}

fn dequantise_salient(codes: &SalientCodes) -> Vec<f32> {
    let mut out = dequantise_group(&codes.group);
    for (row, kept) in out.chunks_mut(codes.group.k).zip(codes.values.chunks(codes.columns.len())) {
        codes.columns.iter().zip(kept).for_each(|(&column, value)| row[column as usize] = value.to_f32());
    }
    out
}

fn dequantise_codebook(codes: &CodebookCodes) -> Vec<f32> {
    let blocks = codes.k.div_ceil(codes.block);
    let weight = |(at, &code): (usize, &u8)| {
        let (row, column) = (at / codes.k, at % codes.k);
        codes.table[code as usize] * codes.scales.get(row * blocks + column / codes.block)
    };
    codes.codes.iter().enumerate().map(weight).collect()
}

/// Why no codes could be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// A weight is NaN or infinite.
    #[error("weight at row {row}, column {column} is not finite; the checkpoint is damaged, fetch or export it again")]
    NonFiniteWeight {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
    },
    /// The quantizer needs statistics of the inputs and got none.
    #[error("{quantizer} needs calibration statistics of the layer's inputs; name a calibration text in the scenario")]
    MissingStats {
        /// The quantizer.
        quantizer: &'static str,
    },
    /// The statistics are of other inputs.
    #[error(
        "calibration statistics have {found} features and {rows} rows, the weight has {expected} columns; calibrate this layer on its own inputs, with at least one row"
    )]
    StatsMismatch {
        /// Columns of the weight.
        expected: usize,
        /// Features of the statistics.
        found: usize,
        /// Rows that the statistics have seen.
        rows: usize,
    },
    /// An activation overflowed or was NaN during calibration.
    #[error(
        "calibration inputs of feature {feature} are not finite; look at the model's activations on the calibration text"
    )]
    NonFiniteStats {
        /// Column of the weight.
        feature: usize,
    },
    /// The damped Hessian could not be factored.
    #[error(
        "the Hessian is not positive definite at damping {damping} (pivot {pivot}); calibrate on more tokens than the layer has features ({features}) or raise `damping`"
    )]
    NotPositiveDefinite {
        /// Largest damping that was tried, as a fraction of the mean diagonal.
        damping: f64,
        /// Column whose pivot was not positive.
        pivot: usize,
        /// Columns of the weight.
        features: usize,
    },
}

/// Fails at the first weight that is not finite.
fn require_finite(weight: ArrayView2<f32>) -> Result<(), QuantizeError> {
    for (row, values) in weight.rows().into_iter().enumerate() {
        if let Some(column) = values.iter().position(|w| !w.is_finite()) {
            return Err(QuantizeError::NonFiniteWeight { row, column });
        }
    }
    Ok(())
}
