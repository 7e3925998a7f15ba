//! What an instruction is after decoding: register slots, and for arithmetic a function over the 32 lanes of a warp.

mod units;

pub use units::{Bulk, Element, Mbarrier, Mma, WideA, WideMma};

/// A 32-bit (or narrower) register of 32 lanes.
pub type Lanes32 = [u32; 32];
/// A 64-bit register of 32 lanes.
pub type Lanes64 = [u64; 32];

/// Arithmetic with one source of at most 32 bits.
pub type One32 = fn(&Lanes32, &mut Lanes32);
/// … two sources.
pub type Two32 = fn(&Lanes32, &Lanes32, &mut Lanes32);
/// … three sources.
pub type Three32 = fn(&Lanes32, &Lanes32, &Lanes32, &mut Lanes32);
/// Arithmetic where a source or the result has 64 bits.
pub type One64 = fn(&Lanes64, &mut Lanes64);
/// … two sources.
pub type Two64 = fn(&Lanes64, &Lanes64, &mut Lanes64);
/// … three sources.
pub type Three64 = fn(&Lanes64, &Lanes64, &Lanes64, &mut Lanes64);
/// A comparison: bit l of the result for lane l.
pub type Compare32 = fn(&Lanes32, &Lanes32) -> u32;
/// … of 64-bit values.
pub type Compare64 = fn(&Lanes64, &Lanes64) -> u32;

/// A register slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reg {
    /// At most 32 bits.
    Narrow(u32),
    /// 64 bits.
    Wide(u32),
}

/// A predicate, maybe negated.
#[derive(Debug, Clone, Copy)]
pub struct Truth {
    /// Slot.
    pub slot: u32,
    /// Whether its opposite counts.
    pub negated: bool,
}

/// How two truths become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    /// Both.
    And,
    /// Any.
    Or,
    /// Exactly one.
    Xor,
}

/// An address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Global and constant memory.
    Global,
    /// Shared memory of the block.
    Shared,
    /// Memory of the thread.
    Local,
    /// Kernel parameters.
    Param,
    /// Whatever the window of the address says.
    Generic,
}

/// `[register + offset]`.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// Register, or a constant slot with the address of a variable.
    pub base: Reg,
    /// Bytes added.
    pub offset: i64,
}

/// Read-modify-write functions on memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    /// Addition of integers.
    Add,
    /// Addition of f32.
    AddSingle,
    /// Addition of f64.
    AddDouble,
    /// Addition of f16 pairs or one f16.
    AddHalf,
    /// Addition of bf16 pairs or one bf16.
    AddBrain,
    /// Smaller, signed.
    MinSigned,
    /// Larger, signed.
    MaxSigned,
    /// Smaller, unsigned.
    Min,
    /// Larger, unsigned.
    Max,
    /// Increment with wrap.
    Increment,
    /// Decrement with wrap.
    Decrement,
    /// Bits.
    And,
    /// Bits.
    Or,
    /// Bits.
    Xor,
    /// Exchange.
    Exchange,
    /// Compare and swap.
    Swap,
}

/// Shuffles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    /// From a lower lane.
    Up,
    /// From a higher lane.
    Down,
    /// From the lane whose index differs in the mask's bits.
    Butterfly,
    /// From a named lane.
    Index,
}

/// Votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// Every lane.
    All,
    /// Some lane.
    Any,
    /// All the same.
    Uniform,
    /// Mask of those who say yes.
    Ballot,
}

/// Reductions over a warp or block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Sum.
    Add,
    /// Smaller, unsigned.
    Min,
    /// Larger, unsigned.
    Max,
    /// Smaller, signed.
    MinSigned,
    /// Larger, signed.
    MaxSigned,
    /// Bits.
    And,
    /// Bits.
    Or,
    /// Bits.
    Xor,
    /// Count of truths.
    Count,
}

