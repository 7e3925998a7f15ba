//! Measured roofs: how fast memory is copied, and how fast it is only read.
//!
//! | rung | idea |
//! |---|---|
//! | `copy` | every byte read and written |
//! | `read_only` | every byte read: what a product that streams weights is measured by |

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::{Arch, Arg, Bench, Buffer, Deviation, Gpu, GpuError, KernelSpec, LaunchShape, Rung, Source};

static COPY: Source = Source { name: "roofline/copy.cu", text: include_str!("copy.cu") };
const LADDER: [Rung; 2] = [
    Rung { name: "copy", idea: "every byte read and written", needs: Arch::Sm80 },
    Rung { name: "read_only", idea: "every byte read", needs: Arch::Sm80 },
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
    to: Buffer<u32>,
    sums: Buffer<u32>,
}

/// `bytes` bytes of random numbers, a multiple of 16.
pub fn copy_bench(gpu: &Gpu, bytes: usize, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    if !bytes.is_multiple_of(16) || bytes == 0 {
        return Err(GpuError::shape("copy", format!("{bytes} bytes, expected a multiple of 16 above 0")));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<u32> = (0..bytes / 4).map(|_| random.random()).collect();
    let (from, to) = (gpu.upload(&values)?, gpu.alloc(bytes / 4)?);
    let sums = gpu.alloc(gpu.multiprocessors() * BLOCKS * 256)?;
    Ok(Box::new(Copy { gpu: gpu.clone(), values, from, to, sums }))
}

impl Bench for Copy {
    fn label(&self) -> String {
        format!("memory {} bytes", 4 * self.values.len())
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        LADDER.iter().map(|rung| (*rung, Ok(()))).collect()
    }

    fn flops(&self) -> u64 {
        0
    }

    /// Bytes that `read_only` reads; `copy` moves twice as many.
    fn bytes(&self) -> u64 {
        4 * self.values.len() as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        self.to.write(0, &self.values.iter().map(|v| !v).collect::<Vec<u32>>())?;
        self.sums.write(0, &vec![u32::MAX; self.sums.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        let blocks = self.gpu.multiprocessors() * BLOCKS;
        let count = Arg::Pointer(self.values.len() as u64 / 4);
        let args = [self.from.arg(), self.to.arg(), self.sums.arg(), count];
        // SAFETY: both buffers hold `count` times 16 bytes, `sums` a value per thread.
        unsafe { self.gpu.launch(&kernel(name == "copy"), LaunchShape::line(blocks, 256), &args) }
    }

    fn deviation(&self, name: &str) -> Result<Deviation, GpuError> {
        let wrong = if name == "copy" {
            self.to.read()?.iter().zip(&self.values).filter(|(a, b)| a != b).count()
        } else {
            let all = |values: &[u32]| values.iter().fold(0, |sum, v| sum ^ v);
            usize::from(all(&self.sums.read()?) != all(&self.values))
        };
        Ok(Deviation { largest: wrong as f64, allowed: 0.0 })
    }
}
