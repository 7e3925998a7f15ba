//! Loads, stores and read-modify-write, with the counts of what they request.

use super::warp::{Flow, Warp, lanes};
use super::{Block, Failure};
use crate::counts::{conflicts, sectors};
use crate::fault::{Near, Trouble};
use crate::float::{brain, half, to_brain, to_half};
use crate::operation::{Address, Atomic, Lanes64, Operation, Reg, Space};
use crate::shared::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};

impl Block<'_> {
    /// Which space a generic address means, and where in it.
    fn resolve(space: Space, address: u64) -> (Space, u64) {
        match (space, address >> 56) {
            (Space::Generic | Space::Shared, 1) => (Space::Shared, address - SHARED_WINDOW),
            (Space::Generic | Space::Local, 2) => (Space::Local, address - LOCAL_WINDOW),
            (Space::Generic | Space::Param, 3) => (Space::Param, address - PARAM_WINDOW),
            (Space::Generic, _) => (Space::Global, address),
            _ => (space, address),
        }
    }

    /// Up to 16 bytes of any space.
    pub fn load(&mut self, space: Space, at: u64, bytes: usize, warp: &Warp, lane: usize) -> Result<u128, Trouble> {
        match Block::resolve(space, at) {
            (Space::Shared, at) => self.shared.load(at, bytes),
            (Space::Param, at) => copy_out(self.geometry.params, "parameter", at, bytes),
            (Space::Local, at) => copy_out(warp.local_of(lane), "local", at, bytes),
            (_, at) => self.memory.load(at, bytes),
        }
    }

    fn store(
        &mut self,
        space: Space,
        at: u64,
        bytes: usize,
        value: u128,
        warp: &mut Warp,
        lane: usize,
    ) -> Result<(), Trouble> {
        match Block::resolve(space, at) {
            (Space::Shared, at) => self.shared.store_by(at, bytes, value, warp.index * 32 + lane as u32),
            (Space::Param, _) => Err(Trouble::Unsupported("stores to parameters".to_owned())),
            (Space::Local, at) => {
                let size = warp.local.len() / 32;
                if at.saturating_add(bytes as u64) > size as u64 {
                    let near = Near(Some((0, size as u64)));
                    return Err(Trouble::OutOfBounds { space: "local", address: at, bytes: bytes as u64, near });
                }
                let at = lane * size + at as usize;
                warp.local[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
                Ok(())
            }
            (_, at) => self.memory.store(at, bytes, value),
        }
    }

    /// Counts a request of a warp.
    pub fn count_request(&mut self, space: Space, addresses: &Lanes64, mask: u32, bytes: usize, write: bool) {
        let first = addresses[mask.trailing_zeros() as usize];
        match Block::resolve(space, first).0 {
            Space::Global => {
                let count = sectors(addresses, mask, bytes as u64);
                if write {
                    self.counts.global_write_sectors += count;
                } else {
                    self.counts.global_read_sectors += count;
                }
            }
            Space::Shared => {
                self.counts.shared_requests += 1;
                self.counts.shared_conflicts += conflicts(addresses, mask, bytes as u64);
            }
            _ => {}
        }
    }
}

fn copy_out(all: &[u8], space: &'static str, at: u64, bytes: usize) -> Result<u128, Trouble> {
    if at.saturating_add(bytes as u64) > all.len() as u64 {
        let near = Near(Some((0, all.len() as u64)));
        return Err(Trouble::OutOfBounds { space, address: at, bytes: bytes as u64, near });
    }
    let mut value = [0u8; 16];
    value[..bytes].copy_from_slice(&all[at as usize..at as usize + bytes]);
    Ok(u128::from_le_bytes(value))
}

/// Accesses start at a multiple of their size.
pub fn aligned(address: u64, bytes: usize) -> Result<(), Trouble> {
    let alignment = bytes.min(32) as u64;
    if address & (alignment - 1) == 0 { Ok(()) } else { Err(Trouble::Misaligned { address, alignment }) }
}

impl Warp {
    fn local_of(&self, lane: usize) -> &[u8] {
        let size = self.local.len() / 32;
        &self.local[lane * size..(lane + 1) * size]
    }

    /// `base + offset` of every lane.
    pub fn addresses(&self, at: Address) -> Lanes64 {
        let mut buffer: Lanes64 = [0; 32];
        let base = self.view(at.base, &mut buffer);
        let narrow = matches!(at.base, Reg::Narrow(_));
        std::array::from_fn(|lane| {
            let sum = base[lane].wrapping_add_signed(at.offset);
            if narrow { sum & 0xffff_ffff } else { sum }
        })
    }

    /// Memory operations, and from there the remaining families.
    pub fn execute_memory(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        match operation {
            Operation::Load { space, at, bytes, signed, to } => {
                self.load(*space, *at, *bytes, *signed, to, mask, block)?
            }
            Operation::Store { space, at, bytes, from } => {
                let addresses = self.addresses(*at);
                block.count_request(*space, &addresses, mask, bytes * from.len(), true);
                for lane in lanes(mask) {
                    self.store_lane(*space, addresses[lane], *bytes, from, lane, block)
                        .map_err(|what| (what, lane as u32))?;
                }
            }
            Operation::Atomic { space, at, bytes, kind, d, sources } => {
                let addresses = self.addresses(*at);
                block.count_request(*space, &addresses, mask, *bytes, false);
                block.count_request(*space, &addresses, mask, *bytes, true);
                for lane in lanes(mask) {
                    let address = addresses[lane];
                    let values = [0, 1].map(|index| sources.get(index).map_or(0, |reg| self.lane(*reg, lane)));
                    let old = self
                        .modify(*space, address, *bytes, *kind, values, lane, block)
                        .map_err(|what| (what, lane as u32))?;
                    if let Some(d) = d {
                        self.set_lane(*d, lane, old);
                    }
                }
            }
            _ => return self.execute_tensor(operation, mask, block),
        }
        Ok(Flow::Next)
    }

