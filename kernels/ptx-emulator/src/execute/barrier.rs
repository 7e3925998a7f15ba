//! Barriers of a block.

use super::warp::{Flow, Group, State, Warp, lanes};
use super::{Block, Failure};
use crate::counts::Counts;
use crate::fault::Trouble;
use crate::operation::{Operation, Reduction};
use crate::races::Meeting;

/// One barrier.
#[derive(Debug, Default, Clone, Copy)]
struct Barrier {
    arrived: u32,
    /// Threads it waits for; None: all of the block that are left.
    count: Option<u32>,
    generation: u64,
    /// Truths so far, and the result of the last opening: count, and whether all held.
    truths: u32,
    result: (u32, u32),
}

/// The barriers of a block.
#[derive(Debug, Default)]
pub struct Barriers {
    all: [Barrier; 16],
}

impl Barriers {
    /// How often barrier `id` has opened.
    pub fn opened(&self, id: u32) -> u64 {
        self.all[id as usize].generation
    }

    /// Who came so far, in words.
    pub fn describe(&self, id: u32, live: u32) -> String {
        let barrier = &self.all[id as usize];
        format!("{} of {} threads came", barrier.arrived, barrier.count.unwrap_or(live))
    }

    /// Threads left the block: a barrier of all threads may now be complete.
    pub fn left(&mut self, live: u32, counts: &mut Counts) {
        for barrier in &mut self.all {
            if barrier.count.is_none() && barrier.arrived > 0 && barrier.arrived >= live {
                barrier.open(counts);
            }
        }
    }
}

impl Barrier {
    fn open(&mut self, counts: &mut Counts) {
        self.result = (self.truths, self.arrived);
        (self.arrived, self.truths, self.count) = (0, 0, None);
        self.generation += 1;
        counts.barriers += 1;
    }
}

impl Warp {
    /// Arrives at a barrier.
    pub fn barrier(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        let Operation::Barrier { id, count, waits, aligned, reduce } = operation else { return Ok(Flow::Next) };
        if *aligned && mask != self.live {
            return Ok(Flow::Stay(State::Meeting(self.live)));
        }
        let lane = mask.trailing_zeros();
        let id = self.narrow[*id as usize][lane as usize];
        let count = count.map(|slot| self.narrow[slot as usize][lane as usize]);
        if id > 15 {
            return Err((Trouble::Protocol(format!("barrier {id} does not exist; there are 0 to 15")), lane));
        }
        if let Some(count) = count.filter(|count| count % 32 != 0 || *count == 0) {
            return Err((
                Trouble::Protocol(format!("a barrier of {count} threads; multiples of 32 are possible")),
                lane,
            ));
        }
        let barrier = &mut block.barriers.all[id as usize];
        if barrier.arrived > 0 && barrier.count != count {
            let text = format!("barrier {id} is used with {count:?} threads while {:?} are expected", barrier.count);
            return Err((Trouble::Protocol(text), lane));
        }
        barrier.count = count;
        barrier.arrived += mask.count_ones();
        if let Some((_, truth, _, _)) = reduce {
            let truth =
                if truth.negated { !self.truths[truth.slot as usize] } else { self.truths[truth.slot as usize] };
            barrier.truths += (truth & mask).count_ones();
        }
        block.shared.races.lead(self.index, Meeting::Barrier(id));
        let expected = count.unwrap_or(*block.live);
        if barrier.arrived > expected {
            let text = format!("{} threads came to barrier {id}, {expected} are expected", barrier.arrived);
            return Err((Trouble::Protocol(text), lane));
        }
        let generation = barrier.generation;
        if barrier.arrived == expected {
            barrier.open(block.counts);
        }
        if *waits { Ok(Flow::Stay(State::AtBarrier { id, generation })) } else { Ok(Flow::Next) }
    }

    /// What a barrier that opened brings: order, and the result of a reduction.
    pub fn collect(&mut self, group: Group, id: u32, block: &mut Block<'_>) {
        block.shared.races.follow(self.index, Meeting::Barrier(id));
        let operation = &block.program.code[group.pc as usize].operation;
        let Operation::Barrier { reduce: Some((kind, _, target, predicate)), .. } = operation else { return };
        let (truths, all) = block.barriers.all[id as usize].result;
        let value = match kind {
            Reduction::Count => truths,
            Reduction::And => (truths == all) as u32,
            _ => (truths > 0) as u32,
        };
        let crate::operation::Reg::Narrow(slot) = *target else { return };
        if *predicate {
            self.put_truth(slot, if value != 0 { !0 } else { 0 }, group.mask);
        } else {
            lanes(group.mask).for_each(|lane| self.narrow[slot as usize][lane] = value);
        }
    }
}
