//! A warp: its registers, and its lanes in groups of equal program counter. The group that is furthest behind runs first, so that
//! branches meet again where their paths do.

use super::{Block, Failure, Geometry};
use crate::decode::Program;
use crate::operation::{Constant, Lanes32, Lanes64, Operation, Reg, Truth};

use super::asynchronous::Copies;
use super::warpgroup::Products;

/// Instructions that a warp may run before the next one gets its turn.
const SLICE: u32 = 1 << 15;

/// Why a group does or does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can run.
    Ready,
    /// It waits for these lanes of its warp to come to the same instruction.
    Meeting(u32),
    /// It waits for a barrier to open.
    AtBarrier {
        /// Number of the barrier.
        id: u32,
        /// How often the barrier had opened when it came.
        generation: u64,
    },
    /// It waits for the barrier of the cluster, which had opened so often when it came.
    AtCluster(u64),
    /// It waits for a phase of an mbarrier.
    AtMbarrier {
        /// Offset in shared memory.
        address: u64,
        /// Parity of the phase.
        parity: u32,
    },
}

/// Lanes with one program counter.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub pc: u32,
    pub mask: u32,
    pub state: State,
    /// It had its turn and others of the warp have not.
    pub tired: bool,
    /// Its wait for an mbarrier timed out.
    pub timed_out: bool,
}

/// What an instruction did to control flow.
pub enum Flow {
    /// On to the next.
    Next,
    /// Stay here until this no longer holds. After a barrier the instruction is done, otherwise it is executed again.
    Stay(State),
}

/// 32 threads.
pub struct Warp {
    pub index: u32,
    pub narrow: Vec<Lanes32>,
    pub wide: Vec<Lanes64>,
    pub truths: Vec<u32>,
    pub carry: u32,
    pub groups: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    /// Asynchronous copies of each lane.
    pub copies: Copies,
    /// Warpgroup products under way.
    pub products: Products,
    /// Instruction under way, for faults.
    pub current: u32,
    /// The group's wait for an mbarrier timed out.
    pub timed_out: bool,
}

impl Warp {
    /// At the first instruction, constant slots filled.
    pub fn new(program: &Program, geometry: &Geometry<'_>, block: [u32; 3], variables: &[u64], index: u32) -> Warp {
        let threads = geometry.block.iter().product::<u32>();
        let here = (threads - index * 32).min(32);
        let live = if here == 32 { !0 } else { (1 << here) - 1 };
        let mut warp = Warp {
            index,
            narrow: vec![[0; 32]; program.narrow],
            wide: vec![[0; 32]; program.wide],
            truths: vec![0; program.predicates],
            carry: 0,
            groups: vec![Group { pc: 0, mask: live, state: State::Ready, tired: false, timed_out: false }],
            live,
            local: vec![0xcd; program.local_bytes as usize * 32],
            copies: Copies::default(),
            products: Products::default(),
            current: 0,
            timed_out: false,
        };
        for &(reg, constant) in &program.constants {
            for lane in 0..32 {
                let value = value_of(constant, geometry, block, variables, index, lane as u32);
                match reg {
                    Reg::Narrow(slot) => warp.narrow[slot as usize][lane] = value as u32,
                    Reg::Wide(slot) => warp.wide[slot as usize][lane] = value,
                }
            }
        }
        for &(slot, value) in &program.constant_truths {
            warp.truths[slot as usize] = if value { !0 } else { 0 };
        }
        warp
    }

    /// Lanes for which a truth holds.
    #[inline(always)]
    pub fn truth(&self, truth: Truth) -> u32 {
        let mask = self.truths[truth.slot as usize];
        if truth.negated { !mask } else { mask }
    }

    /// A register as 64-bit lanes.
    #[inline(always)]
    pub fn view<'a>(&'a self, reg: Reg, buffer: &'a mut Lanes64) -> &'a Lanes64 {
        match reg {
            Reg::Wide(slot) => &self.wide[slot as usize],
            Reg::Narrow(slot) => {
                let narrow = &self.narrow[slot as usize];
                for lane in 0..32 {
                    buffer[lane] = narrow[lane] as u64;
                }
                buffer
            }
        }
    }

    /// One lane of a register.
    #[inline(always)]
    pub fn lane(&self, reg: Reg, lane: usize) -> u64 {
        match reg {
            Reg::Wide(slot) => self.wide[slot as usize][lane],
            Reg::Narrow(slot) => self.narrow[slot as usize][lane] as u64,
        }
    }

    /// Sets one lane of a register.
    #[inline(always)]
    pub fn set_lane(&mut self, reg: Reg, lane: usize, value: u64) {
        match reg {
            Reg::Wide(slot) => self.wide[slot as usize][lane] = value,
            Reg::Narrow(slot) => self.narrow[slot as usize][lane] = value as u32,
        }
    }

