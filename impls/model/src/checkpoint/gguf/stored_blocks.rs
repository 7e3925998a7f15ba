//! Matrices of blocks where they lie in a file: nothing is copied until a row is asked for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use cpu_kernels::{BlockForm, BlockRow};

use super::block::Block;
use super::k_blocks::{scale_min, third_scale};
use crate::checkpoint::Bytes;

/// A matrix `[n, k]` whose rows are runs of blocks somewhere in a file.
#[derive(Clone)]
pub struct BlockCodes {
    file: Arc<Bytes>,
    block: Block,
    form: BlockForm,
    k: usize,
    /// Where each row begins.
    rows: Arc<[usize]>,
}

impl fmt::Debug for BlockCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockCodes({}, [{}, {}])", self.block.name(), self.n(), self.k)
    }
}

impl BlockCodes {
    /// Rows after which a reader of all of them gives their memory back.
    pub const SPAN: usize = 1024;

    /// Rows of `k` columns that begin at `rows`, inside `file`; `None` where no kernel reads such blocks.
    pub(super) fn new(file: &Arc<Bytes>, block: Block, k: usize, rows: Vec<usize>) -> Option<BlockCodes> {
        let form = match block {
            Block::Q4_0 => BlockForm::Q4_0,
            Block::Q4_1 => BlockForm::Q4_1,
            Block::Q5_0 => BlockForm::Q5_0,
            Block::Q5_1 => BlockForm::Q5_1,
            Block::Q8_0 => BlockForm::Q8_0,
            Block::Q2K => BlockForm::Q2K,
            Block::Q3K => BlockForm::Q3K,
            Block::Q4K => BlockForm::Q4K,
            Block::Q5K => BlockForm::Q5K,
            Block::Q6K => BlockForm::Q6K,
            _ => return None,
        };
        let whole = k > 0 && k.is_multiple_of(block.values());
        whole.then(|| BlockCodes { file: file.clone(), block, form, k, rows: rows.into() })
    }

    /// What they are: `Q4_K in blocks of 256`.
    pub fn in_words(&self) -> String {
        format!("{} in blocks of {}", self.block.name(), self.block.values())
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.rows.len()
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// How the kernels call its blocks.
    pub fn form(&self) -> BlockForm {
        self.form
    }

    fn row(&self, row: usize) -> &[u8] {
        let width = self.k / self.block.values() * self.block.bytes();
        &self.file.as_slice()[self.rows[row]..self.rows[row] + width]
    }

    /// Row `row` as f32 into `out [k]`.
    pub fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        self.block.decode(self.row(row), out);
    }

    /// Row `row` taken apart.
    pub fn fill(&self, row: usize, out: &mut BlockRow) {
        let fill: fn(&[u8], usize, &mut BlockRow) = match self.form {
            BlockForm::Q4_0 | BlockForm::Q4_1 | BlockForm::Q5_0 | BlockForm::Q5_1 => nibbles,
            BlockForm::Q8_0 => bytes,
            BlockForm::Q4K | BlockForm::Q5K => four_or_five,
            BlockForm::Q6K => six,
            BlockForm::Q2K => two,
            BlockForm::Q3K => three,
        };
        self.row(row).chunks_exact(self.block.bytes()).enumerate().for_each(|(at, block)| fill(block, at, out));
    }

    /// Whether every constant is finite; reads all blocks.
    pub fn is_finite(&self) -> bool {
        let (first, second) = match self.form {
            BlockForm::Q4_1 | BlockForm::Q5_1 | BlockForm::Q4K | BlockForm::Q5K => (0, 2),
            BlockForm::Q2K => (80, 82),
            BlockForm::Q3K => (108, 108),
            BlockForm::Q6K => (208, 208),
            BlockForm::Q4_0 | BlockForm::Q5_0 | BlockForm::Q8_0 => (0, 0),
        };
        let finite = |b: &[u8], at: usize| b[at + 1] & 0x7c != 0x7c;
        let whole = |row| self.row(row).chunks_exact(self.block.bytes()).all(|b| finite(b, first) && finite(b, second));
        let mut spans = (0..self.n()).step_by(Self::SPAN).map(|first| first..self.n().min(first + Self::SPAN));
        spans.all(|span| {
            let finite = span.clone().all(whole);
            self.release(span);
            finite
        })
    }

    /// The rows `ranges`, in that order.
    pub(in crate::checkpoint) fn pick(self, ranges: &[Range<usize>]) -> BlockCodes {
        let rows = ranges.iter().flat_map(|range| self.rows[range.clone()].iter().copied()).collect();
        BlockCodes { rows, ..self }
    }

