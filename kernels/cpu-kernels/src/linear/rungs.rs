//! What: the ladders of the linears, and their slow rungs on row-major weights.
//! Source: none; `v0` is the definition as loops, each later rung adds the idea in its name.
//! Shapes: x\[rows, k\], W\[n, k\] → out\[rows, n\], all row-major; panel rungs pack W on first use.
//! Exactness: each rung states its tolerance against f64; lossy formats include their quantisation error.

use super::{
    BlockScales, CodebookCodes, GroupCodes, NestedScales, PackedBf16, PackedCodebook, PackedF16, PackedF32,
    PackedGroup, PackedGroupInt8, PackedInt8, PackedLut,
};
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::ladder::{Form, Problem, Rung};
use crate::vector::dot;

/// Worst relative error of f32 sums over any k in use.
const F32: f64 = 1e-5;

const fn rung(
    name: &'static str,
    needs: Isa,
    tolerance: f64,
    weight_bytes: fn(&Problem) -> usize,
    run: fn(&Cpu, &Problem, &mut [f32]),
) -> Rung {
    Rung { name, needs, tolerance, form: Form::Linear, weight_bytes, run }
}

const fn int8_rung(
    name: &'static str,
    needs: Isa,
    tolerance: f64,
    weight_bytes: fn(&Problem) -> usize,
    run: fn(&Cpu, &Problem, &mut [f32]),
) -> Rung {
    Rung { form: Form::Int8Linear, ..rung(name, needs, tolerance, weight_bytes, run) }
}

/// One row (or few): streaming the weights is everything.
pub(crate) const GEMV: &[Rung] = &[
    rung("v0_scalar", Isa::Scalar, F32, row_major_bytes, scalar),
    rung("v1_scalar_panel", Isa::Scalar, F32, row_major_bytes, f32_panel),
    rung("v2_avx2_dot", Isa::Avx2, F32, row_major_bytes, dots),
    rung("v3_avx2_panel", Isa::Avx2, F32, row_major_bytes, f32_panel),
    rung("v4_avx512_panel", Isa::Avx512, F32, row_major_bytes, f32_panel),
    rung("v5_avx2_split_k", Isa::Avx2, F32, row_major_bytes, split_k),
    rung("v6_avx512_split_k", Isa::Avx512, F32, row_major_bytes, split_k),
];

/// Many rows: arithmetic is everything.
pub(crate) const GEMM: &[Rung] = &[
    rung("v0_scalar", Isa::Scalar, F32, row_major_bytes, scalar),
    rung("v1_blocked", Isa::Scalar, F32, row_major_bytes, blocked),
    rung("v2_scalar_panel", Isa::Scalar, F32, row_major_bytes, f32_panel),
    rung("v3_avx2_dot", Isa::Avx2, F32, row_major_bytes, dots),
    rung("v4_avx2_panel", Isa::Avx2, F32, row_major_bytes, f32_panel),
    rung("v5_avx512_panel", Isa::Avx512, F32, row_major_bytes, f32_panel),
];

/// f16 weights; the error includes their rounding.
pub(crate) const F16: &[Rung] = &[
    rung("v0_scalar_panel", Isa::Scalar, 1e-3, f16_bytes, f16_panel),
    rung("v1_avx2_panel", Isa::Avx2, 1e-3, f16_bytes, f16_panel),
    rung("v2_avx512_panel", Isa::Avx512, 1e-3, f16_bytes, f16_panel),
];

/// bfloat16 weights; the error includes their rounding.
pub(crate) const BF16: &[Rung] = &[
    rung("v0_scalar_panel", Isa::Scalar, 5e-3, bf16_bytes, bf16_panel),
    rung("v1_avx2_panel", Isa::Avx2, 5e-3, bf16_bytes, bf16_panel),
    rung("v2_avx512_panel", Isa::Avx512, 5e-3, bf16_bytes, bf16_panel),
];

/// int8 weights and activations; the error includes both quantisations.
pub(crate) const INT8: &[Rung] = &[
    int8_rung("v0_scalar_panel", Isa::Scalar, 5e-2, int8_bytes, int8_panel),
    int8_rung("v1_avx2_sign", Isa::Avx2, 5e-2, int8_bytes, int8_panel),
    int8_rung("v2_avx512_vnni", Isa::Avx512, 5e-2, int8_bytes, int8_panel),
];

