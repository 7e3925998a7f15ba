//! The block formats of ggml that are read, and their values as ggml computes them.
//!
//! A row is a sequence of blocks of 32 or 256 values. Products and sums are rounded to f32 one after the other, never fused,
//! which is what the format's published reference does.

use half::{bf16, f16};

use super::i_blocks;
use super::k_blocks::{q2_k, q3_k, q4_k, q5_k, q6_k};

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 codes of 4 bits around 8 and an f16 scale.
    Q4_0,
    /// 32 codes of 4 bits, an f16 scale and an f16 minimum.
    Q4_1,
    /// 32 codes of 5 bits around 16 and an f16 scale.
    Q5_0,
    /// 32 codes of 5 bits, an f16 scale and an f16 minimum.
    Q5_1,
    /// 32 codes of 8 bits and an f16 scale.
    Q8_0,
    /// 256 codes of 2 bits; scales and minima of 4 bits per 16.
    Q2K,
    /// 256 codes of 3 bits; scales of 6 bits per 16.
    Q3K,
    /// 256 codes of 4 bits; scales and minima of 6 bits per 32.
    Q4K,
    /// 256 codes of 5 bits; scales and minima of 6 bits per 32.
    Q5K,
    /// 256 codes of 6 bits; scales of 8 bits per 16.
    Q6K,
    /// 32 codes of 4 bits into uneven levels and an f16 scale.
    Iq4Nl,
    /// 256 codes of 4 bits into uneven levels; scales of 6 bits per 32.
    Iq4Xs,
    /// 8 values of 2 levels at once out of 256 grids.
    Iq2Xxs,
    /// The same out of 512 grids.
    Iq2Xs,
    /// The same out of 1024 grids.
    Iq2S,
    /// 4 values of 8 levels at once out of 256 grids.
    Iq3Xxs,
    /// The same out of 512 grids.
    Iq3S,
    /// 8 values around −1, 0 or 1 at once out of 2048 grids.
    Iq1S,
    /// The same with finer scales.
    Iq1M,
    /// 256 codes of −1, 0 and 1, five to a byte.
    Tq1,
    /// 256 codes of −1, 0 and 1 of 2 bits.
    Tq2,
    /// 32 floats of 4 bits and a power of two.
    Mxfp4,
    /// 64 floats of 4 bits; scales of 8 bits per 16.
    Nvfp4,
}

/// Type number, name, values and bytes of a block.
const TABLE: &[(Block, u32, &str, usize, usize)] = &[
    (Block::F32, 0, "F32", 1, 4),
    (Block::F16, 1, "F16", 1, 2),
    (Block::Bf16, 30, "BF16", 1, 2),
    (Block::Q4_0, 2, "Q4_0", 32, 18),
    (Block::Q4_1, 3, "Q4_1", 32, 20),
    (Block::Q5_0, 6, "Q5_0", 32, 22),
    (Block::Q5_1, 7, "Q5_1", 32, 24),
    (Block::Q8_0, 8, "Q8_0", 32, 34),
    (Block::Q2K, 10, "Q2_K", 256, 84),
    (Block::Q3K, 11, "Q3_K", 256, 110),
    (Block::Q4K, 12, "Q4_K", 256, 144),
    (Block::Q5K, 13, "Q5_K", 256, 176),
    (Block::Q6K, 14, "Q6_K", 256, 210),
    (Block::Iq4Nl, 20, "IQ4_NL", 32, 18),
    (Block::Iq4Xs, 23, "IQ4_XS", 256, 136),
    (Block::Iq2Xxs, 16, "IQ2_XXS", 256, 66),
    (Block::Iq2Xs, 17, "IQ2_XS", 256, 74),
    (Block::Iq2S, 22, "IQ2_S", 256, 82),
    (Block::Iq3Xxs, 18, "IQ3_XXS", 256, 98),
    (Block::Iq3S, 21, "IQ3_S", 256, 110),
    (Block::Iq1S, 19, "IQ1_S", 256, 50),
    (Block::Iq1M, 29, "IQ1_M", 256, 56),
    (Block::Tq1, 34, "TQ1_0", 256, 54),
    (Block::Tq2, 35, "TQ2_0", 256, 66),
    (Block::Mxfp4, 39, "MXFP4", 32, 17),
    (Block::Nvfp4, 40, "NVFP4", 64, 36),
];

