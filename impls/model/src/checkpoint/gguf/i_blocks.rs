//! What: the values of ggml's blocks whose codes are places in a table: IQ1 to IQ4, and of its ternary and four-bit float blocks.
//! Source: the block layouts and tables of ggml, as its Python package `gguf` publishes them.
//! Shapes: one block of bytes → 256 values; 32 in IQ4_NL and MXFP4, 64 in NVFP4.
//! Method: 1. a code finds four or eight values of a grid at once. 2. signs are stored beside, seven of eight where their product is
//!   known. 3. value = scale of the sub-block · grid · sign.
//! Exactness: bit-equal to `gguf.quants.dequantize`; each product is rounded to f32.

use super::block::half;
use super::grids::{self, Grid};

/// Sixteen levels, denser around zero.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of a float of one sign, two exponent and one mantissa bits.
const FLOATS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// What the values of IQ1 lie beside their grid.
const DELTA: f32 = 0.125;

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn pair(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// Nibble `i` of `bytes`, the low one of each byte first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (4 * (i % 2)) & 15
}

/// Eight signs of seven bits: the last makes their number even.
fn seven(signs: u32) -> u8 {
    let seven = (signs & 127) as u8;
    seven | ((seven.count_ones() % 2) as u8) << 7
}

/// `out` = scale · values of the grid · signs.
fn place(scale: f32, values: &[i8], signs: u8, out: &mut [f32]) {
    for (i, (out, &value)) in out.iter_mut().zip(values).enumerate() {
        let value = scale * f32::from(value);
        *out = if signs >> i & 1 == 0 { value } else { -value };
    }
}

/// `out` = scale of 32 values: codes in the low halves of 16 bytes first, then in the high ones.
fn levels(table: &[i8; 16], scale: f32, codes: &[u8], out: &mut [f32]) {
    for (i, &byte) in codes[..16].iter().enumerate() {
        out[i] = scale * f32::from(table[usize::from(byte & 15)]);
        out[i + 16] = scale * f32::from(table[usize::from(byte >> 4)]);
    }
}

pub(super) fn iq4_nl(b: &[u8], out: &mut [f32]) {
    levels(&LEVELS, half(b), &b[2..], out);
}

/// d, high bit pairs of eight scales, their low nibbles, 128 bytes of codes.
pub(super) fn iq4_xs(b: &[u8], out: &mut [f32]) {
    let (d, high) = (half(b), pair(&b[2..]));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = nibble(&b[4..8], j) | ((high >> (2 * j) & 3) as u8) << 4;
        levels(&LEVELS, d * (f32::from(scale) - 32.0), &b[8 + 16 * j..], out);
    }
}

/// A power of two (half of what the byte says, as the table holds doubles), 16 bytes of codes.
pub(super) fn mxfp4(b: &[u8], out: &mut [f32]) {
    let exponent = u32::from(b[0]);
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
    levels(&FLOATS, f32::from_bits(bits), &b[1..], out);
}

/// Four scales of eight bits (four of exponent, three of mantissa), eight bytes of codes each.
pub(super) fn nvfp4(b: &[u8], out: &mut [f32]) {
    for (j, out) in out.chunks_exact_mut(16).enumerate() {
        let (exponent, mantissa) = (i32::from(b[j] >> 3 & 15), f32::from(b[j] & 7));
        let scale = match b[j] {
            0 | 0x7f => 0.0,
            _ if exponent == 0 => mantissa / 512.0 * 0.5,
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) * 0.5,
        };
        for (i, &byte) in b[4 + 8 * j..12 + 8 * j].iter().enumerate() {
            out[i] = scale * f32::from(FLOATS[usize::from(byte & 15)]);
            out[i + 8] = scale * f32::from(FLOATS[usize::from(byte >> 4)]);
        }
    }
}

/// d, then for 32 values each: four codes, and four times seven signs with a scale of four bits.
pub(super) fn iq2_xxs(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (codes, rest) = (&b[2 + 8 * j..], word(&b[6 + 8 * j..]));
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            place(scale, grids::IQ2_XXS.at(codes[i].into()), seven(rest >> (7 * i)), out);
        }
    }
}

/// d, 32 codes of nine bits with seven signs, 16 scales of four bits.
pub(super) fn iq2_xs(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let code = pair(&b[2 + 2 * i..]);
        let scale = d * (0.5 + f32::from(nibble(&b[66..74], i / 2))) * 0.25;
        place(scale, grids::IQ2_XS.at(usize::from(code & 511)), seven(u32::from(code >> 9)), out);
    }
}

