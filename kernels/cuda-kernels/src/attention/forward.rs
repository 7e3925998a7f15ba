//! Launches the forward ladder: one attention, many ways. Each rung's text says what it does.

use super::steps::{Form, LADDER, PRODUCT, SCORES, SOFTMAX, Step, UNFUSED};
use crate::{Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Number, Rung, TensorMap, TensorMapShape};

/// Sizes of a forward problem. q and out `[batch, q_len, heads, dim]`, k and v `[batch, kv_len, kv_heads, dim]`, 16 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardShape {
    /// Sequences.
    pub batch: usize,
    /// Query rows of each.
    pub q_len: usize,
    /// Keys of each. Rows and keys are aligned at their ends: row r stands where key r + kv_len − q_len does.
    pub kv_len: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head: 64 or 128.
    pub dim: usize,
    /// Whether a row sees no key after its own.
    pub causal: bool,
    /// With `causal`: a row sees only this many latest keys.
    pub window: Option<usize>,
    /// `F16` or `Bf16`.
    pub number: Number,
}

/// Device memory of a forward problem; 16-bit values are the bits of `number`.
#[derive(Debug, Clone, Copy)]
pub struct ForwardTensors<'a> {
    /// `[batch, q_len, heads, dim]`.
    pub q: &'a Buffer<u16>,
    /// `[batch, kv_len, kv_heads, dim]`.
    pub k: &'a Buffer<u16>,
    /// As k.
    pub v: &'a Buffer<u16>,
    /// As q.
    pub out: &'a Buffer<u16>,
    /// `[batch, heads, q_len]`: natural logarithm of each row's sum of exponentials, −∞ for a row that sees nothing.
    pub lse: Option<&'a Buffer<f32>>,
    /// [`scratch_len`] values, for the rung that keeps its scores in device memory.
    pub scratch: &'a Buffer<f32>,
}

/// Values of scratch memory that a rung needs.
pub fn scratch_len(shape: &ForwardShape, rung: &str) -> usize {
    if rung == UNFUSED { shape.batch * shape.heads * shape.q_len * shape.kv_len } else { 0 }
}

/// Bytes of keys and values that a section of heads may have: what an H100's L2 cache of 50 MB holds beside all that passes through.
const SECTION_BYTES: usize = 32 << 20;

/// Heads (of all sequences) whose pieces of work are taken together: whole groups that share keys and values, as many as fit.
fn section(shape: &ForwardShape) -> usize {
    let one = (2 * shape.kv_len * shape.dim * 2).max(1);
    (SECTION_BYTES / one).max(1) * (shape.heads / shape.kv_heads)
}

/// The rungs of the forward ladder, from the simplest to the fastest.
pub fn rungs() -> impl Iterator<Item = Rung> {
    LADDER.iter().map(|step| step.rung)
}

impl ForwardShape {
    /// 2^(score·scale) is the weight of a score: 1/√dim, and log₂ e.
    fn scale(&self) -> f32 {
        std::f32::consts::LOG2_E / (self.dim as f32).sqrt()
    }

    /// Values of q and out.
    pub fn q_values(&self) -> usize {
        self.batch * self.q_len * self.heads * self.dim
    }

    /// Values of k, and of v.
    pub fn kv_values(&self) -> usize {
        self.batch * self.kv_len * self.kv_heads * self.dim
    }

    /// Checks that the ladder can solve it.
    pub fn check(&self) -> Result<(), GpuError> {
        let fails = |reason: String| Err(GpuError::shape("attention", reason));
        if self.kv_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return fails(format!("{} heads over {} kv heads, expected a multiple", self.heads, self.kv_heads));
        }
        if !DIMS.contains(&self.dim) {
            return fails(format!("head dim {}, expected 64 or 128", self.dim));
        }
        if !NUMBERS.contains(&self.number) {
            return fails("numbers of 32 bits, expected f16 or bf16".into());
        }
        if self.window.is_some_and(|window| window == 0 || !self.causal) {
            return fails("a window needs `causal` and at least one key".into());
        }
        if self.heads.max(self.batch * self.heads) > 65_535 {
            return fails("more than 65535 heads times sequences".into());
        }
        Ok(())
    }
}

const DIMS: [usize; 2] = [64, 128];
const NUMBERS: [Number; 2] = [Number::F16, Number::Bf16];

