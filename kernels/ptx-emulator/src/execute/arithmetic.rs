//! Everything that only touches registers, and the way to the other families.

use super::warp::{Flow, Warp, lanes};
use super::{Block, Failure};
use crate::fault::Trouble;
use crate::operation::{Lanes32, Lanes64, Logic, Operation, Outcome, Reg};

impl Warp {
    /// Executes an instruction for the lanes of the mask.
    #[inline]
    pub fn execute(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        let mut out: Lanes32 = [0; 32];
        match operation {
            Operation::One32(f, d, a) => {
                f(&self.narrow[*a as usize], &mut out);
                self.put_narrow(*d, &out, mask);
            }
            Operation::Two32(f, d, [a, b]) => {
                f(&self.narrow[*a as usize], &self.narrow[*b as usize], &mut out);
                self.put_narrow(*d, &out, mask);
            }
            Operation::Three32(f, d, [a, b, c]) => {
                f(&self.narrow[*a as usize], &self.narrow[*b as usize], &self.narrow[*c as usize], &mut out);
                self.put_narrow(*d, &out, mask);
            }
            Operation::Lookup(table, d, sources) => {
                let [a, b, c] = sources.map(|slot| &self.narrow[slot as usize]);
                for lane in 0..32 {
                    out[lane] = look_up(*table, a[lane], b[lane], c[lane]);
                }
                self.put_narrow(*d, &out, mask);
            }
            Operation::Compare32(f, [a, b], outcome) => {
                let truth = f(&self.narrow[*a as usize], &self.narrow[*b as usize]);
                self.conclude(truth, outcome, mask);
            }
            Operation::Predicate(logic, d, a, b) => {
                let value = combine(*logic, self.truth(*a), self.truth(*b));
                self.put_truth(*d, value, mask);
            }
            Operation::Nothing => {}
            _ => return self.execute_wide(operation, mask, block),
        }
        Ok(Flow::Next)
    }

    fn execute_wide(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        let mut out: Lanes64 = [0; 32];
        let [mut x, mut y, mut z] = [[0; 32]; 3];
        match operation {
            Operation::One64(f, d, a) => {
                f(self.view(*a, &mut x), &mut out);
                self.put(*d, &out, mask);
            }
            Operation::Two64(f, d, [a, b]) => {
                f(self.view(*a, &mut x), self.view(*b, &mut y), &mut out);
                self.put(*d, &out, mask);
            }
            Operation::Three64(f, d, [a, b, c]) => {
                f(self.view(*a, &mut x), self.view(*b, &mut y), self.view(*c, &mut z), &mut out);
                self.put(*d, &out, mask);
            }
            Operation::Compare64(f, [a, b], outcome) => {
                let truth = f(self.view(*a, &mut x), self.view(*b, &mut y));
                self.conclude(truth, outcome, mask);
            }
            Operation::Select(d, [a, b], truth) => {
                let truth = self.truth(*truth);
                let (a, b) = (self.view(*a, &mut x), self.view(*b, &mut y));
                for lane in 0..32 {
                    out[lane] = if truth >> lane & 1 == 1 { a[lane] } else { b[lane] };
                }
                self.put(*d, &out, mask);
            }
            Operation::Insert(wide, d, sources) => {
                let width = if *wide { 64 } else { 32 };
                for lane in lanes(mask) {
                    let [a, b, at, len] = sources.map(|reg| self.lane(reg, lane));
                    out[lane] = crate::decode::insert(a, b, at as u32, len as u32, width);
                }
                self.put(*d, &out, mask);
            }
            Operation::Carry { subtract, takes, gives, d, sources } => {
                self.carry(*subtract, *takes, *gives, *d, *sources, mask);
            }
            Operation::Pack(d, parts, bits) => {
                for (place, part) in parts.iter().enumerate() {
                    let part = self.view(*part, &mut x);
                    let keep = if *bits == 64 { !0 } else { (1u64 << bits) - 1 };
                    for lane in 0..32 {
                        out[lane] |= (part[lane] & keep) << (place as u32 * bits);
                    }
                }
                self.put(*d, &out, mask);
            }
            Operation::Unpack(parts, a, bits) => {
                let a = *self.view(*a, &mut x);
                for (place, part) in parts.iter().enumerate() {
                    let keep = if *bits == 64 { !0 } else { (1u64 << bits) - 1 };
                    for lane in 0..32 {
                        out[lane] = a[lane] >> (place as u32 * bits) & keep;
                    }
                    if let Some(part) = part {
                        self.put(*part, &out, mask);
                    }
                }
            }
            Operation::Clock(d) => {
                out = [block.counts.thread_instructions; 32];
                self.put(*d, &out, mask);
            }
            Operation::Trap => return Err((Trouble::Trap, mask.trailing_zeros())),
            _ => return self.execute_other(operation, mask, block),
        }
        Ok(Flow::Next)
    }

    fn conclude(&mut self, truth: u32, outcome: &Outcome, mask: u32) {
        let (mut p, mut q) = (truth, !truth);
        if let Some((logic, with)) = outcome.with {
            let with = self.truth(with);
            (p, q) = (combine(logic, truth, with), combine(logic, !truth, with));
        }
        if let Some(slot) = outcome.p {
            self.put_truth(slot, p, mask);
        }
        if let Some(slot) = outcome.q {
            self.put_truth(slot, q, mask);
        }
    }

    fn carry(&mut self, subtract: bool, takes: bool, gives: bool, d: Reg, sources: [Reg; 2], mask: u32) {
        let bits = if matches!(d, Reg::Wide(_)) { 64 } else { 32 };
        let low = if bits == 64 { u64::MAX as u128 } else { u32::MAX as u128 };
        for lane in lanes(mask) {
            let [a, b] = sources.map(|reg| self.lane(reg, lane) as u128);
            let carry = (takes && self.carry >> lane & 1 == 1) as u128;
            let sum = if subtract { a.wrapping_sub(b).wrapping_sub(carry) } else { a + b + carry };
            let out = (sum & !low != 0) as u32;
            self.set_lane(d, lane, (sum & low) as u64);
            if gives {
                self.carry = self.carry & !(1 << lane) | out << lane;
            }
        }
    }
}

fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// Bit i of the table answers for the sources' bits a, b, c with i = 4a + 2b + c.
#[inline(always)]
fn look_up(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let mut out = 0;
    for term in 0..8 {
        let all = (if term & 4 != 0 { a } else { !a })
            & (if term & 2 != 0 { b } else { !b })
            & (if term & 1 != 0 { c } else { !c });
        out |= all & 0u32.wrapping_sub(table as u32 >> term & 1);
    }
    out
}
