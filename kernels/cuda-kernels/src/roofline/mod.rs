//! Measured roofs: how fast memory is copied, and how fast it is only read.
//!
//! | rung | idea |
//! |---|---|
//! | `copy` | every byte read and written |
//! | `read` | every byte read: what a product that streams weights is measured by |

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::{Arch, Arg, Bench, Buffer, Deviation, Gpu, GpuError, KernelSpec, LaunchShape, Rung, Source};

static COPY: Source = Source { name: "roofline/copy.cu", text: include_str!("copy.cu") };
const LADDER: [Rung; 2] = [
    Rung { name: "copy", idea: "every byte read and written", needs: Arch::Sm80 },
    Rung { name: "read", idea: "every byte read", needs: Arch::Sm80 },
];
/// Blocks a multiprocessor: 2048 threads.
const BLOCKS: usize = 8;

fn kernel(writes: bool) -> KernelSpec {
    KernelSpec::new(&COPY, "stream").define("WRITES", u32::from(writes))
}

/// Every kernel of this folder in every form that is launched.
pub fn kernels() -> Vec<KernelSpec> {
    [true, false].map(kernel).to_vec()
}

struct Copy {
    gpu: Gpu,
    values: Vec<u32>,
    from: Buffer<u32>,
    to: Option<Buffer<u32>>,
    sums: Buffer<u32>,
}

/// `bytes` bytes of random numbers, a multiple of 16, to be copied and to be read.
pub fn bench(gpu: &Gpu, bytes: usize, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    Ok(Box::new(Copy { to: Some(gpu.alloc(bytes / 4)?), ..Copy::new(gpu, bytes, seed)? }))
}

/// `bytes` bytes of random numbers, a multiple of 16, to be read alone: larger than the caches, it empties them of everything else.
pub fn read_bench(gpu: &Gpu, bytes: usize, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    Ok(Box::new(Copy::new(gpu, bytes, seed)?))
}

impl Copy {
    fn new(gpu: &Gpu, bytes: usize, seed: u64) -> Result<Copy, GpuError> {
        if !bytes.is_multiple_of(16) || bytes == 0 {
            return Err(GpuError::shape("memory", format!("{bytes} bytes, expected a multiple of 16 above 0")));
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<u32> = (0..bytes / 4).map(|_| random.random()).collect();
        let from = gpu.upload(&values)?;
        let sums = gpu.alloc(gpu.multiprocessors() * BLOCKS * 256)?;
        Ok(Copy { gpu: gpu.clone(), values, from, to: None, sums })
    }
}

impl Bench for Copy {
    fn label(&self) -> String {
        format!("memory {} bytes", 4 * self.values.len())
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        LADDER.iter().filter(|rung| rung.name != "copy" || self.to.is_some()).map(|rung| (*rung, Ok(()))).collect()
    }

    fn flops(&self) -> u64 {
        0
    }

    /// Bytes that `read` reads; `copy` moves twice as many.
    fn bytes(&self) -> u64 {
        4 * self.values.len() as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        if let Some(to) = &self.to {
            to.write(0, &self.values.iter().map(|v| !v).collect::<Vec<u32>>())?;
        }
        self.sums.write(0, &vec![u32::MAX; self.sums.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        let blocks = self.gpu.multiprocessors() * BLOCKS;
        let count = Arg::Pointer(self.values.len() as u64 / 4);
        let writes = name == "copy";
        let to = match (&self.to, writes) {
            (Some(to), _) => to.arg(),
            (None, false) => Arg::Pointer(0),
            (None, true) => return Err(GpuError::shape("memory", "nowhere to copy to")),
        };
        let args = [self.from.arg(), to, self.sums.arg(), count];
        // SAFETY: what is read and written holds `count` times 16 bytes, `sums` a value per thread.
        unsafe { self.gpu.launch(&kernel(writes), LaunchShape::line(blocks, 256), &args) }
    }

    fn deviation(&self, name: &str) -> Result<Deviation, GpuError> {
        let wrong = match (&self.to, name) {
            (Some(to), "copy") => to.read()?.iter().zip(&self.values).filter(|(a, b)| a != b).count(),
            _ => {
                let all = |values: &[u32]| values.iter().fold(0, |sum, v| sum ^ v);
                usize::from(all(&self.sums.read()?) != all(&self.values))
            }
        };
        Ok(Deviation { largest: wrong as f64, allowed: 0.0 })
    }
}
