//! The emulator's own tensor map: what a `CUtensorMap` says, in 128 bytes.

/// A tensor in global memory and the box that one copy moves. Innermost dimension first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMap {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element_bytes: u32,
    /// Address of element 0.
    pub base: u64,
    /// Elements per dimension, 1 to 5 of them.
    pub dims: Vec<u64>,
    /// Bytes between neighbours of each dimension but the innermost.
    pub strides: Vec<u64>,
    /// Elements of the box per dimension.
    pub box_dims: Vec<u32>,
    /// Pattern that the box has in shared memory: 0 (none), 32, 64 or 128 bytes.
    pub swizzle_bytes: u32,
}

/// A rule of tensor maps that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(
    /// The rule and the value.
    pub String,
);

const MARK: u32 = 0x7074_6d31;

impl TensorMap {
    /// The bytes to hand to a kernel, or the rule of the hardware that the map breaks.
    pub fn encode(&self) -> Result<[u8; 128], TensorMapError> {
        self.check().map_err(TensorMapError)?;
        let mut bytes = [0u8; 128];
        let mut at = 0;
        let mut put = |value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        };
        put(&MARK.to_le_bytes());
        put(&[self.element_bytes as u8, self.dims.len() as u8, self.swizzle_bytes as u8, 0]);
        put(&self.base.to_le_bytes());
        self.dims.iter().for_each(|dim| put(&dim.to_le_bytes()));
        self.strides.iter().for_each(|stride| put(&stride.to_le_bytes()));
        self.box_dims.iter().for_each(|dim| put(&dim.to_le_bytes()));
        Ok(bytes)
    }

    /// The map of 128 bytes, if they hold one.
    pub fn decode(bytes: &[u8; 128]) -> Option<TensorMap> {
        let mut at = 8;
        let mut word = || {
            at += 8;
            u64::from_le_bytes(bytes[at - 8..at].try_into().expect("eight bytes"))
        };
        if u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) != MARK {
            return None;
        }
        let rank = bytes[5] as usize;
        if !(1..=5).contains(&rank) {
            return None;
        }
        let base = word();
        let dims = (0..rank).map(|_| word()).collect();
        let strides = (1..rank).map(|_| word()).collect();
        let start = 8 + 8 * (2 * rank);
        let box_dims = bytes[start..start + 4 * rank]
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")))
            .collect();
        let (element_bytes, swizzle_bytes) = (bytes[4] as u32, bytes[6] as u32);
        Some(TensorMap { element_bytes, base, dims, strides, box_dims, swizzle_bytes })
    }

    /// Bytes of a box, out-of-bounds elements included.
    pub fn box_bytes(&self) -> u64 {
        self.box_dims.iter().map(|&dim| dim as u64).product::<u64>() * self.element_bytes as u64
    }

    fn check(&self) -> Result<(), String> {
        let rank = self.dims.len();
        if !(1..=5).contains(&rank) || self.strides.len() + 1 != rank || self.box_dims.len() != rank {
            return Err(format!(
                "{rank} dimensions need {} strides and {rank} box sizes (1 to 5 dimensions)",
                rank.max(1) - 1
            ));
        }
        if ![1, 2, 4, 8].contains(&self.element_bytes) {
            return Err(format!("elements of {} bytes; 1, 2, 4 or 8 are possible", self.element_bytes));
        }
        if !self.base.is_multiple_of(16) {
            return Err(format!("base {:#x} is no multiple of 16", self.base));
        }
        if let Some(dim) = self.dims.iter().find(|&&dim| dim == 0 || dim > 1 << 32) {
            return Err(format!("a dimension of {dim}; 1 to 2^32 are possible"));
        }
        if let Some(stride) = self.strides.iter().find(|&&stride| !stride.is_multiple_of(16) || stride >= 1 << 40) {
            return Err(format!("a stride of {stride} bytes; multiples of 16 below 2^40 are possible"));
        }
        if let Some(dim) = self.box_dims.iter().find(|&&dim| dim == 0 || dim > 256) {
            return Err(format!("a box of {dim}; 1 to 256 are possible"));
        }
        let inner = self.box_dims[0] * self.element_bytes;
        if !inner.is_multiple_of(16) {
            return Err(format!("inner box of {inner} bytes; multiples of 16 are possible"));
        }
        match self.swizzle_bytes {
            0 => Ok(()),
            32 | 64 | 128 if inner <= self.swizzle_bytes => Ok(()),
            32 | 64 | 128 => {
                Err(format!("inner box of {inner} bytes does not fit a swizzle of {} bytes", self.swizzle_bytes))
            }
            other => Err(format!("swizzle of {other} bytes; 0, 32, 64 and 128 are possible")),
        }
    }
}

/// Where a byte of a swizzled pattern lies: address bits 4 and up are mixed with bits 7 and up.
pub fn swizzle(address: u64, swizzle_bytes: u32) -> u64 {
    match swizzle_bytes {
        128 => address ^ (address >> 3 & 0x70),
        64 => address ^ (address >> 3 & 0x30),
        32 => address ^ (address >> 3 & 0x10),
        _ => address,
    }
}
