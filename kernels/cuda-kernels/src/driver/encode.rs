//! Tensor maps as the driver encodes them.

use std::ffi::c_void;

use cudarc::driver::{DriverError, sys};

use crate::TensorMapShape;

/// The 128 bytes that a kernel takes.
pub(super) fn encode(map: &TensorMapShape) -> Result<[u8; 128], DriverError> {
    use sys::CUtensorMapSwizzle_enum as Swizzle;
    let swizzle = match map.swizzle_bytes {
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
    };
    let steps = vec![1u32; map.dims.len()];
    let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: all arrays have `dims.len()` entries (strides one less), which `TensorMapShape::check` has seen to.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            // bf16 and f16 are moved alike
            sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            map.dims.len() as u32,
            map.base as *mut c_void,
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.box_dims.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()?;
    let mut bytes = [0; 128];
    for (to, word) in bytes.chunks_exact_mut(8).zip(encoded.opaque) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}