/// Names of the types that are known and not read.
const REFUSED: &[(u32, &str)] =
    &[(9, "Q8_1"), (15, "Q8_K"), (24, "I8"), (25, "I16"), (26, "I32"), (27, "I64"), (28, "F64")];

impl Block {
    /// By the number that the format gives it; otherwise what it is called.
    pub(super) fn of(number: u32) -> Result<Block, String> {
        let known = |(block, id, ..): &&(Block, u32, &str, usize, usize)| (*id == number).then_some(*block);
        TABLE.iter().find_map(|row| known(&row)).ok_or_else(|| {
            let name = REFUSED.iter().find(|(id, _)| *id == number).map(|(_, name)| name.to_string());
            name.unwrap_or(format!("type {number}"))
        })
    }

    fn row(self) -> &'static (Block, u32, &'static str, usize, usize) {
        let place = TABLE.iter().position(|row| row.0 == self).unwrap_or_default();
        &TABLE[place]
    }

    /// The number that the format gives it.
    pub fn number(self) -> u32 {
        self.row().1
    }

    /// Its name in ggml.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Names of all.
    pub fn names() -> Vec<&'static str> {
        TABLE.iter().map(|row| row.2).collect()
    }

    /// Values of one block.
    pub fn values(self) -> usize {
        self.row().3
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        self.row().4
    }

    /// The values of whole blocks as f32. `bytes` holds as many blocks as `out` has room for.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let decode: fn(&[u8], &mut [f32]) = match self {
            Block::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Block::F16 => |b, out| out[0] = half(b),
            Block::Bf16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Block::Q4_0 => |b, out| {
                let d = half(b);
                nibbles(&b[2..], out, |q, _| d * (f32::from(q) - 8.0));
            },
            Block::Q4_1 => |b, out| {
                let (d, m) = (half(b), half(&b[2..]));
                nibbles(&b[4..], out, |q, _| d * f32::from(q) + m);
            },
            Block::Q5_0 => |b, out| {
                let d = half(b);
                nibbles(&b[6..], out, |q, i| d * (f32::from(q | fifth_bit(&b[2..], i)) - 16.0));
            },
            Block::Q5_1 => |b, out| {
                let (d, m) = (half(b), half(&b[2..]));
                nibbles(&b[8..], out, |q, i| d * f32::from(q | fifth_bit(&b[4..], i)) + m);
            },
            Block::Q8_0 => |b, out| {
                let d = half(b);
                out.iter_mut().zip(&b[2..]).for_each(|(out, &q)| *out = d * f32::from(q as i8));
            },
            Block::Q2K => q2_k,
            Block::Q3K => q3_k,
            Block::Q4K => q4_k,
            Block::Q5K => q5_k,
            Block::Q6K => q6_k,
            Block::Iq4Nl => i_blocks::iq4_nl,
            Block::Iq4Xs => i_blocks::iq4_xs,
            Block::Iq2Xxs => i_blocks::iq2_xxs,
            Block::Iq2Xs => i_blocks::iq2_xs,
            Block::Iq2S => i_blocks::iq2_s,
            Block::Iq3Xxs => i_blocks::iq3_xxs,
            Block::Iq3S => i_blocks::iq3_s,
            Block::Iq1S => i_blocks::iq1_s,
            Block::Iq1M => i_blocks::iq1_m,
            Block::Tq1 => i_blocks::tq1_0,
            Block::Tq2 => i_blocks::tq2_0,
            Block::Mxfp4 => i_blocks::mxfp4,
            Block::Nvfp4 => i_blocks::nvfp4,
        };
        bytes.chunks_exact(self.bytes()).zip(out.chunks_exact_mut(self.values())).for_each(|(b, out)| decode(b, out));
    }
}

/// The f16 at the start of `bytes`, widened.
pub(super) fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Values of 16 bytes: the low halves first, then the high ones.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(u8, usize) -> f32) {
    for i in 0..16 {
        out[i] = value(bytes[i] & 15, i);
        out[i + 16] = value(bytes[i] >> 4, i + 16);
    }
}

/// Bit `i` of the 32 bits at the start of `bytes`, as the fifth bit of a code.
fn fifth_bit(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 8] >> (i % 8) & 1) << 4
}