    /// Whether `below` is of the same blocks in the same file, so that both are one matrix.
    pub(in crate::checkpoint) fn joins(&self, below: &BlockCodes) -> bool {
        Arc::ptr_eq(&self.file, &below.file) && (self.block, self.k) == (below.block, below.k)
    }

    /// Puts the rows of `below` under these.
    pub(in crate::checkpoint) fn join(&mut self, below: &BlockCodes) {
        self.rows = self.rows.iter().chain(&*below.rows).copied().collect();
    }

    /// Lets the system take back the memory through which the rows `rows` were read; they are read from the file again when needed.
    pub fn release(&self, rows: Range<usize>) {
        let rows = &self.rows[rows];
        let (Some(first), Some(last)) = (rows.iter().min(), rows.iter().max()) else { return };
        let width = self.k / self.block.values() * self.block.bytes();
        self.file.release(*first..last + width);
    }
}

fn half(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// Q4_0, Q4_1, Q5_0, Q5_1: constants, four bytes of fifth bits where there are any, 16 bytes of nibbles.
fn nibbles(b: &[u8], at: usize, out: &mut BlockRow) {
    out.scales[at] = half(b, 0);
    if let Some(minimum) = out.minima.get_mut(at) {
        *minimum = half(b, 2);
    }
    let codes = &mut out.codes[at * 32..][..32];
    let (fifth, packed) = b.split_at(b.len() - 16);
    for i in 0..16 {
        codes[i] = packed[i] & 15;
        codes[i + 16] = packed[i] >> 4;
    }
    // 2 or 4 bytes of constants, and 4 of bits
    if fifth.len() >= 6 {
        let bits = &fifth[fifth.len() - 4..];
        for i in 0..32 {
            codes[i] |= (bits[i / 8] >> (i % 8) & 1) << 4;
        }
    }
}

/// Q8_0: a scale and 32 signed bytes, counted from 128 below.
fn bytes(b: &[u8], at: usize, out: &mut BlockRow) {
    out.scales[at] = half(b, 0);
    out.codes[at * 32..][..32].iter_mut().zip(&b[2..34]).for_each(|(code, byte)| *code = byte ^ 128);
}

/// Q4_K and Q5_K.
fn four_or_five(b: &[u8], at: usize, out: &mut BlockRow) {
    (out.scales[at], out.minima[at]) = (half(b, 0), half(b, 2));
    let (high, packed) = b[16..].split_at(b.len() - 144);
    for j in 0..8 {
        (out.scale_integers[at * 8 + j], out.minimum_integers[at * 8 + j]) = scale_min(&b[4..16], j);
        let codes = &mut out.codes[at * 256 + j * 32..][..32];
        let shift = 4 * (j % 2);
        codes.iter_mut().zip(&packed[32 * (j / 2)..]).for_each(|(code, byte)| *code = byte >> shift & 15);
        if !high.is_empty() {
            codes.iter_mut().zip(high).for_each(|(code, byte)| *code |= (byte >> j & 1) << 4);
        }
    }
}

/// Q6_K.
fn six(b: &[u8], at: usize, out: &mut BlockRow) {
    let (low, high) = (&b[..128], &b[128..192]);
    out.scale_integers[at * 16..][..16].copy_from_slice(&b[192..208]);
    out.scales[at] = half(b, 208);
    for (i, codes) in out.codes[at * 256..][..256].chunks_exact_mut(32).enumerate() {
        let (part, run) = (i / 4, i % 4);
        let (low, high) = (&low[64 * part + 32 * (run % 2)..][..32], &high[32 * part..][..32]);
        let (shift_low, shift_high) = (4 * (run / 2), 2 * run);
        for l in 0..32 {
            codes[l] = low[l] >> shift_low & 15 | (high[l] >> shift_high & 3) << 4;
        }
    }
}

/// Q2_K.
fn two(b: &[u8], at: usize, out: &mut BlockRow) {
    (out.scales[at], out.minima[at]) = (half(b, 80), half(b, 82));
    for j in 0..16 {
        (out.scale_integers[at * 16 + j], out.minimum_integers[at * 16 + j]) = (b[j] & 15, b[j] >> 4);
    }
    for (i, codes) in out.codes[at * 256..][..256].chunks_exact_mut(32).enumerate() {
        let (part, run) = (i / 4, i % 4);
        codes.iter_mut().zip(&b[16 + 32 * part..]).for_each(|(code, byte)| *code = byte >> (2 * run) & 3);
    }
}

/// Q3_K.
fn three(b: &[u8], at: usize, out: &mut BlockRow) {
    out.scales[at] = half(b, 108);
    for j in 0..16 {
        out.scale_integers[at * 16 + j] = third_scale(&b[96..108], j) as u8;
    }
    for (i, codes) in out.codes[at * 256..][..256].chunks_exact_mut(32).enumerate() {
        let (part, run) = (i / 4, i % 4);
        for (l, code) in codes.iter_mut().enumerate() {
            *code = b[32 + 32 * part + l] >> (2 * run) & 3 | (b[l] >> i & 1) << 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use cpu_kernels::{BlockSource, Cpu, PackedBlocks};

    use super::*;

    const BLOCKS: [Block; 10] = [
        Block::Q4_0,
        Block::Q4_1,
        Block::Q5_0,
        Block::Q5_1,
        Block::Q8_0,
        Block::Q2K,
        Block::Q3K,
        Block::Q4K,
        Block::Q5K,
        Block::Q6K,
    ];

    /// Rows of arbitrary bytes, with constants that are finite.
    fn codes(block: Block, n: usize, k: usize) -> BlockCodes {
        let width = k / block.values() * block.bytes();
        let mut bytes: Vec<u8> = (0..n * width).map(|i| ((i * 2_654_435_761) >> 11) as u8).collect();
        for block_bytes in bytes.chunks_exact_mut(block.bytes()) {
            for at in [1, 3, 81, 83, 109, 209] {
                if let Some(byte) = block_bytes.get_mut(at) {
                    *byte &= !0x40;
                }
            }
        }
        let file = Arc::new(Bytes::Static(Vec::leak(bytes)));
        BlockCodes::new(&file, block, k, (0..n).map(|row| row * width).collect()).expect("a form with a kernel")
    }

    #[test]
    fn taken_apart_and_packed_they_are_the_values_of_the_blocks() {
        let cpu = Cpu::new(None, 2).expect("some level");
        let (n, k) = (37, 512);
        for block in BLOCKS {
            let codes = codes(block, n, k);
            let fill = |row: usize, out: &mut BlockRow| codes.fill(row, out);
            let source = BlockSource { form: codes.form(), n, fill: &fill };
            let packed = PackedBlocks::pack(&cpu, k, &[source], &mut |_, rows| codes.release(rows));
            let mut want = vec![0.0; n * k];
            want.chunks_exact_mut(k).enumerate().for_each(|(row, out)| codes.dequantise_row(row, out));
            assert_eq!(packed.unpack(), want, "{}", block.name());
            assert!(codes.is_finite() && packed.is_finite(), "{}", block.name());
            // a byte for each integer constant, where the file packs them into four or six bits
            let bytes = match block {
                Block::Q2K => 100,
                Block::Q3K => 114,
                Block::Q4K => 148,
                Block::Q5K => 180,
                _ => block.bytes(),
            };
            // rows in panels of 16: 48 for 37
            assert_eq!(packed.bytes(), 48 * k / block.values() * bytes, "{}", block.name());
        }
    }

    #[test]
    fn rows_are_picked_and_joined_without_copying() {
        let all = codes(Block::Q4K, 6, 256);
        let row = |codes: &BlockCodes, row| {
            let mut out = vec![0.0; 256];
            codes.dequantise_row(row, &mut out);
            out
        };
        let mut picked = all.clone().pick(&[4..6, 0..1]);
        assert!(picked.joins(&all) && !picked.joins(&codes(Block::Q4K, 6, 256)));
        picked.join(&all.clone().pick(std::slice::from_ref(&(2..3))));
        assert_eq!(picked.n(), 4);
        for (at, from) in [4, 5, 0, 2].into_iter().enumerate() {
            assert_eq!(row(&picked, at), row(&all, from));
        }
    }

    #[test]
    fn constants_that_are_not_finite_are_found() {
        for (block, at) in [(Block::Q4_0, 0), (Block::Q4_1, 2), (Block::Q2K, 82), (Block::Q3K, 108), (Block::Q6K, 208)]
        {
            let mut bytes = vec![0u8; block.bytes()];
            bytes[at..at + 2].copy_from_slice(&[0, 0x7c]);
            let file = Arc::new(Bytes::Static(Vec::leak(bytes)));
            let codes = BlockCodes::new(&file, block, block.values(), vec![0]).expect("a form with a kernel");
            assert!(!codes.is_finite(), "{}", block.name());
        }
    }
}
