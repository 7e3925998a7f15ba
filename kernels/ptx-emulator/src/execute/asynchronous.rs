//! Copies that are under way while the thread goes on, and the barriers in memory that tell when they are done.
//!
//! Every copy is as late as the rules allow: its source is read at once (loads) but its destination counts as unwritten until a wait
//! that covers it, and bulk stores read shared memory only at their wait. Code that reads or overwrites too early thus fails.

use std::collections::HashMap;

use super::memory::aligned;
use super::warp::{Flow, State, Warp, lanes};
use super::{Block, Failure};
use crate::fault::Trouble;
use crate::operation::{Address, Bulk, Mbarrier, Operation, Reg, Space};
use crate::shared::SHARED_WINDOW;
use crate::tensor_map::{TensorMap, swizzle};

/// A `cp.async` copy that has not landed.
#[derive(Debug, Clone, Copy)]
struct Landing {
    lane: u32,
    group: u32,
    to: u64,
    bytes: usize,
    data: u128,
}

/// The `cp.async` copies of a warp's lanes.
#[derive(Debug, Default)]
pub struct Copies {
    pending: Vec<Landing>,
    /// Groups that each lane closed.
    closed: [u32; 32],
}

/// A barrier in shared memory.
#[derive(Debug, Clone, Copy)]
struct Phase {
    count: u32,
    pending: u32,
    bytes: i64,
    number: u64,
}

/// A bulk copy into shared memory: pieces of up to 16 bytes.
#[derive(Debug)]
struct Arrival {
    barrier: u64,
    pieces: Vec<(u64, usize, u128)>,
    bytes: u64,
}

/// A bulk copy out of shared memory: pieces from, to, length.
#[derive(Debug)]
struct Departure {
    thread: u32,
    group: u32,
    pieces: Vec<(u64, u64, usize)>,
}

/// What is under way in a block.
#[derive(Debug, Default)]
pub struct Transfers {
    phases: HashMap<u64, Phase>,
    arrivals: Vec<Arrival>,
    departures: Vec<Departure>,
    /// Bulk groups that each thread closed.
    closed: HashMap<u32, u32>,
}

impl Transfers {
    /// A barrier's state in words.
    pub fn describe(&self, address: u64) -> String {
        match self.phases.get(&address) {
            Some(p) => {
                format!("phase {}, {} of {} arrivals and {} bytes missing", p.number, p.pending, p.count, p.bytes)
            }
            None => "never initialised".to_owned(),
        }
    }

    /// Copies that nobody waited for when the block ended.
    pub fn unfinished(&self) -> Result<(), Trouble> {
        let text = match (self.arrivals.len(), self.departures.len()) {
            (0, 0) => return Ok(()),
            (0, stores) => format!("the block ended before {stores} of its bulk stores were waited for"),
            (loads, _) => format!("the block ended while {loads} bulk copies into its shared memory were under way"),
        };
        Err(Trouble::Protocol(text))
    }

    fn phase(&mut self, address: u64) -> Result<&mut Phase, Trouble> {
        let text = || Trouble::Protocol(format!("there is no initialised mbarrier at shared {address:#x}"));
        self.phases.get_mut(&address).ok_or_else(text)
    }
}

impl Phase {
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.number += 1;
            self.pending = self.count;
        }
    }

    fn arrive(&mut self, count: u32, address: u64) -> Result<(), Trouble> {
        if count > self.pending {
            let text =
                format!("{count} more arrivals at the mbarrier at shared {address:#x}, {} are missing", self.pending);
            return Err(Trouble::Protocol(text));
        }
        self.pending -= count;
        self.settle();
        Ok(())
    }
}

fn shared_offset(address: u64) -> u64 {
    if address >> 56 == 1 { address - SHARED_WINDOW } else { address }
}

impl Block<'_> {
    /// Whether the phase of this parity is over. Copies that complete the barrier land now.
    pub fn phase_done(&mut self, address: u64, parity: u32) -> Result<bool, Trouble> {
        self.land(address)?;
        let phase = self.transfers.phase(address)?;
        Ok(phase.number & 1 != parity as u64 & 1)
    }

    fn land(&mut self, barrier: u64) -> Result<(), Trouble> {
        let mut index = 0;
        while index < self.transfers.arrivals.len() {
            if self.transfers.arrivals[index].barrier != barrier {
                index += 1;
                continue;
            }
            let arrival = self.transfers.arrivals.remove(index);
            for (to, bytes, data) in arrival.pieces {
                self.shared.store(to, bytes, data)?;
            }
            let phase = self.transfers.phase(barrier)?;
            phase.bytes -= arrival.bytes as i64;
            phase.settle();
        }
        Ok(())
    }

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
                let data = self.shared.load(from, bytes)?;
                self.memory.store(to, bytes, data)?;
            }
        }
        Ok(())
    }
}

