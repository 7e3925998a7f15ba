//! Runs a grid: clusters of blocks one after the other, the warps of a cluster in turns, each until it waits or its time slice ends.

mod arithmetic;
mod asynchronous;
mod barrier;
mod bulk;
mod cluster;
mod collective;
mod memory;
mod tensor_cores;
mod warp;
mod warpgroup;

use crate::counts::Counts;
use crate::decode::{Global, Program};
use crate::fault::{Fault, Place, Trouble};
use crate::memory::Memory;
use crate::shared::Shared;

use asynchronous::Transfers;
use barrier::Barriers;
use cluster::Cluster;
use warp::{State, Warp};

/// A problem and the lane that had it.
type Failure = (Trouble, u32);

/// How often a cluster where everybody waits for an mbarrier may be told that the wait timed out.
const TIMEOUTS: u32 = 32;

/// Launch geometry, checked.
pub struct Geometry<'a> {
    /// Blocks per axis.
    pub grid: [u32; 3],
    /// Threads per axis.
    pub block: [u32; 3],
    /// Blocks of a cluster per axis.
    pub cluster: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Parameter bytes, laid out.
    pub params: &'a [u8],
}

impl Geometry<'_> {
    /// A block's number in its cluster.
    fn rank(&self, index: [u32; 3]) -> u32 {
        let [x, y, z] = std::array::from_fn(|axis| index[axis] % self.cluster[axis]);
        x + self.cluster[0] * (y + self.cluster[1] * z)
    }

    /// Indices of the blocks of the cluster whose first block is `first`, by rank.
    fn cluster_at(&self, first: [u32; 3]) -> impl Iterator<Item = [u32; 3]> {
        let [cx, cy, cz] = self.cluster;
        (0..cx * cy * cz).map(move |rank| [first[0] + rank % cx, first[1] + rank / cx % cy, first[2] + rank / cx / cy])
    }
}

/// A launch and what its blocks have in common.
struct Grid<'a> {
    program: &'a Program,
    geometry: &'a Geometry<'a>,
    variables: Vec<u64>,
    source: &'a str,
}

/// What a block has to itself.
struct BlockState {
    index: [u32; 3],
    rank: u32,
    shared: Shared,
    barriers: Barriers,
    transfers: Transfers,
    /// Threads that have not exited.
    live: u32,
    /// Per thread how often the cluster's barrier had opened when the thread came to it, while it has not waited.
    came: Vec<Option<u64>>,
    warps: Vec<Warp>,
}

/// A block under way, as one of its warps sees it.
struct Block<'a> {
    program: &'a Program,
    geometry: &'a Geometry<'a>,
    rank: u32,
    memory: &'a mut Memory,
    counts: &'a mut Counts,
    shared: &'a mut Shared,
    barriers: &'a mut Barriers,
    transfers: &'a mut Transfers,
    live: &'a mut u32,
    came: &'a mut [Option<u64>],
    cluster: &'a mut Cluster,
}

/// Runs all blocks of the grid.
pub fn run(
    program: &Program,
    globals: &[Global],
    source: &str,
    memory: &mut Memory,
    geometry: &Geometry<'_>,
) -> Result<Counts, Fault> {
    let mut counts = Counts::default();
    let mut variables = Vec::new();
    for global in globals {
        let address = memory.alloc(global.data.len());
        memory.write(address, &global.data)?;
        variables.push(address);
    }
    let grid = Grid { program, geometry, variables, source };
    let [cx, cy, cz] = geometry.cluster.map(|blocks| blocks as usize);
    let [gx, gy, gz] = geometry.grid;
    let mut outcome = Ok(());
    'grid: for z in (0..gz).step_by(cz) {
        for y in (0..gy).step_by(cy) {
            for x in (0..gx).step_by(cx) {
                outcome = grid.run_cluster([x, y, z], memory, &mut counts);
                if outcome.is_err() {
                    break 'grid;
                }
            }
        }
    }
    for address in grid.variables {
        memory.free(address)?;
    }
    outcome.map(|()| counts)
}

