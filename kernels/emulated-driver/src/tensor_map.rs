//! `cuTensorMapEncodeTiled`, with the rules that its documentation states.

use std::ffi::{c_uint, c_void};

use ptx_emulator::TensorMap;

use crate::answer::*;
use crate::state::{bound, give};

/// What a map lies in: 128 bytes at a multiple of 64.
#[repr(C, align(64))]
struct Encoded([u8; 128]);

/// Bytes of an element of a `CUtensorMapDataType`, and whether it is a floating-point number.
fn element(data_type: c_uint) -> Option<(u32, bool)> {
    match data_type {
        0 => Some((1, false)),
        1 => Some((2, false)),
        2 | 3 => Some((4, false)),
        4 | 5 => Some((8, false)),
        6 | 9 => Some((2, true)),
        7 | 10..=12 => Some((4, true)),
        8 => Some((8, true)),
        _ => None,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuTensorMapEncodeTiled(
    to: *mut c_void,
    data_type: c_uint,
    rank: c_uint,
    base: u64,
    dims: *const u64,
    strides: *const u64,
    box_dims: *const u32,
    element_strides: *const u32,
    interleave: c_uint,
    swizzle: c_uint,
    promotion: c_uint,
    fill: c_uint,
) -> Code {
    bound(|state| {
        let refuse = |rule: String| {
            eprintln!("emulated driver: tensor map refused: {rule}");
            Err(INVALID_VALUE)
        };
        let Some((element_bytes, is_float)) = element(data_type) else {
            return refuse(format!("no data type {data_type}"));
        };
        if !(1..=5).contains(&rank)
            || [dims, strides].contains(&std::ptr::null())
            || box_dims.is_null()
            || element_strides.is_null()
        {
            return refuse(format!("{rank} dimensions (1 to 5 are possible), or an array is missing"));
        }
        let rank = rank as usize;
        // SAFETY: the caller's arrays have `rank` entries, strides one less.
        let (dims, strides, box_dims, steps) = unsafe {
            (
                std::slice::from_raw_parts(dims, rank).to_vec(),
                std::slice::from_raw_parts(strides, rank - 1).to_vec(),
                std::slice::from_raw_parts(box_dims, rank).to_vec(),
                std::slice::from_raw_parts(element_strides, rank).to_vec(),
            )
        };
        if steps.iter().any(|step| !(1..=8).contains(step)) || promotion > 3 || fill > 1 || (fill == 1 && !is_float) {
            return refuse(format!("element strides {steps:?}, promotion {promotion}, fill {fill}"));
        }
        if interleave != 0 || swizzle > 3 || steps.iter().any(|&step| step != 1) || fill != 0 {
            eprintln!(
                "emulated driver: interleaved maps, element strides, fills with NaN and newer swizzles are not emulated"
            );
            return Err(NOT_SUPPORTED);
        }
        if !state.holds(base, 1) {
            return refuse(format!("{base:#x} lies in no allocation"));
        }
        let swizzle_bytes = [0, 32, 64, 128][swizzle as usize];
        match (TensorMap { element_bytes, base, dims, strides, box_dims, swizzle_bytes }).encode() {
            Ok(bytes) => give(to.cast::<Encoded>(), Encoded(bytes)),
            Err(e) => refuse(e.to_string()),
        }
    })
}
