//! The ladder of matrix products.

use super::vendor::CublasLt;
use crate::number::Number;
use crate::sampled::{Sampled, dot, normals};
use crate::{
    Arch, Arg, Bench, Buffer, Deviation, Gpu, GpuError, KernelSpec, LaunchShape, Rung, Source, TensorMap,
    TensorMapShape,
};

static NAIVE: Source = Source { name: "gemm/naive.cu", text: include_str!("naive.cu") };
static COALESCED: Source = Source { name: "gemm/coalesced.cu", text: include_str!("coalesced.cu") };
static REGISTER_TILE: Source = Source { name: "gemm/register_tile.cu", text: include_str!("register_tile.cu") };
static MMA: Source = Source { name: "gemm/mma.cu", text: include_str!("mma.cu") };
static WGMMA: Source = Source { name: "gemm/wgmma.cu", text: include_str!("wgmma.cu") };
static SPECIALISED: Source = Source { name: "gemm/specialised.cu", text: include_str!("specialised.cu") };

/// Stages of `g3_mma` and `g4_wgmma`, and the bytes of one.
const STAGES: usize = 4;
const MMA_STAGE: usize = 2 * 128 * 64;
const WGMMA_STAGE: usize = 2 * 128 * 128;
const SPECIALISED_STAGE: usize = (128 + 256) * 128;
/// Shared memory through which `g6_persistent` stores: two panels of 64 columns for each consumer.
const PANELS: usize = 2 * 2 * 64 * 128;
/// Blocks of `g7_multicast` that share tiles of B.
const CLUSTER: usize = 2;
/// What dynamic shared memory may lack to its first multiple of 1024.
const ALIGNMENT: usize = 1024;

const LADDER: [Rung; 8] = [
    Rung { name: "g0_naive", idea: "a thread per element", needs: Arch::Sm80 },
    Rung { name: "g1_coalesced", idea: "tiles read in rows, shared by a block", needs: Arch::Sm80 },
    Rung { name: "g2_register_tile", idea: "8 x 8 elements a thread, 16 bytes a load", needs: Arch::Sm80 },
    Rung { name: "g3_mma", idea: "mma.sync, ldmatrix, swizzle, cp.async", needs: Arch::Sm80 },
    Rung { name: "g4_wgmma", idea: "wgmma on tiles brought by TMA", needs: Arch::Sm90a },
    Rung { name: "g5_specialised", idea: "a producer and two consumers", needs: Arch::Sm90a },
    Rung { name: "g6_persistent", idea: "blocks stay; tiles ordered for L2", needs: Arch::Sm90a },
    Rung { name: "g7_multicast", idea: "two blocks share what one of them fetches", needs: Arch::Sm90a },
];
const VENDOR: Rung = Rung { name: "cublaslt", idea: "NVIDIA's library", needs: Arch::Sm80 };

/// The kernel of a rung.
fn kernel(rung: &str, number: Number) -> Option<KernelSpec> {
    let stored = |source, entry| KernelSpec::new(source, entry).define("NUMBER", number.device_type());
    let operand = |source, entry| {
        let name = match number {
            Number::F32 => return None,
            Number::F16 => "Half",
            Number::Bf16 => "Bf16",
        };
        Some(KernelSpec::new(source, entry).define("NUMBER", name))
    };
    let specialised = |persistent: u32, cluster: usize| {
        let kernel = operand(&SPECIALISED, "gemm_specialised")?.define("PERSISTENT", persistent);
        Some(kernel.define("CLUSTER", cluster).needs(Arch::Sm90a))
    };
    match rung {
        "g0_naive" => Some(stored(&NAIVE, "gemm_naive")),
        "g1_coalesced" => Some(stored(&COALESCED, "gemm_coalesced")),
        "g2_register_tile" => Some(stored(&REGISTER_TILE, "gemm_register_tile")),
        "g3_mma" => operand(&MMA, "gemm_mma").map(|k| k.define("STAGES", STAGES)),
        "g4_wgmma" => operand(&WGMMA, "gemm_wgmma").map(|k| k.define("STAGES", STAGES).needs(Arch::Sm90a)),
        "g5_specialised" => specialised(0, 1),
        "g6_persistent" => specialised(1, 1),
        "g7_multicast" => specialised(1, CLUSTER),
        _ => None,
    }
}

