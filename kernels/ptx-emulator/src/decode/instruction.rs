//! Opcodes to operations: arithmetic, predicates, moves and control here; the other families in their own files.

use super::compare::{Comparison, comparison, test};
use super::lanes::{three32, two64};
use super::{Arithmetic, Decoded, Decoder, convert, float, integer};
use crate::operation::{Logic, Operation, Outcome, Truth};
use crate::shared::CLUSTER_STRIDE;
use crate::syntax::{Operand, Statement, type_bytes};

impl Decoder<'_> {
    /// The operations that do what the statement says.
    pub(super) fn instruction(&mut self, statement: &Statement) -> Result<Vec<Operation>, String> {
        let parts: Vec<&str> = statement.opcode.split('.').collect();
        let operands = &statement.operands;
        let saturating = parts.contains(&"sat") && parts.last() == Some(&"f32") && parts[0] != "cvt";
        let operation = self.family(&parts, operands)?;
        if saturating {
            let target = self.narrow(&operands[0])?;
            let Arithmetic::One32(clamp) = float::saturation() else { unreachable!("it has one source") };
            return Ok(vec![operation, Operation::One32(clamp, target, target)]);
        }
        Ok(vec![operation])
    }

    fn family(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let known = match parts[0] {
            "ld" | "ldu" | "st" | "atom" | "red" => self.memory(parts, operands),
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" | "bar" | "barrier" => {
                self.warp(parts, operands)
            }
            "mma" | "wgmma" | "ldmatrix" | "stmatrix" => self.tensor(parts, operands),
            "cp" | "mbarrier" | "fence" => self.asynchronous(parts, operands),
            "membar" | "prefetch" | "prefetchu" | "nanosleep" | "griddepcontrol" | "setmaxnreg" | "pmevent"
            | "discard" | "applypriority" => Some(Ok(Operation::Nothing)),
            "createpolicy" => Some(self.policy(operands)),
            "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" => self.control(parts, operands),
            "setp" | "set" | "testp" | "selp" | "slct" => self.compare(parts, operands),
            _ => None,
        };
        if let Some(known) = known {
            return known;
        }
        if let Some(moved) = self.movement(parts, operands)? {
            return Ok(moved);
        }
        if let Some(special) = self.special_arithmetic(parts, operands)? {
            return Ok(special);
        }
        let function = match parts[0] {
            "cvt" => convert::conversion(parts),
            _ => float::arithmetic(parts).or_else(|| integer::arithmetic(parts)),
        };
        match function {
            Some(function) => self.apply(function, operands),
            None => Err(format!("unsupported instruction `{}`", parts.join("."))),
        }
    }

    fn policy(&mut self, operands: &[Operand]) -> Decoded {
        self.apply(identity().into(), &[operands[0].clone(), Operand::Integer(0)])
    }

    /// Fetches sources and target for a lane function.
    fn apply(&mut self, function: Arithmetic, operands: &[Operand]) -> Decoded {
        let need = match function {
            Arithmetic::One32(_) | Arithmetic::One64(_) => 2,
            Arithmetic::Two32(_) | Arithmetic::Two64(_) => 3,
            Arithmetic::Three32(_) | Arithmetic::Three64(_) => 4,
        };
        if operands.len() != need {
            return Err(format!("{need} operands were expected, not {}", operands.len()));
        }
        Ok(match function {
            Arithmetic::One32(f) => Operation::One32(f, self.narrow(&operands[0])?, self.narrow(&operands[1])?),
            Arithmetic::Two32(f) => Operation::Two32(
                f,
                self.narrow(&operands[0])?,
                [self.narrow(&operands[1])?, self.narrow(&operands[2])?],
            ),
            Arithmetic::Three32(f) => Operation::Three32(
                f,
                self.narrow(&operands[0])?,
                [self.narrow(&operands[1])?, self.narrow(&operands[2])?, self.narrow(&operands[3])?],
            ),
            Arithmetic::One64(f) => {
                Operation::One64(f, self.value(&operands[0], true)?, self.value(&operands[1], true)?)
            }
            Arithmetic::Two64(f) => Operation::Two64(
                f,
                self.value(&operands[0], true)?,
                [self.value(&operands[1], true)?, self.value(&operands[2], true)?],
            ),
            Arithmetic::Three64(f) => Operation::Three64(
                f,
                self.value(&operands[0], true)?,
                [self.value(&operands[1], true)?, self.value(&operands[2], true)?, self.value(&operands[3], true)?],
            ),
        })
    }

    /// `mov` of vectors and predicates, `cvta`, and logic on predicates.
    fn movement(&mut self, parts: &[&str], operands: &[Operand]) -> Result<Option<Operation>, String> {
        let kind = *parts.last().unwrap_or(&"");
        Ok(match (parts[0], operands) {
            ("mov", [Operand::Vector(to), from]) => {
                let bits = type_bytes(kind).ok_or("a type was expected")? as u32 * 8 / to.len() as u32;
                let wide = kind == "b64";
                let to = self.targets(&operands[0], bits == 64)?;
                Some(Operation::Unpack(to, self.value(from, wide)?, bits))
            }
            ("mov", [to, Operand::Vector(from)]) => {
                let bits = type_bytes(kind).ok_or("a type was expected")? as u32 * 8 / from.len() as u32;
                let from = self.vector(&operands[1], bits == 64)?;
                Some(Operation::Pack(self.value(to, kind == "b64")?, from, bits))
            }
            ("mov", [to, Operand::Name(name)]) if name.starts_with("%clock") || name.starts_with("%globaltimer") => {
                Some(Operation::Clock(self.value(to, kind.ends_with("64"))?))
            }
            ("mov" | "not" | "and" | "or" | "xor", [to, sources @ ..]) if kind == "pred" => {
                let to = self.truth(to)?.slot;
                let first = self.truth(&sources[0])?;
                Some(match parts[0] {
                    "mov" => Operation::Predicate(Logic::And, to, first, first),
                    "not" => {
                        let opposite = Truth { negated: !first.negated, ..first };
                        Operation::Predicate(Logic::And, to, opposite, opposite)
                    }
                    name => Operation::Predicate(logic(name), to, first, self.truth(&sources[1])?),
                })
            }
            ("cvta", [to, from]) => Some(self.cvta(parts, to, from)?),
            ("mapa", [to, from, rank]) if parts.contains(&"shared::cluster") => {
                let wide = kind.ends_with("64");
                let sources = [self.value(from, wide)?, self.value(rank, false)?];
                let map = two64!(|address, rank| (address & (CLUSTER_STRIDE - 1)) + (rank + 1) * CLUSTER_STRIDE);
                Some(Operation::Two64(map, self.value(to, wide)?, sources))
            }
            ("isspacep", _) => return Err(format!("unsupported instruction `{}`", parts.join("."))),
            _ => None,
        })
    }

    fn cvta(&mut self, parts: &[&str], to: &Operand, from: &Operand) -> Decoded {
        use crate::shared::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
        let back = parts[1] == "to";
        let space = if back { parts[2] } else { parts[1] };
        let window = match space.split("::").next().unwrap_or(space) {
            "shared" => SHARED_WINDOW,
            "local" => LOCAL_WINDOW,
            "param" => PARAM_WINDOW,
            _ => 0,
        };
        let window = if back { window.wrapping_neg() } else { window };
        let from = self.value(from, true)?;
        let window = self.value(&Operand::Integer(window as i64), true)?;
        let add = super::lanes::two64!(|x, y| x.wrapping_add(y));
        Ok(Operation::Two64(add, self.value(to, true)?, [from, window]))
    }

    /// Arithmetic whose shape is its own: truth tables, insertion, carries, dot products.
    fn special_arithmetic(&mut self, parts: &[&str], operands: &[Operand]) -> Result<Option<Operation>, String> {
        let kind = *parts.last().unwrap_or(&"");
        let wide = kind.ends_with("64");
        Ok(match (parts[0], operands) {
            ("lop3", [to, a, b, c, Operand::Integer(table)]) => Some(Operation::Lookup(
                *table as u8,
                self.narrow(to)?,
                [self.narrow(a)?, self.narrow(b)?, self.narrow(c)?],
            )),
            ("bfi", [to, a, b, at, len]) => {
                let sources =
                    [self.value(a, wide)?, self.value(b, wide)?, self.value(at, false)?, self.value(len, false)?];
                Some(Operation::Insert(wide, self.value(to, wide)?, sources))
            }
            ("add" | "addc" | "sub" | "subc", [d, a, b]) if parts.contains(&"cc") || parts[0].ends_with('c') => {
                Some(Operation::Carry {
                    subtract: parts[0].starts_with("sub"),
                    takes: parts[0].ends_with('c'),
                    gives: parts.contains(&"cc"),
                    d: self.value(d, wide)?,
                    sources: [self.value(a, wide)?, self.value(b, wide)?],
                })
            }
            ("mad" | "madc", _) if parts.contains(&"cc") || parts[0] == "madc" => {
                return Err(format!("unsupported instruction `{}`", parts.join(".")));
            }
            ("dp4a" | "dp2a", [to, a, b, c]) => {
                let f = dot_product(parts).ok_or_else(|| format!("unsupported instruction `{}`", parts.join(".")))?;
                Some(Operation::Three32(f, self.narrow(to)?, [self.narrow(a)?, self.narrow(b)?, self.narrow(c)?]))
            }
            _ => None,
        })
    }

    fn control(&mut self, parts: &[&str], operands: &[Operand]) -> Option<Decoded> {
        Some(match parts[0] {
            "bra" => operands
                .first()
                .map_or(Err("a label was expected".to_owned()), |to| self.label(to).map(Operation::Branch)),
            "brx" => self.table(operands),
            "trap" | "brkpt" => Ok(Operation::Trap),
            _ => Ok(Operation::Exit),
        })
    }

    fn table(&mut self, operands: &[Operand]) -> Decoded {
        let [index, Operand::Name(table)] = operands else { return Err("an index and a table were expected".into()) };
        let mut scope = self.scope;
        let labels = loop {
            if let Some(labels) = self.function.tables.get(&(scope, table.clone())) {
                break labels;
            }
            if scope == 0 {
                return Err(format!("unknown table `{table}`"));
            }
            scope = self.function.scopes[scope];
        };
        let targets = labels.iter().map(|label| self.label(&Operand::Name(label.clone()))).collect::<Result<_, _>>()?;
        Ok(Operation::BranchTable(self.narrow(index)?, targets))
    }

    fn compare(&mut self, parts: &[&str], operands: &[Operand]) -> Option<Decoded> {
        Some(match parts[0] {
            "setp" => self.setp(parts, operands),
            "testp" => self.testp(parts, operands),
            "selp" => self.selp(parts, operands),
            _ => return None,
        })
    }

    fn setp(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let kind = *parts.last().unwrap_or(&"");
        let ftz = parts.contains(&"ftz");
        let wide = type_bytes(kind) == Some(8);
        let (p, q) = match &operands[0] {
            Operand::Pair(p, q) => (self.maybe_truth(p)?, self.maybe_truth(q)?),
            one => (self.maybe_truth(one)?, None),
        };
        if kind == "f16x2" || kind == "bf16x2" {
            return Err(format!("unsupported instruction `{}`", parts.join(".")));
        }
        let with = match (operands.get(3), parts.iter().find(|part| matches!(**part, "and" | "or" | "xor"))) {
            (Some(truth), Some(name)) => Some((logic(name), self.truth(truth)?)),
            _ => None,
        };
        let function =
            comparison(parts[1], kind, ftz).ok_or_else(|| format!("unsupported instruction `{}`", parts.join(".")))?;
        let [_, a, b, ..] = operands else { return Err("two sources were expected".into()) };
        let outcome = Outcome { p, q, with };
        Ok(match function {
            Comparison::Narrow(f) => Operation::Compare32(f, [self.narrow(a)?, self.narrow(b)?], outcome),
            Comparison::Wide(f) => Operation::Compare64(f, [self.value(a, wide)?, self.value(b, wide)?], outcome),
        })
    }

    fn testp(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let [p, a] = operands else { return Err("one source was expected".into()) };
        let kind = *parts.last().unwrap_or(&"");
        let outcome = Outcome { p: self.maybe_truth(p)?, q: None, with: None };
        match test(parts[1], kind).ok_or_else(|| format!("unsupported instruction `{}`", parts.join(".")))? {
            Comparison::Narrow(f) => {
                let a = self.narrow(a)?;
                Ok(Operation::Compare32(f, [a, a], outcome))
            }
            Comparison::Wide(f) => {
                let a = self.value(a, true)?;
                Ok(Operation::Compare64(f, [a, a], outcome))
            }
        }
    }

    fn selp(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let [to, a, b, p] = operands else { return Err("two sources and a predicate were expected".into()) };
        let wide = parts.last().and_then(|kind| type_bytes(kind)) == Some(8);
        Ok(Operation::Select(self.value(to, wide)?, [self.value(a, wide)?, self.value(b, wide)?], self.truth(p)?))
    }

    /// A predicate to write, or `_`.
    pub(super) fn maybe_truth(&mut self, operand: &Operand) -> Result<Option<u32>, String> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(None),
            other => self.truth(other).map(|truth| Some(truth.slot)),
        }
    }
}

