//! Instructions that lanes of a warp or threads of a block execute together.

use super::{Decoded, Decoder};
use crate::operation::{Operation, Reduction, Shuffle, Vote};
use crate::syntax::Operand;

impl Decoder<'_> {
    pub(super) fn warp(&mut self, parts: &[&str], operands: &[Operand]) -> Option<Decoded> {
        Some(match (parts[0], operands) {
            ("shfl", [to, from, lane, clamp, mask]) => self.shuffle(parts, to, from, [lane, clamp, mask]),
            ("vote", [to, truth, mask]) => self.vote(parts, to, truth, mask),
            ("match", [to, value, mask]) => self.matching(parts, to, value, mask),
            ("redux", [to, value, mask]) => self.reduce(parts, to, value, mask),
            ("activemask", [to]) => self.narrow(to).map(Operation::ActiveMask),
            ("elect", [Operand::Pair(to, truth), mask]) => self.elect(to, truth, mask),
            ("bar" | "barrier", _) => self.barrier(parts, operands),
            _ => Err(format!("unsupported instruction `{}`", parts.join("."))),
        })
    }

    fn shuffle(&mut self, parts: &[&str], to: &Operand, from: &Operand, rest: [&Operand; 3]) -> Decoded {
        let mode = match parts.get(2) {
            Some(&"up") => Shuffle::Up,
            Some(&"down") => Shuffle::Down,
            Some(&"bfly") => Shuffle::Butterfly,
            Some(&"idx") => Shuffle::Index,
            _ => return Err(format!("unsupported instruction `{}`", parts.join("."))),
        };
        let (to, truth) = match to {
            Operand::Pair(to, truth) => (to.as_ref(), self.maybe_truth(truth)?),
            one => (one, None),
        };
        let [lane, clamp, mask] = rest;
        let rest = [self.narrow(lane)?, self.narrow(clamp)?, self.narrow(mask)?];
        Ok(Operation::Shuffle(mode, self.value(to, false)?, truth, self.value(from, false)?, rest))
    }

    fn vote(&mut self, parts: &[&str], to: &Operand, truth: &Operand, mask: &Operand) -> Decoded {
        let mode = match parts.get(2) {
            Some(&"all") => Vote::All,
            Some(&"any") => Vote::Any,
            Some(&"uni") => Vote::Uniform,
            Some(&"ballot") => Vote::Ballot,
            _ => return Err(format!("unsupported instruction `{}`", parts.join("."))),
        };
        let (register, result) = match mode {
            Vote::Ballot => (Some(self.narrow(to)?), None),
            _ => (None, self.maybe_truth(to)?),
        };
        Ok(Operation::Vote(mode, register, result, self.truth(truth)?, self.narrow(mask)?))
    }

    fn matching(&mut self, parts: &[&str], to: &Operand, value: &Operand, mask: &Operand) -> Decoded {
        let all = parts.contains(&"all");
        let (to, truth) = match to {
            Operand::Pair(to, truth) => (to.as_ref(), self.maybe_truth(truth)?),
            one => (one, None),
        };
        let wide = parts.last() == Some(&"b64");
        Ok(Operation::Match(all, self.narrow(to)?, truth, self.value(value, wide)?, self.narrow(mask)?))
    }

    fn reduce(&mut self, parts: &[&str], to: &Operand, value: &Operand, mask: &Operand) -> Decoded {
        let signed = parts.last() == Some(&"s32");
        let kind = match parts.get(2) {
            _ if parts.last() == Some(&"f32") => return Err(format!("unsupported instruction `{}`", parts.join("."))),
            Some(&"add") => Reduction::Add,
            Some(&"min") if signed => Reduction::MinSigned,
            Some(&"min") => Reduction::Min,
            Some(&"max") if signed => Reduction::MaxSigned,
            Some(&"max") => Reduction::Max,
            Some(&"and") => Reduction::And,
            Some(&"or") => Reduction::Or,
            Some(&"xor") => Reduction::Xor,
            _ => return Err(format!("unsupported instruction `{}`", parts.join("."))),
        };
        Ok(Operation::Reduce(kind, self.narrow(to)?, self.narrow(value)?, self.narrow(mask)?))
    }

    fn elect(&mut self, to: &Operand, truth: &Operand, mask: &Operand) -> Decoded {
        let to = match to {
            Operand::Name(name) if name == "_" => None,
            to => Some(self.narrow(to)?),
        };
        Ok(Operation::Elect(to, self.maybe_truth(truth)?, self.narrow(mask)?))
    }

    fn barrier(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let has = |part: &str| parts.contains(&part);
        if has("warp") {
            let [mask] = operands else { return Err("a mask was expected".into()) };
            return Ok(Operation::WarpBarrier(self.narrow(mask)?));
        }
        let aligned = parts[0] == "bar" || has("aligned");
        if has("cluster") {
            return Ok(if has("arrive") { Operation::ClusterArrive(aligned) } else { Operation::ClusterWait(aligned) });
        }
        if has("red") {
            return self.reducing_barrier(parts, operands, aligned);
        }
        let (id, count) = match operands {
            [id] => (self.narrow(id)?, None),
            [id, count] => (self.narrow(id)?, Some(self.narrow(count)?)),
            _ => return Err("the number of a barrier was expected".into()),
        };
        Ok(Operation::Barrier { id, count, waits: !has("arrive"), aligned, reduce: None })
    }

    fn reducing_barrier(&mut self, parts: &[&str], operands: &[Operand], aligned: bool) -> Decoded {
        use crate::operation::Reg;
        let kind = match parts.iter().find(|part| matches!(**part, "popc" | "and" | "or")) {
            Some(&"popc") => Reduction::Count,
            Some(&"and") => Reduction::And,
            _ => Reduction::Or,
        };
        let (to, id, count, truth) = match operands {
            [to, id, truth] => (to, id, None, truth),
            [to, id, count, truth] => (to, id, Some(self.narrow(count)?), truth),
            _ => return Err("a result, a barrier and a predicate were expected".into()),
        };
        let predicate = self.is_truth(to);
        let to = if predicate { Reg::Narrow(self.truth(to)?.slot) } else { Reg::Narrow(self.narrow(to)?) };
        let reduce = Some((kind, self.truth(truth)?, to, predicate));
        Ok(Operation::Barrier { id: self.narrow(id)?, count, waits: true, aligned, reduce })
    }
}
