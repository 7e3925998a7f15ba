//! What: a linear of 1 to 4-bit codes by table lookup: a multiplication becomes a byte shuffle, one per bit plane.
//! Source: Wei et al., "T-MAC", EuroSys 2025 (arXiv:2407.00088), §3; tables quantised to bytes as in §4.
//! Shapes: codes\[n, k\] → `[⌈n/64⌉][⌈k/64⌉][bits][8][64]` bytes; a byte holds one bit of the codes of 4 + 4 columns of one
//! output; scales (and zeros) `[⌈n/64⌉][groups][64]` f16; groups are whole blocks of 64 columns.
//! Method: 1. per row of x and block of 64 columns: 16 tables, one per 4 columns, of ±x₀ ±x₁ ±x₂ ±x₃, rounded to steps of a
//! scale of the block. 2. per block, plane and 4 columns, 64 outputs look their entry up; sums stay in 16 bits, the planes
//! count 1, 2, 4, 8. 3. Σ w·x = s·(½·step·sum + (mid − zero)·Σx), mid = (2^bits − 1)/2, per group.
//! Exactness: the integers of 2 equal the definition's (tested), and every level gives the same bits; tables round x to 1/127 of the largest
//! Σ|x| of 4 columns in the block. Each row alone: bits do not depend on the rows beside it nor on threads.
//! Cost: bits/8 bytes and bits/4 lookups per weight; 4·k operations per row for the tables.
//! Not handled: act-order, groups that are not whole blocks, more than 4 bits; many rows read each panel once per row.

use super::GroupCodes;
use crate::cpu::{Cpu, SendPtr};
use crate::simd::{Kernel, LANES, Simd, run};
use half::f16;

/// Outputs of a panel: one byte vector of AVX-512.
pub(crate) const OUTPUTS: usize = 64;
/// Columns that share a scale of their tables.
pub(crate) const BLOCK: usize = 64;
/// Tables of a block, of [`ENTRIES`] bytes each.
pub(crate) const TABLES: usize = BLOCK / 4;
/// Entries of a table: the signs of 4 columns.
pub(crate) const ENTRIES: usize = 16;
/// Bytes of one bit plane of a block.
pub(crate) const PLANE: usize = TABLES / 2 * OUTPUTS;
/// What is added to an entry so that it fits an unsigned byte, and to the sum of a plane by that.
const BIAS: u32 = 128;

/// Codes in bit planes.
#[derive(Debug, Clone)]
pub struct PackedLut {
    n: usize,
    k: usize,
    bits: usize,
    /// Blocks of a group.
    blocks_per_group: usize,
    planes: Vec<u8>,
    scales: Vec<u16>,
    /// In code units: one for all, or one per group.
    zeros: Zeros,
}

#[derive(Debug, Clone)]
enum Zeros {
    Equal(f32),
    PerGroup(Vec<u16>),
}

/// The tables of one row of x.
#[derive(Debug, Clone)]
pub struct LutTables {
    /// `[blocks][TABLES][ENTRIES]`, each entry plus 128.
    entries: Vec<u8>,
    /// Half the step of each block's entries.
    half_steps: Vec<f32>,
    /// Σx of each block.
    sums: Vec<f32>,
}

