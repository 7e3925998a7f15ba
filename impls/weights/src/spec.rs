//! What a scenario says about weights: one tagged table, checked when it is read. Each kind's fields are a struct beside
//! its quantizer; this file lists the kinds.

pub(crate) mod group_length;

use model::Unsupported;
use serde::{Deserialize, Serialize};

use crate::equalise::Equalise;
use crate::mixed::MixedSpec;
use crate::quantizer::awq::AwqSpec;
use crate::quantizer::bit_planes::LutSpec;
use crate::quantizer::codebook::{BlockSpec, Fp4Spec, Fp4Values};
use crate::quantizer::double_quantization::DoubleQuant;
use crate::quantizer::e8p::E8pSpec;
use crate::quantizer::gptq::GptqSpec;
use crate::quantizer::int8::Int8Spec;
use crate::quantizer::microscaling::{Mxfp4, Nvfp4};
use crate::quantizer::round_to_nearest::GroupSpec;
use crate::quantizer::salient::{SalientBy, SalientSpec};

/// How a model's weight matrices are stored and how their codes are chosen.
///
/// In TOML a table with the tag `kind`: `{ kind = "gptq", bits = 4, group = 128 }`. `group = "row"` stands for one
/// grid per row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub enum WeightsSpec {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, widened on the fly.
    F16,
    /// bfloat16, widened on the fly.
    Bf16,
    /// int8 weights and activations, int32 accumulation.
    Int8(Int8Spec),
    /// Integer codes in groups, rounded to nearest.
    Rtn(GroupSpec),
    /// Integer codes in groups, chosen by GPTQ.
    Gptq(GptqSpec),
    /// Integer codes in groups, rounded to nearest, with some columns in 16 bits.
    Salient(SalientSpec),
    /// Integer codes in groups, of inputs divided by their magnitude, clipped.
    Awq(AwqSpec),
    /// As the checkpoint stores it: its codes where it is already quantized, its floats elsewhere; activations f32.
    Stored,
    /// The same with activations coded to int8 in blocks of 32 columns, where codes are integers; floats and other codes as above.
    StoredInt8,
    /// Blocks onto the quantiles of a normal distribution.
    Nf4(BlockSpec),
    /// Blocks onto 4-bit floats, scaled by their largest magnitude.
    Fp4(Fp4Spec),
    /// Blocks onto −7 … 7, scaled by their largest magnitude.
    Int4(BlockSpec),
    /// 4-bit floats, a power of two per 32 columns.
    Mxfp4,
    /// 4-bit floats, an 8-bit float per 16 columns.
    Nvfp4,
    /// Vectors of 8 weights in 2 bits each, the E8P lattice codebook.
    E8p(E8pSpec),
    /// ggml's 4-bit codes, an f16 scale per 32 columns; activations int8 as there.
    Q4_0,
    /// ggml's 8-bit codes, an f16 scale per 32 columns; activations int8 as there.
    Q8_0,
    /// 1 to 4-bit codes multiplied by table lookup.
    Lut(LutSpec),
    /// Different kinds for different layers and projections.
    Mixed(MixedSpec),
}

/// A field of a weights spec has a value that cannot work.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("weights: `{field} = {found}` cannot be used: expected {expected}; {advice}")]
pub struct SpecError {
    /// Field of the table.
    pub field: &'static str,
    /// What it held.
    pub found: String,
    /// What it may hold.
    pub expected: &'static str,
    /// What to do.
    pub advice: &'static str,
}

