//! Tensor-core products of a warpgroup. Each warp computes its own 16 rows, when it waits for the group of the product: shared
//! memory that is overwritten before that wait gives wrong results here as it may on hardware.

use super::tensor_cores::decode;
use super::warp::{Flow, State, Warp};
use super::{Block, Failure};
use crate::fault::Trouble;
use crate::operation::{Element, Operation, WideA, WideMma};
use crate::tensor_map::swizzle;

/// A product that was issued.
#[derive(Debug)]
struct Product {
    group: u32,
    mma: WideMma,
    /// A from registers: per register, 32 lanes; or the descriptor.
    a: Result<Vec<[u32; 32]>, u64>,
    b: u64,
    accumulate: bool,
}

/// Products of a warp under way.
#[derive(Debug, Default)]
pub struct Products {
    pending: Vec<Product>,
    closed: u32,
}

/// A matrix in shared memory, as 64 descriptor bits say.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle_bytes: u32,
}

impl Descriptor {
    fn new(bits: u64) -> Result<Descriptor, Trouble> {
        if bits >> 49 & 7 != 0 {
            return Err(Trouble::Unsupported("a matrix descriptor with a base offset".to_owned()));
        }
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        let swizzle_bytes = [0, 128, 64, 32][(bits >> 62) as usize];
        Ok(Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle_bytes })
    }

    /// Address of element (`row`, `k`): rows are M or N. `across`: rows are innermost in memory.
    fn address(self, row: usize, k: usize, bytes: usize, across: bool) -> u64 {
        let (row, k, bytes) = (row as u64, k as u64, bytes as u64);
        let width = self.swizzle_bytes as u64;
        let offset = match (width, across) {
            (0, false) => (row >> 3) * self.stride + (row & 7) * 16 + k * bytes / 16 * self.leading + k * bytes % 16,
            (_, false) => (row >> 3) * self.stride + (row & 7) * width + k * bytes,
            (0, true) => {
                let per = 16 / bytes;
                row / per * self.stride + (k >> 3) * self.leading + (k & 7) * 16 + row % per * bytes
            }
            (_, true) => {
                let per = width / bytes;
                row / per * self.leading + (k >> 3) * self.stride + (k & 7) * width + row % per * bytes
            }
        };
        swizzle(self.start + offset, self.swizzle_bytes)
    }
}

impl Warp {
    /// Warpgroup operations, and from there the asynchronous family.
    pub fn execute_warpgroup(
        &mut self,
        operation: &Operation,
        mask: u32,
        block: &mut Block<'_>,
    ) -> Result<Flow, Failure> {
        match operation {
            Operation::WideMma(_) | Operation::WideFence | Operation::WideCommit | Operation::WideWait(_)
                if mask != !0 =>
            {
                Ok(Flow::Stay(State::Meeting(!0)))
            }
            Operation::WideMma(mma) => {
                self.issue(mma, block).map_err(|what| (what, 0))?;
                block.counts.mma_flops += 2 * 16 * (mma.n * mma.k) as u64;
                Ok(Flow::Next)
            }
            Operation::WideCommit => {
                self.products.closed += 1;
                Ok(Flow::Next)
            }
            Operation::WideWait(left) => {
                self.finish(*left, block).map_err(|what| (what, 0))?;
                Ok(Flow::Next)
            }
            Operation::WideFence => Ok(Flow::Next),
            _ => self.execute_asynchronous(operation, mask, block),
        }
    }

    fn issue(&mut self, mma: &WideMma, block: &Block<'_>) -> Result<(), Trouble> {
        let one = |reg| {
            let first = self.lane(reg, 0);
            if (1..32).any(|lane| self.lane(reg, lane) != first) {
                return Err(Trouble::Protocol("a matrix descriptor differs between lanes".to_owned()));
            }
            Ok(first)
        };
        let a = match &mma.a {
            WideA::Registers(slots) => Ok(slots.iter().map(|slot| self.narrow[*slot as usize]).collect()),
            WideA::Descriptor(reg) => Err(one(*reg)?),
        };
        let b = one(mma.b)?;
        let scale = self.truth(mma.accumulate);
        if scale != 0 && scale != !0 {
            return Err(Trouble::Protocol("scale-d differs between lanes".to_owned()));
        }
        if block.shared.has_unfenced() {
            if let Err(descriptor) = a {
                let (at, first) = (Descriptor::new(descriptor)?, 16 * (self.index as usize & 3));
                check_fenced(block, self.index, at, [first, 16, mma.k], mma.a_type.bytes(), mma.transpose_a)?;
            }
            check_fenced(
                block,
                self.index,
                Descriptor::new(b)?,
                [0, mma.n, mma.k],
                mma.b_type.bytes(),
                mma.transpose_b,
            )?;
        }
        let group = self.products.closed;
        self.products.pending.push(Product { group, mma: mma.clone(), a, b, accumulate: scale != 0 });
        Ok(())
    }

    fn finish(&mut self, left: u32, block: &mut Block<'_>) -> Result<(), Trouble> {
        let closed = self.products.closed;
        let ready = self.products.pending.iter().take_while(|product| product.group + left < closed).count();
        let products: Vec<Product> = self.products.pending.drain(..ready).collect();
        products.iter().try_for_each(|product| self.multiply(product, block))
    }

