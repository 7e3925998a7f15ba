//! Where a part computes. Backend is a column, not a type parameter: each axis's `build` takes a `Device`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cpu_kernels::Cpu;
use cuda_kernels::linear::{DeviceLinear, Workspace};
use cuda_kernels::{Buffer, Gpu, GpuError, Recording};

/// A place to compute, shared by every part of an engine.
#[derive(Clone)]
#[non_exhaustive]
pub enum Device {
    /// This processor: an instruction set and a thread pool.
    Cpu(Arc<Cpu>),
    /// A GPU, or the emulator that stands in for one.
    Cuda(Arc<Cuda>),
}

impl Device {
    /// The processor: the device itself, or the one that prepares a GPU's parts.
    pub fn cpu(&self) -> &Arc<Cpu> {
        match self {
            Device::Cpu(cpu) => cpu,
            Device::Cuda(cuda) => &cuda.host,
        }
    }

    /// The device that calibrates, chooses codes and reads results.
    pub fn host(&self) -> Device {
        Device::Cpu(self.cpu().clone())
    }

    /// The GPU, where it is one.
    pub fn cuda(&self) -> Option<&Arc<Cuda>> {
        match self {
            Device::Cpu(_) => None,
            Device::Cuda(cuda) => Some(cuda),
        }
    }

    /// Name in frames, e.g. `cpu-avx2`, `cuda-NVIDIA H200`, `cuda-emulated-sm_90a`.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => format!("cpu-{}", cpu.isa().name()),
            Device::Cuda(cuda) if cuda.gpu.is_emulated() => format!("cuda-emulated-{}", cuda.gpu.arch()),
            Device::Cuda(cuda) => format!("cuda-{}", cuda.gpu.name()),
        }
    }
}

/// A GPU as the parts of an engine share it.
///
/// As on the device itself, an error is noticed where results are read: work behind a failure is skipped, and
/// [`Cuda::check`] says what it was. So the seams between parts need no error of their own.
pub struct Cuda {
    gpu: Gpu,
    host: Arc<Cpu>,
    failure: Mutex<Option<GpuError>>,
    recording: AtomicBool,
    /// Buffers that were allocated anew, so far.
    moves: AtomicU64,
    workspace: Mutex<Option<Workspace>>,
}

impl Cuda {
    /// `gpu`, with `host` to prepare what it computes with.
    pub fn new(gpu: Gpu, host: Arc<Cpu>) -> Cuda {
        Cuda {
            gpu,
            host,
            failure: Mutex::default(),
            recording: AtomicBool::new(false),
            moves: AtomicU64::new(0),
            workspace: Mutex::default(),
        }
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn failure(&self) -> MutexGuard<'_, Option<GpuError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work`, unless work before it has failed; an error is kept for [`Cuda::check`].
    pub fn run(&self, work: impl FnOnce() -> Result<(), GpuError>) {
        if self.failure().is_none()
            && let Err(e) = work()
        {
            *self.failure() = Some(e);
        }
    }

    /// The first failure since the last check, if there was one.
    pub fn check(&self) -> Result<(), GpuError> {
        self.failure().take().map_or(Ok(()), Err)
    }

    /// Room for `len` values in `place`: what is there, where it is enough.
    pub fn room<'a, T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(
        &self,
        place: &'a mut Option<Buffer<T>>,
        len: usize,
    ) -> Result<&'a Buffer<T>, GpuError> {
        if place.as_ref().is_none_or(|buffer| buffer.len() < len) {
            *place = Some(self.alloc(len)?);
        }
        place.as_ref().ok_or_else(|| GpuError::shape("room", "nothing was allocated"))
    }

    /// `len` values, not initialised. What was recorded before must not be replayed: something it names may be gone.
    pub fn alloc<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        self.moved()?;
        self.gpu.alloc(len)
    }

    /// Says that memory is about to be allocated anew, which cannot be recorded.
    pub fn moved(&self) -> Result<(), GpuError> {
        if self.recording.load(Ordering::Relaxed) {
            return Err(GpuError::shape("graph", "a buffer has to grow, which cannot be recorded"));
        }
        self.moves.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// `y [rows, n]` = `x [rows, k]` · Wᵀ, with the memory that all products of the device share.
    pub fn product(
        &self,
        weights: &dyn DeviceLinear,
        x: &Buffer<f32>,
        rows: usize,
        y: &Buffer<f32>,
    ) -> Result<(), GpuError> {
        let mut shared = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace = match &mut *shared {
            Some(workspace) => workspace,
            none => none.insert(Workspace::new(&self.gpu)?),
        };
        let before = workspace.bytes();
        weights.reserve(rows, workspace)?;
        if workspace.bytes() != before {
            self.moves.fetch_add(1, Ordering::Relaxed);
            self.moved()?;
        }
        weights.forward(x, rows, y, workspace)
    }

    /// How often a buffer was allocated: recordings from before the last time are stale.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// The launches of `work` as one; `None` where they cannot be recorded now and must be made one by one.
    pub fn record(&self, work: impl FnOnce()) -> Option<Recording> {
        if self.failure().is_some() {
            return None;
        }
        self.recording.store(true, Ordering::Relaxed);
        let recorded = self.gpu.record(|| {
            work();
            self.check()
        });
        self.recording.store(false, Ordering::Relaxed);
        recorded.ok()
    }
}
