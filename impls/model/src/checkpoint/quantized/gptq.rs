//! What: the GPTQ checkpoint layout, read and written.
//! Source: AutoGPTQ's and GPTQModel's packing; `checkpoint_format` "gptq" (v1) and "gptq_v2".
//! Shapes: qweight I32 `[in·bits/32, out]`, packed along in; qzeros I32 `[groups, out·bits/32]`, packed along out;
//!   scales `[groups, out]`; g_idx I32 `[in]`, the group of each input, absent without act-order.
//! Method: 1. codes are streams of bits (`words`). 2. v1 stores zero − 1, wrapped to `bits` bits; v2 stores the zero.
//!   3. inputs sorted by group, stable, are the stored order of `GroupCodes`.
//! Exactness: W\[i, o\] = scales\[g_idx\[i\], o\]·(q − zero) in f32, exact for f16 scales.
//! Cost: one pass over the words, one byte per code.
//! Not handled: marlin and bitblas packings, `dynamic` bits per module, adapters, rotations: refused by name.

use cpu_kernels::GroupCodes;

use super::fields::ConfigFields;
use super::{Unpacked, floats, malformed, pack_words, packed_len, turned, unpack_words, words};
use crate::checkpoint::{CheckpointError, Dtype, RawTensors, StoredCodes};

/// What `quantization_config` says about GPTQ weights.
#[derive(Debug, Clone, PartialEq)]
pub struct GptqLayout {
    /// Bits per code: 2, 3, 4 or 8.
    pub bits: u8,
    /// Inputs per group; `None`: all.
    pub group: Option<usize>,
    /// Whether groups need not be runs of inputs.
    pub act_order: bool,
    /// Whether zeros are stored as they are (v2), not minus one.
    pub v2: bool,
    /// Whether the middle code stands for zero everywhere; zeros that say otherwise are refused.
    pub symmetric: bool,
}

impl GptqLayout {
    pub(super) fn read(f: &ConfigFields) -> Result<GptqLayout, CheckpointError> {
        for field in ["dynamic", "is_marlin_format", "adapter", "lora", "rotation"] {
            f.must_be_unset(field)?;
        }
        f.word(&["pack_dtype"], &["int32"], "int32")?;
        let format = f.word(&["checkpoint_format", "format"], &["gptq", "gptq_v2"], "gptq")?;
        Ok(GptqLayout {
            bits: f.bits(&["bits"], &[2, 3, 4, 8])?,
            group: f.group(&["group_size"])?,
            act_order: f.flag("desc_act", false)?,
            v2: format == "gptq_v2",
            symmetric: f.flag("sym", false)?,
        })
    }

    /// The matrix `{module}.weight`.
    pub(super) fn unpack(&self, tensors: &dyn RawTensors, module: &str) -> Result<Unpacked, CheckpointError> {
        let name = |part: &str| format!("{module}.{part}");
        let (weight, [word_rows, n]) = words(tensors, &name("qweight"), None, None)?;
        if !(word_rows * 32).is_multiple_of(self.bits as usize) {
            let problem = format!("whole runs of 32 codes of {} bits down the rows", self.bits);
            return Err(malformed(tensors.raw(&name("qweight"))?, &name("qweight"), &problem));
        }
        let k = word_rows * 32 / self.bits as usize;
        let group = self.group.unwrap_or(k).min(k);
        let groups = k.div_ceil(group);
        let scales = floats(tensors, &name("scales"), &[groups, n])?;
        let zeros = self.zeros(tensors, &name("qzeros"), groups, n)?;
        let g_idx = self.groups_of_inputs(tensors, &name("g_idx"), k, group)?;
        // 1.
        let mut codes = Vec::with_capacity(n * k);
        (0..n).for_each(|o| codes.extend(unpack_words(k, self.bits, |i| weight[i * n + o])));
        // 3.
        let mut order: Vec<u32> = (0..k as u32).collect();
        order.sort_by_key(|&i| g_idx[i as usize]);
        let is_regular = order.iter().enumerate().all(|(at, &i)| g_idx[i as usize] as usize == at / group);
        if !is_regular {
            let value = |(at, &code): (usize, &u8)| {
                let (o, g) = (at / k, g_idx[at % k] as usize);
                scales[g * n + o] * (code as f32 - zeros[g * n + o])
            };
            return Ok(Unpacked::Values { n, k, values: codes.iter().enumerate().map(value).collect() });
        }
        let (scales, zeros) = (turned(&scales, groups, n), turned(&zeros, groups, n));
        let in_order = order.iter().enumerate().all(|(at, &i)| at == i as usize);
        if !in_order {
            let reordered = codes.chunks(k).flat_map(|row| order.iter().map(|&i| row[i as usize]));
            codes = reordered.collect();
        }
        let order = (!in_order).then_some(order);
        Ok(Unpacked::Codes(StoredCodes::Group(GroupCodes {
            n,
            k,
            bits: self.bits,
            group,
            codes,
            scales,
            zeros,
            order,
        })))
    }

