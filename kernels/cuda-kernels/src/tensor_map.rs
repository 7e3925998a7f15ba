//! Descriptions of tensors for Hopper's tensor memory accelerator (TMA).

use crate::{Gpu, GpuError};

/// What a map describes: a tensor of 16-bit elements and the box that one copy moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMapShape {
    /// Address of the first element, a multiple of 16.
    pub base: u64,
    /// Elements of each dimension, the contiguous one first; up to five.
    pub dims: Vec<u64>,
    /// Bytes from one index to the next, of every dimension but the first: multiples of 16 below 2⁴⁰.
    pub strides: Vec<u64>,
    /// Elements of a box in each dimension, 1 … 256.
    pub box_dims: Vec<u32>,
    /// Bytes of the pattern by which 16-byte pieces of a row change places in shared memory: 0, 32, 64 or 128; a box row
    /// is no longer than it.
    pub swizzle_bytes: u32,
}

impl TensorMapShape {
    /// Checks the rules of `cuTensorMapEncodeTiled`.
    pub fn check(&self) -> Result<(), String> {
        let rank = self.dims.len();
        let row_bytes = self.box_dims.first().map_or(0, |&elements| elements * 2);
        let rules = [
            ((1..=5).contains(&rank), format!("{rank} dimensions, expected 1 to 5")),
            (
                self.strides.len() + 1 == rank && self.box_dims.len() == rank,
                "one box size per dimension and one stride less".into(),
            ),
            (self.base.is_multiple_of(16), "the base must be a multiple of 16".into()),
            (self.dims.iter().all(|&d| d > 0 && d <= 1 << 32), "dimensions must be 1 to 2^32".into()),
            (
                self.strides.iter().all(|&s| s % 16 == 0 && s < 1 << 40),
                "strides must be multiples of 16 below 2^40".into(),
            ),
            (self.box_dims.iter().all(|&b| (1..=256).contains(&b)), "box sizes must be 1 to 256".into()),
            (row_bytes.is_multiple_of(16), format!("a box row of {row_bytes} bytes, expected a multiple of 16")),
            (
                matches!(self.swizzle_bytes, 0 | 32 | 64 | 128),
                format!("a swizzle of {} bytes, expected 0, 32, 64 or 128", self.swizzle_bytes),
            ),
            (
                self.swizzle_bytes == 0 || row_bytes <= self.swizzle_bytes,
                format!("a box row of {row_bytes} bytes, expected at most the swizzle's {}", self.swizzle_bytes),
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(broken),
            None => Ok(()),
        }
    }
}

/// An encoded map: an argument of a kernel.
#[derive(Debug, Clone)]
pub struct TensorMap([u8; 128]);

impl TensorMap {
    /// Encodes `shape` as `gpu` wants it.
    pub fn encode(gpu: &Gpu, shape: &TensorMapShape) -> Result<TensorMap, GpuError> {
        shape.check().map_err(|reason| GpuError::shape("tensor map", reason))?;
        gpu.backend().tensor_map(shape).map(TensorMap)
    }

    pub(crate) fn bytes(&self) -> &[u8; 128] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_driver_hold() {
        let good = TensorMapShape {
            base: 256,
            dims: vec![64, 100, 2],
            strides: vec![256, 128],
            box_dims: vec![64, 128, 2],
            swizzle_bytes: 128,
        };
        assert_eq!(good.check(), Ok(()));
        let broken = [
            TensorMapShape { base: 8, ..good.clone() },
            TensorMapShape { dims: vec![64, 0, 2], ..good.clone() },
            TensorMapShape { strides: vec![250, 128], ..good.clone() },
            TensorMapShape { strides: vec![256], ..good.clone() },
            TensorMapShape { box_dims: vec![64, 257, 2], ..good.clone() },
            TensorMapShape { box_dims: vec![128, 64, 2], ..good.clone() },
            TensorMapShape { swizzle_bytes: 96, ..good.clone() },
        ];
        for shape in broken {
            assert!(shape.check().is_err(), "{shape:?}");
        }
    }
}
