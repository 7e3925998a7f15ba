//! How GPTQ, its factorisation and the layer error walk through rows of f64 (`cpu_kernels::subtract_combination`).

/// Columns per pass: 128 rows of R at this width (256 kB of f64) stay in the second-level cache.
pub(crate) const COLUMN_CHUNK: usize = 256;
