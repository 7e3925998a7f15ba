//! Frames + `policy.toml` → verdicts: whether a run got worse, and whether it can be known.
//!
//! [`check::check`] groups rows into [`series`], estimates each change ([`estimate`]), judges it under the [`policy`]
//! ([`gate`]) and sums up ([`verdict`]); [`format`](mod@format) prints it. It measures nothing and knows no engine.

pub mod annotations;
pub mod baseline;
pub mod check;
pub mod claims;
pub mod command;
pub mod comparability;
pub mod compare;
pub mod console;
pub mod estimate;
pub mod format;
pub mod gate;
pub mod interleaved;
pub mod junit;
pub mod markdown;
pub mod noise;
pub mod numbers;
pub mod policy;
pub mod series;
pub mod side;
pub mod verdict;

pub use command::{Answer, CheckError, CheckOptions, check_interleaved, run_check, run_compare};
pub use format::Format;

#[cfg(test)]
mod tests;