/// Every kernel of this folder in every form that is launched.
pub fn kernels() -> Vec<KernelSpec> {
    let of = |number| LADDER.iter().filter_map(move |rung| kernel(rung.name, number));
    [Number::F32, Number::F16, Number::Bf16].into_iter().flat_map(of).collect()
}

/// Tensor maps: rows of A, rows of B for tiles of 128 and of 256 columns, panels of C where its rows can be copied (n a multiple of 8).
struct Maps {
    a: TensorMap,
    b_128: TensorMap,
    b_256: TensorMap,
    c: Option<TensorMap>,
}

impl Maps {
    fn encode(gpu: &Gpu, [a, b, c]: [u64; 3], [m, n, k]: [usize; 3]) -> Result<Maps, GpuError> {
        let map = |base, rows: usize, columns: usize, box_rows| {
            let shape = TensorMapShape {
                base,
                dims: vec![columns as u64, rows as u64],
                strides: vec![2 * columns as u64],
                box_dims: vec![64, box_rows],
                swizzle_bytes: 128,
            };
            TensorMap::encode(gpu, &shape)
        };
        let c = if n.is_multiple_of(8) { Some(map(c, m, n, 64)?) } else { None };
        Ok(Maps { a: map(a, m, k, 128)?, b_128: map(b, n, k, 128)?, b_256: map(b, n, k, 256)?, c })
    }
}

/// The problem and its inputs.
struct Gemm {
    gpu: Gpu,
    number: Number,
    sizes: [usize; 3],
    a: Buffer<u32>,
    b: Buffer<u32>,
    c: Buffer<u16>,
    maps: Option<Maps>,
    vendor: Result<CublasLt, String>,
    oracle: Sampled,
}

/// C `[m, n]` = A `[m, k]` · B `[n, k]`ᵀ with normal numbers; k must be a multiple of 8.
pub fn bench(gpu: &Gpu, m: usize, n: usize, k: usize, number: Number, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    if !k.is_multiple_of(8) || k == 0 || m == 0 || n == 0 {
        let reason = format!("{m} x {n} x {k}: k must be a multiple of 8, none may be 0");
        return Err(GpuError::shape("gemm", reason));
    }
    let round = |values: Vec<f32>| values.into_iter().map(|v| number.round(v)).collect::<Vec<f32>>();
    let (a, b) = (round(normals(m * k, seed)), round(normals(n * k, seed + 1)));
    let oracle = Sampled::new(m, n, seed, |row, column| {
        dot((0..k).map(|i| (f64::from(a[row * k + i]), f64::from(b[column * k + i]))))
    });
    let (a, b) = (gpu.upload(&number.pack(&a))?, gpu.upload(&number.pack(&b))?);
    let c = gpu.alloc(m * n * number.bytes() / 2)?;
    let sizes = [m, n, k];
    let hopper = gpu.arch() >= Arch::Sm90a && number != Number::F32;
    let addresses = [a.address(), b.address(), c.address()];
    let maps = if hopper { Some(Maps::encode(gpu, addresses, sizes)?) } else { None };
    let vendor = CublasLt::open(gpu, number, sizes, addresses);
    Ok(Box::new(Gemm { gpu: gpu.clone(), number, sizes, a, b, c, maps, vendor, oracle }))
}

impl Gemm {
    /// Blocks, threads and shared memory of a rung's launch.
    fn shape(&self, rung: &str) -> LaunchShape {
        let [m, n, _] = self.sizes;
        let tiles =
            |rows: usize, columns: usize, threads| LaunchShape::grid(n.div_ceil(columns), m.div_ceil(rows), 1, threads);
        let specialised = |blocks, panels| {
            LaunchShape::line(blocks, 384).with_shared(STAGES * SPECIALISED_STAGE + panels + ALIGNMENT)
        };
        let tiles_of = |cluster: usize| m.div_ceil(128 * cluster) * n.div_ceil(256);
        let fit = self.gpu.multiprocessors();
        match rung {
            "g0_naive" => tiles(16, 16, 256),
            "g1_coalesced" => tiles(32, 32, 1024),
            "g2_register_tile" => tiles(128, 128, 256),
            "g3_mma" => tiles(128, 128, 256).with_shared(STAGES * MMA_STAGE),
            "g4_wgmma" => tiles(128, 128, 256).with_shared(STAGES * WGMMA_STAGE + ALIGNMENT),
            "g5_specialised" => specialised(tiles_of(1), 0),
            "g6_persistent" => specialised(tiles_of(1).min(fit), PANELS),
            _ => specialised(CLUSTER * tiles_of(CLUSTER).min((fit / CLUSTER).max(1)), PANELS),
        }
    }
}

