//! What a forward pass is, and the places where it can vary.
//!
//! Activations are ragged: `[rows, features]`, one row per token, no batch dimension. A [`Step`] says which rows
//! belong to which sequence; prefill, chunked prefill, batched decode and speculative verification are different
//! Steps, not different code. The seams are [`Linear`], [`Attention`] and [`KvCache`]; none mentions another axis.

mod activations;
pub mod architecture;
pub mod attention;
pub mod block;
mod buffer_pool;
pub mod checkpoint;
pub mod conformance;
mod device;
mod embedding;
pub mod encoder_decoder;
mod graphs;
mod kv;
mod linear;
pub mod names;
pub mod ops;
mod parameters;
pub mod probe;
pub mod reference;
mod rope;
mod rounding;
mod session;
mod step;
pub mod transform;
mod transformer;
mod unsupported;

pub use activations::Activations;
pub use architecture::Architecture;
pub use attention::{Alibi, Attention, HeadShape};
pub use block::{Angles, Inputs};
pub use buffer_pool::{Buffer, BufferPool};
pub use device::{Cuda, Device};
pub use embedding::Embedding;
pub use encoder_decoder::{EncoderDecoder, EncoderDecoderSession, EncoderDecoderShape};
pub use kv::{CacheFull, CudaCache, KvBytes, KvCache, KvEntries, KvShape, KvTile, Room};
pub use linear::{Int8Inputs, Int8Range, Linear, PlacementError};
pub use parameters::{Parameters, PerStep};
pub use rope::RopeTable;
pub use rounding::InputRounding;
pub use session::{StepError, StepModel};
pub use step::{SeqId, Span, Step, TokenId, Tree, TreeError, Visibility};
pub use transformer::{Entry, Exit, Session, Transformer, read_ends};
pub use unsupported::Unsupported;
