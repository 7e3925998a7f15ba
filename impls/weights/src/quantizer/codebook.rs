//! What: blocks of weights, divided by their largest magnitude, onto a table of 16 values: NF4, FP4 and plain Int4.
//! Source: QLoRA (arXiv 2305.14314) §3 and appendix E for NF4; FP4-E2M1 and Int4 as bitsandbytes defines them, FP4-E3M0 as
//!   three bits of exponent and none of mantissa, which the paper compares with and does not print.
//! Shapes: weight `[n, k]` → codes `[n, k]`, scales `[n, ⌈k/block⌉]` in f32, or 8 bits each (`double_quant`).
//! Method: 1. per row and block, scale = max |w|. 2. code = index of the table's value nearest to w/scale. 3. with double
//!   quantization the scales become 8-bit codes; weight codes stay those of the exact scales, as in bitsandbytes.
//! Exactness: NF4's table is the published one bit for bit; codes, scales and weights equal those of bitsandbytes 0.50
//!   wherever blocks do not cross rows. A value midway between two goes to the lower one; 0 is always 0.
//! Cost: two passes over the weights and four comparisons each; no calibration. Storage 4 + 32/block bits per weight,
//!   or 4 + 8/block + 32/(256·block).
//! Not handled: blocks across rows (bitsandbytes flattens the matrix), which differ only where k is no multiple of the block.

use std::sync::LazyLock;

use cpu_kernels::{BlockScales, CodebookCodes};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::double_quantization::DoubleQuant;
use super::levels::Levels;
use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::{CalibrationStats, SpecError};

/// NF4: quantiles of the normal distribution, scaled to ±1, with a 0.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// FP4-E2M1 of bitsandbytes: sign, two bits of exponent, one of mantissa, over 12; its smallest value is 1/16 of a step.
pub const FP4_E2M1: [f32; 16] =
    signed([0.0, 0.0625 / 12.0, 8.0 / 12.0, 1.0, 4.0 / 12.0, 6.0 / 12.0, 2.0 / 12.0, 3.0 / 12.0]);

/// FP4-E3M0: sign and three bits of exponent, over its largest value.
pub const FP4_E3M0: [f32; 16] = signed([0.0, 1.0 / 64.0, 1.0 / 32.0, 1.0 / 16.0, 1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0, 1.0]);

/// Int4: −7 … 7, over 7; code 0 would be −8/7, which is nearest to no value within ±1.
pub const INT4: [f32; 16] = {
    let mut table = [0.0; 16];
    let mut code = 0;
    while code < 16 {
        table[code] = (code as f32 - 8.0) / 7.0;
        code += 1;
    }
    table
};

const fn signed(magnitudes: [f32; 8]) -> [f32; 16] {
    let mut table = [0.0; 16];
    let mut code = 0;
    while code < 8 {
        table[code] = magnitudes[code];
        table[code + 8] = -magnitudes[code];
        code += 1;
    }
    table
}

/// Blocks and their scales: what NF4 and Int4 let a scenario choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSpec {
    /// Columns per scale, a multiple of 8; the last block of a row may be shorter.
    #[serde(default = "default_block")]
    pub block: usize,
    /// Whether, and how, scales are quantized themselves: `false`, `true` or "dynamic" (bitsandbytes), "fp8" (the paper).
    #[serde(default, with = "super::double_quantization::choice")]
    pub double_quant: Option<DoubleQuant>,
}

/// What FP4 lets a scenario choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fp4Spec {
    /// Which values.
    #[serde(default)]
    pub values: Fp4Values,
    /// As in [`BlockSpec`].
    #[serde(default = "default_block")]
    pub block: usize,
    /// As in [`BlockSpec`].
    #[serde(default, with = "super::double_quantization::choice")]
    pub double_quant: Option<DoubleQuant>,
}

/// The two 4-bit floats that QLoRA compares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fp4Values {
    /// Two bits of exponent, one of mantissa: [`FP4_E2M1`].
    #[default]
    E2m1,
    /// Three bits of exponent: [`FP4_E3M0`].
    E3m0,
}

fn default_block() -> usize {
    BlockSpec::DEFAULT_BLOCK
}

