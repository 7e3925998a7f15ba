//! The ladder of 4-bit products.

use std::sync::{Mutex, PoisonError};

use half::f16;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::linear::tiles::Route;
use crate::linear::{DeviceLinear, Group4Weights, GroupCodes, Workspace};
use crate::sampled::{Sampled, dot, normals};
use crate::{Arch, Arg, Bench, Buffer, Deviation, Gpu, GpuError, KernelSpec, LaunchShape, Rung, Source};

static THREAD: Source = Source { name: "quantized/int4_thread.cu", text: include_str!("int4_thread.cu") };
static WARP: Source = Source { name: "quantized/int4_warp.cu", text: include_str!("int4_warp.cu") };

const LADDER: [Rung; 5] = [
    Rung { name: "q0_thread_per_output", idea: "codes one by one", needs: Arch::Sm80 },
    Rung { name: "q1_warp_per_output", idea: "coalesced 16-byte loads", needs: Arch::Sm80 },
    Rung { name: "q2_tile_gemv", idea: "code - 8 in f16 as an operand of mma", needs: Arch::Sm80 },
    Rung { name: "q3_tile_gemm", idea: "tiles through shared memory", needs: Arch::Sm80 },
    Rung { name: "q4_split_gemm", idea: "a block per slice of k", needs: Arch::Sm80 },
];
/// Relative error of sums in f32, by Σ|x·w|.
const SUMS: f64 = 4e-6;

pub(super) fn kernels() -> Vec<KernelSpec> {
    vec![KernelSpec::new(&THREAD, "int4_thread"), KernelSpec::new(&WARP, "int4_warp")]
}

/// The problem and its inputs.
struct Int4 {
    gpu: Gpu,
    group: usize,
    rows: usize,
    n: usize,
    k: usize,
    codes: Buffer<u32>,
    scales: Buffer<u16>,
    x: Buffer<f32>,
    y: Buffer<f32>,
    tiles: Group4Weights,
    workspace: Mutex<Workspace>,
    oracle: Sampled,
}

pub(super) fn bench(
    gpu: &Gpu,
    group: usize,
    rows: usize,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<Box<dyn Bench>, GpuError> {
    if !matches!(group, 32 | 64 | 128) || !k.is_multiple_of(group) {
        let reason = format!("groups of {group} in {k} columns: expected 32, 64 or 128, and k a multiple of it");
        return Err(GpuError::shape("int4", reason));
    }
    let groups = k / group;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let codes: Vec<u8> = (0..n * k).map(|_| random.random_range(0..16)).collect();
    // the symmetric grid that published kernels are timed with
    let zeros = vec![8.0f32; n * groups];
    let half = |v: f32| f16::from_f32(v).to_f32();
    let scales: Vec<f32> = (0..n * groups).map(|_| half(random.random_range(0.05..0.15))).collect();
    let x: Vec<f32> = normals(rows * k, seed + 1).into_iter().map(half).collect();
    let oracle = Sampled::new(rows, n, seed, |row, output| {
        dot((0..k).map(|i| {
            let at = output * groups + i / group;
            let w = f64::from(scales[at]) * (f64::from(codes[output * k + i]) - 8.0);
            (f64::from(x[row * k + i]), w)
        }))
    });
    let source = GroupCodes { n, k, group, codes: &codes, scales: &scales, zeros: &zeros, order: None };
    let tiles = Group4Weights::upload(gpu, &source)?;
    let mut workspace = Workspace::new(gpu)?;
    [false, true]
        .into_iter()
        .try_for_each(|split| workspace.fit(tiles.0.needs(rows, Route::Gemm { row_blocks: 8, split })))?;
    let words: Vec<u32> =
        codes.chunks(8).map(|c| c.iter().rev().fold(0, |word, &code| word << 4 | u32::from(code))).collect();
    let halves = |v: &[f32]| v.iter().map(|&v| f16::from_f32(v).to_bits()).collect::<Vec<u16>>();
    Ok(Box::new(Int4 {
        gpu: gpu.clone(),
        group,
        rows,
        n,
        k,
        codes: gpu.upload(&words)?,
        scales: gpu.upload(&halves(&scales))?,
        x: gpu.upload(&x)?,
        y: gpu.alloc(rows * n)?,
        tiles,
        workspace: Mutex::new(workspace),
        oracle,
    }))
}

impl Bench for Int4 {
    fn label(&self) -> String {
        format!("int4 g{} rows{} {}x{}", self.group, self.rows, self.n, self.k)
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        LADDER.iter().map(|rung| (*rung, Ok(()))).collect()
    }

    fn flops(&self) -> u64 {
        2 * (self.rows * self.n * self.k) as u64
    }

    fn bytes(&self) -> u64 {
        (self.tiles.bytes() + 4 * self.rows * (self.n + self.k)) as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner).poison()?;
        self.y.write(0, &vec![f32::NAN; self.y.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        let route = match name {
            "q0_thread_per_output" | "q1_warp_per_output" => {
                let [rows, n, k, group] = [self.rows, self.n, self.k, self.group].map(|v| Arg::I32(v as i32));
                let args = [self.codes.arg(), self.scales.arg(), self.x.arg(), self.y.arg(), rows, n, k, group];
                let [thread, warp] = [KernelSpec::new(&THREAD, "int4_thread"), KernelSpec::new(&WARP, "int4_warp")];
                let (kernel, outputs) = if name == "q0_thread_per_output" { (thread, 256) } else { (warp, 8) };
                let shape = LaunchShape::grid(self.n.div_ceil(outputs), self.rows, 1, 256);
                // SAFETY: codes and scales are of n × k weights, x holds rows × k values, y rows × n; k is whole groups.
                return unsafe { self.gpu.launch(&kernel, shape, &args) };
            }
            "q2_tile_gemv" => self.tiles.0.streamed(self.rows),
            "q3_tile_gemm" => self.tiles.0.tiled(self.rows),
            "q4_split_gemm" => Route::Gemm { row_blocks: 8, split: true },
            _ => return Err(GpuError::shape("int4", format!("no rung {name}"))),
        };
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        self.tiles.0.forward(&self.x, self.rows, &self.y, &mut workspace, route)
    }

    fn deviation(&self, _name: &str) -> Result<Deviation, GpuError> {
        self.oracle.deviation(&self.y, |v| v, SUMS, 0.0)
    }
}
