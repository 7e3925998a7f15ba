//! From a spec and a stored matrix to a [`Linear`].

use cpu_kernels::{
    BlockRow, BlockSource, Cpu, PackedBf16, PackedBlocks, PackedCodebook, PackedF16, PackedF32, PackedGroup,
    PackedGroupInt8, PackedInt8, PackedLut,
};
use half::f16;
use model::checkpoint::StoredCodes;
use model::checkpoint::gguf::BlockCodes;
use model::{Device, Int8Inputs, Linear};
use ndarray::ArrayView2;

use crate::format::{
    Bf16Linear, BlocksLinear, CodebookLinear, F16Linear, F32Linear, GroupInt8Linear, GroupLinear, Int8GridLinear,
    Int8Linear, LatticeLinear, LutLinear, RoundedInput, SalientLinear, StackedLinear,
};
use crate::quantizer::awq::Awq;
use crate::quantizer::bit_planes::BitPlanes;
use crate::quantizer::codebook::BlockAbsmax;
use crate::quantizer::e8p::E8p;
use crate::quantizer::ggml::{Q4_0, Q8_0};
use crate::quantizer::gptq::Gptq;
use crate::quantizer::int8::{Int8Spec, Int8Weights};
use crate::quantizer::microscaling::{Mxfp4, Nvfp4};
use crate::quantizer::round_to_nearest::RoundToNearest;
use crate::quantizer::salient::Salient;
use crate::{CalibrationStats, QuantizeError, Quantized, Quantizer, SpecError, WeightSource, WeightsSpec};

/// Why a matrix cannot be stored as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// The spec itself is out of range.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Values and shape disagree.
    #[error("a weight of {out_features} x {in_features} needs {} values and has {n_values}; the checkpoint does not fit its config", out_features.saturating_mul(*in_features))]
    Shape {
        /// Rows.
        out_features: usize,
        /// Columns.
        in_features: usize,
        /// Values given.
        n_values: usize,
    },
    /// A value is NaN or infinite.
    #[error("weight at row {row}, column {column} is not finite; the checkpoint is damaged, fetch or export it again")]
    NonFinite {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
    },
    /// A value is beyond what the format can hold.
    #[error("weight {value} at row {row}, column {column} is beyond f16's ±65504; use f32 or bf16 for this checkpoint")]
    BeyondF16 {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// The row is too long for int32 sums of int8 products.
    #[error("int8 sums rows of at most {most} columns this way, this weight has {in_features}; use f16 or group codes")]
    TooWideForInt8 {
        /// Columns.
        in_features: usize,
        /// Most columns.
        most: usize,
    },
    /// The matrix cannot be where the device computes.
    #[error("{0}")]
    NotPlaced(String),
    /// The quantizer could not choose codes.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
}

/// The most columns whose int8 products int32 can sum, whatever their codes.
const MAX_INT8_COLUMNS: usize = 131_072;
/// The same with zero points on both sides, where factors reach 254.
const MAX_INT8_COLUMNS_WITH_ZEROS: usize = 33_000;

/// Stores `weight [out_features, in_features]` as `spec` says (mixed specs: as their default says; see
/// [`WeightsSpec::at`]). `stats` are of the matrix's inputs, for specs that
/// [need calibration](WeightsSpec::needs_calibration).
pub fn build_linear(
    spec: &WeightsSpec,
    device: &Device,
    weight: WeightSource<'_>,
    out_features: usize,
    in_features: usize,
    stats: Option<&CalibrationStats>,
) -> Result<Box<dyn Linear>, WeightsError> {
    spec.validate()?;
    if let WeightsSpec::Mixed(mixed) = spec {
        return build_linear(&mixed.default, device, weight, out_features, in_features, stats);
    }
    let n_values = weight.len();
    if n_values == 0 || Some(n_values) != out_features.checked_mul(in_features) {
        return Err(WeightsError::Shape { out_features, in_features, n_values });
    }
    let is_stored = matches!(spec, WeightsSpec::Stored | WeightsSpec::StoredInt8);
    if !(is_stored && weight.is_blocks()) {
        require_finite(weight, in_features)?;
    }
    if let Some(cuda) = device.cuda() {
        let linear = build_linear(spec, &device.host(), weight, out_features, in_features, stats)?;
        return linear.on_cuda(cuda).map_err(|e| WeightsError::NotPlaced(e.to_string()));
    }
    let (n, k) = (out_features, in_features);
    let cpu = device.cpu().clone();
    if let Some(codes) = quantize(spec, device, weight, n, k, stats)? {
        if let WeightsSpec::Int8(spec) = spec
            && !spec.is_plain()
        {
            return int8_on_grids(spec, device, codes, weight, stats);
        }
        return Ok(match (spec, codes) {
            (WeightsSpec::Lut(_), Quantized::Group(codes)) => {
                Box::new(LutLinear::new(cpu, PackedLut::from_codes(&codes)))
            }
            (_, codes) => format_codes(device, codes, spec.activation_bits()),
        });
    }
    Ok(match spec {
        WeightsSpec::Stored => stored(device, weight, [n, k], None)?,
        WeightsSpec::StoredInt8 => stored(device, weight, [n, k], Some(8))?,
        WeightsSpec::F16 => Box::new(F16Linear::new(cpu, pack_f16(weight, n, k)?)),
        WeightsSpec::Bf16 => Box::new(Bf16Linear::new(cpu, pack_bf16(weight, n, k))),
        _ => Box::new(F32Linear::new(cpu, pack_f32(weight, n, k))),
    })
}

