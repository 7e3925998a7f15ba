//! Runs a grid: blocks one after the other, the warps of a block in turns, each until it waits or its time slice ends.

mod arithmetic;
mod asynchronous;
mod barrier;
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
use warp::{State, Warp};

/// A problem and the lane that had it.
type Failure = (Trouble, u32);

/// How often a block where everybody waits for an mbarrier may be told that the wait timed out.
const TIMEOUTS: u32 = 32;

/// Launch geometry, checked.
pub struct Geometry<'a> {
    /// Blocks per axis.
    pub grid: [u32; 3],
    /// Threads per axis.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Parameter bytes, laid out.
    pub params: &'a [u8],
}

/// A block under way: everything its warps share.
struct Block<'a> {
    program: &'a Program,
    geometry: &'a Geometry<'a>,
    index: [u32; 3],
    memory: &'a mut Memory,
    counts: &'a mut Counts,
    shared: Shared,
    barriers: Barriers,
    transfers: Transfers,
    /// Threads that have not exited.
    live: u32,
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
    let [gx, gy, gz] = geometry.grid;
    let mut outcome = Ok(());
    'grid: for z in 0..gz {
        for y in 0..gy {
            for x in 0..gx {
                outcome = run_block(program, &variables, source, memory, &mut counts, geometry, [x, y, z]);
                if outcome.is_err() {
                    break 'grid;
                }
            }
        }
    }
    for address in variables {
        memory.free(address)?;
    }
    outcome.map(|()| counts)
}

fn run_block(
    program: &Program,
    variables: &[u64],
    source: &str,
    memory: &mut Memory,
    counts: &mut Counts,
    geometry: &Geometry<'_>,
    index: [u32; 3],
) -> Result<(), Fault> {
    let threads = geometry.block.iter().product::<u32>();
    let mut block = Block {
        program,
        geometry,
        index,
        memory,
        counts,
        shared: Shared::new(program.dynamic_shared + geometry.shared_bytes as u64, program.reads_asynchronously),
        barriers: Barriers::default(),
        transfers: Transfers::default(),
        live: threads,
    };
    let mut warps: Vec<Warp> =
        (0..threads.div_ceil(32)).map(|warp| Warp::new(program, geometry, index, variables, warp)).collect();
    let (mut timeouts, mut woken) = (0, false);
    loop {
        let (mut alive, mut progressed) = (false, false);
        for warp in &mut warps {
            if warp.groups.is_empty() {
                continue;
            }
            alive = true;
            match warp.run(&mut block) {
                Ok(moved) => progressed |= moved,
                Err((what, lane)) => return Err(place(&block, warp, lane, source, what)),
            }
        }
        if !alive {
            break;
        }
        if progressed {
            // Looking again after a time-out is no progress by itself.
            timeouts = if woken { timeouts } else { 0 };
            woken = false;
        } else {
            let tries_left = timeouts < TIMEOUTS;
            if !tries_left || !warps.iter_mut().fold(false, |any, warp| warp.time_out() | any) {
                return Err(stuck(&block, &mut warps, source));
            }
            timeouts += 1;
            woken = true;
        }
    }
    block.finish().map_err(Fault::from)
}

impl Block<'_> {
    /// What copies do after the last thread left.
    fn finish(&mut self) -> Result<(), Trouble> {
        self.transfers.unfinished()
    }
}

fn place(block: &Block<'_>, warp: &Warp, lane: u32, source: &str, what: Trouble) -> Fault {
    let line = block.program.code[warp.current as usize].line;
    let [x, y, _] = block.geometry.block;
    let linear = warp.index * 32 + lane;
    let text = source.lines().nth(line as usize - 1).unwrap_or_default().trim().to_owned();
    let thread = [linear % x, linear / x % y, linear / x / y];
    let place = Place { kernel: block.program.name.clone(), block: block.index, thread, line, text };
    Fault { what, place: Some(Box::new(place)) }
}

/// The fault of a block in which nobody can go on.
fn stuck(block: &Block<'_>, warps: &mut [Warp], source: &str) -> Fault {
    let mut first = None;
    for warp in warps.iter_mut() {
        for group in &warp.groups {
            if let State::Meeting(needed) = group.state {
                let what = Trouble::Divergent { missing: needed & !group.mask, needed };
                warp.current = group.pc;
                let lane = group.mask.trailing_zeros();
                return place(block, warp, lane, source, what);
            }
        }
    }
    let mut waits = Vec::new();
    for warp in warps.iter_mut() {
        for group in &warp.groups {
            let line = block.program.code[group.pc as usize].line;
            let what = match group.state {
                State::AtBarrier { id, .. } => format!("barrier {id} ({})", block.barriers.describe(id, block.live)),
                State::AtMbarrier { address, .. } => {
                    format!("the mbarrier at shared {address:#x} ({})", block.transfers.describe(address))
                }
                _ => "itself".to_owned(),
            };
            if waits.len() < 8 {
                waits.push(format!("warp {} lanes {:#010x} at line {line} for {what}", warp.index, group.mask));
            }
            first.get_or_insert((warp.index, group.pc, group.mask.trailing_zeros()));
        }
    }
    let what = Trouble::Deadlock { waits: waits.join("; ") };
    match first {
        Some((index, pc, lane)) => {
            let warp = &mut warps[index as usize];
            warp.current = pc;
            place(block, warp, lane, source, what)
        }
        None => what.into(),
    }
}