/// Puts rung `name` behind the work before.
pub fn forward(name: &str, shape: &ForwardShape, tensors: &ForwardTensors<'_>) -> Result<(), GpuError> {
    let known: Vec<&str> = rungs().map(|rung| rung.name).collect();
    let step = LADDER.iter().find(|step| step.rung.name == name);
    let step =
        step.ok_or_else(|| GpuError::shape("attention", format!("no rung {name}; there are {}", known.join(", "))))?;
    check(shape, tensors, name)?;
    if shape.q_values() == 0 {
        return Ok(());
    }
    let gpu = tensors.q.gpu();
    match step.form {
        Form::Unfused => unfused(gpu, shape, tensors),
        Form::Addresses | Form::Serial => fused(gpu, step, shape, tensors),
        Form::Sections => mapped(gpu, step, shape, tensors, section(shape)),
        Form::Maps | Form::Line | Form::Persistent => mapped(gpu, step, shape, tensors, usize::MAX),
    }
}

fn check(shape: &ForwardShape, tensors: &ForwardTensors<'_>, name: &str) -> Result<(), GpuError> {
    shape.check()?;
    let rows = shape.batch * shape.heads * shape.q_len;
    let lens = [
        ("q", tensors.q.len(), shape.q_values()),
        ("out", tensors.out.len(), shape.q_values()),
        ("k", tensors.k.len(), shape.kv_values()),
        ("v", tensors.v.len(), shape.kv_values()),
        ("lse", tensors.lse.map_or(rows, Buffer::len), rows),
        ("scratch", tensors.scratch.len(), scratch_len(shape, name)),
    ];
    match lens.into_iter().find(|(_, len, needed)| len < needed) {
        Some((what, len, needed)) => {
            Err(GpuError::shape("attention", format!("{what} holds {len} values, expected {needed}")))
        }
        None => Ok(()),
    }
}

fn int(value: usize) -> Arg<'static> {
    Arg::I32(value as i32)
}

/// What every fused kernel takes after q, k and v.
fn rest_of_args(shape: &ForwardShape, tensors: &ForwardTensors<'_>) -> [Arg<'static>; 9] {
    [
        tensors.out.arg(),
        tensors.lse.map_or(Arg::Pointer(0), Buffer::arg),
        int(shape.q_len),
        int(shape.kv_len),
        int(shape.heads),
        int(shape.kv_heads),
        int(shape.causal as usize),
        int(shape.window.unwrap_or(0)),
        Arg::F32(shape.scale()),
    ]
}

fn fused(gpu: &Gpu, step: &Step, shape: &ForwardShape, tensors: &ForwardTensors<'_>) -> Result<(), GpuError> {
    let args = [&[tensors.q.arg(), tensors.k.arg(), tensors.v.arg()][..], &rest_of_args(shape, tensors)].concat();
    let tiles = if step.form == Form::Serial { 1 } else { shape.q_len.div_ceil(step.rows) };
    let grid = LaunchShape::grid(tiles, shape.heads, shape.batch, step.threads);
    // SAFETY: `check` compared every buffer with the shape, and the kernel touches rows, keys and heads of the shape alone.
    unsafe { gpu.launch(&kernel(step, shape.dim, shape.number), grid.with_shared((step.shared)(shape.dim)), &args) }
}