impl PackedLut {
    /// Packs what a quantiser produced: 1 to 4 bits, groups of whole blocks of 64 columns (or one per row), no order.
    ///
    /// # Panics
    /// On anything else, and on lengths that disagree with `n`, `k` and `group`.
    pub fn from_codes(source: &GroupCodes) -> PackedLut {
        let GroupCodes { n, k, bits, group, codes, scales, zeros, order } = source;
        let (n, k, bits, groups) = (*n, *k, usize::from(*bits), k.div_ceil(*group));
        assert!((1..=4).contains(&bits), "bits must be 1 to 4, not {bits}");
        assert!(group.is_multiple_of(BLOCK) || *group >= k, "a group must be whole blocks of {BLOCK} columns");
        assert!(order.is_none(), "columns must be in order");
        assert_eq!(codes.len(), n * k, "codes must be [n, k]");
        assert!(scales.len() == n * groups && zeros.len() == n * groups, "scales and zeros must be [n, groups]");
        assert!(codes.iter().all(|&c| c >> bits == 0), "a code does not fit {bits} bits");
        let equal = zeros.first().copied().filter(|z| zeros.iter().all(|other| other == z));
        PackedLut {
            n,
            k,
            bits,
            blocks_per_group: (*group).min(k).div_ceil(BLOCK),
            planes: pack_planes(n, k, bits, codes),
            scales: panel_halves(n, groups, scales),
            zeros: match equal {
                Some(zero) => Zeros::Equal(f16::from_f32(zero).to_f32()),
                None => Zeros::PerGroup(panel_halves(n, groups, zeros)),
            },
        }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bits per code.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Bytes that one full read streams.
    pub fn bytes(&self) -> usize {
        let zeros = if let Zeros::PerGroup(zeros) = &self.zeros { size_of_val(&zeros[..]) } else { 0 };
        self.planes.len() + size_of_val(&self.scales[..]) + zeros
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        match cpu.isa() {
            crate::Isa::Scalar => "lut_scalar",
            crate::Isa::Avx2 => "lut_shuffle_avx2",
            crate::Isa::Avx512 => "lut_shuffle_avx512",
        }
    }

    fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    fn groups(&self) -> usize {
        self.blocks().div_ceil(self.blocks_per_group)
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ, with tables of x.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        assert!(x.len() == rows * self.k && y.len() == rows * self.n, "x must be [rows, k] and y [rows, n]");
        if rows == 0 || self.n == 0 {
            return;
        }
        let tables: Vec<LutTables> = x.chunks_exact(self.k.max(1)).map(|row| LutTables::of(cpu, row)).collect();
        let panels = self.n.div_ceil(OUTPUTS);
        let per_task = panels.div_ceil(4 * cpu.threads());
        let out = SendPtr(y.as_mut_ptr());
        let cycles = rows * self.planes.len() / 16;
        cpu.parallel_if_worth(cycles, panels.div_ceil(per_task), &|task| {
            for panel in task * per_task..((task + 1) * per_task).min(panels) {
                for (row, tables) in tables.iter().enumerate() {
                    let mut values = [0.0; OUTPUTS];
                    run(cpu, Panel { w: self, panel, tables, out: &mut values });
                    let here = OUTPUTS.min(self.n - panel * OUTPUTS);
                    // SAFETY: rows and panels are this task's own; y is [rows, n].
                    unsafe {
                        let to = out.get().add(row * self.n + panel * OUTPUTS);
                        std::ptr::copy_nonoverlapping(values.as_ptr(), to, here);
                    }
                }
            }
        });
    }

    /// The weights as row-major f32 `[n, k]`: scale·(code − zero).
    pub fn unpack(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.k];
        for row in 0..self.n {
            for column in 0..self.k {
                let (scale, zero) = self.grid(row, column / BLOCK / self.blocks_per_group);
                out[row * self.k + column] = scale * (f32::from(self.code(row, column)) - zero);
            }
        }
        out
    }

    /// The code of one weight.
    pub fn code(&self, row: usize, column: usize) -> u8 {
        let (byte, shift) = place(self.blocks() * self.bits, row, column, self.bits);
        (0..self.bits).map(|t| (self.planes[byte + t * PLANE] >> shift & 1) << t).sum()
    }

    /// How far each output may lie from the product with the weights because the entries of `tables` are rounded.
    pub fn rounding_bound(&self, tables: &LutTables) -> Vec<f32> {
        // an entry is off by half a step, which counts half as often as its plane says
        let steps = (TABLES * ((1 << self.bits) - 1)) as f32 * 0.25;
        let of =
            |row: usize, block: usize| self.grid(row, block / self.blocks_per_group).0 * tables.step(block) * steps;
        (0..self.n).map(|row| (0..self.blocks()).map(|block| of(row, block)).sum()).collect()
    }

    fn grid(&self, row: usize, group: usize) -> (f32, f32) {
        let at = (row / OUTPUTS * self.groups() + group) * OUTPUTS + row % OUTPUTS;
        let zero = match &self.zeros {
            Zeros::Equal(zero) => *zero,
            Zeros::PerGroup(zeros) => f16::from_bits(zeros[at]).to_f32(),
        };
        (f16::from_bits(self.scales[at]).to_f32(), zero)
    }
}

