//! A device that runs kernels: memory, launches, recordings. Two back ends behind one type.
//!
//! Everything runs in order, on one stream. A launch returns before its kernel has run; reading memory waits.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit};

use crate::driver::{self, Driver};
use crate::emulated::Emulated;
use crate::{Arch, GpuError, KernelSpec, Nvrtc, TensorMap};

/// A CUDA device, or the emulator that stands in for one. Clones share the device.
#[derive(Clone)]
pub struct Gpu(Arc<dyn Backend>);

/// Blocks, threads and dynamic shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Shared memory beyond what the text declares, bytes per block.
    pub shared_bytes: u32,
}

impl LaunchShape {
    /// `blocks` blocks of `threads` threads, without dynamic shared memory.
    pub fn line(blocks: usize, threads: usize) -> LaunchShape {
        LaunchShape { grid: [blocks as u32, 1, 1], block: [threads as u32, 1, 1], shared_bytes: 0 }
    }

    /// A grid of up to three dimensions.
    pub fn grid(x: usize, y: usize, z: usize, threads: usize) -> LaunchShape {
        LaunchShape { grid: [x as u32, y as u32, z as u32], block: [threads as u32, 1, 1], shared_bytes: 0 }
    }

    /// The same with dynamic shared memory.
    pub fn with_shared(self, bytes: usize) -> LaunchShape {
        LaunchShape { shared_bytes: bytes as u32, ..self }
    }
}

/// One argument of a kernel. Its width is the kernel's parameter's.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// An address of device memory; 0 is a null pointer.
    Pointer(u64),
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `float`.
    F32(f32),
    /// `const __grid_constant__ CUtensorMap`, by value.
    TensorMap(&'a TensorMap),
}

impl Arg<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Arg::Pointer(value) => value.to_le_bytes().to_vec(),
            Arg::I32(value) => value.to_le_bytes().to_vec(),
            Arg::U32(value) => value.to_le_bytes().to_vec(),
            Arg::F32(value) => value.to_le_bytes().to_vec(),
            Arg::TensorMap(map) => map.bytes().to_vec(),
        }
    }
}

/// What a back end does. Addresses are the device's.
pub(crate) trait Backend: Send + Sync {
    fn name(&self) -> String;
    fn arch(&self) -> Arch;
    fn multiprocessors(&self) -> usize;
    /// Bytes of the L2 cache; 0 where there is none.
    fn l2_bytes(&self) -> usize {
        0
    }
    fn memory(&self) -> Result<DeviceMemory, GpuError>;
    fn alloc(&self, bytes: usize) -> Result<u64, GpuError>;
    fn free(&self, address: u64);
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), GpuError>;
    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError>;
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), GpuError>;
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError>;
    fn launch(&self, kernel: &KernelSpec, shape: LaunchShape, args: &[Vec<u8>]) -> Result<(), GpuError>;
    fn synchronize(&self) -> Result<(), GpuError>;
    fn begin_recording(&self) -> Result<(), GpuError>;
    fn end_recording(&self) -> Result<Box<dyn Replay>, GpuError>;
    fn tensor_map(&self, map: &crate::TensorMapShape) -> Result<[u8; 128], GpuError>;
    fn mark(&self) -> Result<Box<dyn Mark>, GpuError>;
    fn counts(&self) -> Option<ptx_emulator::Counts>;
    /// How long a wait may last. An emulated device is done when a launch returns.
    fn set_wait_limit(&self, _limit: Duration) {}
    /// The stream's handle for other libraries of the device, which is made this thread's; `None` where there is no such thing.
    fn raw_stream(&self) -> Result<Option<u64>, GpuError> {
        Ok(None)
    }
}

/// Launches that were recorded.
pub(crate) trait Replay: Send + Sync {
    fn replay(&self) -> Result<(), GpuError>;
}