/// Chooses the codes of `weight [n, k]`, finite, as `spec` says; `None` for specs that keep floats.
pub fn quantize(
    spec: &WeightsSpec,
    device: &Device,
    weight: WeightSource<'_>,
    n: usize,
    k: usize,
    stats: Option<&CalibrationStats>,
) -> Result<Option<Quantized>, WeightsError> {
    let quantizer: &dyn Quantizer = match spec {
        WeightsSpec::F32 | WeightsSpec::F16 | WeightsSpec::Bf16 => return Ok(None),
        WeightsSpec::Stored | WeightsSpec::StoredInt8 => return Ok(None),
        WeightsSpec::Int8(spec) => {
            let most = if spec.zero_point { MAX_INT8_COLUMNS_WITH_ZEROS } else { MAX_INT8_COLUMNS };
            if k > most {
                return Err(WeightsError::TooWideForInt8 { in_features: k, most });
            }
            &Int8Weights::new(spec)
        }
        WeightsSpec::Rtn(spec) => &RoundToNearest::new(*spec),
        WeightsSpec::Gptq(spec) => &Gptq::new(*spec, device),
        WeightsSpec::Salient(spec) => &Salient::new(*spec),
        WeightsSpec::Awq(spec) => &Awq::new(*spec, device),
        WeightsSpec::Nf4(spec) => &BlockAbsmax::nf4(*spec),
        WeightsSpec::Fp4(spec) => &BlockAbsmax::fp4(*spec),
        WeightsSpec::Int4(spec) => &BlockAbsmax::int4(*spec),
        WeightsSpec::Mxfp4 => &Mxfp4,
        WeightsSpec::Q4_0 => &Q4_0,
        WeightsSpec::Q8_0 => &Q8_0,
        WeightsSpec::Nvfp4 => &Nvfp4,
        WeightsSpec::E8p(spec) => &E8p::new(*spec, device),
        WeightsSpec::Lut(spec) => &BitPlanes::new(*spec),
        WeightsSpec::Mixed(mixed) => return quantize(&mixed.default, device, weight, n, k, stats),
    };
    let values = weight.to_f32();
    let shape_error = WeightsError::Shape { out_features: n, in_features: k, n_values: values.len() };
    let view = ArrayView2::from_shape((n, k), &values).map_err(|_| shape_error)?;
    Ok(Some(quantizer.quantize(view, stats)?))
}

fn require_finite(weight: WeightSource<'_>, k: usize) -> Result<(), WeightsError> {
    match weight.first_non_finite() {
        Some(at) => Err(WeightsError::NonFinite { row: at / k, column: at % k }),
        None => Ok(()),
    }
}

