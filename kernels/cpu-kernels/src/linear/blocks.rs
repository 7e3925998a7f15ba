//! What: the product with ggml's blocks as they are stored: int8 activations in blocks of 32, or f32 ones.
//! Source: the products of ggml's Q4_0 … Q6_K with Q8_0 activations; storage as `block_store`.
//! Shapes: x\[rows, k\] f32 → y\[rows, n\] f32; the weights are parts of any forms, one below the other.
//! Method: int8: 1. per row and 32 columns: sx = absmax/127, q = round-half-even(x·127/absmax), Σq per half; 2. and 3. `block_dot`.
//! f32: blocks are decoded in registers (`block_f32`), one FMA chain over k per output.
//! Exactness: int8: the same bits on every level, for every row count and thread count. A block holding NaN or an infinity makes its
//! row NaN; one below 1e−36 counts as zero. f32: as `gemm`, with the weights that ggml's own dequantisation gives.
//! Cost: the bytes of `block_store`; 2·rows·n·k operations.
//! Not handled: activations that share a scale over more than 32 columns, as ggml's K products have them.

use super::block_dot::{Dot, largest_tile, panels_for, tile};
use super::block_form::{BLOCK, BlockForm, BlockRow};
use super::block_store::BlockStore;
use super::gemm::linear;
use super::group_int8::{Sums, code_blocks};
use super::int8_dot::Dots;
use super::panels::n_panels;
use super::tile::panels_step;
use crate::cpu::{Cpu, SendPtr};
use crate::isa::Vnni;
use crate::scratch;
use crate::simd::LANES;
use std::ops::Range;

/// Activation codes that one task passes all its panels over, 384 KiB: they stay in a second-level cache.
const ROW_BLOCK_BYTES: usize = 384 * 1024;

/// Where the rows of a matrix come from.
pub struct BlockSource<'a> {
    /// How they are stored.
    pub form: BlockForm,
    /// Output features.
    pub n: usize,
    /// Takes row `i` of `n` apart; called on any thread, in no order.
    pub fill: &'a (dyn Fn(usize, &mut BlockRow) + Sync),
}

/// Blocks of ggml's forms, `[n, k]`, in panel order.
#[derive(Debug, Clone)]
pub struct PackedBlocks {
    parts: Vec<BlockStore>,
    n: usize,
    k: usize,
}

/// Step 1's result: `codes` are `[rows, k]`, `scales` `[rows, blocks]`, `sums` of one part `[rows, blocks, parts]`.
#[derive(Clone, Copy)]
struct Coded<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [&'a [i32]],
}

/// Panels of one part that a task takes.
struct Share {
    part: usize,
    first_column: usize,
    panels: Range<usize>,
}