impl WeightsSpec {
    /// Short name, unique among specs, used in frames: `f32`, `int8`, `gptq-4bit-g128`, `gptq-3bit-row-actorder`.
    pub fn tag(&self) -> String {
        match self {
            WeightsSpec::F32 => "f32".into(),
            WeightsSpec::F16 => "f16".into(),
            WeightsSpec::Bf16 => "bf16".into(),
            WeightsSpec::Int8(spec) => spec.tag(),
            WeightsSpec::Rtn(spec) => format!("rtn-{}", spec.tag()),
            WeightsSpec::Gptq(spec) => format!("gptq-{}", spec.tag()),
            WeightsSpec::Salient(spec) => format!("rtn-{}", spec.tag()),
            WeightsSpec::Awq(spec) => format!("awq-{}", spec.tag()),
            WeightsSpec::Stored => "stored".into(),
            WeightsSpec::StoredInt8 => "stored-a8".into(),
            WeightsSpec::Nf4(spec) => format!("nf4{}", spec.tag()),
            WeightsSpec::Fp4(spec) => format!("fp4{}", spec.tag()),
            WeightsSpec::Int4(spec) => format!("int4{}", spec.tag()),
            WeightsSpec::Mxfp4 => "mxfp4".into(),
            WeightsSpec::Q4_0 => "q4_0".into(),
            WeightsSpec::Q8_0 => "q8_0".into(),
            WeightsSpec::Nvfp4 => "nvfp4".into(),
            WeightsSpec::E8p(spec) => spec.tag(),
            WeightsSpec::Lut(spec) => spec.tag(),
            WeightsSpec::Mixed(spec) => spec.tag(),
        }
    }

    /// Refuses kinds whose codes no kernel on a GPU reads. Stored weights are judged when they are read.
    pub fn plan_cuda(&self) -> Result<(), Unsupported> {
        let has_kernel = match self {
            WeightsSpec::F32 | WeightsSpec::F16 | WeightsSpec::Bf16 | WeightsSpec::Stored => true,
            WeightsSpec::Int8(spec) => spec.is_plain(),
            WeightsSpec::Mixed(spec) => return spec.parts().try_for_each(WeightsSpec::plan_cuda),
            _ => self.activation_bits().is_none() && self.group_grid().is_some_and(|grid| grid.bits <= 4),
        };
        if has_kernel {
            return Ok(());
        }
        let reason = "no kernel on a GPU reads its codes; use f32, f16, bf16, plain int8 or groups of at most 4 bits";
        Err(Unsupported { axis: "weights", variant: self.tag(), reason: reason.into() })
    }

    /// Whether building needs [`crate::CalibrationStats`].
    pub fn needs_calibration(&self) -> bool {
        match self {
            WeightsSpec::Gptq(_) | WeightsSpec::Awq(_) => true,
            WeightsSpec::Salient(spec) => spec.by == SalientBy::Activation,
            WeightsSpec::E8p(spec) => spec.feedback,
            WeightsSpec::Int8(spec) => spec.needs_calibration(),
            WeightsSpec::Mixed(spec) => spec.parts().any(WeightsSpec::needs_calibration),
            _ => false,
        }
    }

    /// Bits that activations are rounded to before a product with group codes; `None`: they stay f32.
    pub fn activation_bits(&self) -> Option<u8> {
        match self {
            WeightsSpec::Rtn(spec) => spec.activation_bits,
            WeightsSpec::Gptq(spec) => spec.activation_bits,
            WeightsSpec::Q4_0 | WeightsSpec::Q8_0 => Some(8),
            _ => None,
        }
    }

    /// The grids of group codes, for kinds that emit them for every matrix.
    pub fn group_grid(&self) -> Option<GroupSpec> {
        match self {
            WeightsSpec::Rtn(spec) => Some(*spec),
            WeightsSpec::Gptq(spec) => Some(spec.grid()),
            WeightsSpec::Awq(spec) => Some(spec.grid()),
            _ => None,
        }
    }

    /// What rescales a layer's inputs before its codes are chosen, for methods that do.
    pub fn equaliser(&self) -> Option<&dyn Equalise> {
        match self {
            WeightsSpec::Awq(spec) if spec.scale => Some(spec),
            WeightsSpec::Int8(spec) if spec.smooth.is_some() => Some(spec),
            _ => None,
        }
    }