/// `section` heads after the other, where the rung takes pieces of work from a line.
fn mapped(
    gpu: &Gpu,
    step: &Step,
    shape: &ForwardShape,
    tensors: &ForwardTensors<'_>,
    section: usize,
) -> Result<(), GpuError> {
    let maps = [
        (tensors.q, shape.q_len, shape.heads, step.rows),
        (tensors.k, shape.kv_len, shape.kv_heads, step.rows),
        (tensors.v, shape.kv_len, shape.kv_heads, step.rows),
        // a warpgroup's rows leave for themselves
        (tensors.out, shape.q_len, shape.heads, 64),
    ];
    let maps =
        maps.map(|(buffer, len, heads, rows)| TensorMap::encode(gpu, &map(shape, buffer.address(), len, heads, rows)));
    let [q, k, v, out] = maps;
    let (q, k, v, out) = (q?, k?, v?, out?);
    let addresses = [Arg::TensorMap(&q), Arg::TensorMap(&k), Arg::TensorMap(&v), Arg::TensorMap(&out)];
    let addresses = if step.form == Form::Maps { &addresses[..3] } else { &addresses };
    let mut args = [addresses, &rest_of_args(shape, tensors)].concat();
    let (tiles, pieces) =
        (shape.q_len.div_ceil(step.rows), shape.q_len.div_ceil(step.rows) * shape.heads * shape.batch);
    let grid = match step.form {
        Form::Line => LaunchShape::line(pieces, step.threads),
        Form::Persistent | Form::Sections => LaunchShape::line(pieces.min(gpu.multiprocessors()), step.threads),
        _ => LaunchShape::grid(tiles, shape.heads, shape.batch, step.threads),
    };
    if step.form != Form::Maps {
        args.push(int(shape.batch));
        args.push(int(section.min(shape.batch * shape.heads)));
    }
    // SAFETY: `check` compared every buffer with the shape, the maps describe the same buffers, and the kernel touches rows,
    // keys and heads of the shape alone.
    unsafe { gpu.launch(&kernel(step, shape.dim, shape.number), grid.with_shared((step.shared)(shape.dim)), &args) }
}

/// `[batch][heads][dim / 64][len][64]`, as boxes of `rows` rows of one head: panels of 128 bytes a row, one copy per tile. `len` is a
/// dimension of its own, so what lies beyond a sequence arrives as zeros and never as the next sequence.
fn map(shape: &ForwardShape, base: u64, len: usize, heads: usize, rows: usize) -> TensorMapShape {
    let row = (heads * shape.dim * 2) as u64;
    TensorMapShape {
        base,
        // a tensor without rows still needs a map; nothing is copied through it
        dims: [64, len.max(1), shape.dim / 64, heads, shape.batch].map(|n| n as u64).to_vec(),
        strides: vec![row, 128, shape.dim as u64 * 2, row * len.max(1) as u64],
        box_dims: vec![64, rows as u32, shape.dim as u32 / 64, 1, 1],
        swizzle_bytes: 128,
    }
}

fn unfused(gpu: &Gpu, shape: &ForwardShape, tensors: &ForwardTensors<'_>) -> Result<(), GpuError> {
    let specs = unfused_kernels(shape.dim, shape.number);
    let sizes = [int(shape.q_len), int(shape.kv_len), int(shape.heads), int(shape.kv_heads)];
    let (row_tiles, all_heads) = (shape.q_len.div_ceil(16), shape.batch * shape.heads);
    let scores = tensors.scratch.arg();
    let grid = LaunchShape::grid(shape.kv_len.div_ceil(16), row_tiles, all_heads, 256);
    let args = [&[tensors.q.arg(), tensors.k.arg(), scores][..], &sizes].concat();
    // SAFETY: `check` compared every buffer with the shape; the scratch memory holds all scores.
    unsafe { gpu.launch(&specs[0], grid, &args) }?;
    let lse = tensors.lse.map_or(Arg::Pointer(0), Buffer::arg);
    let mask = [int(shape.causal as usize), int(shape.window.unwrap_or(0)), Arg::F32(shape.scale())];
    let grid = LaunchShape::grid(shape.q_len.div_ceil(4), shape.heads, shape.batch, 128);
    let args = [&[scores, lse][..], &sizes, &mask].concat();
    // SAFETY: as above.
    unsafe { gpu.launch(&specs[1], grid, &args) }?;
    let grid = LaunchShape::grid(shape.dim / 16, row_tiles, all_heads, 256);
    let args = [&[scores, tensors.v.arg(), tensors.out.arg()][..], &sizes].concat();
    // SAFETY: as above.
    unsafe { gpu.launch(&specs[2], grid, &args) }
}

fn unfused_kernels(dim: usize, number: Number) -> [KernelSpec; 3] {
    let of = |text, entry, dim, number: Number| {
        KernelSpec::new(text, entry).define("DIM", dim).define("NUMBER", number.in_text())
    };
    [
        of(&SCORES, "attention_unfused_scores", dim, number),
        // weights have neither head dim nor 16-bit numbers
        of(&SOFTMAX, "attention_unfused_softmax", DIMS[0], NUMBERS[0]),
        of(&PRODUCT, "attention_unfused_product", dim, number),
    ]
}

