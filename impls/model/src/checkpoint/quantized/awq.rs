//! What: the AWQ checkpoint layout of AutoAWQ's GEMM kernels, read and written.
//! Source: AutoAWQ, `version` "gemm".
//! Shapes: qweight I32 `[in, out/8]`, qzeros I32 `[groups, out/8]`, both packed along out; scales `[groups, out]`.
//! Method: nibble i of word c is column 8c + \[0, 2, 4, 6, 1, 3, 5, 7\]\[i\]; zeros are stored as they are.
//! Exactness: W\[i, o\] = scales\[i/group, o\]·(q − zero) in f32, exact for f16 scales.
//! Cost: one pass over the words, one byte per code.
//! Not handled: gemv, gemv_fast, marlin, exllama and ipex packings, other widths than 4 bits: refused by name.

use cpu_kernels::GroupCodes;

use super::fields::ConfigFields;
use super::{floats, malformed, turned, words};
use crate::checkpoint::{CheckpointError, RawTensors, StoredCodes};

const COLUMNS: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// What `quantization_config` says about AWQ weights.
#[derive(Debug, Clone, PartialEq)]
pub struct AwqLayout {
    /// Inputs per group; `None`: all.
    pub group: Option<usize>,
    /// Whether there are zeros to read; else every zero is 8.
    pub zero_point: bool,
}

impl AwqLayout {
    pub(super) fn read(f: &ConfigFields) -> Result<AwqLayout, CheckpointError> {
        f.word(&["version", "format", "checkpoint_format"], &["gemm"], "gemm")?;
        f.word(&["pack_dtype"], &["int32"], "int32")?;
        f.must_be_unset("dynamic")?;
        f.bits(&["bits", "w_bit"], &[4])?;
        Ok(AwqLayout { group: f.group(&["group_size", "q_group_size"])?, zero_point: f.flag("zero_point", true)? })
    }

    /// The matrix `{module}.weight`.
    pub(super) fn unpack(&self, tensors: &dyn RawTensors, module: &str) -> Result<StoredCodes, CheckpointError> {
        let name = |part: &str| format!("{module}.{part}");
        let (weight, [k, width]) = words(tensors, &name("qweight"), None, None)?;
        let n = width * 8;
        let group = self.group.unwrap_or(k).min(k);
        if !k.is_multiple_of(group) {
            let expected = format!("rows in groups of {group}");
            return Err(malformed(tensors.raw(&name("qweight"))?, &name("qweight"), &expected));
        }
        let groups = k / group;
        let scales = turned(&floats(tensors, &name("scales"), &[groups, n])?, groups, n);
        let zeros = match self.zero_point || tensors.contains(&name("qzeros")) {
            true => words(tensors, &name("qzeros"), Some(groups), Some(width))?.0,
            false => vec![0x8888_8888; groups * width],
        };
        let zeros = unpack(&zeros, groups, n).into_iter().map(f32::from).collect();
        let codes = unpack(&weight, k, n);
        Ok(StoredCodes::Group(GroupCodes { n, k, bits: 4, group, codes, scales, zeros, order: None }))
    }
}

/// Words `[rows, n/8]` → nibbles `[n, rows]`.
fn unpack(words: &[u32], rows: usize, n: usize) -> Vec<u8> {
    let mut out = vec![0; rows * n];
    for (row, words) in words.chunks(n / 8).enumerate() {
        for (c, &word) in words.iter().enumerate() {
            for (i, column) in COLUMNS.iter().enumerate() {
                out[(8 * c + column) * rows + row] = (word >> (4 * i) & 15) as u8;
            }
        }
    }
    out
}

/// Nibbles `[n, rows]` → words `[rows, n/8]`.
fn pack(nibbles: &[u8], rows: usize, n: usize) -> Vec<u32> {
    let word = |row: usize, c: usize| {
        let nibble = |(i, column): (usize, &usize)| u32::from(nibbles[(8 * c + column) * rows + row]) << (4 * i);
        COLUMNS.iter().enumerate().map(nibble).sum()
    };
    (0..rows).flat_map(|row| (0..n / 8).map(move |c| word(row, c))).collect()
}

/// A matrix as this layout stores it.
pub struct AwqPacked {
    /// `[in, out/8]`.
    pub qweight: Vec<u32>,
    /// `[groups, out/8]`.
    pub qzeros: Vec<u32>,
    /// `[groups, out]`.
    pub scales: Vec<f32>,
}

impl AwqLayout {
    /// Packs 4-bit `codes` with whole zeros and no reordering, in whole groups; nothing where the layout cannot hold them.
    pub fn pack(codes: &GroupCodes) -> Option<AwqPacked> {
        let GroupCodes { n, k, bits, group, .. } = *codes;
        if bits != 4 || codes.order.is_some() || !n.is_multiple_of(8) || !k.is_multiple_of(group) {
            return None;
        }
        let groups = k / group;
        let zeros: Vec<u8> = codes.zeros.iter().map(|&zero| zero as u8).collect();
        Some(AwqPacked {
            qweight: pack(&codes.codes, k, n),
            qzeros: pack(&zeros, groups, n),
            scales: turned(&codes.scales, n, groups),
        })
    }
}