impl PackedBlocks {
    /// Packs the parts `sources` of `k` columns, on all threads; `after(i, rows)` is told which rows of part `i` have been read, so
    /// that what they were read from need not stay in memory beside the panels.
    ///
    /// # Panics
    /// If there is no part, or `k` is no whole number of blocks of one.
    pub fn pack(
        cpu: &Cpu,
        k: usize,
        sources: &[BlockSource<'_>],
        after: &mut dyn FnMut(usize, Range<usize>),
    ) -> PackedBlocks {
        assert!(!sources.is_empty(), "a matrix has rows");
        let mut parts = Vec::with_capacity(sources.len());
        for (i, source) in sources.iter().enumerate() {
            let after = &mut |rows| after(i, rows);
            parts.push(BlockStore::pack(cpu, source.form, [source.n, k], source.fill, after));
        }
        PackedBlocks { n: sources.iter().map(|source| source.n).sum(), k, parts }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that one full read streams: codes and constants, rows padded to 16.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(BlockStore::bytes).sum()
    }

    /// The forms of its parts, from the first row on.
    pub fn forms(&self) -> Vec<BlockForm> {
        self.parts.iter().map(|part| part.form).collect()
    }

    /// Whether every f16 constant is finite; then every weight is.
    pub fn is_finite(&self) -> bool {
        self.parts.iter().all(BlockStore::is_finite)
    }

    /// The weights as row-major f32 `[n, k]`: bit for bit what ggml's dequantisation gives.
    pub fn unpack(&self) -> Vec<f32> {
        self.parts.iter().flat_map(|part| part.unpack(0..part.n)).collect()
    }

    /// The kernel that [`Self::forward_int8`] runs on `cpu`, or with `exact` [`Self::forward`].
    pub fn kernel_name(&self, cpu: &Cpu, exact: bool) -> String {
        let mut names: Vec<&str> = vec![];
        self.parts.iter().map(|part| part.form.name()).for_each(|name| {
            if !names.contains(&name) {
                names.push(name);
            }
        });
        let level = match cpu.isa() {
            crate::Isa::Scalar => "scalar",
            crate::Isa::Avx512 if exact => "avx512",
            crate::Isa::Avx512 if Vnni::detect().is_some() => "vnni",
            _ => "avx2",
        };
        format!("{}_{}_{level}", names.join("+"), if exact { "panel" } else { "int8" })
    }

    /// x\[rows, k\] as [`Self::forward_int8`] sees it: each value replaced by its code times the scale of its block.
    pub fn coded_inputs(&self, cpu: &Cpu, x: &[f32], rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * self.k];
        self.with_coded(cpu, x, rows, |coded| {
            for (at, (out, &code)) in out.iter_mut().zip(coded.codes).enumerate() {
                *out = f32::from(code) * coded.scales[at / BLOCK];
            }
        });
        out
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ with f32 activations.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        if let [only] = &self.parts[..] {
            return linear(cpu, only, x, rows, y);
        }
        assert_eq!(y.len(), rows * self.n, "y must hold rows × n values");
        let mut first = 0;
        for part in &self.parts {
            let mut own = scratch::take(rows * part.n);
            linear(cpu, part, x, rows, &mut own);
            for (y, own) in y.chunks_exact_mut(self.n).zip(own.chunks_exact(part.n)) {
                y[first..first + part.n].copy_from_slice(own);
            }
            first += part.n;
        }
    }

    /// y\[rows, n\] = code(x)\[rows, k\] · Wᵀ.
    pub fn forward_int8(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        assert_eq!(y.len(), rows * self.n, "y must hold rows × n values");
        if rows > 0 && self.n > 0 {
            self.with_coded(cpu, x, rows, |coded| self.multiply(cpu, coded, rows, y));
        }
    }

