//! The order in which weights lie in device memory: `tile.cuh`'s, by maps that the tests turn round.

use crate::GpuError;

/// Columns of k that kernels treat as one: k is padded to whole units.
pub(crate) const UNIT: usize = 64;
/// Outputs of a tile.
const OUTPUTS: usize = 16;

/// Units that hold `k` columns.
pub(crate) fn units(k: usize) -> usize {
    k.div_ceil(UNIT)
}

/// Output (of 16) and column (of 16) of 16-bit number `i` (0, 1) of word `word` (0 … 3) of a lane's 16 bytes.
pub fn place_16(lane: usize, word: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (word & 1), 2 * (lane % 4) + i + 8 * (word >> 1))
}

/// Output (of 16) and column (of 32) of byte `i` of word `word` of a lane's 16 bytes.
pub fn place_int8(lane: usize, word: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (word & 1), 4 * (lane % 4) + i + 16 * (word >> 1))
}

/// Output (of 16) and column (of 64) of nibble `i` (0 … 7) of word `word` of a lane's 16 bytes.
pub fn place_int4(lane: usize, word: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i & 1), 16 * word + 2 * (lane % 4) + (i >> 2) + 8 * ((i >> 1) & 1))
}

/// Words of tiles of `per_word` numbers of `32 / per_word` bits; `at(output, column)` is a number, also where padding is.
fn pack(
    n: usize,
    k: usize,
    per_word: usize,
    place: fn(usize, usize, usize) -> (usize, usize),
    at: impl Fn(usize, usize) -> u32,
) -> Vec<u32> {
    let columns = 8 * per_word;
    let tiles = units(k) * UNIT / columns;
    let mut words = Vec::with_capacity(n.div_ceil(OUTPUTS) * tiles * 128);
    for block in 0..n.div_ceil(OUTPUTS) {
        for tile in 0..tiles {
            for (lane, word) in (0..32).flat_map(|lane| (0..4).map(move |word| (lane, word))) {
                words.push((0..per_word).fold(0, |packed, i| {
                    let (output, column) = place(lane, word, i);
                    packed | at(block * OUTPUTS + output, tile * columns + column) << (32 / per_word * i)
                }));
            }
        }
    }
    words
}

/// Row-major 16-bit numbers `[n, k]` as tiles; zeros where padding is.
pub fn pack_16(bits: &[u16], n: usize, k: usize) -> Vec<u32> {
    pack(
        n,
        k,
        2,
        place_16,
        |output, column| {
            if output < n && column < k { u32::from(bits[output * k + column]) } else { 0 }
        },
    )
}

/// Row-major int8 codes `[n, k]` as tiles; zeros where padding is.
pub fn pack_int8(codes: &[i8], n: usize, k: usize) -> Vec<u32> {
    pack(
        n,
        k,
        4,
        place_int8,
        |output, column| {
            if output < n && column < k { u32::from(codes[output * k + column] as u8) } else { 0 }
        },
    )
}

/// 4-bit codes `[n, k]`, one a byte, as tiles; position j of a row holds column `slots[j]`, or 8 where it is padding.
pub fn pack_int4(codes: &[u8], n: usize, k: usize, slots: &[Option<u32>]) -> Vec<u32> {
    pack(n, slots.len(), 8, place_int4, |output, position| match slots.get(position) {
        Some(Some(column)) if output < n => u32::from(codes[output * k + *column as usize]),
        _ => 8,
    })
}

/// Refuses lengths that disagree with `expected`.
pub(crate) fn check_len(kernel: &'static str, what: &str, found: usize, expected: usize) -> Result<(), GpuError> {
    if found == expected {
        return Ok(());
    }
    Err(GpuError::shape(kernel, format!("{what} has {found} values, expected {expected}")))
}