/// 4-bit codes into 16 values, blocks of 64 with f32 scales; the error includes the quantisation.
pub(crate) const CODEBOOK4: &[Rung] = &[
    rung("v0_scalar_panel", Isa::Scalar, 0.3, codebook4_bytes, codebook4_panel),
    rung("v1_avx2_permute", Isa::Avx2, 0.3, codebook4_bytes, codebook4_panel),
    rung("v2_avx512_permute", Isa::Avx512, 0.3, codebook4_bytes, codebook4_panel),
];

/// The same with scales that are 8-bit codes themselves.
pub(crate) const CODEBOOK4_NESTED: &[Rung] = &[
    rung("v0_scalar_panel", Isa::Scalar, 0.3, codebook4_nested_bytes, codebook4_nested_panel),
    rung("v1_avx2_permute", Isa::Avx2, 0.3, codebook4_nested_bytes, codebook4_nested_panel),
    rung("v2_avx512_permute", Isa::Avx512, 0.3, codebook4_nested_bytes, codebook4_nested_panel),
];

/// 4-bit codes in groups of 128 by round-to-nearest; the error includes the quantisation.
pub(crate) const GROUP4: &[Rung] = &[
    rung("v0_scalar_unpack", Isa::Scalar, 0.3, group4_bytes, group4_unpacked),
    rung("v1_scalar_panel", Isa::Scalar, 0.3, group4_bytes, group4_panel),
    rung("v2_avx2_panel", Isa::Avx2, 0.3, group4_bytes, group4_panel),
    rung("v3_avx512_panel", Isa::Avx512, 0.3, group4_bytes, group4_panel),
];

/// 4-bit codes in groups of 32, activations int8; the error includes both quantisations.
pub(crate) const GROUP4_INT8: &[Rung] = &[
    int8_rung("v0_scalar_blocks", Isa::Scalar, 0.3, group4_int8_bytes, group4_int8_blocks),
    int8_rung("v1_avx2_maddubs", Isa::Avx2, 0.3, group4_int8_bytes, group4_int8_blocks),
    int8_rung("v2_avx512_vnni", Isa::Avx512, 0.3, group4_int8_bytes, group4_int8_blocks),
];

/// 8-bit codes in groups of 32, activations int8; the error includes both quantisations.
pub(crate) const GROUP8_INT8: &[Rung] = &[
    int8_rung("v0_scalar_blocks", Isa::Scalar, 5e-2, group8_int8_bytes, group8_int8_blocks),
    int8_rung("v1_avx2_maddubs", Isa::Avx2, 5e-2, group8_int8_bytes, group8_int8_blocks),
    int8_rung("v2_avx512_vnni", Isa::Avx512, 5e-2, group8_int8_bytes, group8_int8_blocks),
];

macro_rules! lut_rungs {
    ($($ladder:ident, $bits:literal, $tolerance:literal;)*) => {$(
        #[doc = concat!("Codes of ", $bits, " bit in bit planes, by table lookup; the error includes both quantisations.")]
        pub(crate) const $ladder: &[Rung] = &[
            rung("v0_scalar", Isa::Scalar, $tolerance, lut_bytes::<$bits>, lut::<$bits>),
            rung("v1_avx2_shuffle", Isa::Avx2, $tolerance, lut_bytes::<$bits>, lut::<$bits>),
            rung("v2_avx512_shuffle", Isa::Avx512, $tolerance, lut_bytes::<$bits>, lut::<$bits>),
        ];
    )*};
}

lut_rungs! { LUT1, 1, 0.75; LUT2, 2, 0.5; LUT3, 3, 0.3; LUT4, 4, 0.3; }

fn row_major_bytes(p: &Problem) -> usize {
    size_of_val(&p.w[..])
}

/// The definition: one accumulator per output.
fn scalar(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    cpu.parallel_chunks_mut(out, p.n, &|row, out| {
        let x = &p.x[row * p.k..][..p.k];
        for (out, w) in out.iter_mut().zip(p.w.chunks_exact(p.k)) {
            *out = x.iter().zip(w).fold(0.0, |sum, (x, w)| sum + x * w);
        }
    });
}

/// Cache blocking only: 64 outputs × 256 columns of W stay in L1/L2 while all rows pass.
fn blocked(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    const OUTPUTS: usize = 64;
    const COLUMNS: usize = 256;
    let rows_per_task = p.rows.div_ceil(cpu.threads()).max(1);
    cpu.parallel_chunks_mut(out, rows_per_task * p.n, &|task, out| {
        out.fill(0.0);
        for j in (0..p.k).step_by(COLUMNS) {
            let columns = j..(j + COLUMNS).min(p.k);
            for i in (0..p.n).step_by(OUTPUTS) {
                for (row, out) in out.chunks_exact_mut(p.n).enumerate() {
                    let x = &p.x[(task * rows_per_task + row) * p.k..][columns.clone()];
                    for i in i..(i + OUTPUTS).min(p.n) {
                        let w = &p.w[i * p.k..][columns.clone()];
                        out[i] += x.iter().zip(w).fold(0.0, |sum, (x, w)| sum + x * w);
                    }
                }
            }
        }
    });
}