/// `weight [n, k]` as it is stored, integer codes with inputs rounded to `activation_bits` where given. Codes run on the kernels
/// that hold them exactly, other parts as the f32 values that they stand for: group constants beyond f16, and int8 rows, whose
/// kernel would round the activations too.
fn stored(
    device: &Device,
    weight: WeightSource<'_>,
    [n, k]: [usize; 2],
    activation_bits: Option<u8>,
) -> Result<Box<dyn Linear>, WeightsError> {
    let cpu = device.cpu().clone();
    let part = |part: &StoredCodes| match part {
        // no int8 kernel reads three bits
        StoredCodes::Group(codes) if part.is_exact_in_f16() => {
            let activation_bits = activation_bits.filter(|_| codes.bits != 3);
            format_codes(device, Quantized::Group(codes.clone()), activation_bits)
        }
        StoredCodes::Codebook(codes) => format_codes(device, Quantized::Codebook(codes.clone()), None),
        _ => Box::new(F32Linear::new(cpu.clone(), PackedF32::pack(&part.dequantise(), part.n(), part.k()))),
    };
    Ok(match weight {
        WeightSource::F32(values) => Box::new(F32Linear::new(cpu, PackedF32::pack(values, n, k))),
        WeightSource::F16(values) => Box::new(F16Linear::new(cpu, PackedF16::pack_exact(values, n, k))),
        WeightSource::Bf16(values) => Box::new(Bf16Linear::new(cpu, PackedBf16::pack_exact(values, n, k))),
        WeightSource::Stored(parts) if weight.is_blocks() => {
            let (packed, source) = pack_blocks(&cpu, k, parts);
            if !packed.is_finite() {
                require_finite(weight, k)?;
            }
            Box::new(BlocksLinear::new(cpu, packed, source, activation_bits.is_some()))
        }
        WeightSource::Stored([only]) => part(only),
        WeightSource::Stored(parts) => Box::new(StackedLinear::new(parts.iter().map(part).collect())),
    })
}

/// Blocks of a file in panels; pages go back to the system as their rows are packed.
fn pack_blocks(cpu: &Cpu, k: usize, parts: &[StoredCodes]) -> (PackedBlocks, Vec<BlockCodes>) {
    let blocks: Vec<&BlockCodes> = parts
        .iter()
        .filter_map(|part| if let StoredCodes::Blocks(blocks) = part { Some(blocks) } else { None })
        .collect();
    let fills: Vec<_> = blocks.iter().map(|blocks| |row: usize, out: &mut BlockRow| blocks.fill(row, out)).collect();
    let sources: Vec<_> = blocks
        .iter()
        .zip(&fills)
        .map(|(blocks, fill)| BlockSource { form: blocks.form(), n: blocks.n(), fill })
        .collect();
    let packed = PackedBlocks::pack(cpu, k, &sources, &mut |part, rows| blocks[part].release(rows));
    (packed, blocks.into_iter().cloned().collect())
}

/// The format that holds `codes`, and rounds its inputs to `activation_bits` where given.
pub fn format_codes(device: &Device, codes: Quantized, activation_bits: Option<u8>) -> Box<dyn Linear> {
    let cpu = device.cpu().clone();
    let linear: Box<dyn Linear> = match codes {
        Quantized::Int8 { codes, scales, zeros, n, k } => {
            let packed = PackedInt8::from_codes(&codes, &scales, n, k);
            match zeros.is_empty() {
                true => Box::new(Int8Linear::new(cpu, packed)),
                false => Box::new(Int8GridLinear::new(cpu, packed, zeros, Int8Inputs::PER_ROW, vec![])),
            }
        }
        Quantized::Group(codes) if activation_bits == Some(8) => {
            Box::new(GroupInt8Linear::new(cpu, PackedGroupInt8::from_codes(codes)))
        }
        Quantized::Group(codes) => Box::new(GroupLinear::new(cpu, PackedGroup::from_codes(codes))),
        Quantized::Salient(codes) => Box::new(SalientLinear::new(cpu, codes)),
        Quantized::Codebook(codes) => Box::new(CodebookLinear::new(cpu, PackedCodebook::from_codes(&codes))),
        Quantized::Lattice(codes) => Box::new(LatticeLinear::new(cpu, *codes)),
    };
    match activation_bits {
        Some(4) => Box::new(RoundedInput::new(linear, RoundedInput::A4)),
        _ => linear,
    }
}

