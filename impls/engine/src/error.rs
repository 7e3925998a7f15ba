//! Why an engine cannot be built.

use std::path::PathBuf;

use cuda_kernels::GpuError;
use model::{CacheFull, StepError, Unsupported, checkpoint::CheckpointError};

/// Errors of sources, tokenizers and assembly.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The combination is refused.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The checkpoint is refused.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A GGUF file cannot be written.
    #[error(transparent)]
    Gguf(#[from] model::checkpoint::gguf::WriteError),
    /// The weights cannot be put in this format.
    #[error("{slot}: {source}")]
    Weights {
        /// Which matrix.
        slot: String,
        /// Why.
        source: weights::WeightsError,
    },
    /// The GPU refused.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A Step gave no logits.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The cache is too small.
    #[error(transparent)]
    Cache(#[from] CacheFull),
    /// A decoder refused.
    #[error(transparent)]
    Decode(#[from] decoding::DecodeError),
    /// A decoding part is refused.
    #[error(transparent)]
    Decoding(#[from] decoding::SpecError),
    /// A model source is not understood.
    #[error(
        "model source `{given}`: {problem}; expected embedded:NAME, random:SHAPE[?seed=N], hf:org/name[@revision] or the path of a Hugging Face folder or GGUF file"
    )]
    Source {
        /// As written.
        given: String,
        /// What is wrong.
        problem: String,
    },
    /// tokenizer.json is refused.
    #[error("{file}: {problem}")]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The hub did not deliver.
    #[error("hf:{repo}@{revision}: {problem}")]
    Hub {
        /// Repository.
        repo: String,
        /// Revision.
        revision: String,
        /// What happened and what to do.
        problem: String,
    },
    /// A file cannot be read.
    #[error("{file}: cannot read: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Two checkpoints do not fit together.
    #[error("{0}")]
    Mismatch(String),
}