impl Grid<'_> {
    fn block(&self, index: [u32; 3], blocks: usize) -> BlockState {
        let (program, geometry) = (self.program, self.geometry);
        let threads = geometry.block.iter().product::<u32>();
        let (warps, rank) = (threads.div_ceil(32), geometry.rank(index));
        let end = program.dynamic_shared + geometry.shared_bytes as u64;
        BlockState {
            index,
            rank,
            shared: Shared::new(end, warps as usize, program.reads_asynchronously, rank as usize, blocks),
            barriers: Barriers::default(),
            transfers: Transfers::default(),
            live: threads,
            came: vec![None; threads.next_multiple_of(32) as usize],
            warps: (0..warps).map(|warp| Warp::new(program, geometry, index, &self.variables, warp)).collect(),
        }
    }

    fn run_cluster(&self, first: [u32; 3], memory: &mut Memory, counts: &mut Counts) -> Result<(), Fault> {
        let size = self.geometry.cluster.iter().product::<u32>();
        let mut blocks: Vec<BlockState> =
            self.geometry.cluster_at(first).map(|index| self.block(index, size as usize)).collect();
        let mut cluster = Cluster::new(size, self.geometry.block.iter().product());
        let (mut timeouts, mut woken) = (0, false);
        loop {
            let (mut alive, mut progressed) = (false, false);
            for rank in 0..blocks.len() {
                if blocks[rank].has_ended() {
                    continue;
                }
                alive = true;
                for warp in 0..blocks[rank].warps.len() {
                    progressed |= self.turn(&mut blocks[rank], warp, memory, counts, &mut cluster)?;
                    self.deliver(&mut blocks, &mut cluster)?;
                }
                if blocks[rank].has_ended() {
                    blocks[rank].finish()?;
                }
            }
            if !alive {
                return Ok(());
            }
            if progressed {
                // Looking again after a time-out is no progress by itself.
                timeouts = if woken { timeouts } else { 0 };
                woken = false;
            } else {
                let warps = blocks.iter_mut().flat_map(|block| &mut block.warps);
                if timeouts == TIMEOUTS || !warps.fold(false, |any, warp| warp.time_out() | any) {
                    return Err(self.stuck(&blocks, &cluster));
                }
                timeouts += 1;
                woken = true;
            }
        }
    }

    /// Runs a warp until it waits or its slice ends. Whether anything ran.
    fn turn(
        &self,
        state: &mut BlockState,
        warp: usize,
        memory: &mut Memory,
        counts: &mut Counts,
        cluster: &mut Cluster,
    ) -> Result<bool, Fault> {
        let running = &mut state.warps[warp];
        if running.groups.is_empty() {
            return Ok(false);
        }
        let mut block = Block {
            program: self.program,
            geometry: self.geometry,
            rank: state.rank,
            memory,
            counts,
            shared: &mut state.shared,
            barriers: &mut state.barriers,
            transfers: &mut state.transfers,
            live: &mut state.live,
            came: &mut state.came,
            cluster,
        };
        running.run(&mut block).map_err(|(what, lane)| {
            let (warp, pc) = (running.index, running.current);
            self.place(state.index, warp, lane, pc, what)
        })
    }

    /// Hands over what blocks sent each other.
    fn deliver(&self, blocks: &mut [BlockState], cluster: &mut Cluster) -> Result<(), Fault> {
        for mail in cluster.mail.drain(..) {
            let (from, warp, lane, pc) = (blocks[mail.from as usize].index, mail.warp, mail.lane, mail.pc);
            let size = blocks.len();
            let received = match blocks.get_mut(mail.to as usize) {
                Some(block) => block.receive(mail),
                None => Err(Trouble::Protocol(format!("block {} of a cluster of {size}", mail.to))),
            };
            received.map_err(|what| self.place(from, warp, lane, pc, what))?;
        }
        Ok(())
    }

    fn place(&self, block: [u32; 3], warp: u32, lane: u32, pc: u32, what: Trouble) -> Fault {
        let line = self.program.code[pc as usize].line;
        let [x, y, _] = self.geometry.block;
        let linear = warp * 32 + lane;
        let text = self.source.lines().nth(line as usize - 1).unwrap_or_default().trim().to_owned();
        let thread = [linear % x, linear / x % y, linear / x / y];
        let place = Place { kernel: self.program.name.clone(), block, thread, line, text };
        Fault { what, place: Some(Box::new(place)) }
    }

    /// The fault of a cluster in which nobody can go on.
    fn stuck(&self, blocks: &[BlockState], cluster: &Cluster) -> Fault {
        let several = blocks.len() > 1;
        let mut first = None;
        let mut waits = Vec::new();
        for block in blocks {
            for (warp, group) in block.warps.iter().flat_map(|warp| warp.groups.iter().map(move |group| (warp, group)))
            {
                let lane = group.mask.trailing_zeros();
                if let State::Meeting(needed) = group.state {
                    let what = Trouble::Divergent { missing: needed & !group.mask, needed };
                    return self.place(block.index, warp.index, lane, group.pc, what);
                }
                let what = match group.state {
                    State::AtBarrier { id, .. } => {
                        format!("barrier {id} ({})", block.barriers.describe(id, block.live))
                    }
                    State::AtCluster(_) => format!("the cluster's barrier ({})", cluster.describe()),
                    State::AtMbarrier { address, .. } => {
                        format!("the mbarrier at shared {address:#x} ({})", block.transfers.describe(address))
                    }
                    _ => "itself".to_owned(),
                };
                if waits.len() < 8 {
                    let line = self.program.code[group.pc as usize].line;
                    let of = if several { format!("block {} ", block.rank) } else { String::new() };
                    waits.push(format!("{of}warp {} lanes {:#010x} at line {line} for {what}", warp.index, group.mask));
                }
                first.get_or_insert((block.index, warp.index, lane, group.pc));
            }
        }
        let what = Trouble::Deadlock { waits: waits.join("; ") };
        match first {
            Some((block, warp, lane, pc)) => self.place(block, warp, lane, pc, what),
            None => what.into(),
        }
    }
}