/// The byte of plane 0, and the bit in it, of one weight; a panel has `planes` planes.
fn place(planes: usize, row: usize, column: usize, bits: usize) -> (usize, usize) {
    let (block, inside) = (column / BLOCK, column % BLOCK);
    let (table, sign) = (inside / 4, inside % 4);
    let output = row % OUTPUTS;
    // Even bytes are outputs 0 to 31, odd ones 32 to 63: 16-bit sums of either half come out in order.
    let slot = output % 32 * 2 + output / 32;
    let byte = (row / OUTPUTS * planes + block * bits) * PLANE + table / 2 * OUTPUTS + slot;
    (byte, table % 2 * 4 + sign)
}

fn pack_planes(n: usize, k: usize, bits: usize, codes: &[u8]) -> Vec<u8> {
    let planes = k.div_ceil(BLOCK) * bits;
    let mut packed = vec![0u8; n.div_ceil(OUTPUTS) * planes * PLANE];
    for (row, codes) in codes.chunks_exact(k.max(1)).enumerate() {
        for (column, code) in codes.iter().enumerate() {
            let (byte, shift) = place(planes, row, column, bits);
            for t in 0..bits {
                packed[byte + t * PLANE] |= (code >> t & 1) << shift;
            }
        }
    }
    packed
}

/// `[n, groups]` as `[⌈n/64⌉][groups][64]` f16.
fn panel_halves(n: usize, groups: usize, values: &[f32]) -> Vec<u16> {
    let mut packed = vec![0u16; n.div_ceil(OUTPUTS) * groups * OUTPUTS];
    for row in 0..n {
        for group in 0..groups {
            let at = (row / OUTPUTS * groups + group) * OUTPUTS + row % OUTPUTS;
            packed[at] = f16::from_f32(values[row * groups + group]).to_bits();
        }
    }
    packed
}

impl LutTables {
    /// Tables of `x`, a row; columns beyond its end are 0.
    pub fn of(cpu: &Cpu, x: &[f32]) -> LutTables {
        let blocks = x.len().div_ceil(BLOCK);
        let mut tables = LutTables {
            entries: vec![0; blocks * TABLES * ENTRIES],
            half_steps: vec![0.0; blocks],
            sums: vec![0.0; blocks],
        };
        run(cpu, Fill { x, tables: &mut tables });
        tables
    }

    /// Entry `signs` of table `table` of `block`, in steps: bit i of `signs` is set where column i counts positive.
    pub fn entry(&self, block: usize, table: usize, signs: usize) -> i32 {
        i32::from(self.entries[(block * TABLES + table) * ENTRIES + signs]) - BIAS as i32
    }

    /// The step of a block's entries.
    pub fn step(&self, block: usize) -> f32 {
        2.0 * self.half_steps[block]
    }
}

struct Fill<'a> {
    x: &'a [f32],
    tables: &'a mut LutTables,
}

impl Kernel for Fill<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Signs of column i in the entries of a table.
        const SIGNS: [[f32; ENTRIES]; 4] = {
            let mut signs = [[-1.0; ENTRIES]; 4];
            let mut at = 0;
            while at < 4 * ENTRIES {
                if ((at % ENTRIES) >> (at / ENTRIES)) & 1 == 1 {
                    signs[at / ENTRIES][at % ENTRIES] = 1.0;
                }
                at += 1;
            }
            signs
        };
        /// 1.5·2²³: what is added to it is rounded to whole numbers, ties to even, and stands in the low bits.
        const WHOLE: f32 = 12_582_912.0;
        // SAFETY: 16 values each.
        let signs = SIGNS.each_ref().map(|signs| unsafe { s.load(signs.as_ptr()) });
        let whole = s.splat(WHOLE + BIAS as f32);
        let LutTables { entries, half_steps, sums } = self.tables;
        for (block, (x, entries)) in self.x.chunks(BLOCK).zip(entries.chunks_exact_mut(TABLES * ENTRIES)).enumerate() {
            let mut padded = [0.0f32; BLOCK];
            padded[..x.len()].copy_from_slice(x);
            let reach = padded.chunks_exact(4).map(|x| x[0].abs() + x[1].abs() + x[2].abs() + x[3].abs());
            let most = reach.fold(0.0f32, f32::max);
            let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
            half_steps[block] = 0.5 * most / 127.0;
            sums[block] = padded.chunks_exact(4).map(|x| (x[0] + x[1]) + (x[2] + x[3])).sum();
            for (x, entries) in padded.chunks_exact(4).zip(entries.chunks_exact_mut(ENTRIES)) {
                let low = s.add(s.mul(s.splat(x[0]), signs[0]), s.mul(s.splat(x[1]), signs[1]));
                let high = s.add(s.mul(s.splat(x[2]), signs[2]), s.mul(s.splat(x[3]), signs[3]));
                let steps = s.add(s.mul(s.add(low, high), s.splat(inverse)), whole);
                let mut bits = [0.0f32; ENTRIES];
                // SAFETY: 16 values.
                unsafe { s.store(bits.as_mut_ptr(), steps) };
                entries.iter_mut().zip(bits).for_each(|(entry, bits)| *entry = bits.to_bits() as u8);
            }
        }
    }
}

