//! What: weights of 4 bits (or 2 and 3, kept as 4) with a scale and a zero per group of columns; activations rounded to f16.
//! Source: the storage of GPTQ (Frantar et al. 2022, arXiv:2210.17323) §4; tiles after Marlin (arXiv:2408.11743) §3.
//! Shapes: x `[rows, k]` → y `[rows, n]`, f32; codes `[n, k]`, scales and zeros `[n, ⌈k/group⌉]`.
//! Method: 1. columns are stored group by group, each padded to 32, 64 or a multiple of 128, so that x is gathered while it is rounded.
//! 2. codes become code − 8 exactly in f16 and multiply on tensor cores; 3. a group's sum gets (8 − zero)·Σx and its scale.
//! Exactness: scales and zeros are rounded to f16, x to f16 (beyond ±65504 it is infinite); sums in f32, in an order that depends on
//! k and the groups alone: an element has the same bits whatever the number of rows.
//! Cost: 1/2 byte per weight, 2 per group, 2 more where zeros differ from 8.
//! Not handled: more than 4 bits.

use half::f16;

use super::pack::{UNIT, check_len, pack_int4};
use super::tiles::{Format, Tiled, Tiles};
use crate::{Gpu, GpuError};

const NAME: &str = "group4 weights";

/// Group codes as a quantizer hands them over: W\[i, order\[j\]\] = scale·(code\[i, j\] − zero).
#[derive(Debug, Clone, Copy)]
pub struct GroupCodes<'a> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Columns per group; the last one of a row may be short.
    pub group: usize,
    /// Codes `[n, k]`, one a byte, 0 … 15.
    pub codes: &'a [u8],
    /// Scales `[n, ⌈k/group⌉]`.
    pub scales: &'a [f32],
    /// Zeros `[n, ⌈k/group⌉]`, in code units.
    pub zeros: &'a [f32],
    /// `order[j]` is the input column stored at position j (act-order); groups are over positions.
    pub order: Option<&'a [u32]>,
}

/// 4-bit weights in device memory.
#[derive(Debug)]
pub struct Group4Weights(pub(crate) Tiles);

impl Group4Weights {
    /// Packs `source` and sends it to `gpu`.
    pub fn upload(gpu: &Gpu, source: &GroupCodes<'_>) -> Result<Self, GpuError> {
        let &GroupCodes { n, k, group, codes, scales, zeros, order } = source;
        if group == 0 {
            return Err(GpuError::shape(NAME, "groups of no columns"));
        }
        let groups = k.div_ceil(group);
        check_len(NAME, "codes", codes.len(), n * k)?;
        check_len(NAME, "scales", scales.len(), n * groups)?;
        check_len(NAME, "zeros", zeros.len(), n * groups)?;
        if let Some(code) = codes.iter().find(|&&code| code > 15) {
            return Err(GpuError::shape(NAME, format!("code {code} does not fit 4 bits")));
        }
        if order.is_some_and(|order| order.len() != k || order.iter().any(|&column| column as usize >= k)) {
            return Err(GpuError::shape(NAME, format!("the order must name {k} columns below {k}")));
        }
        let layout = Layout::of(k, group);
        let words = pack_int4(codes, n, k, &layout.slots);
        let as_it_is =
            order.is_none() && layout.slots.iter().enumerate().all(|(at, slot)| slot.is_none_or(|c| c as usize == at));
        let column = |slot: &Option<u32>| slot.map_or(-1, |j| order.map_or(j, |order| order[j as usize]) as i32);
        let gather: Vec<i32> = layout.slots.iter().map(column).collect();
        let has_zeros = zeros.iter().any(|&zero| zero != 8.0);
        let halves = |values: &[f32]| gpu.upload(&layout.halves(values, n, groups));
        Ok(Group4Weights(Tiles {
            format: Format::Int4 { group: layout.group, zeros: has_zeros },
            n,
            k,
            units: layout.slots.len() / UNIT,
            words: gpu.upload(&words)?,
            gather: if as_it_is { None } else { Some(gpu.upload(&gather)?) },
            scales: Some(halves(scales)?),
            zeros: if has_zeros { Some(halves(zeros)?) } else { None },
            output_scales: None,
        }))
    }
}

/// Where columns are stored, and which of their groups each group of the kernel belongs to.
struct Layout {
    /// Columns per group of the kernel: 32, 64 or 128.
    group: usize,
    /// The position in `0..k` stored at each slot; `None` is padding.
    slots: Vec<Option<u32>>,
    /// The quantizer's group of each of the kernel's; `None` is padding.
    groups: Vec<Option<usize>>,
}

impl Layout {
    fn of(k: usize, group: usize) -> Layout {
        let group = group.min(k.max(1));
        let kernel_group = if group <= 32 { 32 } else { group.next_power_of_two().min(128) };
        let (mut slots, mut groups) = (vec![], vec![]);
        for (index, start) in (0..k).step_by(group).enumerate() {
            slots.extend((start..(start + group).min(k)).map(|j| Some(j as u32)));
            slots.resize(slots.len().next_multiple_of(kernel_group), None);
            groups.resize(slots.len() / kernel_group, Some(index));
        }
        slots.resize(slots.len().next_multiple_of(UNIT.max(kernel_group)), None);
        groups.resize(slots.len() / kernel_group, None);
        Layout { group: kernel_group, slots, groups }
    }

    /// `[n, groups]` as f16 `[n / 16][the kernel's groups][16]`, zeros where padding is.
    fn halves(&self, values: &[f32], n: usize, groups: usize) -> Vec<u16> {
        let mut out = Vec::with_capacity(n.next_multiple_of(16) * self.groups.len());
        for block in (0..n).step_by(16) {
            for of in &self.groups {
                out.extend((block..block + 16).map(|output| match of {
                    Some(group) if output < n => f16::from_f32(values[output * groups + group]).to_bits(),
                    _ => 0,
                }));
            }
        }
        out
    }
}

impl Tiled for Group4Weights {
    fn tiles(&self) -> &Tiles {
        &self.0
    }
}
