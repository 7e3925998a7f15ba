//! Instructions for which lanes of a warp meet: shuffles, votes, matches, reductions.

use super::warp::{Flow, State, Warp, lanes};
use super::{Block, Failure};
use crate::fault::Trouble;
use crate::operation::{Lanes64, Operation, Reduction, Reg, Shuffle, Vote};

impl Warp {
    /// Collectives, and from there the remaining families.
    pub fn execute_other(&mut self, operation: &Operation, mask: u32, block: &mut Block<'_>) -> Result<Flow, Failure> {
        let members = match operation {
            Operation::Shuffle(.., [_, _, members])
            | Operation::Vote(.., members)
            | Operation::Match(.., members)
            | Operation::Reduce(.., members)
            | Operation::Elect(.., members)
            | Operation::WarpBarrier(members) => *members,
            Operation::ActiveMask(d) => {
                self.narrow[*d as usize] =
                    std::array::from_fn(
                        |lane| {
                            if mask >> lane & 1 == 1 { mask } else { self.narrow[*d as usize][lane] }
                        },
                    );
                return Ok(Flow::Next);
            }
            _ => return self.execute_memory(operation, mask, block),
        };
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros();
            let needed = self.narrow[members as usize][lane as usize];
            if needed >> lane & 1 == 0 {
                let text = format!("lane {lane} is not in its own mask {needed:#010x}");
                return Err((Trouble::Protocol(text), lane));
            }
            let same = lanes(mask).filter(|&other| self.narrow[members as usize][other] == needed);
            let here = same.fold(0u32, |all, other| all | 1 << other);
            if here & needed != needed {
                return Ok(Flow::Stay(State::Meeting(needed)));
            }
            rest &= !here;
        }
        let mut rest = mask;
        while rest != 0 {
            let part = self.narrow[members as usize][rest.trailing_zeros() as usize];
            self.meet(operation, part);
            rest &= !part;
        }
        Ok(Flow::Next)
    }

    fn meet(&mut self, operation: &Operation, part: u32) {
        match operation {
            Operation::Shuffle(mode, d, truth, a, [lane, clamp, _]) => {
                self.shuffle(*mode, *d, *truth, *a, [*lane, *clamp], part);
            }
            Operation::Vote(mode, register, result, truth, _) => {
                let yes = self.truth(*truth) & part;
                let holds = match mode {
                    Vote::All => yes == part,
                    Vote::Any | Vote::Ballot => yes != 0,
                    Vote::Uniform => yes == 0 || yes == part,
                };
                if let Some(slot) = register {
                    lanes(part).for_each(|lane| self.narrow[*slot as usize][lane] = yes);
                }
                if let Some(slot) = result {
                    self.put_truth(*slot, if holds { !0 } else { 0 }, part);
                }
            }
            Operation::Match(all, d, truth, a, _) => self.matching(*all, *d, *truth, *a, part),
            Operation::Reduce(kind, d, a, _) => {
                let values = lanes(part).map(|lane| self.narrow[*a as usize][lane]);
                let value = values.reduce(|x, y| reduce(*kind, x, y)).unwrap_or(0);
                lanes(part).for_each(|lane| self.narrow[*d as usize][lane] = value);
            }
            Operation::Elect(d, truth, _) => {
                let leader = part.trailing_zeros();
                if let Some(slot) = d {
                    lanes(part).for_each(|lane| self.narrow[*slot as usize][lane] = leader);
                }
                if let Some(slot) = truth {
                    self.put_truth(*slot, 1 << leader, part);
                }
            }
            _ => {}
        }
    }

    fn shuffle(&mut self, mode: Shuffle, d: Reg, truth: Option<u32>, a: Reg, rest: [u32; 2], part: u32) {
        let mut buffer: Lanes64 = [0; 32];
        let source = *self.view(a, &mut buffer);
        let [offsets, clamps] = rest.map(|slot| self.narrow[slot as usize]);
        let mut found = 0;
        for lane in lanes(part) {
            let (offset, clamp) = (offsets[lane] & 31, clamps[lane]);
            let segment = clamp >> 8 & 31;
            let own = lane as u32;
            let (least, most) = (own & segment, own & segment | clamp & 31 & !segment);
            let (from, inside) = match mode {
                Shuffle::Up => (own.wrapping_sub(offset), own as i32 - offset as i32 >= most as i32),
                Shuffle::Down => (own + offset, own + offset <= most),
                Shuffle::Butterfly => (own ^ offset, own ^ offset <= most),
                Shuffle::Index => (least | offset & !segment, least | offset & !segment <= most),
            };
            let from = if inside { from } else { own };
            found |= (inside as u32) << lane;
            self.set_lane(d, lane, source[from as usize & 31]);
        }
        if let Some(slot) = truth {
            self.put_truth(slot, found, part);
        }
    }

    fn matching(&mut self, all: bool, d: u32, truth: Option<u32>, a: Reg, part: u32) {
        let mut buffer: Lanes64 = [0; 32];
        let values = *self.view(a, &mut buffer);
        for lane in lanes(part) {
            let same = lanes(part).filter(|&other| values[other] == values[lane]).fold(0u32, |m, other| m | 1 << other);
            self.narrow[d as usize][lane] = if all && same != part { 0 } else { same };
            if let Some(slot) = truth {
                self.put_truth(slot, if same == part { !0 } else { 0 }, 1 << lane);
            }
        }
    }
}

fn reduce(kind: Reduction, x: u32, y: u32) -> u32 {
    match kind {
        Reduction::Add | Reduction::Count => x.wrapping_add(y),
        Reduction::Min => x.min(y),
        Reduction::Max => x.max(y),
        Reduction::MinSigned => (x as i32).min(y as i32) as u32,
        Reduction::MaxSigned => (x as i32).max(y as i32) as u32,
        Reduction::And => x & y,
        Reduction::Or => x | y,
        Reduction::Xor => x ^ y,
    }
}
