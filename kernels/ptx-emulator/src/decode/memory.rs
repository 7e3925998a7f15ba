//! Loads, stores and atomic operations.

use super::{Decoded, Decoder};
use crate::operation::{Atomic, Operation, Space};
use crate::syntax::{Operand, type_bytes};

fn space(parts: &[&str]) -> Space {
    for part in parts {
        match part.split("::").next().unwrap_or(part) {
            "global" | "const" => return Space::Global,
            "shared" => return Space::Shared,
            "local" => return Space::Local,
            "param" => return Space::Param,
            _ => {}
        }
    }
    Space::Generic
}

impl Decoder<'_> {
    pub(super) fn memory(&mut self, parts: &[&str], operands: &[Operand]) -> Option<Decoded> {
        Some(match (parts[0], operands) {
            ("ld" | "ldu", [to, at, ..]) => self.load(parts, to, at),
            ("st", [at, from, ..]) => self.store(parts, at, from),
            ("atom", [d, at, sources @ ..]) => self.atomic(parts, Some(d), at, sources),
            ("red", [at, sources @ ..]) => self.atomic(parts, None, at, sources),
            _ => Err(format!("too few operands of `{}`", parts.join("."))),
        })
    }

    fn load(&mut self, parts: &[&str], to: &Operand, at: &Operand) -> Decoded {
        let kind = *parts.last().unwrap_or(&"");
        let bytes = type_bytes(kind).ok_or_else(|| format!("unknown type `{kind}`"))? as usize;
        let to = self.targets(to, bytes == 8)?;
        check_count(parts, to.len())?;
        Ok(Operation::Load {
            space: space(&parts[1..]),
            at: self.address(at)?,
            bytes,
            signed: kind.starts_with('s'),
            to,
        })
    }

    fn store(&mut self, parts: &[&str], at: &Operand, from: &Operand) -> Decoded {
        if parts.contains(&"async") || parts.contains(&"bulk") {
            return Err(format!("unsupported instruction `{}`", parts.join(".")));
        }
        let kind = *parts.last().unwrap_or(&"");
        let bytes = type_bytes(kind).ok_or_else(|| format!("unknown type `{kind}`"))? as usize;
        let from = self.vector(from, bytes == 8)?;
        check_count(parts, from.len())?;
        Ok(Operation::Store { space: space(&parts[1..]), at: self.address(at)?, bytes, from })
    }

    fn atomic(&mut self, parts: &[&str], d: Option<&Operand>, at: &Operand, sources: &[Operand]) -> Decoded {
        let name = parts.join(".");
        let kind = *parts.last().unwrap_or(&"");
        let has = |part: &str| parts.contains(&part);
        if has("async") || has("v2") || has("v4") || has("v8") {
            return Err(format!("unsupported instruction `{name}`"));
        }
        let bytes = type_bytes(kind).ok_or_else(|| format!("unknown type `{kind}`"))? as usize;
        let signed = kind.starts_with('s');
        let operation = parts.iter().find(|part| {
            matches!(**part, "add" | "min" | "max" | "inc" | "dec" | "and" | "or" | "xor" | "exch" | "cas")
        });
        let kind = match (operation.copied(), kind) {
            (Some("add"), "f32") => Atomic::AddSingle,
            (Some("add"), "f64") => Atomic::AddDouble,
            (Some("add"), "f16" | "f16x2") => Atomic::AddHalf,
            (Some("add"), "bf16" | "bf16x2") => Atomic::AddBrain,
            (Some("add"), _) => Atomic::Add,
            (Some("min" | "max"), "f16" | "f16x2" | "bf16" | "bf16x2") => {
                return Err(format!("unsupported instruction `{name}`"));
            }
            (Some("min"), _) if signed => Atomic::MinSigned,
            (Some("min"), _) => Atomic::Min,
            (Some("max"), _) if signed => Atomic::MaxSigned,
            (Some("max"), _) => Atomic::Max,
            (Some("inc"), _) => Atomic::Increment,
            (Some("dec"), _) => Atomic::Decrement,
            (Some("and"), _) => Atomic::And,
            (Some("or"), _) => Atomic::Or,
            (Some("xor"), _) => Atomic::Xor,
            (Some("exch"), _) => Atomic::Exchange,
            (Some("cas"), _) => Atomic::Swap,
            _ => return Err(format!("unsupported instruction `{name}`")),
        };
        let d = match d {
            Some(d) => self.targets(d, bytes == 8)?[0],
            None => None,
        };
        let need = if kind == Atomic::Swap { 2 } else { 1 };
        // What follows is a cache hint.
        let sources =
            sources.iter().take(need).map(|source| self.value(source, bytes == 8)).collect::<Result<Vec<_>, _>>()?;
        if sources.len() < need {
            return Err(format!("too few operands of `{name}`"));
        }
        Ok(Operation::Atomic { space: space(&parts[1..]), at: self.address(at)?, bytes, kind, d, sources })
    }
}

fn check_count(parts: &[&str], found: usize) -> Result<(), String> {
    let vector = |name: &str| parts.contains(&name);
    let need = if vector("v2") {
        2
    } else if vector("v4") {
        4
    } else if vector("v8") {
        8
    } else {
        1
    };
    if found == need { Ok(()) } else { Err(format!("{need} registers were expected, not {found}")) }
}
