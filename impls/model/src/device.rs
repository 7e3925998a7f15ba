//! Where a part computes. Backend is a column, not a type parameter: each axis's `build` takes a `Device`.

use std::sync::Arc;

use cpu_kernels::Cpu;

/// A place to compute, shared by every part of an engine.
#[derive(Clone)]
#[non_exhaustive]
pub enum Device {
    /// This processor: an instruction set and a thread pool.
    Cpu(Arc<Cpu>),
}

impl Device {
    /// The CPU handle.
    pub fn cpu(&self) -> &Arc<Cpu> {
        match self {
            Device::Cpu(cpu) => cpu,
        }
    }

    /// Name in frames, e.g. `cpu-avx2`.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => format!("cpu-{}", cpu.isa().name()),
        }
    }
}