    fn load(
        &mut self,
        space: Space,
        at: Address,
        bytes: usize,
        signed: bool,
        to: &[Option<Reg>],
        mask: u32,
        block: &mut Block<'_>,
    ) -> Result<(), Failure> {
        let addresses = self.addresses(at);
        block.count_request(space, &addresses, mask, bytes * to.len(), false);
        let per_part = (16 / bytes).min(to.len());
        for lane in lanes(mask) {
            let fail = |what| (what, lane as u32);
            aligned(addresses[lane], bytes * to.len()).map_err(fail)?;
            for (part, registers) in to.chunks(per_part).enumerate() {
                let at = addresses[lane] + (part * 16) as u64;
                let all = block.load(space, at, bytes * registers.len(), self, lane).map_err(fail)?;
                for (index, reg) in registers.iter().enumerate() {
                    let Some(reg) = reg else { continue };
                    let value = (all >> (index * bytes * 8)) as u64;
                    let value = match (bytes, signed) {
                        (1, false) => value as u8 as u64,
                        (1, true) => value as u8 as i8 as i64 as u64,
                        (2, false) => value as u16 as u64,
                        (2, true) => value as u16 as i16 as i64 as u64,
                        (4, false) => value as u32 as u64,
                        (4, true) => value as u32 as i32 as i64 as u64,
                        _ => value,
                    };
                    self.set_lane(*reg, lane, value);
                }
            }
        }
        Ok(())
    }

    fn store_lane(
        &mut self,
        space: Space,
        address: u64,
        bytes: usize,
        from: &[Reg],
        lane: usize,
        block: &mut Block<'_>,
    ) -> Result<(), Trouble> {
        aligned(address, bytes * from.len())?;
        let per_part = (16 / bytes).min(from.len());
        let keep = if bytes == 8 { u64::MAX } else { (1u64 << (bytes * 8)) - 1 };
        for (part, registers) in from.chunks(per_part).enumerate() {
            let mut all = 0u128;
            for (index, reg) in registers.iter().enumerate() {
                all |= ((self.lane(*reg, lane) & keep) as u128) << (index * bytes * 8);
            }
            block.store(space, address + (part * 16) as u64, bytes * registers.len(), all, self, lane)?;
        }
        Ok(())
    }

    fn modify(
        &mut self,
        space: Space,
        address: u64,
        bytes: usize,
        kind: Atomic,
        values: [u64; 2],
        lane: usize,
        block: &mut Block<'_>,
    ) -> Result<u64, Trouble> {
        aligned(address, bytes)?;
        let old = block.load(space, address, bytes, self, lane)? as u64;
        let new = apply(kind, bytes, old, values);
        block.store(space, address, bytes, new as u128, self, lane)?;
        Ok(old)
    }
}

fn apply(kind: Atomic, bytes: usize, old: u64, [value, other]: [u64; 2]) -> u64 {
    let wide = bytes == 8;
    let signed = |x: u64| if wide { x as i64 } else { x as u32 as i32 as i64 };
    let value = if wide { value } else { value & ((1 << (8 * bytes)) - 1) };
    match kind {
        Atomic::Add => old.wrapping_add(value),
        Atomic::AddSingle => (f32::from_bits(old as u32) + f32::from_bits(value as u32)).to_bits() as u64,
        Atomic::AddDouble => (f64::from_bits(old) + f64::from_bits(value)).to_bits(),
        Atomic::AddHalf => halves(old, value, |a, b| to_half(half(a) + half(b))),
        Atomic::AddBrain => halves(old, value, |a, b| to_brain(brain(a) + brain(b))),
        Atomic::MinSigned => signed(old).min(signed(value)) as u64,
        Atomic::MaxSigned => signed(old).max(signed(value)) as u64,
        Atomic::Min => old.min(value),
        Atomic::Max => old.max(value),
        Atomic::Increment => {
            if old >= value {
                0
            } else {
                old + 1
            }
        }
        Atomic::Decrement => {
            if old == 0 || old > value {
                value
            } else {
                old - 1
            }
        }
        Atomic::And => old & value,
        Atomic::Or => old | value,
        Atomic::Xor => old ^ value,
        Atomic::Exchange => value,
        Atomic::Swap => {
            let other = if wide { other } else { other & ((1 << (8 * bytes)) - 1) };
            if old == value { other } else { old }
        }
    }
}

fn halves(old: u64, value: u64, add: impl Fn(u32, u32) -> u32) -> u64 {
    let low = add(old as u32 & 0xffff, value as u32 & 0xffff);
    let high = add(old as u32 >> 16, value as u32 >> 16);
    (low | high << 16) as u64
}