    /// Calibration windows it makes do with, spread over those of the scenario; `None`: it takes all.
    pub fn calibration_windows(&self) -> Option<usize> {
        match self {
            WeightsSpec::Awq(spec) => spec.windows,
            WeightsSpec::Mixed(spec) => spec.default.calibration_windows(),
            _ => None,
        }
    }

    /// Whether a row's result depends on that row alone, whatever else shares the call.
    pub fn rows_are_independent(&self) -> bool {
        match self {
            WeightsSpec::Int8(spec) => spec.rows_are_independent(),
            WeightsSpec::Mixed(spec) => spec.parts().all(WeightsSpec::rows_are_independent),
            _ => true,
        }
    }

    /// Nominal bits per weight, scales and zero points of full groups included; per-row constants, which vanish
    /// against a row, are not. Of mixed kinds that of the default; of stored weights the most they can have.
    pub fn bits_per_weight(&self) -> f64 {
        match self {
            WeightsSpec::F32 | WeightsSpec::Stored | WeightsSpec::StoredInt8 => 32.0,
            WeightsSpec::F16 | WeightsSpec::Bf16 => 16.0,
            WeightsSpec::Int8(_) => 8.0,
            WeightsSpec::Rtn(spec) => spec.bits_per_weight(),
            WeightsSpec::Gptq(spec) => spec.grid().bits_per_weight(),
            WeightsSpec::Salient(spec) => spec.bits_per_weight(),
            WeightsSpec::Awq(spec) => spec.grid().bits_per_weight(),
            WeightsSpec::Nf4(spec) | WeightsSpec::Int4(spec) => spec.bits_per_weight(),
            WeightsSpec::Fp4(spec) => spec.blocks().bits_per_weight(),
            WeightsSpec::Mxfp4 => Mxfp4::BITS,
            WeightsSpec::Q4_0 => 4.5,
            WeightsSpec::Q8_0 => 8.5,
            WeightsSpec::Nvfp4 => Nvfp4::BITS,
            WeightsSpec::E8p(_) => E8pSpec::BITS,
            WeightsSpec::Lut(spec) => spec.bits_per_weight(),
            WeightsSpec::Mixed(spec) => spec.default.bits_per_weight(),
        }
    }

    /// Checks the ranges of every field.
    pub fn validate(&self) -> Result<(), SpecError> {
        match self {
            WeightsSpec::Rtn(spec) => spec.validate(),
            WeightsSpec::Gptq(spec) => spec.validate(),
            WeightsSpec::E8p(spec) => spec.validate(),
            WeightsSpec::Mixed(spec) => spec.validate(),
            WeightsSpec::Salient(spec) => spec.validate(),
            WeightsSpec::Awq(spec) => spec.validate(),
            WeightsSpec::Int8(spec) => spec.validate(),
            WeightsSpec::Nf4(spec) | WeightsSpec::Int4(spec) => spec.validate(),
            WeightsSpec::Fp4(spec) => spec.blocks().validate(),
            WeightsSpec::Lut(spec) => spec.validate(),
            WeightsSpec::F32 | WeightsSpec::F16 | WeightsSpec::Bf16 => Ok(()),
            WeightsSpec::Mxfp4 | WeightsSpec::Nvfp4 | WeightsSpec::Stored | WeightsSpec::StoredInt8 => Ok(()),
            WeightsSpec::Q4_0 | WeightsSpec::Q8_0 => Ok(()),
        }
    }

