//! Tensor-core instructions.

use super::{Decoded, Decoder};
use crate::operation::{Element, Mma, Operation, Reg, Truth, WideA, WideMma};
use crate::syntax::Operand;

fn element(name: &str) -> Option<Element> {
    Some(match name {
        "f16" => Element::F16,
        "bf16" => Element::BF16,
        "tf32" => Element::TF32,
        "e4m3" => Element::E4M3,
        "e5m2" => Element::E5M2,
        "s8" => Element::S8,
        "u8" => Element::U8,
        "f32" => Element::F32,
        "s32" => Element::S32,
        _ => return None,
    })
}

/// `m16n8k16` to its three numbers.
fn shape(parts: &[&str]) -> Option<[usize; 3]> {
    let text =
        parts.iter().find(|part| part.starts_with('m') && part[1..].starts_with(|c: char| c.is_ascii_digit()))?;
    let (m, rest) = text[1..].split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

impl Decoder<'_> {
    pub(super) fn tensor(&mut self, parts: &[&str], operands: &[Operand]) -> Option<Decoded> {
        Some(match (parts[0], operands) {
            ("mma", [d, a, b, c]) => self.mma(parts, [d, a, b, c]),
            ("ldmatrix", [to, at]) => self.matrix(parts, to, at, true),
            ("stmatrix", [at, from]) => self.matrix(parts, from, at, false),
            ("wgmma", _) if parts.get(1) == Some(&"fence") => Ok(Operation::WideFence),
            ("wgmma", _) if parts.get(1) == Some(&"commit_group") => Ok(Operation::WideCommit),
            ("wgmma", [Operand::Integer(left)]) => Ok(Operation::WideWait(*left as u32)),
            ("wgmma", [d, a, b, scale, rest @ ..]) => self.wide_mma(parts, [d, a, b, scale], rest),
            _ => Err(format!("unsupported instruction `{}`", parts.join("."))),
        })
    }

    fn matrix(&mut self, parts: &[&str], registers: &Operand, at: &Operand, load: bool) -> Decoded {
        if !parts.contains(&"m8n8") || !parts.contains(&"b16") {
            return Err(format!("unsupported instruction `{}`", parts.join(".")));
        }
        let registers = self.narrow_vector(registers)?;
        let at = self.address(at)?;
        let transposed = parts.contains(&"trans");
        Ok(if load {
            Operation::LoadMatrix(registers, at, transposed)
        } else {
            Operation::StoreMatrix(registers, at, transposed)
        })
    }

    fn mma(&mut self, parts: &[&str], operands: [&Operand; 4]) -> Decoded {
        let unsupported = || format!("unsupported instruction `{}`", parts.join("."));
        let [m, n, k] = shape(parts).ok_or_else(unsupported)?;
        let types: Vec<Element> = parts.iter().filter_map(|part| element(part)).collect();
        let [d_type, a_type, b_type, c_type] = types[..] else { return Err(unsupported()) };
        let plain = parts.contains(&"row") && parts.contains(&"col");
        let other = parts.iter().any(|part| matches!(*part, "sp" | "block_scale") || part.starts_with("kind"));
        if m != 16 || n != 8 || d_type != c_type || !plain || other {
            return Err(unsupported());
        }
        let [d, a, b, c] = operands;
        let [d, a, b, c] =
            [self.narrow_vector(d)?, self.narrow_vector(a)?, self.narrow_vector(b)?, self.narrow_vector(c)?];
        let accumulators = if d_type == Element::F16 { 2 } else { 4 };
        let a_registers = 16 * k * a_type.bytes() / 128;
        let fits = a.len() == a_registers && b.len() * 2 == a_registers && d.len() == accumulators;
        if !fits || c.len() != accumulators || !matches!(d_type, Element::F16 | Element::F32 | Element::S32) {
            return Err(unsupported());
        }
        Ok(Operation::Mma(Box::new(Mma { k, a_type, b_type, accumulator: d_type, d, a, b, c })))
    }

    fn wide_mma(&mut self, parts: &[&str], operands: [&Operand; 4], rest: &[Operand]) -> Decoded {
        let unsupported = || format!("unsupported instruction `{}`", parts.join("."));
        let [m, n, k] = shape(parts).ok_or_else(unsupported)?;
        let types: Vec<Element> = parts.iter().filter_map(|part| element(part)).collect();
        let [accumulator, a_type, b_type] = types[..] else { return Err(unsupported()) };
        if m != 64 || !parts.contains(&"mma_async") || parts.contains(&"sp") || accumulator == Element::F16 {
            return Err(unsupported());
        }
        let [d, a, b, scale] = operands;
        let d = self.narrow_vector(d)?;
        if d.len() * 2 != n || !n.is_multiple_of(8) || k * a_type.bytes() != 32 {
            return Err(unsupported());
        }
        let integers = [a_type, b_type].map(|element| matches!(element, Element::S8 | Element::U8));
        let whole = accumulator == Element::S32;
        // sums of integers have fewer widths, and nothing to negate or to transpose
        if integers != [whole; 2] || whole && (n > 32 && !n.is_multiple_of(16) || !rest.is_empty()) {
            return Err(unsupported());
        }
        let a = match a {
            Operand::Vector(_) => WideA::Registers(self.narrow_vector(a)?),
            one => WideA::Descriptor(self.value(one, true)?),
        };
        let flags: Vec<i64> = rest
            .iter()
            .filter_map(|operand| if let Operand::Integer(value) = operand { Some(*value) } else { None })
            .collect();
        if flags.len() != rest.len() {
            return Err("constants were expected after the descriptors".into());
        }
        let flag = |index: usize| flags.get(index).copied();
        let from_registers = matches!(a, WideA::Registers(_));
        let (transpose_a, transpose_b) =
            if from_registers { (false, flag(2) == Some(1)) } else { (flag(2) == Some(1), flag(3) == Some(1)) };
        let b = self.value(b, true)?;
        let accumulate = if self.is_truth(scale) {
            self.truth(scale)?
        } else if let Operand::Integer(_) = scale {
            self.truth(scale)?
        } else {
            Err("a predicate was expected for scale-d")?
        };
        let accumulate: Truth = accumulate;
        let b: Reg = b;
        let (negate_a, negate_b) = (flag(0) == Some(-1), flag(1) == Some(-1));
        let all = WideMma {
            n,
            k,
            a_type,
            b_type,
            accumulator,
            d,
            a,
            b,
            accumulate,
            negate_a,
            negate_b,
            transpose_a,
            transpose_b,
        };
        Ok(Operation::WideMma(Box::new(all)))
    }
}
