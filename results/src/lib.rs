//! The words, metrics and frames that every stage shares. It knows no engine; it is the only home of polars.
//!
//! A worker emits a [`trace::Trace`] of raw events; a [`metric::Metric`] is a pure function of a trace; the values become
//! [`observation::Observation`] rows, one per (cell, workload, repetition, metric), kept in a [`run::RunDirectory`].

pub mod aggregate;
pub mod claim;
pub mod frame;
pub mod judgement;
pub mod latency;
mod log;
pub mod metric;
pub mod noise;
pub mod observation;
pub mod pairing;
pub mod progress;
mod replace;
pub mod run;
pub mod statistics;
mod store;
pub mod summary;
pub mod trace;

pub use replace::replace_with;