    /// A spec of every kind that stores one matrix, with the corners of each: what conformance loops over.
    pub fn all() -> Vec<WeightsSpec> {
        let mut all = vec![WeightsSpec::F32, WeightsSpec::F16, WeightsSpec::Bf16, WeightsSpec::Stored];
        all.push(WeightsSpec::StoredInt8);
        all.extend(Int8Spec::corners().into_iter().map(WeightsSpec::Int8));
        for bits in [2, 3, 4, 8] {
            for group in [Some(128), Some(32), None] {
                all.push(WeightsSpec::Rtn(GroupSpec::new(bits, group)));
            }
            all.push(WeightsSpec::Rtn(GroupSpec { symmetric: true, ..GroupSpec::new(bits, Some(128)) }));
            all.push(WeightsSpec::Gptq(GptqSpec::new(bits, Some(128))));
        }
        let activation_bits = Some(4);
        all.push(WeightsSpec::Rtn(GroupSpec { symmetric: true, activation_bits, ..GroupSpec::new(4, None) }));
        all.push(WeightsSpec::Gptq(GptqSpec { activation_bits, ..GptqSpec::new(4, Some(128)) }));
        let gptq = GptqSpec::new(3, None);
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, ..gptq }));
        let gptq = GptqSpec::new(4, Some(32));
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, ..gptq }));
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, static_groups: true, ..gptq }));
        let awq = AwqSpec::new(4, Some(128));
        let plain = AwqSpec { scale: false, clip: false, ..AwqSpec::new(3, Some(32)) };
        all.extend([awq, AwqSpec::new(3, None), plain, AwqSpec { windows: Some(16), ..awq }].map(WeightsSpec::Awq));
        for by in [SalientBy::Activation, SalientBy::Weight, SalientBy::Random] {
            all.push(WeightsSpec::Salient(SalientSpec { bits: 3, group: Some(128), share: 0.01, by }));
        }
        let int8_inputs = |grid| GroupSpec { activation_bits: Some(8), ..grid };
        for bits in [2, 4, 8] {
            let grid = int8_inputs(GroupSpec::new(bits, Some(32)));
            all.push(WeightsSpec::Rtn(GroupSpec { symmetric: true, ..grid }));
            all.push(WeightsSpec::Rtn(int8_inputs(GroupSpec::new(bits, Some(128)))));
        }
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, activation_bits: Some(8), ..gptq }));
        let blocks = BlockSpec::default();
        for double_quant in [None, Some(DoubleQuant::Dynamic), Some(DoubleQuant::Fp8)] {
            all.push(WeightsSpec::Nf4(BlockSpec { double_quant, ..blocks }));
            all.push(WeightsSpec::Fp4(Fp4Spec { values: Fp4Values::E2m1, block: 32, double_quant }));
        }
        all.push(WeightsSpec::Fp4(Fp4Spec { values: Fp4Values::E3m0, block: 64, double_quant: None }));
        all.extend([WeightsSpec::Int4(blocks), WeightsSpec::Mxfp4, WeightsSpec::Nvfp4]);
        for (feedback, hadamard) in [(true, true), (true, false), (false, true), (false, false)] {
            all.push(WeightsSpec::E8p(E8pSpec { feedback, hadamard, ..E8pSpec::default() }));
        }
        all.extend([WeightsSpec::Q4_0, WeightsSpec::Q8_0]);
        for (bits, group) in [(1, Some(64)), (2, Some(128)), (3, None), (4, Some(128))] {
            all.push(WeightsSpec::Lut(LutSpec { bits, group }));
        }
        all
    }
}

/// The table as written, before its ranges are checked.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Wire {
    F32(NoFields),
    F16(NoFields),
    Bf16(NoFields),
    Int8(Int8Spec),
    Rtn(GroupSpec),
    Gptq(GptqSpec),
    Salient(SalientSpec),
    Awq(AwqSpec),
    Stored(StoredFields),
    Nf4(BlockSpec),
    Fp4(Fp4Spec),
    Int4(BlockSpec),
    Mxfp4(NoFields),
    Q4_0(NoFields),
    Q8_0(NoFields),
    Nvfp4(NoFields),
    E8p(E8pSpec),
    Lut(LutSpec),
    Mixed(MixedSpec),
}

/// What is chosen beside stored codes.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFields {
    #[serde(default, skip_serializing_if = "StoredInputs::is_f32")]
    activations: StoredInputs,
}