    /// 2. Zeros `[groups, n]`.
    fn zeros(
        &self,
        tensors: &dyn RawTensors,
        name: &str,
        groups: usize,
        n: usize,
    ) -> Result<Vec<f32>, CheckpointError> {
        let (packed, [_, width]) = words(tensors, name, Some(groups), Some(packed_len(n, self.bits)))?;
        let last = 2u32.pow(self.bits.into()) - 1;
        let zero = |stored: u8| match self.v2 {
            true => f32::from(stored),
            false => ((u32::from(stored) + 1) & last) as f32,
        };
        let rows = packed.chunks(width);
        let zeros: Vec<f32> = rows.flat_map(|row| unpack_words(n, self.bits, |i| row[i]).map(zero)).collect();
        let middle = 2f32.powi(i32::from(self.bits) - 1);
        match zeros.iter().find(|&&zero| self.symmetric && zero != middle) {
            Some(found) => Err(self.against_symmetry(tensors, name, middle, *found)),
            None => Ok(zeros),
        }
    }

    /// The config says that the middle code stands for zero, and the tensor says another.
    fn against_symmetry(&self, tensors: &dyn RawTensors, name: &str, middle: f32, found: f32) -> CheckpointError {
        let file = tensors.raw(name).map_or_else(|_| name.into(), |tensor| tensor.file.into());
        let format = if self.v2 { "gptq_v2, zeros stored as they are" } else { "gptq, zeros stored minus one" };
        let problem = format!(
            "tensor `{name}` holds a zero point of {found}, but quantization_config says sym = true, which makes every zero \
             point {middle} (checkpoint_format: {format})"
        );
        let advice =
            "set checkpoint_format to the version that its zeros were stored in (gptq or gptq_v2), or sym to false";
        CheckpointError::Malformed { file, problem, advice }
    }

    /// The group of each of `k` inputs.
    fn groups_of_inputs(
        &self,
        tensors: &dyn RawTensors,
        name: &str,
        k: usize,
        group: usize,
    ) -> Result<Vec<u32>, CheckpointError> {
        if !tensors.contains(name) && !self.act_order {
            return Ok((0..k).map(|i| (i / group) as u32).collect());
        }
        let tensor = tensors.raw(name)?;
        if tensor.dtype != Dtype::I32 || tensor.shape != [k] {
            return Err(malformed(tensor, name, &format!("I32 [{k}]")));
        }
        let g_idx: Vec<u32> = tensor.bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        let groups = k.div_ceil(group);
        if let Some(bad) = g_idx.iter().find(|&&g| g as usize >= groups) {
            let expected = format!("groups below {groups} (there is a {})", *bad as i32);
            return Err(malformed(tensor, name, &expected));
        }
        Ok(g_idx)
    }
}

/// A matrix as this layout stores it.
pub struct GptqPacked {
    /// `[in·bits/32, out]`.
    pub qweight: Vec<u32>,
    /// `[groups, out·bits/32]`.
    pub qzeros: Vec<u32>,
    /// `[groups, out]`.
    pub scales: Vec<f32>,
    /// `[in]`.
    pub g_idx: Vec<u32>,
}

impl GptqLayout {
    /// Packs `codes`, whose zeros are whole numbers from 0 to 2^bits − 1; nothing where rows or columns do not fill words.
    pub fn pack(&self, codes: &GroupCodes) -> Option<GptqPacked> {
        let GroupCodes { n, k, bits, group, .. } = *codes;
        let fills = |len: usize| (len * bits as usize).is_multiple_of(32);
        if !fills(n) || !fills(k) || bits != self.bits {
            return None;
        }
        let groups = k.div_ceil(group);
        // where each input is stored
        let mut place: Vec<usize> = (0..k).collect();
        if let Some(order) = &codes.order {
            order.iter().enumerate().for_each(|(at, &i)| place[i as usize] = at);
        }
        let mut qweight = vec![0; packed_len(k, bits) * n];
        let mut column = vec![0; packed_len(k, bits)];
        for o in 0..n {
            let row = &codes.codes[o * k..][..k];
            pack_words(place.iter().map(|&at| row[at]), bits, &mut column);
            column.iter().enumerate().for_each(|(i, &word)| qweight[i * n + o] = word);
        }
        let zeros = turned(&codes.zeros, n, groups);
        let last = 2u32.pow(bits.into()) - 1;
        let minus = if self.v2 { 0 } else { last };
        let stored = |&zero: &f32| ((zero as u32 + minus) & last) as u8;
        let width = packed_len(n, bits);
        let mut qzeros = vec![0; groups * width];
        for (zeros, words) in zeros.chunks(n).zip(qzeros.chunks_mut(width)) {
            pack_words(zeros.iter().map(stored), bits, words);
        }
        let g_idx = place.iter().map(|&at| (at / group) as u32).collect();
        Some(GptqPacked { qweight, qzeros, scales: turned(&codes.scales, n, groups), g_idx })
    }
}
