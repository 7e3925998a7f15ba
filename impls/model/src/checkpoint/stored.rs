//! Quantized weights as a checkpoint stores them: codes and constants, whatever the file packed them into.
//!
//! A layout (GPTQ, AWQ, bitsandbytes, GGUF) unpacks its bytes into one of these; everything behind it knows no layout.
//! Rows are output features and columns are input features, also where the file stores the transpose.

use std::ops::Range;

use cpu_kernels::{BlockScales, CodebookCodes, GroupCodes};
use half::f16;

use super::gguf::BlockCodes;

/// A quantized matrix `[n, k]`.
#[derive(Debug, Clone)]
pub enum StoredCodes {
    /// w = scale·(code − zero), constants per row and group of columns: GPTQ, AWQ.
    Group(GroupCodes),
    /// w = table\[code\]·scale of its block of columns: NF4, FP4.
    Codebook(CodebookCodes),
    /// w = scale of its row·code: LLM.int8().
    Row(RowCodes),
    /// Blocks of a GGUF file, where they lie.
    Blocks(BlockCodes),
}

/// int8 codes with one scale per row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowCodes {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// `[n, k]`, −127 … 127.
    pub codes: Vec<i8>,
    /// `[n]`.
    pub scales: Vec<f32>,
}

impl StoredCodes {
    /// What they are: `4-bit codes on grids of 128`.
    pub fn in_words(&self) -> String {
        match self {
            StoredCodes::Group(c) => format!("{}-bit codes on grids of {}", c.bits, c.group),
            StoredCodes::Codebook(c) => {
                format!("codes of a table of {} values in blocks of {}", c.table.len(), c.block)
            }
            StoredCodes::Row(_) => "int8 codes with a scale per row".into(),
            StoredCodes::Blocks(c) => c.in_words(),
        }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        match self {
            StoredCodes::Group(c) => c.n,
            StoredCodes::Codebook(c) => c.n,
            StoredCodes::Row(c) => c.n,
            StoredCodes::Blocks(c) => c.n(),
        }
    }

    /// Input features.
    pub fn k(&self) -> usize {
        match self {
            StoredCodes::Group(c) => c.k,
            StoredCodes::Codebook(c) => c.k,
            StoredCodes::Row(c) => c.k,
            StoredCodes::Blocks(c) => c.k(),
        }
    }

    /// The weights that the codes stand for, `[n, k]` row-major, columns in input order.
    pub fn dequantise(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n() * self.k()];
        out.chunks_mut(self.k().max(1)).enumerate().for_each(|(row, out)| self.dequantise_row(row, out));
        out
    }

    /// Row `row` of [`Self::dequantise`] into `out [k]`.
    pub fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        match self {
            StoredCodes::Group(c) => group_row(c, row, out),
            StoredCodes::Codebook(c) => {
                let blocks = c.k.div_ceil(c.block);
                let codes = c.codes[row * c.k..][..c.k].chunks(c.block);
                for (block, (out, codes)) in out.chunks_mut(c.block).zip(codes).enumerate() {
                    let scale = c.scales.get(row * blocks + block);
                    out.iter_mut().zip(codes).for_each(|(out, &code)| *out = c.table[code as usize] * scale);
                }
            }
            StoredCodes::Row(c) => {
                let codes = &c.codes[row * c.k..][..c.k];
                out.iter_mut().zip(codes).for_each(|(out, &code)| *out = c.scales[row] * code as f32);
            }
            StoredCodes::Blocks(c) => c.dequantise_row(row, out),
        }
    }

    /// Whether every constant is finite.
    pub fn is_finite(&self) -> bool {
        let all = |values: &[f32]| values.iter().all(|v| v.is_finite());
        match self {
            StoredCodes::Group(c) => all(&c.scales) && all(&c.zeros),
            StoredCodes::Codebook(c) => all(&c.table) && (0..c.scales.len()).all(|i| c.scales.get(i).is_finite()),
            StoredCodes::Row(c) => all(&c.scales),
            StoredCodes::Blocks(c) => c.is_finite(),
        }
    }

    /// Whether the group kernels hold it exactly: their scales and zeros are f16.
    pub fn is_exact_in_f16(&self) -> bool {
        let exact = |values: &[f32]| values.iter().all(|&v| f16::from_f32(v).to_f32() == v);
        match self {
            StoredCodes::Group(c) => exact(&c.scales) && exact(&c.zeros),
            StoredCodes::Codebook(_) | StoredCodes::Row(_) | StoredCodes::Blocks(_) => true,
        }
    }

    /// The rows `ranges`, in that order.
    pub fn rows(self, ranges: &[Range<usize>]) -> StoredCodes {
        if let [whole] = ranges
            && *whole == (0..self.n())
        {
            return self;
        }
        let n = ranges.iter().map(Range::len).sum();
        match self {
            StoredCodes::Group(c) => {
                let groups = c.k.div_ceil(c.group);
                StoredCodes::Group(GroupCodes {
                    n,
                    codes: pick(&c.codes, c.k, ranges),
                    scales: pick(&c.scales, groups, ranges),
                    zeros: pick(&c.zeros, groups, ranges),
                    ..c
                })
            }
            StoredCodes::Codebook(c) => {
                let blocks = c.k.div_ceil(c.block);
                // nested scales share constants across rows, so rows that are taken apart get plain ones
                let scales: Vec<f32> = (0..c.scales.len()).map(|i| c.scales.get(i)).collect();
                let scales = BlockScales::F32(pick(&scales, blocks, ranges));
                StoredCodes::Codebook(CodebookCodes { n, codes: pick(&c.codes, c.k, ranges), scales, ..c })
            }
            StoredCodes::Row(c) => {
                let (codes, scales) = (pick(&c.codes, c.k, ranges), pick(&c.scales, 1, ranges));
                StoredCodes::Row(RowCodes { n, codes, scales, ..c })
            }
            StoredCodes::Blocks(c) => StoredCodes::Blocks(c.pick(ranges)),
        }
    }

    /// Puts the rows of `below` under these where both are of one form; else gives `below` back.
    pub fn stack(&mut self, below: StoredCodes) -> Option<StoredCodes> {
        match (self, below) {
            (StoredCodes::Group(a), StoredCodes::Group(b))
                if (a.k, a.bits, a.group, &a.order) == (b.k, b.bits, b.group, &b.order) =>
            {
                a.n += b.n;
                a.codes.extend(b.codes);
                a.scales.extend(b.scales);
                a.zeros.extend(b.zeros);
                None
            }
            (StoredCodes::Row(a), StoredCodes::Row(b)) if a.k == b.k => {
                a.n += b.n;
                a.codes.extend(b.codes);
                a.scales.extend(b.scales);
                None
            }
            (StoredCodes::Codebook(a), StoredCodes::Codebook(b))
                if (a.k, a.block, a.table) == (b.k, b.block, b.table) =>
            {
                match (&mut a.scales, b) {
                    (BlockScales::F32(all), CodebookCodes { n, codes, scales: BlockScales::F32(more), .. }) => {
                        a.n += n;
                        a.codes.extend(codes);
                        all.extend(more);
                        None
                    }
                    (_, b) => Some(StoredCodes::Codebook(b)),
                }
            }
            (StoredCodes::Blocks(a), StoredCodes::Blocks(b)) if a.joins(&b) => {
                a.join(&b);
                None
            }
            (_, below) => Some(below),
        }
    }
}