fn kernel(step: &Step, dim: usize, number: Number) -> KernelSpec {
    let base = KernelSpec::new(step.text, step.entry).define("DIM", dim).define("NUMBER", number.in_text());
    step.defines.iter().fold(base.needs(step.rung.needs), |spec, &(name, value)| spec.define(name, value))
}

/// Everything that is launched here.
pub(super) fn kernels() -> Vec<KernelSpec> {
    let mut all: Vec<KernelSpec> = vec![];
    for (dim, number) in DIMS.into_iter().flat_map(|dim| NUMBERS.map(|number| (dim, number))) {
        for step in &LADDER {
            let of_step = match step.form {
                Form::Unfused => unfused_kernels(dim, number).to_vec(),
                _ => vec![kernel(step, dim, number)],
            };
            // two rungs may launch one kernel
            all.extend(of_step.into_iter().filter(|spec| !all.contains(spec)).collect::<Vec<_>>());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arch;

    #[test]
    fn maps_obey_the_drivers_rules_and_copy_whole_tiles() {
        for (dim, len, heads) in [(64, 1, 1), (64, 129, 4), (128, 8191, 8), (128, 0, 2)] {
            let shape = ForwardShape {
                batch: 3,
                q_len: len,
                kv_len: len,
                heads,
                kv_heads: heads,
                dim,
                causal: true,
                window: None,
                number: Number::Bf16,
            };
            let map = map(&shape, 1 << 20, len, heads, 128);
            assert_eq!(map.check(), Ok(()));
            let box_values: u32 = map.box_dims.iter().product();
            assert_eq!(box_values as usize, 128 * dim);
            // element (d, row, panel, head, batch) of the map is where the layout has it
            let at = [5, len.saturating_sub(1), dim / 64 - 1, heads - 1, 2];
            let byte: u64 =
                2 * at[0] as u64 + at[1..].iter().zip(&map.strides).map(|(&i, &s)| i as u64 * s).sum::<u64>();
            let row = at[4] * len.max(1) + at[1];
            assert_eq!(byte as usize, 2 * ((row * heads + at[3]) * dim + at[2] * 64 + at[0]));
        }
    }

    /// The order of the pieces changes no bit, and none is left out or done twice over what another block wrote.
    #[test]
    fn sections_of_heads_give_what_one_line_gives() {
        let Ok(nvrtc) = crate::Nvrtc::open() else { return };
        let gpu = Gpu::emulated(Arch::Sm90a, nvrtc);
        let shape = ForwardShape {
            batch: 2,
            q_len: 140,
            kv_len: 140,
            heads: 3,
            kv_heads: 1,
            dim: 64,
            causal: true,
            window: None,
            number: Number::Bf16,
        };
        let bits = |n: usize, step: usize| (0..n).map(|i| 0x3e00 | (i * step % 509) as u16).collect::<Vec<u16>>();
        let [q, k, v] = [(shape.q_values(), 7), (shape.kv_values(), 11), (shape.kv_values(), 13)]
            .map(|(n, step)| gpu.upload(&bits(n, step)).expect("room"));
        let scratch = gpu.alloc(0).expect("room");
        let run = |name: &str, section: usize| {
            let out = gpu.upload(&vec![0x7fffu16; shape.q_values()]).expect("room");
            let tensors = ForwardTensors { q: &q, k: &k, v: &v, out: &out, lse: None, scratch: &scratch };
            let step = LADDER.iter().find(|step| step.rung.name == name).expect("a rung");
            mapped(&gpu, step, &shape, &tensors, section).expect("a launch");
            out.read().expect("results")
        };
        let plain = run("a10_persistent", usize::MAX);
        for section in [1, 2, 4, 5] {
            assert!(run("a11_hidden_ends", section) == plain, "sections of {section}");
        }
    }

    /// Sections are whole groups, and their keys and values fit.
    #[test]
    fn sections_fit_the_cache() {
        let shape = |kv_len: usize, heads: usize, kv_heads: usize| ForwardShape {
            batch: 4,
            q_len: kv_len,
            kv_len,
            heads,
            kv_heads,
            dim: 128,
            causal: true,
            window: None,
            number: Number::Bf16,
        };
        assert_eq!(section(&shape(8192, 32, 8)), 8 * 4);
        assert_eq!(section(&shape(16384, 32, 32)), 4);
        assert_eq!(section(&shape(1 << 20, 8, 1)), 8);
        assert!(section(&shape(0, 8, 1)) >= 32);
    }
}
