//! Row-wise operations over the thread pool.

use crate::cpu::{Cpu, WORTH_CYCLES};

/// Runs `f(row, y_row)` over the rows of y\[rows, cols\], in parallel where `weight` cycles a value make it worth it.
pub(crate) fn for_rows(
    cpu: &Cpu,
    rows: usize,
    y: &mut [f32],
    cols: usize,
    weight: usize,
    f: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    assert_eq!(y.len(), rows * cols, "y must be [rows, cols]");
    if cols == 0 {
        return;
    }
    if y.len() * weight < WORTH_CYCLES || rows == 1 || cpu.threads() == 1 {
        return y.chunks_mut(cols).enumerate().for_each(|(row, y)| f(row, y));
    }
    let per_task = rows.div_ceil(4 * cpu.threads());
    cpu.parallel_chunks_mut(y, per_task * cols, &|task, block| {
        block.chunks_mut(cols).enumerate().for_each(|(i, y)| f(task * per_task + i, y));
    });
}