    /// Sets the lanes of the mask.
    #[inline(always)]
    pub fn put(&mut self, reg: Reg, values: &Lanes64, mask: u32) {
        match reg {
            Reg::Wide(slot) => {
                let target = &mut self.wide[slot as usize];
                if mask == !0 {
                    *target = *values;
                } else {
                    lanes(mask).for_each(|lane| target[lane] = values[lane]);
                }
            }
            Reg::Narrow(slot) => {
                let target = &mut self.narrow[slot as usize];
                lanes(mask).for_each(|lane| target[lane] = values[lane] as u32);
            }
        }
    }

    /// Sets the lanes of the mask.
    #[inline(always)]
    pub fn put_narrow(&mut self, slot: u32, values: &Lanes32, mask: u32) {
        let target = &mut self.narrow[slot as usize];
        if mask == !0 {
            *target = *values;
        } else {
            lanes(mask).for_each(|lane| target[lane] = values[lane]);
        }
    }

    /// Sets the lanes of the mask in a predicate.
    #[inline(always)]
    pub fn put_truth(&mut self, slot: u32, values: u32, mask: u32) {
        let target = &mut self.truths[slot as usize];
        *target = *target & !mask | values & mask;
    }

    /// Runs until nothing can go on or the slice ends. Whether anything ran.
    pub fn run(&mut self, block: &mut Block<'_>) -> Result<bool, Failure> {
        let (mut ran, mut budget) = (false, SLICE);
        loop {
            self.wake(block)?;
            self.merge();
            let ready = |group: &&(usize, Group)| group.1.state == State::Ready && !group.1.tired;
            let all: Vec<(usize, Group)> = self.groups.iter().copied().enumerate().collect();
            let Some(&(next, _)) = all.iter().filter(ready).min_by_key(|(_, group)| group.pc) else {
                let tired = self.groups.iter().any(|group| group.tired && group.state == State::Ready);
                self.groups.iter_mut().for_each(|group| group.tired = false);
                if tired && budget > 0 {
                    continue;
                }
                return Ok(ran || tired);
            };
            ran = true;
            self.run_group(next, block, &mut budget)?;
            if budget == 0 {
                return Ok(true);
            }
        }
    }

    /// Tells groups that sleep at an mbarrier that their time is up. Whether there were any.
    pub fn time_out(&mut self) -> bool {
        let mut any = false;
        for group in &mut self.groups {
            if let State::AtMbarrier { .. } = group.state {
                (group.state, group.timed_out, any) = (State::Ready, true, true);
            }
        }
        any
    }

