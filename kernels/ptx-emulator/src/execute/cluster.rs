//! What blocks of a cluster do to one another: their barrier, arrivals at each other's mbarriers, copies into each other's memory.
//!
//! What goes to another block is posted and delivered after the warp's turn. It must come after the initialisation of the mbarrier it
//! names and before the other block ends, by an order that the kernel makes and not by luck.

use super::asynchronous::Arrival;
use super::warp::{Flow, State, Warp, lanes};
use super::{Block, BlockState, Failure};
use crate::counts::Counts;
use crate::fault::Trouble;
use crate::races::{Meeting, join};
use crate::shared::CLUSTER_STRIDE;

/// Something for another block.
#[derive(Debug)]
pub struct Mail {
    /// The block that gets it, by rank.
    pub to: u32,
    /// The block, warp, lane and instruction that sent it.
    pub from: u32,
    pub warp: u32,
    pub lane: u32,
    pub pc: u32,
    /// What the sender knew.
    clock: Vec<u32>,
    what: What,
}

/// What is sent.
#[derive(Debug)]
pub enum What {
    /// Arrivals at an mbarrier, and bytes to expect first.
    Arrive { address: u64, count: u32, expect: u32 },
    /// A copy that completes an mbarrier.
    Copy(Arrival),
}

/// What the blocks of a cluster share.
#[derive(Debug)]
pub struct Cluster {
    /// Posted and not delivered.
    pub mail: Vec<Mail>,
    blocks: u32,
    /// Threads that have not exited, of all blocks.
    live: u32,
    arrived: u32,
    generation: u64,
    met: Vec<u32>,
}

impl Cluster {
    /// Of `blocks` blocks of `threads` threads.
    pub fn new(blocks: u32, threads: u32) -> Cluster {
        let warps = blocks * threads.div_ceil(32);
        Cluster {
            mail: vec![],
            blocks,
            live: blocks * threads,
            arrived: 0,
            generation: 0,
            met: vec![0; warps as usize],
        }
    }

    /// How often the barrier has opened.
    pub fn opened(&self) -> u64 {
        self.generation
    }

    /// Who came so far, in words.
    pub fn describe(&self) -> String {
        format!("{} of {} threads came", self.arrived, self.live)
    }

    /// Threads exited: the barrier of those left may be complete.
    pub fn left(&mut self, gone: u32, counts: &mut Counts) {
        self.live -= gone;
        self.open_if_all_came(counts);
    }

    fn open_if_all_came(&mut self, counts: &mut Counts) {
        if self.arrived > 0 && self.arrived == self.live {
            self.arrived = 0;
            self.generation += 1;
            counts.barriers += 1;
        }
    }
}

/// An address of the cluster's shared memory: where in a block's, and in which block's if it names one.
pub fn cluster_place(address: u64) -> (u64, Option<u32>) {
    match address / CLUSTER_STRIDE {
        0 => (address, None),
        above => (address % CLUSTER_STRIDE, Some(above as u32 - 1)),
    }
}

impl Warp {
    /// Arrives at the cluster's barrier.
    pub fn cluster_arrive(&mut self, aligned: bool, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        if aligned && mask != self.live {
            return Ok(Flow::Stay(State::Meeting(self.live)));
        }
        let generation = block.cluster.generation;
        for lane in lanes(mask) {
            let came = &mut block.came[self.index as usize * 32 + lane];
            if came.replace(generation).is_some() {
                let text = "the thread arrives at the cluster's barrier again without having waited for it";
                return Err((Trouble::Protocol(text.to_owned()), lane as u32));
            }
        }
        let clock = block.shared.races.depart(self.index);
        join(&mut block.cluster.met, &clock);
        block.cluster.arrived += mask.count_ones();
        block.cluster.open_if_all_came(block.counts);
        Ok(Flow::Next)
    }

    /// Waits for the cluster's barrier.
    pub fn cluster_wait(&mut self, aligned: bool, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        if aligned && mask != self.live {
            return Ok(Flow::Stay(State::Meeting(self.live)));
        }
        let mut generation = 0;
        for lane in lanes(mask) {
            let Some(came) = block.came[self.index as usize * 32 + lane] else {
                let text = "the thread waits for the cluster's barrier without having arrived";
                return Err((Trouble::Protocol(text.to_owned()), lane as u32));
            };
            generation = came;
        }
        Ok(Flow::Stay(State::AtCluster(generation)))
    }