/// d, 32 codes, 32 bytes of signs, two more bits of each code, 16 scales of four bits.
pub(super) fn iq2_s(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let code = usize::from(b[2 + i]) | usize::from(b[66 + i / 4] >> (2 * (i % 4)) & 3) << 8;
        let scale = d * (0.5 + f32::from(nibble(&b[74..82], i / 2))) * 0.25;
        place(scale, grids::IQ2_S.at(code), b[34 + i], out);
    }
}

/// d, 64 codes, then for 32 values each four times seven signs with a scale of four bits.
pub(super) fn iq3_xxs(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let rest = word(&b[66 + 4 * (i / 4)..]);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
        let signs = seven(rest >> (7 * (i % 4)));
        place(scale, grids::IQ3_XXS.at(b[2 + 2 * i].into()), signs, &mut out[..4]);
        place(scale, grids::IQ3_XXS.at(b[3 + 2 * i].into()), signs >> 4, &mut out[4..]);
    }
}

/// d, 64 codes, one more bit of each, 32 bytes of signs, eight scales of four bits.
pub(super) fn iq3_s(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (i, out) in out.chunks_exact_mut(4).enumerate() {
        let code = usize::from(b[2 + i]) | usize::from(b[66 + i / 8] >> (i % 8) & 1) << 8;
        let scale = d * f32::from(1 + 2 * nibble(&b[106..110], i / 8));
        place(scale, grids::IQ3_S.at(code), b[74 + i / 2] >> (4 * (i % 2)), out);
    }
}

/// Eight values around a grid of −1, 0 and 1.
fn around(scale: f32, grid: &Grid, code: usize, delta: f32, out: &mut [f32]) {
    out.iter_mut().zip(grid.at(code)).for_each(|(out, &value)| *out = scale * (f32::from(value) + delta));
}

/// d, 32 codes, then for 32 values each: three more bits of four codes, a scale of three bits, the side of the delta.
pub(super) fn iq1_s(b: &[u8], out: &mut [f32]) {
    let d = half(b);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let rest = pair(&b[34 + 2 * (i / 4)..]);
        let code = usize::from(b[2 + i]) | usize::from(rest >> (3 * (i % 4)) & 7) << 8;
        let delta = if rest >> 15 == 0 { DELTA } else { -DELTA };
        around(d * f32::from(2 * (rest >> 12 & 7) + 1), &grids::IQ1_S, code, delta, out);
    }
}

/// 32 codes, three more bits of each with the side of its delta, 16 scales of three bits between four parts of d.
pub(super) fn iq1_m(b: &[u8], out: &mut [f32]) {
    let scales = |i: usize| pair(&b[48 + 2 * i..]);
    let d = (0..4).fold(0u16, |d, i| d | (scales(i) >> 12) << (4 * i));
    let d = half(&d.to_le_bytes());
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let rest = nibble(&b[32..48], i);
        let code = usize::from(b[i]) | usize::from(rest & 7) << 8;
        let delta = if rest & 8 == 0 { DELTA } else { -DELTA };
        let scale = scales(i / 8) >> (3 * (i / 2 % 4)) & 7;
        around(d * f32::from(2 * scale + 1), &grids::IQ1_S, code, delta, out);
    }
}

/// Five digits of base three in a byte, as a fraction of 256: 32 bytes, 16 bytes, then four bytes of four digits; d.
pub(super) fn tq1_0(b: &[u8], out: &mut [f32]) {
    let d = half(&b[52..]);
    for (i, out) in out.iter_mut().enumerate() {
        let (byte, digit) = match i {
            0..160 => (b[i % 32], i / 32),
            160..240 => (b[32 + i % 16], (i - 160) / 16),
            _ => (b[48 + i % 4], (i - 240) / 4),
        };
        let turned = byte.wrapping_mul([1, 3, 9, 27, 81][digit]);
        *out = d * (f32::from(((u16::from(turned) * 3) >> 8) as u8) - 1.0);
    }
}

/// 64 bytes of bit pairs, each 32 bytes hold four runs of 32; d.
pub(super) fn tq2_0(b: &[u8], out: &mut [f32]) {
    let d = half(&b[64..]);
    for (i, out) in out.iter_mut().enumerate() {
        let code = b[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3;
        *out = d * (f32::from(code) - 1.0);
    }
}
