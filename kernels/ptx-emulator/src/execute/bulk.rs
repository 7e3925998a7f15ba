//! Bulk copies: bytes and boxes of tensors, into shared memory completing an mbarrier, out of it in groups.

use super::Block;
use super::asynchronous::{Arrival, Departure, shared_offset};
use super::memory::aligned;
use super::warp::Warp;
use crate::fault::Trouble;
use crate::operation::{Address, Bulk, Reg, Space};
use crate::tensor_map::{TensorMap, swizzle};

impl Warp {
    /// One lane's bulk copy.
    pub fn bulk(&mut self, bulk: &Bulk, lane: usize, block: &mut Block<'_>) -> Result<(), Trouble> {
        let thread = self.index * 32 + lane as u32;
        let place = |at: &Address| self.addresses(*at)[lane];
        let number = |reg: &Reg| self.lane(*reg, lane);
        match bulk {
            Bulk::Commit => *block.transfers.closed.entry(thread).or_default() += 1,
            Bulk::Wait(left) => block.depart(thread, *left)?,
            Bulk::Load { to, from, bytes, barrier } => {
                let (to, from, bytes) = (shared_offset(place(to)), place(from), number(bytes));
                bulk_rules(to, from, bytes)?;
                let mut pieces = Vec::new();
                for at in (0..bytes).step_by(16) {
                    pieces.push((to + at, 16, block.memory.load(from + at, 16)?));
                }
                block.counts.global_read_sectors += (from + bytes).div_ceil(32) - from / 32;
                block.expect_landing(pieces, shared_offset(place(barrier)), bytes, self.index)?;
            }
            Bulk::Store { to, from, bytes } => {
                let (to, from, bytes) = (place(to), shared_offset(place(from)), number(bytes));
                bulk_rules(from, to, bytes)?;
                let pieces = (0..bytes).step_by(16).map(|at| (from + at, to + at, 16)).collect();
                block.counts.global_write_sectors += (to + bytes).div_ceil(32) - to / 32;
                block.plan_departure(thread, pieces)?;
            }
            Bulk::TensorLoad { to, map, at, barrier, blocks } => {
                let at: Vec<i64> = at.iter().map(|reg| number(reg) as u32 as i32 as i64).collect();
                let (to, barrier) = (shared_offset(place(to)), shared_offset(place(barrier)));
                let map = block.tensor_map(place(map), self, lane)?;
                let pieces = block.box_in(&map, to, &at)?;
                let bytes = map.box_bytes();
                match blocks {
                    None => block.expect_landing(pieces, barrier, bytes, self.index)?,
                    Some(mask) => {
                        let mask = number(mask) as u32 & 0xffff;
                        self.multicast(Arrival { barrier, pieces, bytes }, mask, lane, block)?;
                    }
                }
            }
            Bulk::TensorStore { from, map, at } => {
                let at: Vec<i64> = at.iter().map(|reg| number(reg) as u32 as i32 as i64).collect();
                let from = shared_offset(place(from));
                let map = block.tensor_map(place(map), self, lane)?;
                let pieces = block.box_out(&map, from, &at)?;
                block.plan_departure(thread, pieces)?;
            }
        }
        Ok(())
    }
}

fn bulk_rules(shared: u64, global: u64, bytes: u64) -> Result<(), Trouble> {
    aligned(shared, 16)?;
    aligned(global, 16)?;
    if bytes == 0 || !bytes.is_multiple_of(16) {
        return Err(Trouble::Protocol(format!("a bulk copy of {bytes} bytes; multiples of 16 are possible")));
    }
    Ok(())
}