fn identity() -> crate::operation::One64 {
    super::lanes::one64!(|x| x)
}

fn logic(name: &str) -> Logic {
    match name {
        "and" => Logic::And,
        "or" => Logic::Or,
        _ => Logic::Xor,
    }
}

fn dot_product(parts: &[&str]) -> Option<crate::operation::Three32> {
    let types = &parts[parts.len().checked_sub(2)?..];
    Some(match (parts[0], types[0], types[1]) {
        ("dp4a", "s32", "s32") => three32!(|x, y, z| (0..4).fold(z, |sum, i| sum
            .wrapping_add((x.to_le_bytes()[i] as i8 as i32 * y.to_le_bytes()[i] as i8 as i32) as u32))),
        ("dp4a", "u32", "u32") => {
            three32!(|x, y, z| (0..4)
                .fold(z, |sum, i| sum.wrapping_add(x.to_le_bytes()[i] as u32 * y.to_le_bytes()[i] as u32)))
        }
        ("dp4a", "s32", "u32") => three32!(|x, y, z| (0..4)
            .fold(z, |sum, i| sum.wrapping_add((x.to_le_bytes()[i] as i8 as i32 * y.to_le_bytes()[i] as i32) as u32))),
        ("dp4a", "u32", "s32") => three32!(|x, y, z| (0..4)
            .fold(z, |sum, i| sum.wrapping_add((x.to_le_bytes()[i] as i32 * y.to_le_bytes()[i] as i8 as i32) as u32))),
        ("dp2a", "s32", "s32") if parts[1] == "lo" => three32!(|x, y, z| (0..2)
            .fold(z, |sum, i| sum.wrapping_add(((x >> (16 * i)) as i16 as i32 * (y >> (8 * i)) as i8 as i32) as u32))),
        ("dp2a", "s32", "s32") => three32!(|x, y, z| (0..2).fold(z, |sum, i| sum
            .wrapping_add(((x >> (16 * i)) as i16 as i32 * (y >> (8 * i + 16)) as i8 as i32) as u32))),
        _ => return None,
    })
}
