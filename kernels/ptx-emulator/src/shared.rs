//! Shared memory of one block, and the windows through which generic addresses see other spaces.

use std::collections::HashMap;

use crate::fault::{Near, Trouble};
use crate::memory::Written;
use crate::races::Races;

/// Generic address of shared byte 0.
pub const SHARED_WINDOW: u64 = 0x0100_0000_0000_0000;
/// Generic address of local byte 0.
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000_0000;
/// Generic address of parameter byte 0.
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000_0000;
/// Where static shared memory starts: below, the hardware keeps a reserved kilobyte.
pub const FIRST_SHARED: u64 = 1024;
/// From one block's shared memory to the next one's among the addresses that `mapa` gives; a block's own addresses lie below the first.
pub const CLUSTER_STRIDE: u64 = 1 << 24;

/// Bytes from [`FIRST_SHARED`] on, with marks of what was written.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    written: Written,
    /// Order of the warps' accesses.
    pub races: Races,
    /// Where the kernel has instructions that read through the asynchronous proxy.
    unfenced: Option<Unfenced>,
}

/// Bytes that threads wrote in the ordinary way and have not made visible to copies and warpgroup products.
#[derive(Debug, Default)]
struct Unfenced {
    /// Per byte the thread that wrote it, plus one; 0 where nothing is to be fenced.
    by: Vec<u16>,
    /// Per byte when that was, in stores.
    when: Vec<u32>,
    /// Stores so far.
    now: u32,
    /// Per warp when it last fenced.
    fenced: [u32; 32],
    /// What each thread wrote since its last fence: address and length.
    of: HashMap<u16, Vec<(u32, u8)>>,
}

impl Shared {
    /// `end` is the first address behind the block's shared memory; `proxies` watches for missing proxy fences; the block is the
    /// `rank`th of a cluster of `blocks`.
    pub fn new(end: u64, warps: usize, proxies: bool, rank: usize, blocks: usize) -> Shared {
        let size = end as usize;
        let unfenced = proxies.then(|| Unfenced { by: vec![0; size], when: vec![0; size], ..Unfenced::default() });
        let races = Races::new(size, warps, proxies, rank, blocks);
        Shared { bytes: vec![0; size], written: Written::new(size), races, unfenced }
    }

    /// An ordinary write by a thread.
    #[inline(always)]
    pub fn store_by(&mut self, address: u64, count: usize, value: u128, thread: u32) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        let same = self.written.all(at, count) && self.bytes[at..at + count] == value.to_le_bytes()[..count];
        self.races.write(at, count, thread / 32, same)?;
        self.store(address, count, value)?;
        if let Some(unfenced) = &mut self.unfenced {
            let (writer, bytes) = (thread as u16 + 1, address as usize..address as usize + count);
            unfenced.now += 1;
            unfenced.when[bytes.clone()].fill(unfenced.now);
            unfenced.by[bytes].fill(writer);
            unfenced.of.entry(writer).or_default().push((address as u32, count as u8));
        }
        Ok(())
    }

    /// `fence.proxy.async` of a thread: what it wrote can be read by all copies and warpgroup products, and what was written
    /// before by others (it met them at a barrier) by those of its own warp.
    pub fn fence(&mut self, thread: u32) {
        let writer = thread as u16 + 1;
        let Some(unfenced) = &mut self.unfenced else { return };
        unfenced.fenced[thread as usize / 32] = unfenced.now;
        for (address, count) in unfenced.of.remove(&writer).unwrap_or_default() {
            let bytes = &mut unfenced.by[address as usize..][..count as usize];
            bytes.iter_mut().filter(|by| **by == writer).for_each(|by| *by = 0);
        }
    }

    /// Whether anything waits for a fence.
    pub fn has_unfenced(&self) -> bool {
        self.unfenced.as_ref().is_some_and(|unfenced| !unfenced.of.is_empty())
    }

    /// Fails where a copy or warpgroup product of this warp may not see what is there.
    pub fn check_fenced(&self, address: u64, count: usize, warp: u32) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        let Some(unfenced) = &self.unfenced else { return Ok(()) };
        let fenced = unfenced.fenced[warp as usize];
        match (at..at + count).find(|&byte| unfenced.by[byte] != 0 && unfenced.when[byte] > fenced) {
            Some(byte) => Err(Trouble::Unfenced { address: byte as u64, thread: unfenced.by[byte] as u32 - 1 }),
            None => Ok(()),
        }
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

    /// The same by a warp, in order with the others'.
    #[inline(always)]
    pub fn load_by(&mut self, address: u64, count: usize, warp: u32) -> Result<u128, Trouble> {
        let value = self.load(address, count)?;
        self.races.read(address as usize, count, warp)?;
        Ok(value)
    }

    /// Writes up to 16 bytes through the asynchronous proxy.
    #[inline(always)]
    pub fn store(&mut self, address: u64, count: usize, value: u128) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        if let Some(unfenced) = &mut self.unfenced {
            unfenced.by[at..at + count].fill(0);
        }
        self.bytes[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
        self.written.set(at, count, true);
        Ok(())
    }

    /// Marks bytes as not there yet: a copy into them that this warp started is under way.
    pub fn forget(&mut self, address: u64, count: usize, warp: u32) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        self.races.overwrite(at, count, warp)?;
        self.written.set(at, count, false);
        Ok(())
    }

    /// The same of a copy that a warp of another block started, which knew of these times.
    pub fn forget_from(&mut self, address: u64, count: usize, clock: &[u32]) -> Result<(), Trouble> {
        let at = self.check(address, count)?;
        self.races.overwrite_from(at, count, clock)?;
        self.written.set(at, count, false);
        Ok(())
    }
}
