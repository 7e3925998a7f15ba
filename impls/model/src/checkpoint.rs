//! Where tensors come from: a Hugging Face folder, bytes inside the binary, or seeded random numbers of a named shape.

mod folder;
pub mod gguf;
pub mod quantized;
mod random;
mod stored;
mod stray;
mod tensors;
mod writer;

use std::borrow::Cow;
use std::path::PathBuf;

use half::{bf16, f16};

pub use folder::{Folder, open_folder, open_raw, open_weights};
pub use random::RandomTensors;
pub use stored::{RowCodes, StoredCodes};
pub use tensors::{Bytes, Dtype, RawTensor, RawTensors, SafeTensorsFile, SafeTensorsSet};
pub use writer::{NewTensor, ShardWriter, Written};

use crate::architecture::ConfigError;

/// Values of a tensor in the type they are stored in.
#[derive(Debug, Clone)]
pub enum TensorData<'a> {
    /// 32-bit floats.
    F32(Cow<'a, [f32]>),
    /// IEEE half precision.
    F16(Cow<'a, [f16]>),
    /// bfloat16.
    Bf16(Cow<'a, [bf16]>),
}

impl TensorData<'_> {
    /// The values widened to f32 (exact).
    pub fn to_f32(&self) -> Vec<f32> {
        use half::slice::HalfFloatSliceExt;
        let mut out = vec![0.0; self.len()];
        match self {
            TensorData::F32(values) => out.copy_from_slice(values),
            TensorData::F16(values) => values.convert_to_f32_slice(&mut out),
            TensorData::Bf16(values) => values.convert_to_f32_slice(&mut out),
        }
        out
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            TensorData::F32(values) => values.len(),
            TensorData::F16(values) => values.len(),
            TensorData::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A named tensor, row-major.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values.
    pub data: TensorData<'a>,
}

/// A store of named tensors.
pub trait Tensors: Send + Sync {
    /// The tensor called `name`.
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError>;
    /// Whether `name` exists.
    fn contains(&self, name: &str) -> bool;
    /// The codes behind the matrix called `name`, where it is stored quantized in a form that kernels read; its values are
    /// then those of [`Self::get`].
    fn codes(&self, _name: &str) -> Result<Option<StoredCodes>, CheckpointError> {
        Ok(None)
    }
    /// How the tensor called `name` is stored, in a few words, where that is a code and no float.
    fn stored_as(&self, name: &str) -> Option<String> {
        let codes = self.codes(name).ok().flatten()?;
        Some(codes.in_words())
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read.
    #[error("{file}: {action}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file exists and is not what it should be.
    #[error("{file}: {problem}; {advice}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// `config.json` is wrong or asks for too much.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor that the architecture needs is absent.
    #[error("{file}: tensor `{name}` is missing; the file does not belong to this config.json")]
    MissingTensor {
        /// The file or set of files.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the architecture says.
    #[error("tensor `{name}`: expected shape {expected:?} from config.json, found {found:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// By the config.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor holds something else than floats.
    #[error("{file}: tensor `{name}` is stored as {found}; expected F32, F16 or BF16")]
    Dtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor `{name}` holds a value that is not finite; the file is damaged or badly converted")]
    NotFinite {
        /// The tensor.
        name: String,
    },
}