/// int8 `codes` of `weight` with inputs on the grids that `spec` says.
fn int8_on_grids(
    spec: &Int8Spec,
    device: &Device,
    codes: Quantized,
    weight: WeightSource<'_>,
    stats: Option<&CalibrationStats>,
) -> Result<Box<dyn Linear>, WeightsError> {
    let Quantized::Int8 { codes, scales, zeros, n, k } = codes else { return Ok(format_codes(device, codes, None)) };
    let inputs = spec.inputs(k, stats)?;
    let columns = if inputs.exact_above < f32::INFINITY { f16_columns(&weight.to_f32(), n, k)? } else { vec![] };
    let packed = PackedInt8::from_codes(&codes, &scales, n, k);
    Ok(Box::new(Int8GridLinear::new(device.cpu().clone(), packed, zeros, inputs, columns)))
}

/// `values [n, k]` in half precision, column after column.
fn f16_columns(values: &[f32], n: usize, k: usize) -> Result<Vec<f16>, WeightsError> {
    require_f16(values, k)?;
    Ok((0..k).flat_map(|j| (0..n).map(move |row| f16::from_f32(values[row * k + j]))).collect())
}

fn require_f16(values: &[f32], k: usize) -> Result<(), WeightsError> {
    // 65520 is the first value that rounds to infinity
    match crate::source::first_bad(values, |x: f32| x.abs() >= 65520.0) {
        Some(at) => Err(WeightsError::BeyondF16 { row: at / k, column: at % k, value: values[at] }),
        None => Ok(()),
    }
}

fn pack_f16(weight: WeightSource<'_>, n: usize, k: usize) -> Result<PackedF16, WeightsError> {
    if let WeightSource::F16(values) = weight {
        return Ok(PackedF16::pack_exact(values, n, k));
    }
    if let Some(mut rows) = BlockRows::of(weight) {
        let mut beyond = None;
        let packed = PackedF16::pack_rows(n, k, |row, values| {
            rows.read(row, values);
            beyond = beyond.take().or_else(|| require_f16(values, k).err().map(|error| at_row(error, row)));
        });
        return beyond.map_or(Ok(packed), Err);
    }
    let values = weight.to_f32();
    require_f16(&values, k)?;
    Ok(PackedF16::pack(&values, n, k))
}

fn pack_bf16(weight: WeightSource<'_>, n: usize, k: usize) -> PackedBf16 {
    match (weight, BlockRows::of(weight)) {
        (WeightSource::Bf16(values), _) => PackedBf16::pack_exact(values, n, k),
        (_, Some(mut rows)) => PackedBf16::pack_rows(n, k, |row, values| rows.read(row, values)),
        _ => PackedBf16::pack(&weight.to_f32(), n, k),
    }
}

fn pack_f32(weight: WeightSource<'_>, n: usize, k: usize) -> PackedF32 {
    match BlockRows::of(weight) {
        Some(mut rows) => PackedF32::pack_rows(n, k, |row, values| rows.read(row, values)),
        None => PackedF32::pack(&weight.to_f32(), n, k),
    }
}

/// An error about one row that was looked at alone, which is row `row` of its matrix.
fn at_row(error: WeightsError, row: usize) -> WeightsError {
    match error {
        WeightsError::BeyondF16 { column, value, .. } => WeightsError::BeyondF16 { row, column, value },
        other => other,
    }
}

/// Rows of a file's blocks as f32 values, read in order; a vocabulary's table is then never whole in memory as f32.
struct BlockRows<'a> {
    parts: Vec<&'a BlockCodes>,
    /// Row of the matrix with which the first of `parts` begins.
    first: usize,
}

impl<'a> BlockRows<'a> {
    fn of(weight: WeightSource<'a>) -> Option<BlockRows<'a>> {
        let WeightSource::Stored(parts) = weight else { return None };
        let blocks = parts.iter().map(|part| if let StoredCodes::Blocks(blocks) = part { Some(blocks) } else { None });
        Some(BlockRows { parts: blocks.collect::<Option<_>>()?, first: 0 })
    }

    /// Row `row`, which is that after the last one read.
    fn read(&mut self, row: usize, values: &mut [f32]) {
        while row - self.first == self.parts[0].n() {
            self.first += self.parts.remove(0).n();
        }
        let (blocks, at) = (self.parts[0], row - self.first);
        blocks.dequantise_row(at, values);
        if (at + 1).is_multiple_of(BlockCodes::SPAN) || at + 1 == blocks.n() {
            blocks.release(at / BlockCodes::SPAN * BlockCodes::SPAN..at + 1);
        }
    }
}
