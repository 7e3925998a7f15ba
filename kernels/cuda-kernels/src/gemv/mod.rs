//! y = x·Wᵀ for one to sixteen rows of x: every weight is read once, so bytes decide. Weights of 32 or 16 bits, x and y f32.
//!
//! | rung | idea | bits depend on rows |
//! |---|---|---|
//! | `v0_thread_per_output` | a loop | no |
//! | `v1_warp_per_output` | neighbouring lanes read neighbouring bytes, 16 at a time | no |
//! | `v2_outputs_per_warp` | several outputs (and rows) a warp: more loads on their way, x read once for them | no |
//! | `v3_tensor_cores` | tiles in operand order, 8 or 16 rows for the price of one; x rounded to the weights' 16 bits | no |

mod launch;

pub use launch::{bench, kernels};
