//! Kernels against independent f64 oracles, and the invariances that higher layers rely on.

mod attention;
mod blocks;
mod codebook;
mod group_int8;
mod int8_grid;
mod ladder;
mod linear;
mod lut;
mod oracle;
mod pool;
mod rowwise;