/// A point in the stream of work.
pub(crate) trait Mark: Send + Sync {
    /// Milliseconds of the device's clock from `self` to `later`; `None` where the device has no clock.
    fn milliseconds_until(&self, later: &dyn Mark) -> Result<Option<f32>, GpuError>;
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Memory of a device, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// What could be allocated now.
    pub free: usize,
    /// All of it.
    pub total: usize,
}

impl Gpu {
    /// The CUDA device `ordinal`, whose kernels `nvrtc` compiles.
    pub fn open(ordinal: usize, nvrtc: Nvrtc) -> Result<Gpu, GpuError> {
        Ok(Gpu(Arc::new(Driver::open(ordinal, nvrtc)?)))
    }

    /// Whether `open` would find device `ordinal` and have kernels for it. Takes nothing of the device: no context, no memory.
    pub fn probe(ordinal: usize) -> Result<(), GpuError> {
        driver::probe(ordinal).map(|_| ())
    }

    /// A device that executes PTX on the CPU, thread by thread, and stops at wild addresses, unwritten memory and divergent
    /// barriers: slow, and needing nothing but the compiler.
    pub fn emulated(arch: Arch, nvrtc: Nvrtc) -> Gpu {
        Gpu(Arc::new(Emulated::new(arch, nvrtc)))
    }

    /// The device's name; an emulated device says that it is.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Whether this is the emulator: no time that it takes says anything about a GPU.
    pub fn is_emulated(&self) -> bool {
        self.0.counts().is_some()
    }

    /// What its kernels are compiled for.
    pub fn arch(&self) -> Arch {
        self.0.arch()
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> usize {
        self.0.multiprocessors()
    }

    /// Its L2 cache, bytes; 0 on an emulated device, which has none.
    pub fn l2_bytes(&self) -> usize {
        self.0.l2_bytes()
    }

    /// Its memory.
    pub fn memory(&self) -> Result<DeviceMemory, GpuError> {
        self.0.memory()
    }

    /// What the emulator has counted since it was opened; `None` on a real device.
    pub fn counts(&self) -> Option<ptx_emulator::Counts> {
        self.0.counts()
    }

    /// `len` values, not initialised.
    pub fn alloc<T: NoUninit + AnyBitPattern>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        // an allocation of nothing would have no address
        let address = self.0.alloc((len * size_of::<T>()).max(1))?;
        Ok(Buffer { gpu: self.clone(), address, len, of: PhantomData })
    }

    /// `len` zeros.
    pub fn zeros<T: NoUninit + AnyBitPattern>(&self, len: usize) -> Result<Buffer<T>, GpuError> {
        let buffer = self.alloc(len)?;
        self.0.zero(buffer.address, len * size_of::<T>())?;
        Ok(buffer)
    }

    /// A copy of `values`.
    pub fn upload<T: NoUninit + AnyBitPattern>(&self, values: &[T]) -> Result<Buffer<T>, GpuError> {
        let buffer = self.alloc(values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Puts a launch behind what was asked before.
    ///
    /// # Safety
    /// `args` must be the kernel's parameters in order and width, every address must be of a live buffer as long as the
    /// kernel will read or write for these sizes, and `shape` must be one that the kernel was written for.
    pub unsafe fn launch(&self, kernel: &KernelSpec, shape: LaunchShape, args: &[Arg<'_>]) -> Result<(), GpuError> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        let bytes: Vec<Vec<u8>> = args.iter().map(Arg::bytes).collect();
        self.0.launch(kernel, shape, &bytes)
    }

    /// Waits until all work is done; errors of earlier launches appear here at the latest.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.0.synchronize()
    }

    /// How long waiting for the device may last, 60 s if nobody says otherwise: then the wait fails with the names of the kernels
    /// launched, and so does everything later, because nothing can end a kernel but the process's end.
    pub fn set_wait_limit(&self, limit: Duration) {
        self.0.set_wait_limit(limit);
    }

    /// Records the launches that `work` makes, instead of running them. `work` must neither allocate nor touch memory
    /// from the host, and the buffers it names must outlive the recording.
    pub fn record(&self, work: impl FnOnce() -> Result<(), GpuError>) -> Result<Recording, GpuError> {
        self.0.begin_recording()?;
        let mut open = OpenRecording { backend: self.backend(), ended: false };
        let outcome = work();
        open.ended = true;
        let recording = self.0.end_recording();
        outcome.and(recording).map(Recording)
    }

    /// A point in time behind the work asked so far.
    pub fn moment(&self) -> Result<Moment, GpuError> {
        self.0.mark().map(Moment)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.name())
    }
}

/// The stream leaves its recording state whatever happens, even if what is recorded panics.
struct OpenRecording<'a> {
    backend: &'a dyn Backend,
    ended: bool,
}

