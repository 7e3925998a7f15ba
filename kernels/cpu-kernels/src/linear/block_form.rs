//! What: the forms of ggml's blocks that are multiplied as they are stored, and one row of them taken apart.
//! Source: the block layouts of ggml (Q4_0 … Q8_0 of 32 columns, Q2_K … Q6_K of 256), as its Python package `gguf` publishes them.
//! Shapes: a row is k/32 blocks of 32 codes; constants per block, or integers per 16 or 32 columns times an f16 per 256.
//! Method: w = scale·(code − zero) + minimum, where scale and minimum of the integer forms are d·integer and −dmin·integer.
//! Exactness: d·integer and scale·code are exact in f32, so a weight is rounded once, where there is a minimum, and equals ggml's.
//! Cost: none; this is a description.
//! Not handled: forms whose codes are looked up in tables (IQ…, MXFP4).

/// Columns of a block.
pub(super) const BLOCK: usize = 32;
/// Blocks that share an f16 where constants are integers.
pub(super) const SUPER: usize = 8;

/// A block format of ggml that is multiplied as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum BlockForm {
    /// 4 bits around 8, an f16 scale per 32.
    Q4_0,
    /// 4 bits, an f16 scale and an f16 minimum per 32.
    Q4_1,
    /// 5 bits around 16, an f16 scale per 32.
    Q5_0,
    /// 5 bits, an f16 scale and an f16 minimum per 32.
    Q5_1,
    /// 8 bits around 128, an f16 scale per 32.
    Q8_0,
    /// 2 bits, integer scales and minima per 16.
    Q2K,
    /// 3 bits around 4, integer scales per 16.
    Q3K,
    /// 4 bits, integer scales and minima per 32.
    Q4K,
    /// 5 bits, integer scales and minima per 32.
    Q5K,
    /// 6 bits around 32, integer scales per 16.
    Q6K,
}

impl BlockForm {
    /// All of them, in the order of their numbers.
    pub const ALL: [BlockForm; 10] = [
        BlockForm::Q4_0,
        BlockForm::Q4_1,
        BlockForm::Q5_0,
        BlockForm::Q5_1,
        BlockForm::Q8_0,
        BlockForm::Q2K,
        BlockForm::Q3K,
        BlockForm::Q4K,
        BlockForm::Q5K,
        BlockForm::Q6K,
    ];

    /// The name in ggml, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            BlockForm::Q4_0 => "q4_0",
            BlockForm::Q4_1 => "q4_1",
            BlockForm::Q5_0 => "q5_0",
            BlockForm::Q5_1 => "q5_1",
            BlockForm::Q8_0 => "q8_0",
            BlockForm::Q2K => "q2_k",
            BlockForm::Q3K => "q3_k",
            BlockForm::Q4K => "q4_k",
            BlockForm::Q5K => "q5_k",
            BlockForm::Q6K => "q6_k",
        }
    }

    /// Bits per code.
    pub const fn bits(self) -> usize {
        self.low() + self.high()
    }

    /// Bits of a code in the first plane: they fill bytes evenly.
    pub(super) const fn low(self) -> usize {
        match self {
            BlockForm::Q2K | BlockForm::Q3K => 2,
            BlockForm::Q8_0 => 8,
            _ => 4,
        }
    }

    /// Bits of a code in the second plane.
    pub(super) const fn high(self) -> usize {
        match self {
            BlockForm::Q5_0 | BlockForm::Q5_1 | BlockForm::Q5K | BlockForm::Q3K => 1,
            BlockForm::Q6K => 2,
            _ => 0,
        }
    }

    /// The code of weight 0, where there is no minimum.
    pub const fn zero(self) -> i32 {
        match self {
            BlockForm::Q4_0 => 8,
            BlockForm::Q5_0 => 16,
            BlockForm::Q8_0 => 128,
            BlockForm::Q3K => 4,
            BlockForm::Q6K => 32,
            _ => 0,
        }
    }

    /// Whether a minimum is added.
    pub const fn has_minima(self) -> bool {
        matches!(self, BlockForm::Q4_1 | BlockForm::Q5_1 | BlockForm::Q2K | BlockForm::Q4K | BlockForm::Q5K)
    }

    /// Whether constants are integers times an f16 per 256 columns.
    pub const fn is_super(self) -> bool {
        matches!(self, BlockForm::Q2K | BlockForm::Q3K | BlockForm::Q4K | BlockForm::Q5K | BlockForm::Q6K)
    }

    /// Scales per block of 32: one, or one for each half.
    pub const fn parts(self) -> usize {
        if matches!(self, BlockForm::Q2K | BlockForm::Q3K | BlockForm::Q6K) { 2 } else { 1 }
    }

    /// Columns that a row is a multiple of.
    pub const fn columns(self) -> usize {
        if self.is_super() { SUPER * BLOCK } else { BLOCK }
    }

    /// Constants per position: scale alone, or scale and minimum.
    pub(super) const fn kinds(self) -> usize {
        if self.has_minima() { 2 } else { 1 }
    }

    /// f16 constants of a row of `k` columns, of one kind.
    pub const fn halves(self, k: usize) -> usize {
        k / self.columns()
    }

    /// Integer constants of a row of `k` columns, of one kind; none where constants are f16 alone.
    pub const fn integers(self, k: usize) -> usize {
        if self.is_super() { k / BLOCK * self.parts() } else { 0 }
    }
}

/// One row taken apart; every slice has the length its comment says.
#[derive(Debug, Clone)]
pub struct BlockRow {
    /// Codes from 0, in the order of columns, `[k]`.
    pub codes: Vec<u8>,
    /// f16 bits of scales, or of what the integer scales are multiplied by: [`BlockForm::halves`].
    pub scales: Vec<u16>,
    /// f16 bits of minima (added), or of what the integer minima are multiplied by (subtracted); the length of `scales`, or none.
    pub minima: Vec<u16>,
    /// Integer scales: [`BlockForm::integers`]; signed ones as two's complement where there are no minima.
    pub scale_integers: Vec<u8>,
    /// Integer minima, the length of `scale_integers`, or none.
    pub minimum_integers: Vec<u8>,
}

impl BlockRow {
    /// A row of `k` columns, all zero.
    pub fn new(form: BlockForm, k: usize) -> BlockRow {
        let (halves, integers) = (form.halves(k), form.integers(k));
        let with_minima = |len| if form.has_minima() { len } else { 0 };
        BlockRow {
            codes: vec![0; k],
            scales: vec![0; halves],
            minima: vec![0; with_minima(halves)],
            scale_integers: vec![0; integers],
            minimum_integers: vec![0; with_minima(integers)],
        }
    }
}