impl Bench for Gemm {
    fn label(&self) -> String {
        let [m, n, k] = self.sizes;
        format!("gemm {m}x{n}x{k} {}", self.number.name())
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        let runs = |rung: &Rung| match kernel(rung.name, self.number) {
            None => Err("tensor cores take 16-bit numbers".to_string()),
            Some(kernel) if self.gpu.arch() < kernel.needs => {
                Err(format!("needs {}, this device is {}", kernel.needs, self.gpu.arch()))
            }
            Some(_) if matches!(rung.name, "g6_persistent" | "g7_multicast") && !self.sizes[1].is_multiple_of(8) => {
                Err(format!("n = {}, expected a multiple of 8 for copies of results", self.sizes[1]))
            }
            Some(_) => Ok(()),
        };
        let vendor = self.vendor.as_ref().map(|_| ()).map_err(Clone::clone);
        LADDER.iter().map(|rung| (*rung, runs(rung))).chain([(VENDOR, vendor)]).collect()
    }

    fn flops(&self) -> u64 {
        2 * self.sizes.iter().map(|&s| s as u64).product::<u64>()
    }

    fn bytes(&self) -> u64 {
        let [m, n, k] = self.sizes;
        (self.number.bytes() * (m * k + n * k + m * n)) as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        // all ones is no number in any of the formats
        self.c.write(0, &vec![u16::MAX; self.c.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        if let ("cublaslt", Ok(vendor)) = (name, &self.vendor) {
            return vendor.run();
        }
        let unknown = || GpuError::shape("gemm", format!("no rung {name} for {} on this device", self.number.name()));
        let kernel = kernel(name, self.number).ok_or_else(unknown)?;
        let [m, n, k] = self.sizes.map(|size| Arg::I32(size as i32));
        let c = self.c.arg();
        let by_maps = |operands: [Arg<'_>; 3]| -> Result<(), GpuError> {
            let args = [operands[0], operands[1], operands[2], m, n, k];
            // SAFETY: the maps are of A, B and C as they were allocated, with boxes of the kernel's tiles; C holds m × n numbers.
            unsafe { self.gpu.launch(&kernel, self.shape(name), &args) }
        };
        let map = Arg::TensorMap;
        match (name, &self.maps) {
            ("g4_wgmma", Some(maps)) => by_maps([map(&maps.a), map(&maps.b_128), c]),
            ("g5_specialised", Some(maps)) => by_maps([map(&maps.a), map(&maps.b_256), c]),
            ("g6_persistent", Some(Maps { a, b_256, c: Some(c), .. })) => by_maps([map(a), map(b_256), map(c)]),
            ("g7_multicast", Some(Maps { a, b_128, c: Some(c), .. })) => by_maps([map(a), map(b_128), map(c)]),
            ("g4_wgmma" | "g5_specialised" | "g6_persistent" | "g7_multicast", _) => Err(unknown()),
            _ => {
                let args = [self.a.arg(), self.b.arg(), c, m, n, k];
                // SAFETY: A holds m × k numbers, B n × k, C m × n; k is a multiple of 16 bytes of them.
                unsafe { self.gpu.launch(&kernel, self.shape(name), &args) }
            }
        }
    }

    fn deviation(&self, _name: &str) -> Result<Deviation, GpuError> {
        match self.number {
            Number::F32 => self.oracle.deviation_of_pairs(&self.c, SUMS),
            // half a unit in the last place of a result: 2⁻¹¹ and 2⁻⁸ of it
            Number::F16 => self.oracle.deviation(&self.c, |bits| Number::F16.value(bits.into()), SUMS, 4.9e-4),
            Number::Bf16 => self.oracle.deviation(&self.c, |bits| Number::Bf16.value(bits.into()), SUMS, 3.92e-3),
        }
    }
}

/// Relative error of sums in f32, by Σ|a·b|: tensor cores truncate, so the error grows with the steps of k.
const SUMS: f64 = 4e-6;
