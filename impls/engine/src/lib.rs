//! Assembles one cell from an [`EngineSpec`]: reads the checkpoint, quantizes layer by layer, joins the parts.
//!
//! It knows no clock, no metric and no HTTP; a caller times the Steps it runs.

pub mod adapter;
mod calibrate;
pub mod chat;
mod encoder_decoder;
mod engine;
mod error;
mod generation;
mod layer;
pub mod quantize;
pub mod source;
mod spec;
mod text_facts;
mod tokenizer;
mod work;

pub use adapter::Adapter;
pub use calibrate::{LayerStats, calibrate_layer, run_layer};
pub use encoder_decoder::{EncoderDecoderCheckpoint, EncoderDecoderEngine, EncoderDecoderParts};
pub use engine::{BuildOptions, Engine, build_transformer};
pub use error::EngineError;
pub use generation::{GenerationConfig, Reads};
pub use layer::{PreparedLayer, prepare_layer, projection};
pub use source::{Checkpoint, EmbeddedModel, Hub, HubClient, Library, ModelSource, Text, TextAlone};
pub use spec::{CpuSpec, CudaSpec, DeviceSpec, EngineSpec, IsaName, PlanFacts};
pub use text_facts::TextFacts;
pub use tokenizer::{Bos, TextStream, Tokenizer};
pub use work::WorkCount;
