//! Tensor-core products of one warp and the matrix loads that feed them.
//!
//! A step of k sums its exact products in f64 and rounds once to f32 with the accumulator: hardware keeps fewer bits on the way,
//! so a real device may differ in the last bits of f32.

use super::warp::{Flow, Warp};
use super::{Block, Failure};
use crate::counts::conflicts;
use crate::fault::Trouble;
use crate::float::{E4M3, E5M2, brain, half, to_half};
use crate::operation::{Address, Element, Mma, Operation};

/// The value of an element.
pub fn decode(element: Element, bits: u32) -> f64 {
    match element {
        Element::F16 => half(bits) as f64,
        Element::BF16 => brain(bits) as f64,
        Element::TF32 => f32::from_bits(bits & 0xffff_e000) as f64,
        Element::E4M3 => E4M3.decode(bits),
        Element::E5M2 => E5M2.decode(bits),
        Element::S8 => bits as u8 as i8 as f64,
        Element::U8 => bits as u8 as f64,
        Element::F32 => f32::from_bits(bits) as f64,
        Element::S32 => bits as i32 as f64,
    }
}

impl Warp {
    /// Tensor-core operations, and from there the remaining families.
    pub fn execute_tensor(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        match operation {
            Operation::Mma(_) | Operation::LoadMatrix(..) | Operation::StoreMatrix(..) if mask != !0 => {
                Ok(Flow::Stay(super::warp::State::Meeting(!0)))
            }
            Operation::Mma(mma) => {
                self.mma(mma);
                block.counts.mma_flops += 2 * 16 * 8 * mma.k as u64;
                Ok(Flow::Next)
            }
            Operation::LoadMatrix(to, at, transposed) => {
                self.load_matrix(to, *at, *transposed, block).map_err(|(what, lane)| (what, lane as u32))?;
                Ok(Flow::Next)
            }
            Operation::StoreMatrix(from, at, transposed) => {
                self.store_matrix(from, *at, *transposed, block).map_err(|(what, lane)| (what, lane as u32))?;
                Ok(Flow::Next)
            }
            _ => self.execute_warpgroup(operation, mask, block),
        }
    }

    /// Element `index` of a packed operand: lanes hold `per` elements per register.
    fn operand(&self, registers: &[u32], lane: usize, index: usize, element: Element) -> f64 {
        let per = 4 / element.bytes();
        let word = self.narrow[registers[index / per] as usize][lane];
        let bits = word >> (8 * element.bytes() * (index % per));
        decode(
            element,
            if element.bytes() == 2 {
                bits & 0xffff
            } else if element.bytes() == 1 {
                bits & 0xff
            } else {
                bits
            },
        )
    }

    fn mma(&mut self, mma: &Mma) {
        let k = mma.k;
        let mut a = [[0f64; 32]; 16];
        let mut b = [[0f64; 8]; 32];
        // A register holds 4 bytes of one row (A) or column (B): `per` neighbours in k.
        let per = 4 / mma.a_type.bytes();
        for lane in 0..32 {
            let (group, within) = (lane >> 2, lane & 3);
            for (register, _) in mma.a.iter().enumerate() {
                for element in 0..per {
                    let row = group + 8 * (register & 1);
                    let column = per * within + element + 4 * per * (register >> 1);
                    a[row][column] = self.operand(&mma.a, lane, register * per + element, mma.a_type);
                }
            }
            for (register, _) in mma.b.iter().enumerate() {
                for element in 0..per {
                    let row = per * within + element + 4 * per * register;
                    b[row][group] = self.operand(&mma.b, lane, register * per + element, mma.b_type);
                }
            }
        }
        let mut products = [[0f64; 8]; 16];
        for row in 0..16 {
            for step in 0..k {
                let left = a[row][step];
                for column in 0..8 {
                    products[row][column] += left * b[step][column];
                }
            }
        }
        for lane in 0..32 {
            let (group, within) = (lane >> 2, lane & 3);
            for index in 0..4 {
                let sum = products[group + 8 * (index >> 1)][2 * within + (index & 1)];
                self.accumulate(mma, lane, index, sum);
            }
        }
    }

