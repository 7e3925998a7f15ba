//! The ladder of products with few rows.

use std::sync::{Mutex, PoisonError};

use crate::linear::{Bf16Weights, DeviceLinear, F16Weights, WARP_ROWS, Workspace};
use crate::number::Number;
use crate::sampled::{Sampled, dot, normals};
use crate::{Arch, Arg, Bench, Buffer, Deviation, Gpu, GpuError, KernelSpec, LaunchShape, Rung, Source};

static THREAD: Source = Source { name: "gemv/thread_per_output.cu", text: include_str!("thread_per_output.cu") };
const WARPS: usize = 8;

const LADDER: [Rung; 4] = [
    Rung { name: "v0_thread_per_output", idea: "a loop per element", needs: Arch::Sm80 },
    Rung { name: "v1_warp_per_output", idea: "coalesced 16-byte loads", needs: Arch::Sm80 },
    Rung { name: "v2_outputs_per_warp", idea: "several outputs and rows a warp", needs: Arch::Sm80 },
    Rung { name: "v3_tensor_cores", idea: "tiles in operand order, mma", needs: Arch::Sm80 },
];

/// Rows and outputs of a warp of `v2_outputs_per_warp`.
fn tile(rows: usize) -> (usize, usize) {
    if rows == 1 { (1, 4) } else { (4, 4) }
}

fn thread(number: Number) -> KernelSpec {
    KernelSpec::new(&THREAD, "gemv_thread_per_output").define("NUMBER", number.device_type())
}

fn warp(number: Number, (rows, outputs): (usize, usize), vector: usize) -> KernelSpec {
    let kernel = KernelSpec::new(&WARP_ROWS, "warp_rows").define("NUMBER", number.device_type());
    kernel.define("ROWS", rows).define("OUTPUTS", outputs).define("VECTOR", vector)
}

/// Every kernel of this folder in every form that is launched.
pub fn kernels() -> Vec<KernelSpec> {
    let forms = [(1, 1), tile(1), tile(2)];
    let of = |number: Number| {
        let warps = forms.map(|form| warp(number, form, 16 / number.bytes()));
        std::iter::once(thread(number)).chain(warps)
    };
    [Number::F32, Number::F16, Number::Bf16].into_iter().flat_map(of).collect()
}

/// The problem and its inputs.
struct Gemv {
    gpu: Gpu,
    number: Number,
    rows: usize,
    n: usize,
    k: usize,
    w: Buffer<u32>,
    x: Buffer<f32>,
    y: Buffer<f32>,
    tiles: Option<Box<dyn DeviceLinear>>,
    workspace: Mutex<Workspace>,
    oracle: Sampled,
}

/// y `[rows, n]` = x `[rows, k]` · W `[n, k]`ᵀ with normal numbers; k must be a multiple of 8.
pub fn bench(
    gpu: &Gpu,
    number: Number,
    rows: usize,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<Box<dyn Bench>, GpuError> {
    if !k.is_multiple_of(8) || k == 0 || rows == 0 || n == 0 {
        return Err(GpuError::shape(
            "gemv",
            format!("{rows} rows of {k} → {n}: k must be a multiple of 8, none may be 0"),
        ));
    }
    let round = |values: Vec<f32>| values.into_iter().map(|v| number.round(v)).collect::<Vec<f32>>();
    let (w, x) = (round(normals(n * k, seed)), round(normals(rows * k, seed + 1)));
    let bits = || w.iter().map(|&v| number.bits(v) as u16).collect::<Vec<u16>>();
    let tiles: Option<Box<dyn DeviceLinear>> = match number {
        Number::F32 => None,
        Number::F16 => Some(Box::new(F16Weights::upload(gpu, &bits(), n, k)?)),
        Number::Bf16 => Some(Box::new(Bf16Weights::upload(gpu, &bits(), n, k)?)),
    };
    let mut workspace = Workspace::new(gpu)?;
    if let Some(tiles) = &tiles {
        tiles.reserve(rows, &mut workspace)?;
    }
    let oracle = Sampled::new(rows, n, seed, |row, output| {
        dot((0..k).map(|i| (f64::from(x[row * k + i]), f64::from(w[output * k + i]))))
    });
    let (w, x, y) = (gpu.upload(&number.pack(&w))?, gpu.upload(&x)?, gpu.alloc(rows * n)?);
    let workspace = Mutex::new(workspace);
    Ok(Box::new(Gemv { gpu: gpu.clone(), number, rows, n, k, w, x, y, tiles, workspace, oracle }))
}

impl Bench for Gemv {
    fn label(&self) -> String {
        format!("gemv rows{} {}x{} {}", self.rows, self.n, self.k, self.number.name())
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        let runs = |rung: &Rung| match (&self.tiles, rung.name) {
            (None, "v3_tensor_cores") => Err("tensor cores take 16-bit numbers".to_string()),
            _ => Ok(()),
        };
        LADDER.iter().map(|rung| (*rung, runs(rung))).collect()
    }

    fn flops(&self) -> u64 {
        2 * (self.rows * self.n * self.k) as u64
    }

    fn bytes(&self) -> u64 {
        (self.n * self.k * self.number.bytes() + 4 * self.rows * (self.n + self.k)) as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner).poison()?;
        self.y.write(0, &vec![f32::NAN; self.y.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        let (rows, n, k) = (Arg::I32(self.rows as i32), Arg::I32(self.n as i32), Arg::I32(self.k as i32));
        let args = [self.w.arg(), self.x.arg(), self.y.arg(), rows, n, k];
        let vector = 16 / self.number.bytes();
        let (kernel, shape) = match (name, &self.tiles) {
            ("v0_thread_per_output", _) => {
                (thread(self.number), LaunchShape::grid(self.n.div_ceil(256), self.rows, 1, 256))
            }
            ("v1_warp_per_output", _) => {
                (warp(self.number, (1, 1), vector), LaunchShape::grid(self.n.div_ceil(WARPS), self.rows, 1, 32 * WARPS))
            }
            ("v2_outputs_per_warp", _) => {
                let (r, outputs) = tile(self.rows);
                let shape = LaunchShape::grid(self.n.div_ceil(WARPS * outputs), self.rows.div_ceil(r), 1, 32 * WARPS);
                (warp(self.number, (r, outputs), vector), shape)
            }
            ("v3_tensor_cores", Some(tiles)) => {
                let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
                return tiles.forward(&self.x, self.rows, &self.y, &mut workspace);
            }
            _ => return Err(GpuError::shape("gemv", format!("no rung {name} for {}", self.number.name()))),
        };
        // SAFETY: W holds n × k numbers, x rows × k, y rows × n; k is a multiple of the vector.
        unsafe { self.gpu.launch(&kernel, shape, &args) }
    }

    fn deviation(&self, _name: &str) -> Result<Deviation, GpuError> {
        self.oracle.deviation(&self.y, |v| v, SUMS, 0.0)
    }
}

/// Relative error of sums in f32, by Σ|a·b|: tensor cores truncate, so the error grows with the steps of k.
const SUMS: f64 = 4e-6;
