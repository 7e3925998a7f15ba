//! How a row of values is stored. A placement keeps codes and scales and knows nothing else about them.

mod f16;
mod f32;
mod int8;

pub(crate) use f16::F16;
pub(crate) use f32::F32;
pub(crate) use int8::Int8;

use cpu_kernels::attention::Codes;

use serde::{Deserialize, Serialize};

/// A way to store keys and values, one row (one entry of one head) at a time: as many codes as values.
pub(crate) trait Encoding: Clone + Send + Sync + 'static {
    /// What is stored.
    type Code: Copy + Default + Send + Sync;
    /// Whether a row has a scale beside its codes.
    const HAS_SCALE: bool;
    /// Stores one row and returns its scale (1 where there is none).
    fn encode(row: &[f32], codes: &mut [Self::Code]) -> f32;
    /// Codes and scales as attention reads them.
    fn codes<'a>(codes: &'a [Self::Code], scales: &'a [f32]) -> Codes<'a>;
}

/// Names of the encodings in a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingName {
    /// 32-bit floats, as computed.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// Signed bytes with one f32 scale per entry and head.
    Int8,
}

impl EncodingName {
    /// Every encoding.
    pub const ALL: [EncodingName; 3] = [EncodingName::F32, EncodingName::F16, EncodingName::Int8];

    /// Name in tags.
    pub fn name(self) -> &'static str {
        match self {
            EncodingName::F32 => "f32",
            EncodingName::F16 => "f16",
            EncodingName::Int8 => "int8",
        }
    }

    pub(crate) fn relative_error(self) -> f32 {
        match self {
            EncodingName::F32 => 0.0,
            EncodingName::F16 => F16::RELATIVE_ERROR,
            EncodingName::Int8 => Int8::RELATIVE_ERROR,
        }
    }
}