/// Vector lanes along k on row-major weights: one horizontal sum per output.
fn dots(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    let outputs_per_task = p.n.div_ceil(4 * cpu.threads());
    for (x, out) in p.x.chunks_exact(p.k).zip(out.chunks_exact_mut(p.n)) {
        cpu.parallel_chunks_mut(out, outputs_per_task, &|task, out| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = dot(cpu, x, &p.w[(task * outputs_per_task + i) * p.k..][..p.k]);
            }
        });
    }
}

macro_rules! packed_rung {
    ($run:ident, $bytes:ident, $field:ident, $pack:expr) => {
        fn $run(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
            p.$field.get_or_init(|| $pack(p)).forward(cpu, &p.x, p.rows, out);
        }

        fn $bytes(p: &Problem) -> usize {
            p.$field.get_or_init(|| $pack(p)).bytes()
        }
    };
}

packed_rung!(f16_panel, f16_bytes, f16, |p: &Problem| PackedF16::pack(&p.w, p.n, p.k));
packed_rung!(bf16_panel, bf16_bytes, bf16, |p: &Problem| PackedBf16::pack(&p.w, p.n, p.k));
packed_rung!(int8_panel, int8_bytes, int8, quantize_int8);
packed_rung!(codebook4_panel, codebook4_bytes, codebook4, |p: &Problem| PackedCodebook::from_codes(
    &quantize_codebook(p, false)
));
packed_rung!(codebook4_nested_panel, codebook4_nested_bytes, codebook4_nested, |p: &Problem| {
    PackedCodebook::from_codes(&quantize_codebook(p, true))
});
packed_rung!(group4_panel, group4_bytes, group4, |p: &Problem| PackedGroup::from_codes(quantize_group(p, 4, 128)));
packed_rung!(group4_int8_blocks, group4_int8_bytes, group4_int8, |p: &Problem| PackedGroupInt8::from_codes(
    quantize_group(p, 4, 32)
));
packed_rung!(group8_int8_blocks, group8_int8_bytes, group8_int8, |p: &Problem| PackedGroupInt8::from_codes(
    quantize_group(p, 8, 32)
));

fn f32_panel(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    p.f32.get_or_init(|| PackedF32::pack(&p.w, p.n, p.k)).forward(cpu, &p.x, p.rows, out);
}

/// The two halves of k on threads of their own, added at the end: no waiting for the longest panel, but another order of
/// summation than with more rows, which is what makes such kernels depend on the batch.
fn split_k(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    let k = p.k / 2;
    let part = |x: &[f32], width: usize, from: usize| -> Vec<f32> {
        x.chunks_exact(p.k).flat_map(|row| &row[from..from + width]).copied().collect()
    };
    let widths = [(k, 0), (p.k - k, k)];
    let halves =
        p.f32_halves.get_or_init(|| widths.map(|(width, from)| PackedF32::pack(&part(&p.w, width, from), p.n, width)));
    let mut sums = vec![0.0; 2 * out.len()];
    cpu.parallel_chunks_mut(&mut sums, out.len().max(1), &|i, sums| {
        let (width, from) = widths[i];
        halves[i].forward(cpu, &part(&p.x, width, from), p.rows, sums);
    });
    let (first, second) = sums.split_at(out.len());
    out.iter_mut().zip(first.iter().zip(second)).for_each(|(out, (a, b))| *out = a + b);
}

fn lut<const BITS: usize>(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    packed_lut::<BITS>(p).forward(cpu, &p.x, p.rows, out);
}

fn lut_bytes<const BITS: usize>(p: &Problem) -> usize {
    packed_lut::<BITS>(p).bytes()
}