impl Drop for OpenRecording<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // nobody asked for what was recorded so far
            let _ = self.backend.end_recording();
        }
    }
}

/// Launches that can be run again as one: a CUDA graph.
pub struct Recording(Box<dyn Replay>);

impl Recording {
    /// Puts the recorded launches behind what was asked before.
    pub fn replay(&self) -> Result<(), GpuError> {
        self.0.replay()
    }
}

/// A point in the device's time.
pub struct Moment(Box<dyn Mark>);

impl Moment {
    /// Milliseconds of the device's clock until `later`, waiting for it; `None` on an emulated device.
    pub fn milliseconds_until(&self, later: &Moment) -> Result<Option<f32>, GpuError> {
        self.0.milliseconds_until(&*later.0)
    }
}

/// `len` values in device memory, freed when dropped.
pub struct Buffer<T> {
    gpu: Gpu,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T: NoUninit + AnyBitPattern> Buffer<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The address of the first value.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The first value as an argument.
    pub fn arg(&self) -> Arg<'static> {
        Arg::Pointer(self.address)
    }

    /// Value `at` as an argument.
    ///
    /// # Panics
    /// If `at > len`.
    pub fn arg_at(&self, at: usize) -> Arg<'static> {
        assert!(at <= self.len, "value {at} of {}", self.len);
        Arg::Pointer(self.address + (at * size_of::<T>()) as u64)
    }

    /// Overwrites the values from `at` on.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub fn write(&self, at: usize, values: &[T]) -> Result<(), GpuError> {
        assert!(at + values.len() <= self.len, "{} values at {at} of {}", values.len(), self.len);
        self.gpu.0.write(self.address + (at * size_of::<T>()) as u64, bytemuck::cast_slice(values))
    }

    /// Fills `values` from `at` on, waiting for the work before.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub fn read_into(&self, at: usize, values: &mut [T]) -> Result<(), GpuError> {
        assert!(at + values.len() <= self.len, "{} values at {at} of {}", values.len(), self.len);
        self.gpu.0.read(self.address + (at * size_of::<T>()) as u64, bytemuck::cast_slice_mut(values))
    }

    /// All values, waiting for the work before.
    pub fn read(&self) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::zeroed(); self.len];
        self.read_into(0, &mut values)?;
        Ok(values)
    }

    /// Copies `count` values of `from` behind the work before.
    ///
    /// # Panics
    /// If they reach beyond the end of either.
    pub fn copy_from(&self, at: usize, from: &Buffer<T>, from_at: usize, count: usize) -> Result<(), GpuError> {
        assert!(at + count <= self.len && from_at + count <= from.len, "{count} values from {from_at} to {at}");
        let size = size_of::<T>();
        self.gpu.0.copy(from.address + (from_at * size) as u64, self.address + (at * size) as u64, count * size)
    }

    /// Makes every value zero, behind the work before.
    pub fn zero(&self) -> Result<(), GpuError> {
        self.gpu.0.zero(self.address, self.len * size_of::<T>())
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.gpu.0.free(self.address);
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} x {} on {})", self.len, std::any::type_name::<T>(), self.gpu.name())
    }
}
