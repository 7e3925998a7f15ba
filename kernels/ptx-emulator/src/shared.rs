//! Shared memory of one block, and the windows through which generic addresses see other spaces.

use crate::fault::{Near, Trouble};
use crate::memory::Written;

/// Generic address of shared byte 0.
pub const SHARED_WINDOW: u64 = 0x0100_0000_0000_0000;
/// Generic address of local byte 0.
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000_0000;
/// Generic address of parameter byte 0.
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000_0000;
/// Where static shared memory starts: below, the hardware keeps a reserved kilobyte.
pub const FIRST_SHARED: u64 = 1024;

/// Bytes from [`FIRST_SHARED`] on, with marks of what was written.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    written: Written,
}

impl Shared {
    /// `end` is the first address behind the block's shared memory.
    pub fn new(end: u64) -> Shared {
        Shared { bytes: vec![0; end as usize], written: Written::new(end as usize) }
    }

    /// Checks that an access lies inside.
    #[inline(always)]
    pub fn check(&self, address: u64, count: usize) -> Result<usize, Trouble> {
        if address < FIRST_SHARED || address.saturating_add(count as u64) > self.bytes.len() as u64 {
            let near = Near(Some((FIRST_SHARED, self.bytes.len() as u64 - FIRST_SHARED)));
            return Err(Trouble::OutOfBounds { space: "shared", address, bytes: count as u64, near });
        }
        Ok(address as usize)
    }

    /// Up to 16 bytes, all of which must have been written.
    #[inline(always)]
    pub fn load(&self, address: u64, count: usize) -> Result<u128, Trouble> {
        let at = self.check(address, count)?;
        if !self.written.all(at, count) {
            return Err(Trouble::Uninitialised { space: "shared", address, bytes: count as u64 });
        }
        let mut value = [0u8; 16];
        value[..count].copy_from_slice(&self.bytes[at..at + count]);
        Ok(u128::from_le_bytes(value))
    }

    /// Writes up to 16 bytes.
    #[inline(always)]
    pub fn store(&mut self, address: u64, count: usize, value: u128) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        self.bytes[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
        self.written.set(at, count, true);
        Ok(())
    }

    /// Marks bytes as not there yet: a copy into them is under way.
    pub fn forget(&mut self, address: u64, count: usize) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        self.written.set(at, count, false);
        Ok(())
    }
}