    fn wake(&mut self, block: &mut Block<'_>) -> Result<(), Failure> {
        for index in 0..self.groups.len() {
            let group = self.groups[index];
            match group.state {
                State::AtBarrier { id, generation } if block.barriers.opened(id) > generation => {
                    self.collect(group, id, block);
                    self.groups[index].state = State::Ready;
                    self.groups[index].pc += 1;
                }
                State::AtCluster(generation) if block.cluster.opened() > generation => {
                    self.leave_cluster_barrier(group.mask, block);
                    self.groups[index].state = State::Ready;
                    self.groups[index].pc += 1;
                }
                State::AtMbarrier { address, parity } => {
                    let lane = group.mask.trailing_zeros();
                    self.current = group.pc;
                    if block.phase_done(address, parity).map_err(|what| (what, lane))? {
                        self.groups[index].state = State::Ready;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn merge(&mut self) {
        let mut index = 0;
        while index < self.groups.len() {
            let group = self.groups[index];
            let meets = |other: &Group| {
                other.pc == group.pc && matches!(other.state, State::Ready | State::Meeting(_)) && !other.timed_out
            };
            let other = (index + 1..self.groups.len()).find(|&other| meets(&self.groups[other]));
            if let Some(other) = other.filter(|_| meets(&group)) {
                let gone = self.groups.swap_remove(other);
                let kept = &mut self.groups[index];
                kept.mask |= gone.mask;
                kept.state = State::Ready;
                kept.tired = false;
                continue;
            }
            index += 1;
        }
    }

    fn run_group(&mut self, index: usize, block: &mut Block<'_>, budget: &mut u32) -> Result<(), Failure> {
        let Group { mut pc, mask, .. } = self.groups[index];
        let alone = self.groups.len() == 1;
        self.timed_out = std::mem::take(&mut self.groups[index].timed_out);
        let others = self.groups.iter().enumerate().filter(|(other, _)| *other != index);
        let stop = others.map(|(_, group)| group.pc).filter(|&other| other > pc).min().unwrap_or(u32::MAX);
        let program = block.program;
        loop {
            let instruction = &program.code[pc as usize];
            self.current = pc;
            let active = match instruction.guard {
                Some(truth) => mask & self.truth(truth),
                None => mask,
            };
            *budget = budget.saturating_sub(1);
            if active != 0 {
                block.counts.thread_instructions += (active.count_ones() * instruction.weight) as u64;
                match &instruction.operation {
                    Operation::Branch(target) => {
                        if active != mask {
                            self.split(index, pc + 1, active, *target);
                            return Ok(());
                        }
                        let back = *target <= pc;
                        pc = *target;
                        if back && (!alone || *budget == 0) || pc >= stop {
                            self.groups[index].pc = pc;
                            self.groups[index].tired = back && *budget == 0;
                            return Ok(());
                        }
                        continue;
                    }
                    Operation::BranchTable(slot, targets) => {
                        let values = self.narrow[*slot as usize];
                        for lane in lanes(active) {
                            let target = targets.get(values[lane] as usize).copied().unwrap_or(pc + 1);
                            self.split(index, pc + 1, 1 << lane, target);
                        }
                        self.drop_empty();
                        return Ok(());
                    }
                    Operation::Exit => {
                        self.check_exit(active, block)?;
                        self.leave(index, pc + 1, active, block);
                        return Ok(());
                    }
                    operation => match self.execute(operation, active, block)? {
                        Flow::Next => {}
                        Flow::Stay(state) => {
                            if active != mask {
                                self.split(index, pc + 1, active, pc);
                                // Lanes that the predicate leaves out go on.
                                let last = self.groups.len() - 1;
                                self.groups[last].state = state;
                            } else {
                                self.groups[index].pc = pc;
                                self.groups[index].state = state;
                            }
                            return Ok(());
                        }
                    },
                }
            }
            pc += 1;
            if pc >= stop {
                self.groups[index].pc = pc;
                return Ok(());
            }
        }
    }

    /// Lanes `gone` of a group go to `target`, the others to `here`.
    fn split(&mut self, index: usize, here: u32, gone: u32, target: u32) {
        let group = &mut self.groups[index];
        group.pc = here;
        group.mask &= !gone;
        let state = State::Ready;
        self.groups.push(Group { pc: target, mask: gone, state, tired: false, timed_out: false });
    }

    fn drop_empty(&mut self) {
        self.groups.retain(|group| group.mask != 0);
    }

    fn leave(&mut self, index: usize, here: u32, gone: u32, block: &mut Block<'_>) {
        self.live &= !gone;
        *block.live -= gone.count_ones();
        self.groups[index].pc = here;
        self.groups[index].mask &= !gone;
        self.drop_empty();
        // Who waited for the lanes that left looks again.
        for group in &mut self.groups {
            if let State::Meeting(_) = group.state {
                group.state = State::Ready;
            }
        }
        block.barriers.left(*block.live, block.counts);
        block.cluster.left(gone.count_ones(), block.counts);
    }
}

/// The lanes of a mask, ascending.
#[inline(always)]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}

fn value_of(
    constant: Constant,
    geometry: &Geometry<'_>,
    block: [u32; 3],
    variables: &[u64],
    warp: u32,
    lane: u32,
) -> u64 {
    let [x, y, _] = geometry.block;
    let linear = warp * 32 + lane;
    let cluster = geometry.cluster;
    let value = match constant {
        Constant::Value(value) => return value,
        Constant::Variable(index, offset) => return variables[index].wrapping_add_signed(offset),
        Constant::Thread(axis) => [linear % x, linear / x % y, linear / x / y][axis],
        Constant::Threads(axis) => geometry.block[axis],
        Constant::Block(axis) => block[axis],
        Constant::Blocks(axis) => geometry.grid[axis],
        Constant::Cluster(axis) => block[axis] / cluster[axis],
        Constant::Clusters(axis) => geometry.grid[axis] / cluster[axis],
        Constant::BlockOfCluster(axis) => block[axis] % cluster[axis],
        Constant::BlocksOfCluster(axis) => cluster[axis],
        Constant::Rank => geometry.rank(block),
        Constant::Ranks => cluster.iter().product(),
        Constant::Lane => lane,
        Constant::Warp => warp,
        Constant::Warps => geometry.block.iter().product::<u32>().div_ceil(32),
        Constant::LanesEqual => 1 << lane,
        Constant::LanesBelow => (1 << lane) - 1,
        Constant::LanesUpTo => !0 >> (31 - lane),
        Constant::LanesAbove => !(!0 >> (31 - lane)),
        Constant::LanesFrom => !((1 << lane) - 1),
        Constant::DynamicBytes => geometry.shared_bytes,
    };
    value as u64
}
