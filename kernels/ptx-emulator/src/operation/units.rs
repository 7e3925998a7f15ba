//! Operands of the tensor cores and of the copy unit.

use super::{Address, Reg, Truth};

/// Element types of tensor-core operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// f32 of which 10 mantissa bits are used.
    TF32,
    /// 8-bit float.
    E4M3,
    /// 8-bit float.
    E5M2,
    /// Signed byte.
    S8,
    /// Unsigned byte.
    U8,
    /// f32 (accumulators).
    F32,
    /// i32 (accumulators).
    S32,
}

impl Element {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Element::E4M3 | Element::E5M2 | Element::S8 | Element::U8 => 1,
            Element::F16 | Element::BF16 => 2,
            Element::TF32 | Element::F32 | Element::S32 => 4,
        }
    }
}

/// A tensor-core product of one warp: D = A·B + C.
#[derive(Debug, Clone)]
pub struct Mma {
    /// Columns of A = rows of B.
    pub k: usize,
    /// Type of A.
    pub a_type: Element,
    /// Type of B.
    pub b_type: Element,
    /// Type of C and D.
    pub accumulator: Element,
    /// Registers.
    pub d: Vec<u32>,
    /// Registers.
    pub a: Vec<u32>,
    /// Registers.
    pub b: Vec<u32>,
    /// Registers.
    pub c: Vec<u32>,
}

/// Where the rows of a warpgroup product's A come from.
#[derive(Debug, Clone)]
pub enum WideA {
    /// Registers of the four warps.
    Registers(Vec<u32>),
    /// Shared memory, through a descriptor.
    Descriptor(Reg),
}

/// A tensor-core product of a warpgroup.
#[derive(Debug, Clone)]
pub struct WideMma {
    /// Columns.
    pub n: usize,
    /// Columns of A.
    pub k: usize,
    /// Type of A.
    pub a_type: Element,
    /// Type of B.
    pub b_type: Element,
    /// Type of D.
    pub accumulator: Element,
    /// Accumulators.
    pub d: Vec<u32>,
    /// Left operand.
    pub a: WideA,
    /// Descriptor of B.
    pub b: Reg,
    /// Whether D is added to; false overwrites it.
    pub accumulate: Truth,
    /// −1 negates A.
    pub negate_a: bool,
    /// −1 negates B.
    pub negate_b: bool,
    /// A is stored with rows innermost.
    pub transpose_a: bool,
    /// B is stored with columns innermost.
    pub transpose_b: bool,
}

/// Operations on mbarriers.
#[derive(Debug, Clone)]
pub enum Mbarrier {
    /// Sets the expected arrivals.
    Init(Reg),
    /// Ends its life.
    Invalidate,
    /// Arrives; maybe returns the state.
    Arrive {
        /// Register for the state.
        state: Option<Reg>,
        /// Arrivals; one if absent.
        count: Option<Reg>,
        /// Bytes to expect first.
        expect: Option<Reg>,
        /// Whether the address may be another block's.
        remote: bool,
    },
    /// More bytes to expect.
    Expect(Reg),
    /// Bytes that arrived.
    Complete(Reg),
    /// Asks for the end of a phase.
    Test {
        /// Result.
        done: u32,
        /// Parity, or a state token.
        phase: Reg,
        /// Whether `phase` is a parity.
        parity: bool,
    },
    /// Arrives when this thread's earlier cp.async copies are done.
    ArriveAfterCopies {
        /// Whether the arrival was counted at initialisation.
        counted: bool,
    },
}

/// Bulk copies.
#[derive(Debug, Clone)]
pub enum Bulk {
    /// Global to shared, completing an mbarrier.
    Load {
        /// Shared destination.
        to: Address,
        /// Global source.
        from: Address,
        /// Bytes.
        bytes: Reg,
        /// The mbarrier.
        barrier: Address,
    },
    /// Shared to global, in a bulk group.
    Store {
        /// Global destination.
        to: Address,
        /// Shared source.
        from: Address,
        /// Bytes.
        bytes: Reg,
    },
    /// A box of a tensor to shared memory.
    TensorLoad {
        /// Shared destination.
        to: Address,
        /// The tensor map.
        map: Address,
        /// Where the box starts, innermost first.
        at: Vec<Reg>,
        /// The mbarrier.
        barrier: Address,
        /// Blocks of the cluster that receive it, bit by bit; only the own one if absent.
        blocks: Option<Reg>,
    },
    /// A box from shared memory to a tensor.
    TensorStore {
        /// Shared source.
        from: Address,
        /// The tensor map.
        map: Address,
        /// Where the box starts, innermost first.
        at: Vec<Reg>,
    },
    /// Closes the bulk group.
    Commit,
    /// Waits for all but the latest groups.
    Wait(u32),
}