impl Warp {
    /// Asynchronous operations.
    pub fn execute_asynchronous(
        &mut self,
        operation: &Operation,
        mask: u32,
        block: &mut Block<'_>,
    ) -> Result<Flow, Failure> {
        match operation {
            Operation::Barrier { .. } => return self.barrier(operation, mask, block),
            Operation::Copy { .. } => self.copy(operation, mask, block)?,
            Operation::CopyCommit => lanes(mask).for_each(|lane| self.copies.closed[lane] += 1),
            Operation::CopyWait(left) => self.copy_wait(mask, Some(*left), block)?,
            Operation::CopyWaitAll => self.copy_wait(mask, None, block)?,
            Operation::Mbarrier(kind, at) => return self.mbarrier(kind, *at, mask, block),
            Operation::Bulk(bulk) => {
                for lane in lanes(mask) {
                    self.bulk(bulk, lane, block).map_err(|what| (what, lane as u32))?;
                }
            }
            Operation::ProxyFence => lanes(mask).for_each(|lane| block.shared.fence(self.index * 32 + lane as u32)),
            _ => {}
        }
        Ok(Flow::Next)
    }

    fn copy(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<(), Failure> {
        let Operation::Copy { to, from, bytes, source_bytes, ignore } = operation else { return Ok(()) };
        let bytes = *bytes;
        let (targets, sources) = (self.addresses(*to).map(shared_offset), self.addresses(*from));
        let ignored = ignore.map_or(0, |truth| self.truth(truth));
        let lengths: [usize; 32] = std::array::from_fn(|lane| {
            let length = source_bytes.map_or(bytes, |slot| self.narrow[slot as usize][lane] as usize);
            if ignored >> lane & 1 == 1 { 0 } else { length }
        });
        let reading = lanes(mask).filter(|&lane| lengths[lane] > 0).fold(0u32, |all, lane| all | 1 << lane);
        if reading != 0 {
            block.count_request(Space::Global, &sources, reading, bytes, false);
        }
        block.count_request(Space::Shared, &targets, mask, bytes, true);
        for lane in lanes(mask) {
            let fail = |what| (what, lane as u32);
            let length = lengths[lane];
            if length > bytes {
                let text = format!("a copy of {bytes} bytes from a source of {length}");
                return Err(fail(Trouble::Protocol(text)));
            }
            aligned(targets[lane], bytes).and_then(|()| aligned(sources[lane], bytes)).map_err(fail)?;
            let data = if length == 0 { 0 } else { block.memory.load(sources[lane], length).map_err(fail)? };
            block.shared.forget(targets[lane], bytes).map_err(fail)?;
            let group = self.copies.closed[lane];
            self.copies.pending.push(Landing { lane: lane as u32, group, to: targets[lane], bytes, data });
        }
        Ok(())
    }

    /// Lands the copies of all but the latest `left` closed groups, or all copies.
    fn copy_wait(&mut self, mask: u32, left: Option<u32>, block: &mut Block<'_>) -> Result<(), Failure> {
        let (closed, index) = (self.copies.closed, self.index);
        let mut outcome = Ok(());
        self.copies.pending.retain(|copy| {
            let mine = mask >> copy.lane & 1 == 1;
            let done = mine && left.is_none_or(|left| copy.group + left < closed[copy.lane as usize]);
            if done && outcome.is_ok() {
                let thread = index * 32 + copy.lane;
                outcome =
                    block.shared.store_by(copy.to, copy.bytes, copy.data, thread).map_err(|what| (what, copy.lane));
            }
            !done
        });
        outcome
    }

    fn mbarrier(&mut self, kind: &Mbarrier, at: Address, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        let addresses = self.addresses(at).map(shared_offset);
        if let Mbarrier::Test { done, phase, parity } = kind {
            return self.test(*done, *phase, *parity, &addresses, mask, block);
        }
        for lane in lanes(mask) {
            let address = addresses[lane];
            let fail = |what| (what, lane as u32);
            aligned(address, 8).map_err(fail)?;
            if let Mbarrier::ArriveAfterCopies { .. } = kind {
                self.copy_wait(1 << lane, None, block)?;
            }
            self.mbarrier_lane(kind, address, lane, block).map_err(fail)?;
        }
        Ok(Flow::Next)
    }

    fn mbarrier_lane(
        &mut self,
        kind: &Mbarrier,
        address: u64,
        lane: usize,
        block: &mut Block<'_>,
    ) -> Result<(), Trouble> {
        let number = |reg: &Reg| self.lane(*reg, lane) as u32;
        match kind {
            Mbarrier::Init(count) => {
                let count = number(count);
                if count == 0 || count >= 1 << 20 {
                    return Err(Trouble::Protocol(format!(
                        "an mbarrier of {count} arrivals; 1 to 2^20 - 1 are possible"
                    )));
                }
                block.shared.store(address, 8, 0)?;
                block.transfers.phases.insert(address, Phase { count, pending: count, bytes: 0, number: 0 });
            }
            Mbarrier::Invalidate => {
                block.transfers.phase(address)?;
                block.transfers.phases.remove(&address);
            }
            Mbarrier::Expect(bytes) => block.transfers.phase(address)?.bytes += number(bytes) as i64,
            Mbarrier::Complete(bytes) => {
                let phase = block.transfers.phase(address)?;
                phase.bytes -= number(bytes) as i64;
                phase.settle();
            }
            Mbarrier::Arrive { state, count, expect } => {
                let (count, expect) = (count.as_ref().map_or(1, number), expect.as_ref().map_or(0, number));
                let phase = block.transfers.phase(address)?;
                let token = phase.number;
                phase.bytes += expect as i64;
                phase.arrive(count, address)?;
                if let Some(state) = state {
                    self.set_lane(*state, lane, token);
                }
            }
            Mbarrier::ArriveAfterCopies { counted } => {
                let phase = block.transfers.phase(address)?;
                if *counted {
                    phase.arrive(1, address)?;
                }
            }
            Mbarrier::Test { .. } => {}
        }
        Ok(())
    }

    fn test(
        &mut self,
        done: u32,
        phase: Reg,
        parity: bool,
        addresses: &[u64; 32],
        mask: u32,
        block: &mut Block<'_>,
    ) -> Result<Flow, Failure> {
        let mut truths = 0;
        for lane in lanes(mask) {
            let value = self.lane(phase, lane);
            // A token is the number of the phase it was taken in.
            let side = (value & 1) as u32;
            let fail = |what| (what, lane as u32);
            let mut over = block.phase_done(addresses[lane], side).map_err(fail)?;
            if !parity {
                over = block.transfers.phase(addresses[lane]).map_err(fail)?.number > value;
            }
            truths |= (over as u32) << lane;
            if !over && !self.timed_out {
                return Ok(Flow::Stay(State::AtMbarrier { address: addresses[lane], parity: side }));
            }
        }
        self.put_truth(done, truths, mask);
        self.timed_out = false;
        Ok(Flow::Next)
    }

    fn bulk(&mut self, bulk: &Bulk, lane: usize, block: &mut Block<'_>) -> Result<(), Trouble> {
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
                block.expect_landing(pieces, shared_offset(place(barrier)), bytes)?;
            }
            Bulk::Store { to, from, bytes } => {
                let (to, from, bytes) = (place(to), shared_offset(place(from)), number(bytes));
                bulk_rules(from, to, bytes)?;
                let pieces = (0..bytes).step_by(16).map(|at| (from + at, to + at, 16)).collect();
                block.counts.global_write_sectors += (to + bytes).div_ceil(32) - to / 32;
                block.plan_departure(thread, pieces)?;
            }
            Bulk::TensorLoad { to, map, at, barrier } => {
                let at: Vec<i64> = at.iter().map(|reg| number(reg) as u32 as i32 as i64).collect();
                let (to, barrier) = (shared_offset(place(to)), shared_offset(place(barrier)));
                let map = block.tensor_map(place(map), self, lane)?;
                let pieces = block.box_in(&map, to, &at)?;
                block.expect_landing(pieces, barrier, map.box_bytes())?;
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
    fn expect_landing(&mut self, pieces: Vec<(u64, usize, u128)>, barrier: u64, bytes: u64) -> Result<(), Trouble> {
        self.transfers.phase(barrier)?;
        for &(to, bytes, _) in &pieces {
            self.shared.forget(to, bytes)?;
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
