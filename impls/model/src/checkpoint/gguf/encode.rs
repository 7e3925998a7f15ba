//! What: values to ggml's blocks, for the types that are written: F32, F16, BF16, Q8_0, Q4_0, Q4_1.
//! Source: the reference rounding of ggml, as its Python package `gguf` publishes it.
//! Shapes: rows of a multiple of the block's values → that many blocks of bytes.
//! Method: 1. one scale (and minimum) per 32 values in f32. 2. codes by its f32 inverse. 3. the scale is stored in f16.
//! Exactness: bit-equal to the reference, whose codes are chosen with the scale before it is rounded to f16.
//! Not handled: the other types, and values beyond what f16 holds (`fits` says so).

use half::{bf16, f16};

use super::block::Block;

impl Block {
    /// Types that can be written.
    pub const WRITTEN: [Block; 6] = [Block::F32, Block::F16, Block::Bf16, Block::Q8_0, Block::Q4_0, Block::Q4_1];

    /// Whether every scale of `values` is one that the type can hold.
    pub(super) fn fits(self, values: &[f32]) -> bool {
        // 65520 is the first value that rounds to infinity in f16
        let most = match self {
            Block::F32 | Block::Bf16 => f32::MAX,
            Block::F16 | Block::Q4_1 => 65519.0,
            Block::Q8_0 => 65519.0 * 127.0,
            _ => 65519.0 * 8.0,
        };
        values.iter().all(|v| v.abs() <= most)
    }

    /// Appends the blocks of `values`, a multiple of [`Block::values`], to `out`.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Block::F32 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Block::F16 => values.iter().for_each(|v| out.extend(f16::from_f32(*v).to_le_bytes())),
            Block::Bf16 => values.iter().for_each(|v| out.extend(bf16::from_f32(*v).to_le_bytes())),
            Block::Q4_0 => values.chunks_exact(32).for_each(|block| q4_0(block, out)),
            Block::Q4_1 => values.chunks_exact(32).for_each(|block| q4_1(block, out)),
            _ => values.chunks_exact(32).for_each(|block| q8_0(block, out)),
        }
    }
}

/// 1 / scale, or zero where there is nothing to scale.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let scale = block.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
}

/// The value farthest from zero becomes code 0 (-8 times the scale).
fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let extreme = block.iter().fold(0f32, |most, v| if v.abs() > most.abs() { *v } else { most });
    let scale = extreme / -8.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    nibbles(block, out, |v| v * inverse + 8.5);
}

fn q4_1(block: &[f32], out: &mut Vec<u8>) {
    let (low, high) = block.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let scale = (high - low) / 15.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(f16::from_f32(low).to_le_bytes());
    nibbles(block, out, |v| (v - low) * inverse + 0.5);
}

/// Codes of the first 16 values in the low halves of 16 bytes, of the last 16 in the high ones; cut to a whole number.
fn nibbles(block: &[f32], out: &mut Vec<u8>, code: impl Fn(f32) -> f32) {
    let code = |v: f32| (code(v) as i8).min(15) as u8;
    let (low, high) = block.split_at(16);
    out.extend(low.iter().zip(high).map(|(low, high)| code(*low) | code(*high) << 4));
}
