//! The ladder of int8 products: inputs coded per row, exact sums.

use std::sync::{Mutex, PoisonError};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::linear::tiles::quantise_rows;
use crate::linear::{DeviceLinear, Int8Weights, Workspace};
use crate::sampled::{Sampled, normals};
use crate::{
    Arch, Arg, Bench, Buffer, Deviation, Gpu, GpuError, KernelSpec, LaunchShape, Rung, Source, TensorMap,
    TensorMapShape,
};

static DP4A: Source = Source { name: "quantized/int8_dp4a.cu", text: include_str!("int8_dp4a.cu") };
static WGMMA: Source = Source { name: "quantized/int8_wgmma.cu", text: include_str!("int8_wgmma.cu") };

/// Shared memory of `i3_wgmma`: four stages of 128 bytes of k, and what they may lack to a multiple of 1024.
const WGMMA_BYTES: usize = 4 * (128 + 256) * 128 + 1024;

const LADDER: [Rung; 4] = [
    Rung { name: "i0_dp4a", idea: "four products an instruction", needs: Arch::Sm80 },
    Rung { name: "i1_tile_gemv", idea: "int8 mma, weights streamed", needs: Arch::Sm80 },
    Rung { name: "i2_tile_gemm", idea: "tiles through shared memory", needs: Arch::Sm80 },
    Rung { name: "i3_wgmma", idea: "int8 wgmma, a producer and two consumers", needs: Arch::Sm90a },
];

pub(super) fn kernels() -> Vec<KernelSpec> {
    vec![KernelSpec::new(&DP4A, "int8_dp4a"), wgmma()]
}

fn wgmma() -> KernelSpec {
    KernelSpec::new(&WGMMA, "int8_wgmma").needs(Arch::Sm90a)
}

/// What `i3_wgmma` has besides: inputs coded row by row, and maps over pairs of codes.
struct Hopper {
    x_codes: Buffer<u32>,
    x_map: TensorMap,
    w_map: TensorMap,
}

impl Hopper {
    /// `Ok(Err)`: why this device cannot, or these sizes.
    fn new(gpu: &Gpu, codes: &Buffer<i8>, rows: usize, n: usize, k: usize) -> Result<Result<Hopper, String>, GpuError> {
        if gpu.arch() < Arch::Sm90a {
            return Ok(Err(format!("needs {}, this device is {}", Arch::Sm90a, gpu.arch())));
        }
        if !k.is_multiple_of(16) {
            return Ok(Err(format!("k = {k}, expected a multiple of 16 for copies of tiles")));
        }
        let map = |base, height: usize, box_rows| {
            let shape = TensorMapShape {
                base,
                dims: vec![k as u64 / 2, height as u64],
                strides: vec![k as u64],
                box_dims: vec![64, box_rows],
                swizzle_bytes: 128,
            };
            TensorMap::encode(gpu, &shape)
        };
        let x_codes = gpu.alloc(rows * k / 4)?;
        let (x_map, w_map) = (map(x_codes.address(), rows, 128)?, map(codes.address(), n, 256)?);
        Ok(Ok(Hopper { x_codes, x_map, w_map }))
    }
}

/// The problem and its inputs.
struct Int8 {
    gpu: Gpu,
    rows: usize,
    n: usize,
    k: usize,
    codes: Buffer<i8>,
    w_scales: Buffer<f32>,
    x: Buffer<f32>,
    y: Buffer<f32>,
    tiles: Int8Weights,
    hopper: Result<Hopper, String>,
    workspace: Mutex<Workspace>,
    oracle: Sampled,
}

/// Codes and scale of a row: absmax/127, rounded half to even.
fn coded(row: &[f32]) -> (Vec<i64>, f32) {
    let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if largest < 1e-36 {
        return (vec![0; row.len()], 0.0);
    }
    let inverse = 127.0 / largest;
    (row.iter().map(|v| (v * inverse).round_ties_even() as i64).collect(), largest / 127.0)
}

