//! How a row of head_dim values is stored. A placement keeps codes and knows nothing else about them.

mod f16;
mod f32;

pub(crate) use f16::F16;
pub(crate) use f32::F32;

use serde::{Deserialize, Serialize};

/// A way to store keys and values. Rows are encoded one head and entry at a time and decoded in runs.
pub(crate) trait Encoding: Clone + Send + Sync + 'static {
    /// What is stored.
    type Code: Copy + Default + Send + Sync;
    /// Codes of a row of `head_dim` values.
    fn row_codes(head_dim: usize) -> usize;
    /// Stores one row.
    fn encode(row: &[f32], codes: &mut [Self::Code]);
    /// Restores whole rows of `head_dim` values.
    fn decode(codes: &[Self::Code], head_dim: usize, rows: &mut [f32]);
    /// The rows themselves where codes are values already: attention then reads the cache without a copy.
    fn as_rows(codes: &[Self::Code]) -> Option<&[f32]>;
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
}

impl EncodingName {
    /// Every encoding.
    pub const ALL: [EncodingName; 2] = [EncodingName::F32, EncodingName::F16];

    /// Name in tags.
    pub fn name(self) -> &'static str {
        match self {
            EncodingName::F32 => "f32",
            EncodingName::F16 => "f16",
        }
    }

    pub(crate) fn relative_error(self) -> f32 {
        match self {
            EncodingName::F32 => 0.0,
            EncodingName::F16 => F16::RELATIVE_ERROR,
        }
    }
}
