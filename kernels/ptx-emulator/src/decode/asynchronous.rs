//! Asynchronous copies, mbarriers and the fences between proxies.

use super::{Decoded, Decoder};
use crate::operation::{Bulk, Mbarrier, Operation};
use crate::syntax::Operand;

impl Decoder<'_> {
    pub(super) fn asynchronous(&mut self, parts: &[&str], operands: &[Operand]) -> Option<Decoded> {
        Some(match (parts[0], parts.get(1).copied()) {
            // only what concerns shared memory is watched
            ("fence", Some("proxy")) if parts.contains(&"global") => Ok(Operation::Nothing),
            ("fence", Some("proxy")) if parts.contains(&"async") || parts.iter().any(|p| p.starts_with("async::")) => {
                Ok(Operation::ProxyFence)
            }
            ("fence", _) => Ok(Operation::Nothing),
            ("mbarrier", _) => self.mbarrier(parts, operands),
            ("cp", Some("async")) if parts.contains(&"bulk") => self.bulk(parts, operands),
            ("cp", Some("async")) => self.copy(parts, operands),
            _ => Err(format!("unsupported instruction `{}`", parts.join("."))),
        })
    }

    fn copy(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let unsupported = || format!("unsupported instruction `{}`", parts.join("."));
        match (parts[2], operands) {
            ("commit_group", _) => Ok(Operation::CopyCommit),
            ("wait_all", _) => Ok(Operation::CopyWaitAll),
            ("wait_group", [Operand::Integer(left)]) => Ok(Operation::CopyWait(*left as u32)),
            ("mbarrier", [at]) => {
                let counted = parts.contains(&"noinc");
                let kind = Mbarrier::ArriveAfterCopies { counted };
                Ok(Operation::Mbarrier(Box::new(kind), self.address(at)?))
            }
            ("ca" | "cg", [to, from, Operand::Integer(bytes), rest @ ..]) => {
                let hint = parts.contains(&"L2::cache_hint");
                let rest = if hint { &rest[..rest.len().saturating_sub(1)] } else { rest };
                let (mut source_bytes, mut ignore) = (None, None);
                match rest {
                    [] => {}
                    [one] if self.is_truth(one) => ignore = Some(self.truth(one)?),
                    [one] => source_bytes = Some(self.narrow(one)?),
                    _ => return Err(unsupported()),
                }
                if ![4, 8, 16].contains(bytes) || parts[2] == "cg" && *bytes != 16 {
                    return Err(format!("a copy of {bytes} bytes; .ca copies 4, 8 or 16 and .cg 16"));
                }
                let (to, from) = (self.address(to)?, self.address(from)?);
                Ok(Operation::Copy { to, from, bytes: *bytes as usize, source_bytes, ignore })
            }
            _ => Err(unsupported()),
        }
    }

    fn mbarrier(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let has = |part: &str| parts.contains(&part);
        let unsupported = || format!("unsupported instruction `{}`", parts.join("."));
        let (kind, at) = match (parts[1], operands) {
            ("init", [at, count]) => (Mbarrier::Init(self.narrow_reg(count)?), at),
            ("inval", [at]) => (Mbarrier::Invalidate, at),
            ("expect_tx", [at, bytes]) => (Mbarrier::Expect(self.narrow_reg(bytes)?), at),
            ("complete_tx", [at, bytes]) => (Mbarrier::Complete(self.narrow_reg(bytes)?), at),
            ("arrive", [state, at, rest @ ..]) => {
                let state = self.targets(state, true)?[0];
                let extra = rest.first().map(|value| self.narrow_reg(value)).transpose()?;
                let (count, expect) = if has("expect_tx") { (None, extra) } else { (extra, None) };
                let remote = has("shared::cluster");
                if remote && state.is_some() {
                    return Err("an arrival in another block gives no state".into());
                }
                (Mbarrier::Arrive { state, count, expect, remote }, at)
            }
            ("test_wait" | "try_wait", [done, at, phase, ..]) => {
                let parity = has("parity");
                let phase = self.value(phase, !parity)?;
                let done = self.truth(done)?.slot;
                (Mbarrier::Test { done, phase, parity }, at)
            }
            _ => return Err(unsupported()),
        };
        Ok(Operation::Mbarrier(Box::new(kind), self.address(at)?))
    }

    fn narrow_reg(&mut self, operand: &Operand) -> Result<crate::operation::Reg, String> {
        self.narrow(operand).map(crate::operation::Reg::Narrow)
    }

    fn bulk(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded {
        let has = |part: &str| parts.contains(&part);
        let unsupported = || format!("unsupported instruction `{}`", parts.join("."));
        if has("commit_group") {
            return Ok(Operation::Bulk(Box::new(Bulk::Commit)));
        }
        if has("wait_group") {
            let [Operand::Integer(left)] = operands else { return Err("a number of groups was expected".into()) };
            return Ok(Operation::Bulk(Box::new(Bulk::Wait(*left as u32))));
        }
        if has("prefetch") {
            return Ok(Operation::Nothing);
        }
        if has("im2col") || has("gather4") || has("scatter4") || parts[1] != "async" || parts[2] != "bulk" {
            return Err(unsupported());
        }
        if has("multicast::cluster") && !has("tensor") {
            return Err(unsupported());
        }
        let to_shared = parts.iter().position(|part| part.starts_with("shared"));
        let to_global = parts.iter().position(|part| *part == "global");
        let (Some(shared), Some(global)) = (to_shared, to_global) else { return Err(unsupported()) };
        let load = shared < global;
        let bulk = match (has("tensor"), load, operands) {
            (true, true, [to, map, barrier, rest @ ..]) => {
                let (map, at) = self.tensor_place(map)?;
                let blocks = match (has("multicast::cluster"), rest) {
                    (false, _) => None,
                    (true, [mask, ..]) => Some(self.narrow_reg(mask)?),
                    (true, []) => return Err("a mask of blocks was expected".into()),
                };
                Bulk::TensorLoad { to: self.address(to)?, map, at, barrier: self.address(barrier)?, blocks }
            }
            (true, false, [map, from, ..]) => {
                let (map, at) = self.tensor_place(map)?;
                Bulk::TensorStore { from: self.address(from)?, map, at }
            }
            (false, true, [to, from, bytes, barrier, ..]) => Bulk::Load {
                to: self.address(to)?,
                from: self.address(from)?,
                bytes: self.narrow_reg(bytes)?,
                barrier: self.address(barrier)?,
            },
            (false, false, [to, from, bytes, ..]) => {
                Bulk::Store { to: self.address(to)?, from: self.address(from)?, bytes: self.narrow_reg(bytes)? }
            }
            _ => return Err(unsupported()),
        };
        Ok(Operation::Bulk(Box::new(bulk)))
    }

    /// `[map, {c0, c1, …}]`.
    fn tensor_place(
        &mut self,
        operand: &Operand,
    ) -> Result<(crate::operation::Address, Vec<crate::operation::Reg>), String> {
        let Operand::Memory(parts) = operand else { return Err("a tensor map was expected".into()) };
        let [_, coordinates] = &parts[..] else { return Err("coordinates were expected after the tensor map".into()) };
        let map = self.address(operand)?;
        let at = self.vector(coordinates, false)?;
        Ok((map, at))
    }
}
