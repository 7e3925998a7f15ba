//! What: the weight-only linear of 4-bit codes into a table of 16 values, with one scale per block of columns.
//! Source: the storage of QLoRA (arXiv:2305.14314, §3: NF4, double quantisation), of the OCP Microscaling formats
//! v1.0 (MXFP4) and of NVFP4; the packing is ours.
//! Shapes: codes\[n, k\] → words `[⌈n/16⌉][⌈k/32⌉][4][16]` u32; scales `[⌈n/16⌉][⌈k/block⌉][16]`, as f32 or 8 bits.
//! Method: 1. eight columns of one output are one word, 16 outputs a vector; 2. kernels look 16 codes up in registers and
//! multiply by the block's scales (`codebook_walk`), which keep their stored form: f32, a power of two, an 8-bit float times a
//! constant, or an 8-bit code of a code, a constant per 256 scales and an offset.
//! Exactness: w = fl(table\[code\] · scale) and scale = fl(fl(map\[c\] · constant) + offset), each operation rounded once to
//! f32 on every level. Sums: one FMA chain over columns.
//! Cost: 1/2 byte per weight + 1 or 4 per block; the second constants (4 bytes per 256 blocks) and tables are counted.
//! Not handled: blocks that are not a multiple of 8 columns or that cross rows; activations below f32.

use super::codebook_walk::{self, Coded, Scale, StoredWords};
use super::coded::{self, CodedPanels};
use super::codes::BLOCK;
use super::panels::n_panels;
use crate::Cpu;
use crate::simd::LANES;

/// Words of 32 columns of 16 outputs.
const WORDS: usize = BLOCK / codebook_walk::PER_WORD;

/// Codes as a quantiser hands them over: W\[i, j\] = table\[code\[i, j\]\] · scale of block ⌊j/block⌋ of row i.
#[derive(Debug, Clone, PartialEq)]
pub struct CodebookCodes {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Columns per scale, a multiple of 8; the last block of a row may be short.
    pub block: usize,
    /// The value of each code.
    pub table: [f32; 16],
    /// Codes `[n, k]`, one a byte, each below 16.
    pub codes: Vec<u8>,
    /// Scales `[n, ⌈k/block⌉]`.
    pub scales: BlockScales,
}

/// Scales of blocks, row-major, in the form they are stored in.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockScales {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// OCP E8M0: 2^(code − 127). Code 255 is NaN and not allowed.
    E8m0(Vec<u8>),
    /// OCP E4M3 times one constant for the matrix. Codes 127 and 255 are NaN and not allowed.
    E4m3 {
        /// One code per block.
        codes: Vec<u8>,
        /// What every scale is multiplied by.
        tensor: f32,
    },
    /// Double quantisation: map\[code\] · constant + offset.
    Nested(NestedScales),
}

/// Scales that are themselves 8-bit codes.
#[derive(Debug, Clone, PartialEq)]
pub struct NestedScales {
    /// One code per block, row-major.
    pub codes: Vec<u8>,
    /// Value of each code.
    pub map: Box<[f32; 256]>,
    /// One constant per [`NestedScales::PER_CONSTANT`] codes, counted over the whole matrix.
    pub constants: Vec<f32>,
    /// Added to every scale.
    pub offset: f32,
}

impl NestedScales {
    /// Codes that share a constant.
    pub const PER_CONSTANT: usize = 256;
}

impl BlockScales {
    /// Number of scales.
    pub fn len(&self) -> usize {
        match self {
            BlockScales::F32(scales) => scales.len(),
            BlockScales::E8m0(codes) | BlockScales::E4m3 { codes, .. } => codes.len(),
            BlockScales::Nested(nested) => nested.codes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Scale `i`, row-major.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            BlockScales::F32(scales) => scales[i],
            BlockScales::E8m0(codes) => e8m0_to_f32(codes[i]),
            BlockScales::E4m3 { codes, tensor } => e4m3_to_f32(codes[i]) * tensor,
            BlockScales::Nested(nested) => {
                let scaled = nested.map[nested.codes[i] as usize] * nested.constants[i / NestedScales::PER_CONSTANT];
                scaled + nested.offset
            }
        }
    }