impl Block<'_> {
    fn depart(&mut self, thread: u32, left: u32) -> Result<(), Trouble> {
        let closed = self.transfers.closed.get(&thread).copied().unwrap_or(0);
        let mut index = 0;
        while index < self.transfers.departures.len() {
            let departure = &self.transfers.departures[index];
            if departure.thread != thread || departure.group + left >= closed {
                index += 1;
                continue;
            }
            let departure = self.transfers.departures.remove(index);
            for (from, to, bytes) in departure.pieces {
                let data = self.shared.load_by(from, bytes, thread / 32)?;
                self.memory.store(to, bytes, data)?;
            }
        }
        Ok(())
    }

    pub fn expect_landing(
        &mut self,
        pieces: Vec<(u64, usize, u128)>,
        barrier: u64,
        bytes: u64,
        warp: u32,
    ) -> Result<(), Trouble> {
        self.transfers.phase(barrier)?;
        for &(to, bytes, _) in &pieces {
            self.shared.forget(to, bytes, warp)?;
        }
        self.transfers.arrivals.push(Arrival { barrier, pieces, bytes });
        Ok(())
    }

    fn plan_departure(&mut self, thread: u32, pieces: Vec<(u64, u64, usize)>) -> Result<(), Trouble> {
        pieces.iter().try_for_each(|&(from, _, bytes)| self.shared.check_fenced(from, bytes, thread / 32))?;
        let group = self.transfers.closed.get(&thread).copied().unwrap_or(0);
        self.transfers.departures.push(Departure { thread, group, pieces });
        Ok(())
    }

    fn tensor_map(&mut self, address: u64, warp: &Warp, lane: usize) -> Result<TensorMap, Trouble> {
        aligned(address, 32)?;
        let mut bytes = [0u8; 128];
        for (index, piece) in bytes.chunks_exact_mut(16).enumerate() {
            let at = address + 16 * index as u64;
            piece.copy_from_slice(&self.load(Space::Generic, at, 16, warp, lane)?.to_le_bytes());
        }
        let text = format!("there is no tensor map at {address:#x}");
        TensorMap::decode(&bytes).ok_or(Trouble::Protocol(text))
    }

    /// Every element of a box: its place in the box in bytes, and its address, or None outside the tensor.
    fn elements(
        map: &TensorMap,
        at: &[i64],
        mut each: impl FnMut(u64, Option<u64>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        if at.len() != map.dims.len() {
            let text = format!("{} coordinates for a tensor map of {} dimensions", at.len(), map.dims.len());
            return Err(Trouble::Protocol(text));
        }
        let mut index = vec![0u32; at.len()];
        let mut place = 0;
        loop {
            let mut address = map.base;
            let mut inside = true;
            for (axis, &step) in index.iter().enumerate() {
                let coordinate = at[axis] + step as i64;
                inside &= coordinate >= 0 && (coordinate as u64) < map.dims[axis];
                let stride = if axis == 0 { map.element_bytes as u64 } else { map.strides[axis - 1] };
                address = address.wrapping_add_signed(coordinate.wrapping_mul(stride as i64));
            }
            each(place, inside.then_some(address))?;
            place += map.element_bytes as u64;
            let mut axis = 0;
            loop {
                index[axis] += 1;
                if index[axis] < map.box_dims[axis] {
                    break;
                }
                index[axis] = 0;
                axis += 1;
                if axis == index.len() {
                    return Ok(());
                }
            }
        }
    }

    fn box_in(&mut self, map: &TensorMap, to: u64, at: &[i64]) -> Result<Vec<(u64, usize, u128)>, Trouble> {
        if to & 127 != 0 {
            return Err(Trouble::Misaligned { address: to, alignment: 128 });
        }
        let bytes = map.element_bytes as usize;
        let mut pieces: Vec<(u64, usize, u128)> = Vec::new();
        let mut sectors = std::collections::HashSet::new();
        Block::elements(map, at, |place, address| {
            let value = match address {
                Some(address) => {
                    sectors.insert(address >> 5);
                    self.memory.load(address, bytes)?
                }
                None => 0,
            };
            match pieces.last_mut() {
                Some(piece) if place & 15 != 0 => {
                    piece.2 |= value << (8 * piece.1);
                    piece.1 += bytes;
                }
                _ => pieces.push((swizzle(to + place, map.swizzle_bytes), bytes, value)),
            }
            Ok(())
        })?;
        self.counts.global_read_sectors += sectors.len() as u64;
        Ok(pieces)
    }

    fn box_out(&mut self, map: &TensorMap, from: u64, at: &[i64]) -> Result<Vec<(u64, u64, usize)>, Trouble> {
        if from & 127 != 0 {
            return Err(Trouble::Misaligned { address: from, alignment: 128 });
        }
        let bytes = map.element_bytes as usize;
        let mut pieces = Vec::new();
        let mut sectors = std::collections::HashSet::new();
        Block::elements(map, at, |place, address| {
            if let Some(address) = address {
                sectors.insert(address >> 5);
                pieces.push((swizzle(from + place, map.swizzle_bytes), address, bytes));
            }
            Ok(())
        })?;
        self.counts.global_write_sectors += sectors.len() as u64;
        Ok(pieces)
    }
}
