//! The weights axis: how codes are chosen (**quantizers**) and how a matrix is stored and multiplied (**formats**).
//!
//! [`build_linear`] is the only door: a [`WeightsSpec`] picks the quantizer, the quantizer's codes pick the format.
//! RTN and GPTQ emit the same group codes, so any difference between them is the choice of codes alone.

mod build;
pub mod calibration;
pub mod equalise;
pub mod format;
pub mod identities;
mod mixed;
mod output_error;
pub mod quantizer;
mod row_update;
mod source;
mod spec;

pub use build::{WeightsError, build_linear, format_codes, quantize};
pub use calibration::CalibrationStats;
pub use mixed::{MixedRule, MixedSpec, Projection};
pub use output_error::output_error;
pub use quantizer::awq::AwqSpec;
pub use quantizer::codebook::{BlockSpec, Fp4Spec, Fp4Values};
pub use quantizer::double_quantization::DoubleQuant;
pub use quantizer::e8p::E8pSpec;
pub use quantizer::gptq::GptqSpec;
pub use quantizer::int8::Int8Spec;
pub use quantizer::round_to_nearest::GroupSpec;
pub use quantizer::salient::{SalientBy, SalientSpec};
pub use quantizer::{QuantizeError, Quantized, Quantizer};
pub use source::WeightSource;
pub use spec::{SpecError, WeightsSpec};
