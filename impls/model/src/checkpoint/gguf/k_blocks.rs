//! What: the values of ggml's super-blocks of 256: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//! Source: the block layouts of ggml, as its Python package `gguf` publishes them.
//! Shapes: one block of bytes → 256 values.
//! Method: 1. sub-block scales (and minima) are integers times the f16 scale of the block. 2. value = scale·code − minimum.
//! Exactness: bit-equal to `gguf.quants.dequantize`; each product and difference is rounded to f32.

use super::block::half;

/// Six-bit scale and minimum of sub-block `j` of 8, packed in 12 bytes.
pub(super) fn scale_min(s: &[u8], j: usize) -> (u8, u8) {
    match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
    }
}

/// Six-bit scale around 32 of sub-block `j` of 16, packed in 12 bytes.
pub(super) fn third_scale(packed: &[u8], j: usize) -> i8 {
    let low = packed[j % 8] >> (4 * (j / 8)) & 15;
    let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
    (low | high << 4) as i8 - 32
}

/// d, dmin, 12 bytes of scales, 128 bytes of nibbles: each 32 bytes hold two sub-blocks.
pub(super) fn q4_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin, scales, codes) = (half(b), half(&b[2..]), &b[4..16], &b[16..144]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(scales, j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (j % 2);
        for (out, code) in out.iter_mut().zip(&codes[32 * (j / 2)..]) {
            *out = scale * f32::from(code >> shift & 15) - min;
        }
    }
}

/// As Q4_K, with the fifth bit of sub-block j in bit j of 32 bytes.
pub(super) fn q5_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin, scales, high, codes) = (half(b), half(&b[2..]), &b[4..16], &b[16..48], &b[48..176]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(scales, j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (j % 2);
        for (l, out) in out.iter_mut().enumerate() {
            let code = codes[32 * (j / 2) + l] >> shift & 15 | (high[l] >> j & 1) << 4;
            *out = scale * f32::from(code) - min;
        }
    }
}

/// Low nibbles, high bit pairs, 16 scales of 8 bits, d: each half of 128 values is four runs of 32.
pub(super) fn q6_k(b: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(&b[208..]));
    for (i, out) in out.iter_mut().enumerate() {
        let (part, run, l) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[64 * part + 32 * (run % 2) + l] >> (4 * (run / 2)) & 15;
        let pair = high[32 * part + l] >> (2 * run) & 3;
        let code = f32::from(nibble | pair << 4) - 32.0;
        *out = d * f32::from(scales[i / 16] as i8) * code;
    }
}

/// 16 bytes of scale (low) and minimum (high) nibbles, 64 bytes of bit pairs, d, dmin.
pub(super) fn q2_k(b: &[u8], out: &mut [f32]) {
    let (scales, codes, d, dmin) = (&b[..16], &b[16..80], half(&b[80..]), half(&b[82..]));
    for (i, out) in out.iter_mut().enumerate() {
        let (part, run, l) = (i / 128, i % 128 / 32, i % 32);
        let code = codes[32 * part + l] >> (2 * run) & 3;
        let scale = scales[i / 16];
        *out = d * f32::from(scale & 15) * f32::from(code) - dmin * f32::from(scale >> 4);
    }
}

/// 32 bytes of third bits (a clear bit subtracts 4), 64 bytes of bit pairs, 12 bytes of six-bit scales around 32, d.
pub(super) fn q3_k(b: &[u8], out: &mut [f32]) {
    let (third, codes, packed, d) = (&b[..32], &b[32..96], &b[96..108], half(&b[108..]));
    for (i, out) in out.iter_mut().enumerate() {
        let (part, run, l) = (i / 128, i % 128 / 32, i % 32);
        let pair = codes[32 * part + l] >> (2 * run) & 3;
        let code = f32::from(pair) - if third[l] >> (4 * part + run) & 1 == 0 { 4.0 } else { 0.0 };
        *out = d * f32::from(third_scale(packed, i / 16)) * code;
    }
}