    fn check(&self, n_scales: usize) {
        assert_eq!(self.len(), n_scales, "one scale per row and block");
        let refused: &[u8] = match self {
            BlockScales::E8m0(_) => &[255],
            BlockScales::E4m3 { .. } => &[127, 255],
            _ => &[],
        };
        match self {
            BlockScales::E8m0(codes) | BlockScales::E4m3 { codes, .. } => {
                assert!(!codes.iter().any(|c| refused.contains(c)), "a block's scale is NaN");
            }
            BlockScales::Nested(nested) => {
                let constants = n_scales.div_ceil(NestedScales::PER_CONSTANT);
                assert_eq!(nested.constants.len(), constants, "one constant per 256 scales");
            }
            BlockScales::F32(_) => {}
        }
    }
}

/// An OCP E8M0 code (2^(code − 127)) as f32; 255 is NaN.
pub fn e8m0_to_f32(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

/// An OCP E4M3 code (sign, 4 bits of exponent with bias 7, 3 of mantissa; ±448 at most) as f32; 127 and 255 are NaN.
pub fn e4m3_to_f32(code: u8) -> f32 {
    if code & 0x7f == 0x7f {
        return f32::NAN;
    }
    // exponent and mantissa into an f32's places; the biases differ by 120, and the product normalises subnormals
    let magnitude = f32::from_bits(u32::from(code & 0x7f) << 20) * f32::from_bits((120 + 127) << 23);
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Weights `[n, k]` of 4-bit codes into a table, in panel order.
#[derive(Debug, Clone)]
pub struct PackedCodebook {
    k: usize,
    panels: Panels,
}

#[derive(Debug, Clone)]
struct Panels {
    n: usize,
    /// Runs of 32 columns per row.
    runs: usize,
    block: usize,
    /// Blocks per row, and lane · blocks for each lane.
    blocks: usize,
    lane_blocks: [u32; LANES],
    table: [f32; 16],
    words: Vec<u32>,
    scales: BlockScales,
}

impl PackedCodebook {
    /// Packs what a quantiser produced.
    ///
    /// # Panics
    /// On lengths that disagree with `n`, `k` and `block`, blocks that are no multiple of 8, codes above 15, NaN scales.
    pub fn from_codes(source: &CodebookCodes) -> Self {
        let &CodebookCodes { n, k, block, table, .. } = source;
        assert!(block > 0 && block.is_multiple_of(codebook_walk::PER_WORD), "blocks are multiples of 8 columns");
        assert_eq!(source.codes.len(), n * k, "codes must be [n, k]");
        assert!(source.codes.iter().all(|&c| c < 16), "a code does not fit 4 bits");
        let (runs, blocks) = (k.div_ceil(BLOCK), k.div_ceil(block));
        source.scales.check(n * blocks);
        let mut words = vec![0u32; n_panels(n) * runs * WORDS * LANES];
        for (row, codes) in source.codes.chunks_exact(k.max(1)).enumerate() {
            let base = (row / LANES) * runs * WORDS * LANES + row % LANES;
            for (word, codes) in codes.chunks(codebook_walk::PER_WORD).enumerate() {
                let value = codes.iter().rev().fold(0, |word, &code| word << 4 | u32::from(code));
                words[base + word * LANES] = value;
            }
        }
        let scales = panel_scales(&source.scales, n, blocks);
        let lane_blocks = std::array::from_fn(|lane| (lane * blocks) as u32);
        Self { k, panels: Panels { n, runs, block, blocks, lane_blocks, table, words, scales } }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.panels.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that one full read streams: codes, scales and their constants and tables, padding included.
    pub fn bytes(&self) -> usize {
        CodedPanels::bytes(&self.panels)
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        ["codebook4_panel_scalar", "codebook4_panel_avx2", "codebook4_panel_avx512"][cpu.isa() as usize]
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        coded::product(cpu, &self.panels, self.k, x, rows, y);
    }

    /// The weights that [`Self::forward`] multiplies by, as row-major f32 `[n, k]`.
    pub fn unpack(&self) -> Vec<f32> {
        let panels = &self.panels;
        let weight = |row: usize, column: usize| {
            let (panel, lane) = (row / LANES, row % LANES);
            let word = (panel * panels.runs * WORDS + column / codebook_walk::PER_WORD) * LANES + lane;
            let code = panels.words[word] >> (4 * (column % codebook_walk::PER_WORD)) & 15;
            panels.table[code as usize] * panels.scale(row, column / panels.block)
        };
        (0..panels.n).flat_map(|row| (0..self.k).map(move |column| weight(row, column))).collect()
    }
}

impl Panels {
    fn scale(&self, row: usize, block: usize) -> f32 {
        let at = ((row / LANES) * self.blocks + block) * LANES + row % LANES;
        match &self.scales {
            BlockScales::Nested(nested) => {
                let constant = nested.constants[(row * self.blocks + block) / NestedScales::PER_CONSTANT];
                nested.map[nested.codes[at] as usize] * constant + nested.offset
            }
            scales => scales.get(at),
        }
    }
}

impl CodedPanels for Panels {
    type Words = StoredWords;

    fn n(&self) -> usize {
        self.n
    }
    fn runs(&self) -> usize {
        self.runs
    }
    fn bytes(&self) -> usize {
        let scales = match &self.scales {
            BlockScales::F32(scales) => size_of_val(&scales[..]),
            BlockScales::E8m0(codes) | BlockScales::E4m3 { codes, .. } => codes.len(),
            BlockScales::Nested(nested) => {
                nested.codes.len() + size_of_val(&nested.constants[..]) + size_of_val(&nested.map[..])
            }
        };
        size_of_val(&self.words[..]) + scales + size_of_val(&self.table)
    }
    #[inline(always)]
    fn coded(&self, first: usize) -> Coded<StoredWords> {
        let at = first * self.blocks * LANES;
        let scale = match &self.scales {
            BlockScales::F32(scales) => Scale::F32(scales.as_ptr().wrapping_add(at)),
            BlockScales::E8m0(codes) => Scale::E8m0(codes.as_ptr().wrapping_add(at)),
            BlockScales::E4m3 { codes, tensor } => Scale::E4m3(codes.as_ptr().wrapping_add(at), *tensor),
            BlockScales::Nested(nested) => Scale::Nested {
                codes: nested.codes.as_ptr().wrapping_add(at),
                map: nested.map.as_ptr(),
                constants: nested.constants.as_ptr(),
                offset: nested.offset,
                first: at as u32,
                lane_blocks: self.lane_blocks.as_ptr(),
            },
        };
        Coded {
            words: StoredWords {
                words: self.words.as_ptr().wrapping_add(first * self.runs * WORDS * LANES),
                panel_words: self.runs * WORDS * LANES,
            },
            table: self.table.as_ptr(),
            scale,
            panel_scales: self.blocks * LANES,
            words_per_scale: self.block / codebook_walk::PER_WORD,
        }
    }
    #[inline(always)]
    fn word_at(&self, panel: usize, k: usize) -> *const u8 {
        let run = panel * self.runs + k / BLOCK;
        self.words.as_ptr().wrapping_add(run * WORDS * LANES).cast()
    }
}

/// Scales in the order `[panel][block][16]`; those of missing rows are small, not NaN.
fn panel_scales(scales: &BlockScales, n: usize, blocks: usize) -> BlockScales {
    match scales {
        BlockScales::F32(scales) => BlockScales::F32(in_panels(scales, n, blocks)),
        BlockScales::E8m0(codes) => BlockScales::E8m0(in_panels(codes, n, blocks)),
        BlockScales::E4m3 { codes, tensor } => {
            BlockScales::E4m3 { codes: in_panels(codes, n, blocks), tensor: *tensor }
        }
        BlockScales::Nested(nested) => {
            // missing rows look their constants up too
            let mut constants = nested.constants.clone();
            constants.resize((n_panels(n) * LANES * blocks).div_ceil(NestedScales::PER_CONSTANT), 0.0);
            BlockScales::Nested(NestedScales {
                codes: in_panels(&nested.codes, n, blocks),
                constants,
                ..nested.clone()
            })
        }
    }
}

fn in_panels<T: Copy + Default>(values: &[T], n: usize, blocks: usize) -> Vec<T> {
    let mut out = vec![T::default(); n_panels(n) * blocks * LANES];
    for (row, values) in values.chunks_exact(blocks.max(1)).enumerate() {
        for (block, &value) in values.iter().enumerate() {
            out[((row / LANES) * blocks + block) * LANES + row % LANES] = value;
        }
    }
    out
}