/// 64 outputs for one row.
struct Panel<'a> {
    w: &'a PackedLut,
    panel: usize,
    tables: &'a LutTables,
    out: &'a mut [f32; OUTPUTS],
}

impl Kernel for Panel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Panel { w, panel, tables, out } = self;
        let (blocks, groups, bits) = (w.blocks(), w.groups(), w.bits);
        let mid = ((1 << bits) - 1) as f32 * 0.5;
        let bias = (BIAS as usize * TABLES * ((1 << bits) - 1)) as u32;
        let planes = &w.planes[panel * blocks * bits * PLANE..][..blocks * bits * PLANE];
        let mut y = [s.splat(0.0); 4];
        for group in 0..groups {
            let range = group * w.blocks_per_group..((group + 1) * w.blocks_per_group).min(blocks);
            let (mut acc, mut sum) = ([s.splat(0.0); 4], 0.0f32);
            for block in range {
                let planes = &planes[block * bits * PLANE..][..bits * PLANE];
                let entries = &tables.entries[block * TABLES * ENTRIES..][..TABLES * ENTRIES];
                // SAFETY: `bits` planes of 64 outputs and 16 tables, by the slices above.
                let found = unsafe { s.lookup(planes.as_ptr(), entries.as_ptr(), bits, bias) };
                let half_step = s.splat(tables.half_steps[block]);
                for i in 0..4 {
                    // not fused, so that the portable level gives the same bits
                    acc[i] = s.add(acc[i], s.mul(found[i], half_step));
                }
                sum += tables.sums[block];
            }
            let at = (panel * groups + group) * OUTPUTS;
            for i in 0..4 {
                // SAFETY: 64 halves from `at` on.
                let scale = unsafe { s.load_f16(w.scales[at..][..OUTPUTS].as_ptr().add(i * LANES)) };
                let zero = match &w.zeros {
                    Zeros::Equal(zero) => s.splat(*zero),
                    // SAFETY: as above.
                    Zeros::PerGroup(zeros) => unsafe { s.load_f16(zeros[at..][..OUTPUTS].as_ptr().add(i * LANES)) },
                };
                let offset = s.mul(s.sub(s.splat(mid), zero), s.splat(sum));
                y[i] = s.add(y[i], s.mul(scale, s.add(acc[i], offset)));
            }
        }
        for i in 0..4 {
            // SAFETY: 64 results.
            unsafe { s.store(out.as_mut_ptr().add(i * LANES), y[i]) };
        }
    }
}

/// [`Simd::lookup`] in plain loops.
///
/// # Safety
/// As there.
pub(crate) unsafe fn lookup_scalar(planes: *const u8, tables: *const u8, bits: usize, bias: u32) -> [f32; OUTPUTS] {
    // SAFETY: the caller vouches for `bits` planes and 16 tables.
    let (planes, tables) = unsafe {
        (std::slice::from_raw_parts(planes, bits * PLANE), std::slice::from_raw_parts(tables, TABLES * ENTRIES))
    };
    let mut sums = [0u32; OUTPUTS];
    for (t, plane) in planes.chunks_exact(PLANE).enumerate() {
        for (pair, bytes) in plane.chunks_exact(OUTPUTS).enumerate() {
            let (low, high) =
                (&tables[2 * pair * ENTRIES..][..ENTRIES], &tables[(2 * pair + 1) * ENTRIES..][..ENTRIES]);
            for (slot, byte) in bytes.iter().enumerate() {
                let found = u32::from(low[usize::from(byte & 15)]) + u32::from(high[usize::from(byte >> 4)]);
                sums[slot / 2 + slot % 2 * 32] += found << t;
            }
        }
    }
    sums.map(|sum| (sum as i32 - bias as i32) as f32)
}