/// How activations meet stored codes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredInputs {
    #[default]
    F32,
    Int8,
}

impl StoredInputs {
    fn is_f32(&self) -> bool {
        *self == StoredInputs::F32
    }
}

/// A kind with nothing to choose; a field beside it is refused.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl TryFrom<Wire> for WeightsSpec {
    type Error = SpecError;

    fn try_from(wire: Wire) -> Result<WeightsSpec, SpecError> {
        let spec = match wire {
            Wire::F32(_) => WeightsSpec::F32,
            Wire::F16(_) => WeightsSpec::F16,
            Wire::Bf16(_) => WeightsSpec::Bf16,
            Wire::Int8(spec) => WeightsSpec::Int8(spec),
            Wire::Rtn(spec) => WeightsSpec::Rtn(spec),
            Wire::Gptq(spec) => WeightsSpec::Gptq(spec),
            Wire::Salient(spec) => WeightsSpec::Salient(spec),
            Wire::Awq(spec) => WeightsSpec::Awq(spec),
            Wire::Stored(StoredFields { activations: StoredInputs::F32 }) => WeightsSpec::Stored,
            Wire::Stored(StoredFields { activations: StoredInputs::Int8 }) => WeightsSpec::StoredInt8,
            Wire::Nf4(spec) => WeightsSpec::Nf4(spec),
            Wire::Fp4(spec) => WeightsSpec::Fp4(spec),
            Wire::Int4(spec) => WeightsSpec::Int4(spec),
            Wire::Mxfp4(_) => WeightsSpec::Mxfp4,
            Wire::Q4_0(_) => WeightsSpec::Q4_0,
            Wire::Q8_0(_) => WeightsSpec::Q8_0,
            Wire::Nvfp4(_) => WeightsSpec::Nvfp4,
            Wire::E8p(spec) => WeightsSpec::E8p(spec),
            Wire::Lut(spec) => WeightsSpec::Lut(spec),
            Wire::Mixed(spec) => WeightsSpec::Mixed(spec),
        };
        spec.validate()?;
        Ok(spec)
    }
}

impl From<WeightsSpec> for Wire {
    fn from(spec: WeightsSpec) -> Wire {
        match spec {
            WeightsSpec::F32 => Wire::F32(NoFields {}),
            WeightsSpec::F16 => Wire::F16(NoFields {}),
            WeightsSpec::Bf16 => Wire::Bf16(NoFields {}),
            WeightsSpec::Int8(spec) => Wire::Int8(spec),
            WeightsSpec::Rtn(spec) => Wire::Rtn(spec),
            WeightsSpec::Gptq(spec) => Wire::Gptq(spec),
            WeightsSpec::Salient(spec) => Wire::Salient(spec),
            WeightsSpec::Awq(spec) => Wire::Awq(spec),
            WeightsSpec::Stored => Wire::Stored(StoredFields { activations: StoredInputs::F32 }),
            WeightsSpec::StoredInt8 => Wire::Stored(StoredFields { activations: StoredInputs::Int8 }),
            WeightsSpec::Nf4(spec) => Wire::Nf4(spec),
            WeightsSpec::Fp4(spec) => Wire::Fp4(spec),
            WeightsSpec::Int4(spec) => Wire::Int4(spec),
            WeightsSpec::Mxfp4 => Wire::Mxfp4(NoFields {}),
            WeightsSpec::Q4_0 => Wire::Q4_0(NoFields {}),
            WeightsSpec::Q8_0 => Wire::Q8_0(NoFields {}),
            WeightsSpec::Nvfp4 => Wire::Nvfp4(NoFields {}),
            WeightsSpec::E8p(spec) => Wire::E8p(spec),
            WeightsSpec::Lut(spec) => Wire::Lut(spec),
            WeightsSpec::Mixed(spec) => Wire::Mixed(spec),
        }
    }
}