/// Round-to-nearest about the middle of the codes, groups of 128 columns; with one bit plus or minus the mean magnitude.
fn packed_lut<const BITS: usize>(p: &Problem) -> &PackedLut {
    const GROUP: usize = 128;
    p.lut[BITS - 1].get_or_init(|| {
        let top = ((1 << BITS) - 1) as f32;
        let (mut codes, mut scales) = (Vec::with_capacity(p.w.len()), Vec::new());
        for row in p.w.chunks_exact(p.k) {
            for group in row.chunks(GROUP) {
                let absmax = group.iter().fold(1e-4f32, |m, v| m.max(v.abs()));
                let mean = group.iter().map(|v| v.abs()).sum::<f32>() / group.len() as f32;
                let scale = if BITS == 1 { 2.0 * mean.max(1e-4) } else { absmax / (0.5 * top) };
                let scale = half::f16::from_f32(scale).to_f32();
                scales.push(scale);
                codes.extend(group.iter().map(|v| (v / scale + 0.5 * top).round().clamp(0.0, top) as u8));
            }
        }
        let zeros = vec![0.5 * top; scales.len()];
        let bits = BITS as u8;
        PackedLut::from_codes(&GroupCodes { n: p.n, k: p.k, bits, group: GROUP, codes, scales, zeros, order: None })
    })
}

/// Decodes every weight one by one, then multiplies: what the fused decoding saves.
fn group4_unpacked(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    let w = p.group4.get_or_init(|| PackedGroup::from_codes(quantize_group(p, 4, 128))).unpack();
    cpu.parallel_chunks_mut(out, p.n, &|row, out| {
        let x = &p.x[row * p.k..][..p.k];
        for (out, w) in out.iter_mut().zip(w.chunks_exact(p.k)) {
            *out = x.iter().zip(w).fold(0.0, |sum, (x, w)| sum + x * w);
        }
    });
}

/// Round-to-nearest int8 with one scale per output: enough to feed a ladder; quantisers live elsewhere.
fn quantize_int8(p: &Problem) -> PackedInt8 {
    let mut codes = Vec::with_capacity(p.w.len());
    let mut scales = Vec::with_capacity(p.n);
    for row in p.w.chunks_exact(p.k) {
        let absmax = row.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
        scales.push(absmax / 127.0);
        codes.extend(row.iter().map(|v| (v * 127.0 / absmax).round_ties_even() as i8));
    }
    PackedInt8::from_codes(&codes, &scales, p.n, p.k)
}

/// Round-to-nearest, symmetric about the middle code.
fn quantize_group(p: &Problem, bits: u8, group: usize) -> GroupCodes {
    let middle = (1u32 << (bits - 1)) as f32;
    let mut codes = Vec::with_capacity(p.w.len());
    let mut scales = Vec::new();
    for row in p.w.chunks_exact(p.k) {
        for group in row.chunks(group) {
            let absmax = group.iter().fold(1e-4f32, |m, v| m.max(v.abs()));
            let scale = half::f16::from_f32(absmax / (middle - 1.0)).to_f32();
            scales.push(scale);
            codes.extend(group.iter().map(|v| (v / scale + middle).round().clamp(0.0, 2.0 * middle - 1.0) as u8));
        }
    }
    let zeros = vec![middle; scales.len()];
    GroupCodes { n: p.n, k: p.k, bits, group, codes, scales, zeros, order: None }
}

/// Evenly spaced values by the largest magnitude of 64 columns; nested scales are one of 256 steps up to the largest.
fn quantize_codebook(p: &Problem, nested: bool) -> CodebookCodes {
    const BLOCK: usize = 64;
    let mut codes = Vec::with_capacity(p.w.len());
    let mut scales = Vec::new();
    for row in p.w.chunks_exact(p.k) {
        for block in row.chunks(BLOCK) {
            let absmax = block.iter().fold(1e-4f32, |m, v| m.max(v.abs()));
            scales.push(absmax);
            codes.extend(block.iter().map(|v| ((v / absmax + 1.0) * 7.5).round() as u8));
        }
    }
    let scales = match nested {
        false => BlockScales::F32(scales),
        true => {
            let constants: Vec<f32> =
                scales.chunks(NestedScales::PER_CONSTANT).map(|s| s.iter().fold(0.0f32, |m, v| m.max(*v))).collect();
            let code = |(i, s): (usize, &f32)| (s / constants[i / NestedScales::PER_CONSTANT] * 255.0).round() as u8;
            let codes = scales.iter().enumerate().map(code).collect();
            let map = Box::new(std::array::from_fn(|code| code as f32 / 255.0));
            BlockScales::Nested(NestedScales { codes, map, constants, offset: 0.0 })
        }
    };
    let table = std::array::from_fn(|code| code as f32 / 7.5 - 1.0);
    CodebookCodes { n: p.n, k: p.k, block: BLOCK, table, codes, scales }
}
