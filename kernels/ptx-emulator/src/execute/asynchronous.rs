//! Copies that are under way while the thread goes on, and the barriers in memory that tell when they are done.
//!
//! Every copy is as late as the rules allow: its source is read at once (loads) but its destination counts as unwritten until a wait
//! that covers it, and bulk stores read shared memory only at their wait. Code that reads or overwrites too early thus fails.

use std::collections::HashMap;

use super::cluster::{What, cluster_place};
use super::memory::aligned;
use super::warp::{Flow, State, Warp, lanes};
use super::{Block, Failure};
use crate::fault::Trouble;
use crate::operation::{Address, Mbarrier, Operation, Reg, Space};
use crate::races::Meeting;
use crate::shared::SHARED_WINDOW;

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
pub struct Phase {
    count: u32,
    pending: u32,
    pub bytes: i64,
    number: u64,
    /// The warp of the cluster that initialised it, and that warp's time.
    pub born: (usize, u32),
}

/// A bulk copy into shared memory: pieces of up to 16 bytes.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub barrier: u64,
    pub pieces: Vec<(u64, usize, u128)>,
    pub bytes: u64,
}

/// A bulk copy out of shared memory: pieces from, to, length.
#[derive(Debug)]
pub struct Departure {
    pub thread: u32,
    pub group: u32,
    pub pieces: Vec<(u64, u64, usize)>,
}

/// What is under way in a block.
#[derive(Debug, Default)]
pub struct Transfers {
    phases: HashMap<u64, Phase>,
    pub arrivals: Vec<Arrival>,
    pub departures: Vec<Departure>,
    /// Bulk groups that each thread closed.
    pub closed: HashMap<u32, u32>,
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

    /// The barrier at an address.
    pub fn phase(&mut self, address: u64) -> Result<&mut Phase, Trouble> {
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

    pub fn arrive(&mut self, count: u32, address: u64) -> Result<(), Trouble> {
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

/// The address within shared memory, of a generic or a shared one.
pub fn shared_offset(address: u64) -> u64 {
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
            Operation::ClusterArrive(aligned) => return self.cluster_arrive(*aligned, mask, block),
            Operation::ClusterWait(aligned) => return self.cluster_wait(*aligned, mask, block),
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
            block.shared.forget(targets[lane], bytes, self.index).map_err(fail)?;
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
                let born = block.shared.races.now(self.index);
                block.transfers.phases.insert(address, Phase { count, pending: count, bytes: 0, number: 0, born });
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
            Mbarrier::Arrive { state, count, expect, remote } => {
                let (count, expect) = (count.as_ref().map_or(1, number), expect.as_ref().map_or(0, number));
                let (address, block_there) = if *remote { cluster_place(address) } else { (address, None) };
                if let Some(there) = block_there.filter(|&there| there != block.rank) {
                    let what = What::Arrive { address, count, expect };
                    self.send(there, what, lane, block);
                    return Ok(());
                }
                block.shared.races.lead(self.index, Meeting::Word(address));
                let phase = block.transfers.phase(address)?;
                let token = phase.number;
                phase.bytes += expect as i64;
                phase.arrive(count, address)?;
                if let Some(state) = state {
                    self.set_lane(*state, lane, token);
                }
            }
            Mbarrier::ArriveAfterCopies { counted } => {
                block.shared.races.lead(self.index, Meeting::Word(address));
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
            if over {
                block.shared.races.follow(self.index, Meeting::Word(addresses[lane]));
            }
            if !over && !self.timed_out {
                return Ok(Flow::Stay(State::AtMbarrier { address: addresses[lane], parity: side }));
            }
        }
        self.put_truth(done, truths, mask);
        self.timed_out = false;
        Ok(Flow::Next)
    }
}
