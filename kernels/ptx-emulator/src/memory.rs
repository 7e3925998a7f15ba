//! Global memory: allocations with gaps between them, and a bit per byte that says whether it was ever written.

use crate::fault::{Fault, Near, Trouble};

const FIRST: u64 = 0x0000_7f00_0000_0000;
const GUARD: u64 = 4096;

/// One bit per byte.
#[derive(Debug, Clone, Default)]
pub struct Written(Vec<u64>);

impl Written {
    /// All clear.
    pub fn new(bytes: usize) -> Written {
        Written(vec![0; bytes.div_ceil(64)])
    }

    /// Whether `count` bytes from `at` are all marked.
    #[inline(always)]
    pub fn all(&self, at: usize, count: usize) -> bool {
        let shift = at & 63;
        if shift + count <= 64 && count < 64 {
            let mask = ((1u64 << count) - 1) << shift;
            return self.0[at >> 6] & mask == mask;
        }
        (at..at + count).all(|byte| self.0[byte >> 6] >> (byte & 63) & 1 == 1)
    }

    /// Marks `count` bytes from `at`, or clears the marks.
    #[inline(always)]
    pub fn set(&mut self, at: usize, count: usize, value: bool) {
        let shift = at & 63;
        if shift + count <= 64 && count < 64 {
            let mask = ((1u64 << count) - 1) << shift;
            let word = &mut self.0[at >> 6];
            *word = if value { *word | mask } else { *word & !mask };
            return;
        }
        let mut at = at;
        let end = at + count;
        while at < end {
            let step = (64 - (at & 63)).min(end - at);
            let mask = if step == 64 { !0 } else { ((1u64 << step) - 1) << (at & 63) };
            let word = &mut self.0[at >> 6];
            *word = if value { *word | mask } else { *word & !mask };
            at += step;
        }
    }
}

#[derive(Debug)]
struct Allocation {
    start: u64,
    bytes: Vec<u8>,
    written: Written,
}

/// Global memory of the emulated device. Addresses are never reused.
#[derive(Debug)]
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
    last: usize,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Memory {
    /// Without any allocation.
    pub fn new() -> Memory {
        Memory { allocations: Vec::new(), next: FIRST, last: 0 }
    }

    /// Address of `bytes` fresh bytes: a multiple of 256, none of them written, no other allocation within 4096 bytes.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        let start = self.next;
        self.next = (start + bytes as u64 + GUARD).next_multiple_of(256);
        self.allocations.push(Allocation { start, bytes: vec![0; bytes], written: Written::new(bytes) });
        start
    }

    /// Gives an allocation back; its address is never handed out again.
    pub fn free(&mut self, address: u64) -> Result<(), Fault> {
        let found = self.allocations.binary_search_by_key(&address, |a| a.start);
        let index = found.map_err(|_| self.outside(address, 0))?;
        self.allocations.remove(index);
        self.last = 0;
        Ok(())
    }

    /// Writes from the host.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        if !bytes.is_empty() {
            let (allocation, at) = self.find(address, bytes.len())?;
            allocation.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            allocation.written.set(at, bytes.len(), true);
        }
        Ok(())
    }

    /// Reads from the host. A byte that was never written is a fault.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let count = bytes.len();
        let index = self.index(address, count).ok_or_else(|| self.outside(address, count))?;
        let allocation = &self.allocations[index];
        let at = (address - allocation.start) as usize;
        if !allocation.written.all(at, count) {
            let first = (at..at + count).find(|&byte| !allocation.written.all(byte, 1)).unwrap_or(at);
            let address = allocation.start + first as u64;
            return Err(Trouble::Uninitialised { space: "global", address, bytes: 1 }.into());
        }
        bytes.copy_from_slice(&allocation.bytes[at..at + count]);
        Ok(())
    }

    /// Copies between or within allocations, unwritten bytes as such.
    pub fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<(), Fault> {
        if bytes == 0 {
            return Ok(());
        }
        let (source, at) = self.find(from, bytes)?;
        let data = source.bytes[at..at + bytes].to_vec();
        let marks: Vec<bool> = (at..at + bytes).map(|byte| source.written.all(byte, 1)).collect();
        let (target, at) = self.find(to, bytes)?;
        target.bytes[at..at + bytes].copy_from_slice(&data);
        for (byte, mark) in marks.into_iter().enumerate() {
            target.written.set(at + byte, 1, mark);
        }
        Ok(())
    }

    /// Reads for a kernel: up to 16 bytes.
    #[inline]
    pub(crate) fn load(&mut self, address: u64, count: usize) -> Result<u128, Trouble> {
        let (allocation, at) = self.find(address, count)?;
        if !allocation.written.all(at, count) {
            return Err(Trouble::Uninitialised { space: "global", address, bytes: count as u64 });
        }
        let mut value = [0u8; 16];
        value[..count].copy_from_slice(&allocation.bytes[at..at + count]);
        Ok(u128::from_le_bytes(value))
    }

    /// Writes for a kernel: up to 16 bytes.
    #[inline]
    pub(crate) fn store(&mut self, address: u64, count: usize, value: u128) -> Result<(), Trouble> {
        let (allocation, at) = self.find(address, count)?;
        allocation.bytes[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
        allocation.written.set(at, count, true);
        Ok(())
    }

    #[inline]
    fn find(&mut self, address: u64, count: usize) -> Result<(&mut Allocation, usize), Trouble> {
        let last = self.last;
        if let Some(allocation) = self.allocations.get(last) {
            let at = address.wrapping_sub(allocation.start);
            if at < allocation.bytes.len() as u64 && at + count as u64 <= allocation.bytes.len() as u64 {
                return Ok((&mut self.allocations[last], at as usize));
            }
        }
        let index = self.index(address, count).ok_or_else(|| self.outside(address, count))?;
        self.last = index;
        let allocation = &mut self.allocations[index];
        let at = (address - allocation.start) as usize;
        Ok((allocation, at))
    }

    fn index(&self, address: u64, count: usize) -> Option<usize> {
        let index = self.allocations.partition_point(|a| a.start <= address).checked_sub(1)?;
        let allocation = &self.allocations[index];
        let at = address - allocation.start;
        let end = at.checked_add(count as u64)?;
        (end <= allocation.bytes.len() as u64).then_some(index)
    }

    fn outside(&self, address: u64, count: usize) -> Trouble {
        let below = self.allocations.partition_point(|a| a.start <= address).checked_sub(1);
        let near = Near(below.map(|index| (self.allocations[index].start, self.allocations[index].bytes.len() as u64)));
        Trouble::OutOfBounds { space: "global", address, bytes: count as u64, near }
    }
}