/// W\[row, order\[j\]\] = scale·(code − zero).
fn group_row(c: &GroupCodes, row: usize, out: &mut [f32]) {
    let groups = c.k.div_ceil(c.group);
    for (group, codes) in c.codes[row * c.k..][..c.k].chunks(c.group).enumerate() {
        let (scale, zero) = (c.scales[row * groups + group], c.zeros[row * groups + group]);
        for (j, &code) in codes.iter().enumerate() {
            let position = group * c.group + j;
            let column = c.order.as_ref().map_or(position, |order| order[position] as usize);
            out[column] = scale * (code as f32 - zero);
        }
    }
}

/// Rows of a row-major table with `width` values each.
fn pick<T: Copy>(values: &[T], width: usize, ranges: &[Range<usize>]) -> Vec<T> {
    ranges.iter().flat_map(|rows| values[rows.start * width..rows.end * width].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use cpu_kernels::NestedScales;

    use super::*;

    fn group(n: usize, first: u8) -> StoredCodes {
        let codes = (0..n * 4).map(|i| (first + i as u8) % 16).collect();
        let scales = (0..n * 2).map(|i| 0.5 + i as f32).collect();
        let zeros = vec![8.0; n * 2];
        StoredCodes::Group(GroupCodes {
            n,
            k: 4,
            bits: 4,
            group: 2,
            codes,
            scales,
            zeros,
            order: Some(vec![2, 0, 3, 1]),
        })
    }

    #[test]
    fn order_says_which_column_a_position_is() {
        // row 0: codes 0 1 | 2 3 at columns 2 0 | 3 1, scales 0.5 | 1.5
        assert_eq!(group(1, 0).dequantise(), [-3.5, -7.5, -4.0, -9.0]);
    }

    #[test]
    fn rows_and_stacks_commute_with_dequantising() {
        let (a, b) = (group(3, 0), group(2, 7));
        let joined = [a.dequantise(), b.dequantise()].concat();
        let mut stacked = a.clone();
        assert!(stacked.stack(b.clone()).is_none());
        assert_eq!(stacked.dequantise(), joined);
        let picked = stacked.rows(&[3..5, 1..2]);
        assert_eq!(picked.dequantise(), [&joined[12..20], &joined[4..8]].concat());
        let StoredCodes::Group(mut other) = b else { unreachable!() };
        other.order = None;
        assert!(group(3, 0).stack(StoredCodes::Group(other)).is_some(), "another order is another form");
    }

    #[test]
    fn doubly_quantized_scales_are_not_joined() {
        let mut map = Box::new([0.0; 256]);
        map[1] = 0.5;
        let nested = NestedScales { codes: vec![0, 1], map, constants: vec![2.0], offset: 1.0 };
        let scales = BlockScales::Nested(nested);
        let mut table = [0.0; 16];
        (table[0], table[1]) = (-1.0, 1.0);
        let codes = CodebookCodes { n: 2, k: 3, block: 8, table, codes: vec![0, 1, 1, 0, 0, 1], scales };
        let stored = StoredCodes::Codebook(codes);
        assert_eq!(stored.dequantise(), [-1.0, 1.0, 1.0, -2.0, -2.0, 2.0]);
        let mut first = stored.clone();
        assert!(first.stack(stored.clone()).is_some());
        let mut last = stored.rows(std::slice::from_ref(&(1..2)));
        assert!(last.stack(last.clone()).is_none());
        assert_eq!(last.dequantise(), [-2.0, -2.0, 2.0, -2.0, -2.0, 2.0]);
    }
}