/// An instruction without its predicate.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Nothing to do here: hints, fences, prefetches.
    Nothing,
    /// `d = f(a)`.
    One32(One32, u32, u32),
    /// `d = f(a, b)`.
    Two32(Two32, u32, [u32; 2]),
    /// `d = f(a, b, c)`.
    Three32(Three32, u32, [u32; 3]),
    /// `d = f(a)`.
    One64(One64, Reg, Reg),
    /// `d = f(a, b)`.
    Two64(Two64, Reg, [Reg; 2]),
    /// `d = f(a, b, c)`.
    Three64(Three64, Reg, [Reg; 3]),
    /// Bits by a truth table of three sources.
    Lookup(u8, u32, [u32; 3]),
    /// Bits of the first source inserted into the second, at a position, of a length; true for 64 bits.
    Insert(bool, Reg, [Reg; 4]),
    /// Result and its opposite into predicates.
    Compare32(Compare32, [u32; 2], Outcome),
    /// Result and its opposite into predicates.
    Compare64(Compare64, [Reg; 2], Outcome),
    /// `p = a op b` on predicates.
    Predicate(Logic, u32, Truth, Truth),
    /// `d = p ? a : b`.
    Select(Reg, [Reg; 2], Truth),
    /// `d = a + b (+ carry)`, or a difference; the flag says what happens to the carry.
    Carry {
        /// Subtract.
        subtract: bool,
        /// Carry comes in.
        takes: bool,
        /// Carry goes out.
        gives: bool,
        /// Result.
        d: Reg,
        /// Sources.
        sources: [Reg; 2],
    },
    /// Parts into one register, lowest first.
    Pack(Reg, Vec<Reg>, u32),
    /// One register into parts, lowest first, of so many bits.
    Unpack(Vec<Option<Reg>>, Reg, u32),
    /// Clock.
    Clock(Reg),
    /// Jump.
    Branch(u32),
    /// Jump through a table.
    BranchTable(u32, Vec<u32>),
    /// End of the thread.
    Exit,
    /// Failure of the kernel's own making.
    Trap,
    /// Memory to registers.
    Load {
        /// Space.
        space: Space,
        /// Where.
        at: Address,
        /// Bytes of an element.
        bytes: usize,
        /// Whether narrow elements are sign-extended.
        signed: bool,
        /// Destinations, in order of address.
        to: Vec<Option<Reg>>,
    },
    /// Registers to memory.
    Store {
        /// Space.
        space: Space,
        /// Where.
        at: Address,
        /// Bytes of an element.
        bytes: usize,
        /// Sources, in order of address.
        from: Vec<Reg>,
    },
    /// Read-modify-write.
    Atomic {
        /// Space.
        space: Space,
        /// Where.
        at: Address,
        /// Bytes.
        bytes: usize,
        /// What.
        kind: Atomic,
        /// The old value.
        d: Option<Reg>,
        /// Operands.
        sources: Vec<Reg>,
    },
    /// Values from other lanes.
    Shuffle(Shuffle, Reg, Option<u32>, Reg, [u32; 3]),
    /// Truths of all lanes.
    Vote(Vote, Option<u32>, Option<u32>, Truth, u32),
    /// Lanes with the same value.
    Match(bool, u32, Option<u32>, Reg, u32),
    /// A reduction over lanes.
    Reduce(Reduction, u32, u32, u32),
    /// Lanes executing together.
    ActiveMask(u32),
    /// One lane of the mask.
    Elect(Option<u32>, Option<u32>, u32),
    /// Meeting of a warp's lanes.
    WarpBarrier(u32),
    /// Meeting of a block's threads.
    Barrier {
        /// Number of the barrier.
        id: u32,
        /// Threads expected; all of the block if absent.
        count: Option<u32>,
        /// Whether the thread waits, or only arrives.
        waits: bool,
        /// Whether whole warps must come.
        aligned: bool,
        /// Reduction, its source and its result.
        reduce: Option<(Reduction, Truth, Reg, bool)>,
    },
    /// Arrival at the barrier of the cluster; whether whole warps must come.
    ClusterArrive(bool),
    /// Wait for it; whether whole warps must come.
    ClusterWait(bool),
    /// Tensor cores of one warp.
    Mma(Box<Mma>),
    /// 8×8 matrices of 16-bit elements from shared memory.
    LoadMatrix(Vec<u32>, Address, bool),
    /// 8×8 matrices to shared memory.
    StoreMatrix(Vec<u32>, Address, bool),
    /// Tensor cores of a warpgroup.
    WideMma(Box<WideMma>),
    /// Orders registers before warpgroup products.
    WideFence,
    /// Closes a group of warpgroup products.
    WideCommit,
    /// Waits for all but the latest groups.
    WideWait(u32),
    /// An asynchronous copy of 4, 8 or 16 bytes.
    Copy {
        /// Shared destination.
        to: Address,
        /// Global source.
        from: Address,
        /// Bytes written.
        bytes: usize,
        /// Bytes read; the rest is zero.
        source_bytes: Option<u32>,
        /// True: nothing is read.
        ignore: Option<Truth>,
    },
    /// Closes a group of copies.
    CopyCommit,
    /// Waits for all but the latest groups.
    CopyWait(u32),
    /// Waits for all copies of the thread.
    CopyWaitAll,
    /// mbarriers.
    Mbarrier(Box<Mbarrier>, Address),
    /// Bulk copies.
    Bulk(Box<Bulk>),
    /// Makes the thread's ordinary writes visible to bulk copies and warpgroup products.
    ProxyFence,
}

/// Where the result of a comparison goes.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Its truth.
    pub p: Option<u32>,
    /// Its opposite.
    pub q: Option<u32>,
    /// Combined with another truth first.
    pub with: Option<(Logic, Truth)>,
}

/// An instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Threads for which it holds.
    pub guard: Option<Truth>,
    /// What to do.
    pub operation: Operation,
    /// Line of the text.
    pub line: u32,
    /// 1, or 0 for the second half of one PTX instruction.
    pub weight: u32,
}

/// What fills a constant slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Constant {
    /// A number.
    Value(u64),
    /// Index of the thread, by axis.
    Thread(usize),
    /// Threads of the block.
    Threads(usize),
    /// Index of the block.
    Block(usize),
    /// Blocks of the grid.
    Blocks(usize),
    /// Index of the cluster.
    Cluster(usize),
    /// Clusters of the grid.
    Clusters(usize),
    /// Index of the block in its cluster.
    BlockOfCluster(usize),
    /// Blocks of a cluster.
    BlocksOfCluster(usize),
    /// The block's number in its cluster.
    Rank,
    /// Blocks of a cluster, of all axes.
    Ranks,
    /// Lane of the warp.
    Lane,
    /// Warp of the block.
    Warp,
    /// Warps of the block.
    Warps,
    /// Masks of lanes compared with one's own.
    LanesEqual,
    /// Lower.
    LanesBelow,
    /// Lower or own.
    LanesUpTo,
    /// Higher.
    LanesAbove,
    /// Higher or own.
    LanesFrom,
    /// Address of module variable number.
    Variable(usize, i64),
    /// Bytes of dynamic shared memory.
    DynamicBytes,
}