impl Default for BlockSpec {
    fn default() -> BlockSpec {
        BlockSpec { block: BlockSpec::DEFAULT_BLOCK, double_quant: None }
    }
}

impl BlockSpec {
    /// The paper's block.
    pub const DEFAULT_BLOCK: usize = 64;

    /// `-b128-dq`: what differs from blocks of 64 with f32 scales.
    pub(crate) fn tag(&self) -> String {
        let block = if self.block == BlockSpec::DEFAULT_BLOCK { String::new() } else { format!("-b{}", self.block) };
        format!("{block}{}", self.double_quant.map_or("", DoubleQuant::tag))
    }

    pub(crate) fn bits_per_weight(&self) -> f64 {
        let constants = if self.double_quant.is_some() { 8.0 + 32.0 / 256.0 } else { 32.0 };
        4.0 + constants / self.block as f64
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        if self.block > 0 && self.block.is_multiple_of(8) && self.block <= 1 << 20 {
            return Ok(());
        }
        Err(SpecError {
            field: "block",
            found: self.block.to_string(),
            expected: "a multiple of 8 columns, at most 1048576",
            advice: "the paper uses 64",
        })
    }
}

impl Fp4Spec {
    /// Blocks and scales.
    pub fn blocks(&self) -> BlockSpec {
        BlockSpec { block: self.block, double_quant: self.double_quant }
    }

    pub(crate) fn tag(&self) -> String {
        let values = if self.values == Fp4Values::E3m0 { "-e3m0" } else { "" };
        format!("{values}{}", self.blocks().tag())
    }

    fn table(&self) -> &'static Table {
        static E2M1: LazyLock<Table> = LazyLock::new(|| Table::new(FP4_E2M1));
        static E3M0: LazyLock<Table> = LazyLock::new(|| Table::new(FP4_E3M0));
        match self.values {
            Fp4Values::E2m1 => &E2M1,
            Fp4Values::E3m0 => &E3M0,
        }
    }
}

/// 16 values, and how to find the nearest.
#[derive(Debug)]
struct Table {
    values: [f32; 16],
    levels: Levels,
}

impl Table {
    fn new(values: [f32; 16]) -> Table {
        Table { values, levels: Levels::new(&values) }
    }
}

/// The quantizer.
#[derive(Debug, Clone, Copy)]
pub struct BlockAbsmax {
    table: &'static Table,
    spec: BlockSpec,
}

impl BlockAbsmax {
    /// NF4.
    pub fn nf4(spec: BlockSpec) -> BlockAbsmax {
        static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(NF4));
        BlockAbsmax { table: &TABLE, spec }
    }

    /// FP4.
    pub fn fp4(spec: Fp4Spec) -> BlockAbsmax {
        BlockAbsmax { table: spec.table(), spec: spec.blocks() }
    }

    /// Int4.
    pub fn int4(spec: BlockSpec) -> BlockAbsmax {
        static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(INT4));
        BlockAbsmax { table: &TABLE, spec }
    }

    /// The values of its codes.
    pub fn table(&self) -> &'static [f32; 16] {
        &self.table.values
    }
}

impl Quantizer for BlockAbsmax {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let (n, k) = weight.dim();
        let block = self.spec.block;
        let mut codes = Vec::with_capacity(n * k);
        let mut scales = Vec::with_capacity(n * k.div_ceil(block));
        let mut row = vec![0.0f32; k];
        for weights in weight.rows() {
            row.iter_mut().zip(weights).for_each(|(to, &w)| *to = w);
            for values in row.chunks(block) {
                // 1.
                let scale = values.iter().fold(0.0f32, |max, w| max.max(w.abs()));
                scales.push(scale);
                // 2.
                let divisor = if scale == 0.0 { 1.0 } else { scale };
                codes.extend(values.iter().map(|w| self.table.levels.nearest(w / divisor)));
            }
        }
        // 3.
        let scales = match self.spec.double_quant {
            None => BlockScales::F32(scales),
            Some(how) => BlockScales::Nested(how.compress(&scales)),
        };
        Ok(Quantized::Codebook(CodebookCodes { n, k, block, table: self.table.values, codes, scales }))
    }
}
