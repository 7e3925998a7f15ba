//! Statistics of repeated measurements: plain functions on slices of f64, every random choice seeded.
//!
//! Inputs must be finite; observations that are not never become rows with a value (see [`crate::metric::observe`]).

mod bootstrap;
mod describe;
mod mcnemar;
mod paired;
mod proportion;
mod rank;
mod resolution;
mod signed_rank;
mod slope;
mod special;

pub use bootstrap::{Center, Interval, bootstrap_interval, median_interval};
pub use describe::{cv, mean, median, quantile, sd};
pub use mcnemar::McNemar;
pub use paired::{Ratio, paired_difference, paired_ratio, paired_statistic};
pub use proportion::{binomial_interval, chi_square_p, sign_test};
pub use rank::{benjamini_hochberg, mann_whitney};
pub use resolution::{ALPHA, FEWEST_PAIRS, Resolution};
pub use signed_rank::{hodges_lehmann, interval_coverage, signed_rank_p};
pub use slope::{Slope, log_log_slope};
pub use special::{normal_cdf, t_quantile};