    fn accumulate(&mut self, mma: &Mma, lane: usize, index: usize, sum: f64) {
        match mma.accumulator {
            Element::F16 => {
                let shift = 16 * (index & 1);
                let c = self.narrow[mma.c[index >> 1] as usize][lane] >> shift & 0xffff;
                let d = to_half((sum + half(c) as f64) as f32);
                let target = &mut self.narrow[mma.d[index >> 1] as usize][lane];
                *target = *target & !(0xffff << shift) | d << shift;
            }
            Element::S32 => {
                let c = self.narrow[mma.c[index] as usize][lane];
                self.narrow[mma.d[index] as usize][lane] = c.wrapping_add(sum as i64 as u32);
            }
            _ => {
                let c = f32::from_bits(self.narrow[mma.c[index] as usize][lane]) as f64;
                self.narrow[mma.d[index] as usize][lane] = ((sum + c) as f32).to_bits();
            }
        }
    }

    /// Addresses of the rows: lanes 8i to 8i + 7 name those of matrix i.
    fn rows(&self, at: Address, count: usize, block: &mut Block<'_>) -> Result<[u64; 32], (Trouble, usize)> {
        let mut addresses = self.addresses(at);
        for (lane, address) in addresses.iter_mut().enumerate() {
            if *address >> 56 == 1 {
                *address -= crate::shared::SHARED_WINDOW;
            }
            if lane < 8 * count && *address & 15 != 0 {
                return Err((Trouble::Misaligned { address: *address, alignment: 16 }, lane));
            }
        }
        let mask = if count == 4 { !0 } else { (1u32 << (8 * count)) - 1 };
        block.counts.shared_requests += 1;
        block.counts.shared_conflicts += conflicts(&addresses, mask, 16);
        Ok(addresses)
    }

    fn load_matrix(
        &mut self,
        to: &[u32],
        at: Address,
        transposed: bool,
        block: &mut Block<'_>,
    ) -> Result<(), (Trouble, usize)> {
        let addresses = self.rows(at, to.len(), block)?;
        for (matrix, slot) in to.iter().enumerate() {
            let mut rows = [[0u16; 8]; 8];
            for (row, cells) in rows.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                let bytes = block.shared.load(addresses[lane], 16).map_err(|what| (what, lane))?;
                for (column, cell) in cells.iter_mut().enumerate() {
                    *cell = (bytes >> (16 * column)) as u16;
                }
            }
            for lane in 0..32 {
                let (group, pair) = (lane >> 2, 2 * (lane & 3));
                let [low, high] = if transposed {
                    [rows[pair][group], rows[pair + 1][group]]
                } else {
                    [rows[group][pair], rows[group][pair + 1]]
                };
                self.narrow[*slot as usize][lane] = low as u32 | (high as u32) << 16;
            }
        }
        Ok(())
    }

    fn store_matrix(
        &mut self,
        from: &[u32],
        at: Address,
        transposed: bool,
        block: &mut Block<'_>,
    ) -> Result<(), (Trouble, usize)> {
        let addresses = self.rows(at, from.len(), block)?;
        for (matrix, slot) in from.iter().enumerate() {
            let mut rows = [[0u16; 8]; 8];
            for lane in 0..32 {
                let (group, pair) = (lane >> 2, 2 * (lane & 3));
                let word = self.narrow[*slot as usize][lane];
                for (half, place) in [(word as u16, pair), ((word >> 16) as u16, pair + 1)] {
                    if transposed {
                        rows[place][group] = half;
                    } else {
                        rows[group][place] = half;
                    }
                }
            }
            for (row, cells) in rows.iter().enumerate() {
                let lane = 8 * matrix + row;
                let bytes =
                    cells.iter().enumerate().fold(0u128, |all, (column, &cell)| all | (cell as u128) << (16 * column));
                let thread = self.index * 32 + lane as u32;
                block.shared.store_by(addresses[lane], 16, bytes, thread).map_err(|what| (what, lane))?;
            }
        }
        Ok(())
    }
}
