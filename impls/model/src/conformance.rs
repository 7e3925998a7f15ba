//! What every variant of an axis must satisfy; each axis's tests run these over its list of specs, so that a new
//! variant is tested by being listed.

pub mod attention;
pub mod kv_cache;
pub mod linear;
pub mod plain_cache;

/// A value in [−1, 1) that depends on `place` alone, so that any part of an input can be made again anywhere.
pub(crate) fn value(place: u64) -> f32 {
    // splitmix64, Steele, Lea and Flood 2014
    let mut z = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
