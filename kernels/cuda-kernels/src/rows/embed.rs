//! What: rows of an embedding table in f32, times a factor; and rows of a table of learned positions, added.
//! Source: none; a gather.
//! Shapes: table `[vocab, cols]`, tokens `[rows]` → y `[rows, cols]`; positions table `[places, cols]`, x `[rows, cols]`.
//! Method: one block per row; neighbouring threads take neighbouring columns.
//! Exactness: bit-equal to widening and one f32 product (or sum).
//! Cost: one read of the rows, one write.
//! Not handled: a token beyond the table; the caller has checked them.

use super::{STORED, Stored, require, threads};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/embed.cu", text: include_str!("embed.cu") };

fn kernel(entry: &'static str, stored: &str) -> KernelSpec {
    KernelSpec::new(&SOURCE, entry).define("STORED", stored)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    let embeds = STORED.map(|stored| kernel("embed_rows", stored));
    embeds.into_iter().chain([kernel("add_positions", STORED[0])]).collect()
}

/// `y [rows, cols]` = rows `tokens` of `table [vocab, cols]`, times `factor`.
pub fn embed_rows(
    table: Stored<'_>,
    tokens: &Buffer<u32>,
    rows: usize,
    cols: usize,
    factor: f32,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    let fits = tokens.len() >= rows && y.len() >= rows * cols && cols > 0 && table.len().is_multiple_of(cols);
    require("embed_rows", fits, || format!("{rows} rows of {cols} from {table:?} to {y:?}"))?;
    let args = [table.arg(), tokens.arg(), Arg::F32(factor), Arg::I32(cols as i32), y.arg()];
    let shape = LaunchShape::line(rows, threads(cols, 1));
    // SAFETY: lengths are checked above; the caller vouches for the tokens.
    unsafe { y.gpu().launch(&kernel("embed_rows", table.name()), shape, &args) }
}

/// `x [rows, cols]` += rows `positions + offset` of `table`.
pub fn add_positions(
    table: &Buffer<f32>,
    offset: usize,
    positions: &Buffer<u32>,
    rows: usize,
    cols: usize,
    x: &Buffer<f32>,
) -> Result<(), GpuError> {
    let fits = positions.len() >= rows && x.len() >= rows * cols;
    require("add_positions", fits, || format!("{rows} rows of {cols} in {x:?}"))?;
    let args = [table.arg(), positions.arg(), Arg::I32(offset as i32), Arg::I32(cols as i32), x.arg()];
    let shape = LaunchShape::line(rows, threads(cols, 1));
    // SAFETY: lengths are checked above; the caller vouches for the positions.
    unsafe { x.gpu().launch(&kernel("add_positions", STORED[0]), shape, &args) }
}