pub(super) fn bench(gpu: &Gpu, rows: usize, n: usize, k: usize, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    if !k.is_multiple_of(4) {
        return Err(GpuError::shape("int8", format!("k = {k}, expected a multiple of 4")));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let codes: Vec<i8> = (0..n * k).map(|_| random.random_range(-127..=127)).collect();
    let w_scales: Vec<f32> = (0..n).map(|_| random.random_range(0.001..0.01)).collect();
    let x = normals(rows * k, seed + 1);
    let coded: Vec<(Vec<i64>, f32)> = x.chunks(k).map(coded).collect();
    let oracle = Sampled::new(rows, n, seed, |row, output| {
        let (x, scale) = &coded[row];
        let sum: i64 = x.iter().zip(&codes[output * k..]).map(|(&a, &b)| a * i64::from(b)).sum();
        // the two roundings that the format defines
        (f64::from(sum as f32 * scale * w_scales[output]), 0.0)
    });
    let tiles = Int8Weights::upload(gpu, &codes, &w_scales, n, k)?;
    let mut workspace = Workspace::new(gpu)?;
    tiles.reserve(rows, &mut workspace)?;
    let codes = gpu.upload(&codes)?;
    let hopper = Hopper::new(gpu, &codes, rows, n, k)?;
    Ok(Box::new(Int8 {
        gpu: gpu.clone(),
        rows,
        n,
        k,
        codes,
        w_scales: gpu.upload(&w_scales)?,
        x: gpu.upload(&x)?,
        y: gpu.alloc(rows * n)?,
        tiles,
        hopper,
        workspace: Mutex::new(workspace),
        oracle,
    }))
}

impl Int8 {
    fn wgmma(&self, workspace: &Workspace) -> Result<(), GpuError> {
        let hopper = self.hopper.as_ref().map_err(|reason| GpuError::shape("int8", reason.clone()))?;
        let [rows, n, k, units] = [self.rows, self.n, self.k, self.k.div_ceil(64)].map(|v| Arg::I32(v as i32));
        let x_scales = workspace.per_row.arg();
        let args = [self.x.arg(), hopper.x_codes.arg(), x_scales, rows, k, units];
        // SAFETY: x holds rows × k values, `x_codes` as many bytes, the workspace a scale per row.
        unsafe { self.gpu.launch(&quantise_rows(true), LaunchShape::line(self.rows, 1024), &args) }?;
        let maps = [Arg::TensorMap(&hopper.x_map), Arg::TensorMap(&hopper.w_map)];
        let args = [maps[0], maps[1], x_scales, self.w_scales.arg(), self.y.arg(), rows, n, k];
        let tiles = self.rows.div_ceil(128) * self.n.div_ceil(256);
        let shape = LaunchShape::line(tiles.min(self.gpu.multiprocessors()), 384).with_shared(WGMMA_BYTES);
        // SAFETY: the maps are of the codes as they were allocated; scales are of rows and outputs, y holds rows × n values.
        unsafe { self.gpu.launch(&wgmma(), shape, &args) }
    }
}

impl Bench for Int8 {
    fn label(&self) -> String {
        format!("int8 rows{} {}x{}", self.rows, self.n, self.k)
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        let hopper = self.hopper.as_ref().map(|_| ()).map_err(Clone::clone);
        let runs = |rung: &Rung| if rung.needs == Arch::Sm90a { hopper.clone() } else { Ok(()) };
        LADDER.iter().map(|rung| (*rung, runs(rung))).collect()
    }

    fn flops(&self) -> u64 {
        2 * (self.rows * self.n * self.k) as u64
    }

    fn bytes(&self) -> u64 {
        (self.tiles.bytes() + 4 * self.rows * (self.n + self.k)) as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner).poison()?;
        if let Ok(hopper) = &self.hopper {
            hopper.x_codes.write(0, &vec![u32::MAX; hopper.x_codes.len()])?;
        }
        self.y.write(0, &vec![f32::NAN; self.y.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let route = match name {
            "i0_dp4a" => {
                self.tiles.0.prepare(&self.x, self.rows, &workspace)?;
                let [rows, n, k, units] = [self.rows, self.n, self.k, self.k.div_ceil(64)].map(|v| Arg::I32(v as i32));
                let (x, x_scales) = (workspace.inputs.arg(), workspace.per_row.arg());
                let args = [self.codes.arg(), x, x_scales, self.w_scales.arg(), self.y.arg(), rows, n, k, units];
                let shape = LaunchShape::grid(self.n.div_ceil(8), self.rows, 1, 256);
                // SAFETY: codes are of n × k weights, the workspace holds coded inputs and their scales, y rows × n values.
                return unsafe { self.gpu.launch(&KernelSpec::new(&DP4A, "int8_dp4a"), shape, &args) };
            }
            "i3_wgmma" => return self.wgmma(&workspace),
            "i1_tile_gemv" => self.tiles.0.streamed(self.rows),
            "i2_tile_gemm" => self.tiles.0.tiled(self.rows),
            _ => return Err(GpuError::shape("int8", format!("no rung {name}"))),
        };
        self.tiles.0.forward(&self.x, self.rows, &self.y, &mut workspace, route)
    }

    fn deviation(&self, _name: &str) -> Result<Deviation, GpuError> {
        self.oracle.deviation(&self.y, |v| v, 0.0, 0.0)
    }
}