    /// What the barrier's opening brings: order.
    pub fn leave_cluster_barrier(&mut self, mask: u32, block: &mut Block<'_>) {
        lanes(mask).for_each(|lane| block.came[self.index as usize * 32 + lane] = None);
        block.shared.races.follow_all(self.index, &block.cluster.met);
    }

    /// Threads may not exit between arriving at the cluster's barrier and waiting for it.
    pub fn check_exit(&self, mask: u32, block: &Block<'_>) -> Result<(), Failure> {
        match lanes(mask).find(|lane| block.came[self.index as usize * 32 + lane].is_some()) {
            Some(lane) => {
                let text = "the thread exits after arriving at the cluster's barrier, without waiting for it";
                Err((Trouble::Protocol(text.to_owned()), lane as u32))
            }
            None => Ok(()),
        }
    }

    /// Posts something to another block.
    pub fn send(&self, to: u32, what: What, lane: usize, block: &mut Block<'_>) {
        let clock = block.shared.races.depart(self.index);
        let (from, warp, lane, pc) = (block.rank, self.index, lane as u32, self.current);
        block.cluster.mail.push(Mail { to, from, warp, lane, pc, clock, what });
    }

    /// A copy that lands at the same place of every block of the mask.
    pub fn multicast(&self, copy: Arrival, mask: u32, lane: usize, block: &mut Block<'_>) -> Result<(), Trouble> {
        if mask == 0 || mask >> block.cluster.blocks != 0 {
            let blocks = block.cluster.blocks;
            return Err(Trouble::Protocol(format!("a copy to blocks {mask:#b} of a cluster of {blocks}")));
        }
        let own = 1 << block.rank;
        for rank in lanes(mask & !own) {
            self.send(rank as u32, What::Copy(copy.clone()), lane, block);
        }
        if mask & own != 0 {
            block.expect_landing(copy.pieces, copy.barrier, copy.bytes, self.index)?;
        }
        Ok(())
    }
}

impl BlockState {
    /// Takes what another block sent.
    pub fn receive(&mut self, mail: Mail) -> Result<(), Trouble> {
        if self.has_ended() {
            return Err(Trouble::Protocol(format!("block {} of the cluster has ended", mail.to)));
        }
        let address = match &mail.what {
            What::Arrive { address, .. } => *address,
            What::Copy(copy) => copy.barrier,
        };
        let phase = self.transfers.phase(address)?;
        if mail.clock[phase.born.0] < phase.born.1 {
            let text = format!(
                "the mbarrier at shared {address:#x} of block {} of the cluster is used, and nothing orders that after its \
                 initialisation there",
                mail.to
            );
            return Err(Trouble::Protocol(text));
        }
        match mail.what {
            What::Arrive { address, count, expect } => {
                phase.bytes += expect as i64;
                phase.arrive(count, address)?;
                let sender = mail.from as usize * self.warps.len() + mail.warp as usize;
                self.shared.races.owe(sender, mail.clock[sender]);
                self.shared.races.lead_from(&mail.clock, Meeting::Word(address));
            }
            What::Copy(copy) => {
                for &(to, bytes, _) in &copy.pieces {
                    self.shared.forget_from(to, bytes, &mail.clock)?;
                }
                self.transfers.arrivals.push(copy);
            }
        }
        Ok(())
    }

    /// Whether every thread has exited.
    pub fn has_ended(&self) -> bool {
        self.warps.iter().all(|warp| warp.groups.is_empty())
    }

    /// What must be over when the last thread exits.
    pub fn finish(&self) -> Result<(), Trouble> {
        self.transfers.unfinished()?;
        match self.shared.races.unpaid() {
            None => Ok(()),
            Some(place) => {
                let (block, warp) = (place / self.warps.len(), place % self.warps.len());
                let text = format!(
                    "block {} of the cluster ends, and nothing orders that after an arrival at its mbarriers by warp {warp} of \
                     block {block}",
                    self.rank
                );
                Err(Trouble::Protocol(text))
            }
        }
    }
}