    /// Step 1, for as long as `then` runs.
    fn with_coded(&self, cpu: &Cpu, x: &[f32], rows: usize, then: impl FnOnce(Coded<'_>)) {
        assert_eq!(x.len(), rows * self.k, "x must hold rows × k values");
        let blocks = self.k / BLOCK;
        let mut codes = scratch::take(rows * self.k / 4);
        let codes: &mut [i8] = bytemuck::cast_slice_mut(&mut codes);
        let mut scales = scratch::take(rows * blocks);
        let mut totals = scratch::take(rows * blocks * 2);
        let mut sums: Vec<_> = self.parts.iter().map(|part| scratch::take(rows * blocks * part.form.parts())).collect();
        let out = (SendPtr(codes.as_mut_ptr()), SendPtr(scales.as_mut_ptr()), SendPtr(totals.as_mut_ptr()));
        let part_sums: Vec<_> = sums.iter_mut().map(|sums| SendPtr(sums.as_mut_ptr().cast::<i32>())).collect();
        let tasks = if x.len() < crate::cpu::WORTH_CYCLES { 1 } else { rows.min(4 * cpu.threads()) };
        cpu.parallel_if_worth(x.len(), tasks, &|task| {
            let rows = rows * task / tasks..rows * (task + 1) / tasks;
            let (start, n) = (rows.start * blocks, rows.len() * blocks);
            // SAFETY: every row belongs to one task, and the buffers outlive the call.
            let (codes, scales, totals) = unsafe {
                (
                    std::slice::from_raw_parts_mut(out.0.get().add(start * BLOCK), n * BLOCK),
                    std::slice::from_raw_parts_mut(out.1.get().add(start), n),
                    std::slice::from_raw_parts_mut(out.2.get().cast::<i32>().add(2 * start), 2 * n),
                )
            };
            code_blocks(cpu, &x[start * BLOCK..][..n * BLOCK], codes, scales, totals, Sums::Halves);
            for (part, sums) in self.parts.iter().zip(&part_sums) {
                let per_block = part.form.parts();
                // SAFETY: as above.
                let sums = unsafe { std::slice::from_raw_parts_mut(sums.get().add(start * per_block), n * per_block) };
                sums_of(part.form, scales, totals, sums);
            }
        });
        let sums: Vec<&[i32]> = sums.iter().map(|sums| bytemuck::cast_slice(sums)).collect();
        then(Coded { codes, scales: &scales, sums: &sums });
    }

    /// Steps 2 and 3.
    fn multiply(&self, cpu: &Cpu, x: Coded<'_>, rows: usize, y: &mut [f32]) {
        let row_block = (ROW_BLOCK_BYTES / self.k.max(1)).clamp(12, 192) / 12 * 12;
        let row_blocks = rows.div_ceil(row_block);
        let threads = cpu.threads();
        let panels: usize = self.parts.iter().map(|part| n_panels(part.n)).sum();
        let ranges = if row_blocks >= 4 * threads { 1 } else { 4 * threads / row_blocks.min(2) };
        let per_range = panels.div_ceil(ranges).next_multiple_of(4);
        let (mut shares, mut first_column) = (vec![], 0);
        for (part, store) in self.parts.iter().enumerate() {
            for from in (0..n_panels(store.n)).step_by(per_range) {
                shares.push(Share { part, first_column, panels: from..(from + per_range).min(n_panels(store.n)) });
            }
            first_column += store.n;
        }
        let cycles = (rows * panels * self.k / 4).max(self.bytes() / 16);
        let out = SendPtr(y.as_mut_ptr());
        let dots = Dots::best(cpu);
        cpu.parallel_if_worth(cycles, shares.len() * row_blocks, &|i| {
            let (share, block) = (&shares[i / row_blocks], i % row_blocks);
            self.task(dots, x, block * row_block..((block + 1) * row_block).min(rows), share, out);
        });
    }

    fn task(&self, dots: Dots, x: Coded<'_>, rows: Range<usize>, share: &Share, y: SendPtr<f32>) {
        let (store, blocks) = (&self.parts[share.part], self.k / BLOCK);
        let per_block = store.form.parts();
        let widest = panels_for(dots, largest_tile(dots, rows.len()));
        let mut panel = share.panels.start;
        while panel < share.panels.end {
            let step = panels_step(share.panels.end - panel, widest);
            let mut row = rows.start;
            while row < rows.end {
                let mr = largest_tile(dots, rows.end - row);
                let column = share.first_column + panel * LANES;
                let dot = Dot {
                    blocks,
                    words: store.words[panel * store.panel_words()..].as_ptr(),
                    panel_words: store.panel_words(),
                    halves: store.halves[panel * store.panel_halves()..].as_ptr(),
                    panel_halves: store.panel_halves(),
                    integers: store.integers[panel * store.panel_integers()..].as_ptr(),
                    panel_integers: store.panel_integers(),
                    x: x.codes[row * self.k..].as_ptr(),
                    sx: x.scales[row * blocks..].as_ptr(),
                    sums: x.sums[share.part][row * blocks * per_block..].as_ptr(),
                    y: y.get().wrapping_add(row * self.n + column),
                    y_stride: self.n,
                    n_cols: (store.n - panel * LANES).min(step * LANES),
                };
                // SAFETY: these rows and columns of y are inside it and belong to this task alone; x holds all rows.
                unsafe { tile(dots, store, mr, step, panel, dot) };
                row += mr;
            }
            panel += step;
        }
    }
}

/// What `block_dot` wants of the halves' Σq: −zero·Σq, or with minima the bits of sx·Σq.
fn sums_of(form: BlockForm, scales: &[f32], totals: &[i32], sums: &mut [i32]) {
    let (zero, parts) = (form.zero(), form.parts());
    let value = |total: i32, scale: f32| match form.has_minima() {
        true => (scale * total as f32).to_bits() as i32,
        false => -zero * total,
    };
    for ((sums, totals), &scale) in sums.chunks_exact_mut(parts).zip(totals.as_chunks::<2>().0).zip(scales) {
        match sums {
            [whole] => *whole = value(totals[0] + totals[1], scale),
            halves => halves.iter_mut().zip(totals).for_each(|(sum, &total)| *sum = value(total, scale)),
        }
    }
}