    /// Marks what the product reads, all four warps' rows of A included.
    fn mark_read(&self, product: &Product, block: &mut Block<'_>) -> Result<(), Trouble> {
        let mma = &product.mma;
        let mut mark = |descriptor: u64, rows: usize, bytes: usize, across: bool| -> Result<(), Trouble> {
            let descriptor = Descriptor::new(descriptor)?;
            each_chunk(rows, mma.k, bytes, across, |row, step| {
                let at = descriptor.address(row, step, bytes, across);
                block.shared.races.read_by_product(at as usize, 16, self.index);
                Ok(())
            })
        };
        if let Err(a) = product.a {
            mark(a, 64, mma.a_type.bytes(), mma.transpose_a)?;
        }
        mark(product.b, mma.n, mma.b_type.bytes(), mma.transpose_b)
    }

    fn multiply(&mut self, product: &Product, block: &mut Block<'_>) -> Result<(), Trouble> {
        let mma = &product.mma;
        let (n, k) = (mma.n, mma.k);
        let a = self.left(product, block)?;
        let b = matrix(block, self.index, Descriptor::new(product.b)?, 0, n, k, mma.b_type, mma.transpose_b)?;
        self.mark_read(product, block)?;
        let sign = if mma.negate_a != mma.negate_b { -1.0 } else { 1.0 };
        let mut sums = vec![0f64; n];
        for row in 0..16 {
            sums.fill(0.0);
            for step in 0..k {
                let left = a[row * k + step] * sign;
                for (sum, right) in sums.iter_mut().zip(&b[step * n..(step + 1) * n]) {
                    *sum += left * right;
                }
            }
            for (column, sum) in sums.iter().enumerate() {
                let lane = 4 * (row & 7) + (column & 7) / 2;
                let register = 4 * (column / 8) + 2 * (row >> 3) + (column & 1);
                let target = &mut self.narrow[mma.d[register] as usize][lane];
                *target = if mma.accumulator == Element::S32 {
                    (if product.accumulate { *target } else { 0 }).wrapping_add(*sum as i64 as u32)
                } else {
                    let before = if product.accumulate { f32::from_bits(*target) as f64 } else { 0.0 };
                    ((sum + before) as f32).to_bits()
                };
            }
        }
        Ok(())
    }

    /// The warp's 16 rows of A, row by row.
    fn left(&self, product: &Product, block: &Block<'_>) -> Result<Vec<f64>, Trouble> {
        let mma = &product.mma;
        let k = mma.k;
        match &product.a {
            Ok(registers) => {
                let mut a = vec![0f64; 16 * k];
                let bytes = mma.a_type.bytes();
                let per = 4 / bytes;
                for (register, words) in registers.iter().enumerate() {
                    for (lane, word) in words.iter().enumerate() {
                        for element in 0..per {
                            let row = (lane >> 2) + 8 * (register & 1);
                            let column = per * (lane & 3) + element + 4 * per * (register >> 1);
                            a[row * k + column] = decode(mma.a_type, cut(*word >> (8 * bytes * element), bytes));
                        }
                    }
                }
                Ok(a)
            }
            Err(descriptor) => {
                let first = 16 * (self.index as usize & 3);
                let b = matrix(
                    block,
                    self.index,
                    Descriptor::new(*descriptor)?,
                    first,
                    16,
                    k,
                    mma.a_type,
                    mma.transpose_a,
                )?;
                // `matrix` gives k by rows.
                Ok((0..16 * k).map(|at| b[at % k * 16 + at / k]).collect())
            }
        }
    }
}

fn cut(bits: u32, bytes: usize) -> u32 {
    if bytes == 4 { bits } else { bits & ((1 << (8 * bytes)) - 1) }
}

/// Whether `rows` rows from `first`, all of k, can be seen by the product.
fn check_fenced(
    block: &Block<'_>,
    warp: u32,
    descriptor: Descriptor,
    [first, rows, k]: [usize; 3],
    bytes: usize,
    across: bool,
) -> Result<(), Trouble> {
    each_chunk(rows, k, bytes, across, |row, step| {
        block.shared.check_fenced(descriptor.address(first + row, step, bytes, across), 16, warp)
    })
}

/// The first element of every 16 bytes: its row and its step of k.
fn each_chunk(
    rows: usize,
    k: usize,
    bytes: usize,
    across: bool,
    mut each: impl FnMut(usize, usize) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let (outer, inner) = if across { (k, rows) } else { (rows, k) };
    for line in 0..outer {
        for start in (0..inner).step_by(16 / bytes) {
            let (row, step) = if across { (start, line) } else { (line, start) };
            each(row, step)?;
        }
    }
    Ok(())
}

/// `rows` rows from `first`, all of k: value (row, step) at [step * rows + row].
fn matrix(
    block: &Block<'_>,
    warp: u32,
    descriptor: Descriptor,
    first: usize,
    rows: usize,
    k: usize,
    element: Element,
    across: bool,
) -> Result<Vec<f64>, Trouble> {
    let bytes = element.bytes();
    let per = 16 / bytes;
    let mut values = vec![0f64; rows * k];
    each_chunk(rows, k, bytes, across, |row, step| {
        let at = descriptor.address(first + row, step, bytes, across);
        let chunk = block.shared.load(at, 16)?;
        block.shared.races.look(at as usize, 16, warp)?;
        for index in 0..per {
            let (row, step) = if across { (row + index, step) } else { (row, step + index) };
            values[step * rows + row] = decode(element, cut((chunk >> (8 * bytes * index)) as u32, bytes));
        }
        Ok(())
    })?;
    Ok(values)
}
