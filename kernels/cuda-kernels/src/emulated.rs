//! The back end without a device: PTX from the same compiler, executed by [`ptx_emulator`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ptx_emulator::{Counts, Fault, Launch, Memory, Module};

use crate::gpu::{Backend, DeviceMemory, LaunchShape, Mark, Replay};
use crate::{Arch, GpuError, KernelSpec, Nvrtc, TensorMapShape};

/// As many as an H200 has: launch shapes that depend on it become those of the real device.
const MULTIPROCESSORS: usize = 132;

pub(crate) struct Emulated {
    arch: Arch,
    nvrtc: Nvrtc,
    modules: Mutex<HashMap<String, Arc<Module>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    memory: Memory,
    counts: Counts,
    recording: Option<Vec<Prepared>>,
}

/// A launch that needs nothing more.
#[derive(Clone)]
struct Prepared {
    module: Arc<Module>,
    entry: &'static str,
    shape: LaunchShape,
    args: Vec<Vec<u8>>,
}

fn stopped(fault: Fault) -> GpuError {
    GpuError::Emulator(fault.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn run(&mut self, launch: &Prepared) -> Result<(), GpuError> {
        let shape = launch.shape;
        let what = Launch {
            kernel: launch.entry,
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared_bytes,
            args: &launch.args,
        };
        let counts = ptx_emulator::launch(&launch.module, &mut self.memory, &what).map_err(stopped)?;
        self.counts = sum(&self.counts, &counts);
        Ok(())
    }
}

fn sum(a: &Counts, b: &Counts) -> Counts {
    Counts {
        thread_instructions: a.thread_instructions + b.thread_instructions,
        mma_flops: a.mma_flops + b.mma_flops,
        global_read_sectors: a.global_read_sectors + b.global_read_sectors,
        global_write_sectors: a.global_write_sectors + b.global_write_sectors,
        shared_requests: a.shared_requests + b.shared_requests,
        shared_conflicts: a.shared_conflicts + b.shared_conflicts,
        barriers: a.barriers + b.barriers,
    }
}

impl Emulated {
    pub(crate) fn new(arch: Arch, nvrtc: Nvrtc) -> Emulated {
        Emulated { arch, nvrtc, modules: Mutex::default(), state: Arc::default() }
    }

    /// The device, unless launches are recorded: of other work a replay would know nothing.
    fn now(&self, call: &str) -> Result<MutexGuard<'_, State>, GpuError> {
        let state = lock(&self.state);
        match state.recording {
            None => Ok(state),
            Some(_) => Err(GpuError::Emulator(format!("{call}: launches are recorded, none of them runs"))),
        }
    }

    fn module(&self, kernel: &KernelSpec) -> Result<Arc<Module>, GpuError> {
        let key = format!("{}:{}", kernel.source.name, kernel.label());
        if let Some(module) = lock(&self.modules).get(&key) {
            return Ok(module.clone());
        }
        let ptx = match kernel.source.is_ptx() {
            true => kernel.source.text.to_owned(),
            false => self.nvrtc.compile(kernel, self.arch)?.ptx,
        };
        let module = Module::parse(&ptx).map_err(|e| GpuError::Emulator(format!("{}: {e}", kernel.label())))?;
        let module = Arc::new(module);
        lock(&self.modules).insert(key, module.clone());
        Ok(module)
    }
}

impl Backend for Emulated {
    fn name(&self) -> String {
        format!("emulated {}", self.arch)
    }

    fn arch(&self) -> Arch {
        self.arch
    }

    fn multiprocessors(&self) -> usize {
        MULTIPROCESSORS
    }

    fn memory(&self) -> Result<DeviceMemory, GpuError> {
        // the host's memory is the limit, and nobody plans by it
        Ok(DeviceMemory { free: usize::MAX, total: usize::MAX })
    }

    fn alloc(&self, bytes: usize) -> Result<u64, GpuError> {
        Ok(lock(&self.state).memory.alloc(bytes))
    }

    fn free(&self, address: u64) {
        // `Buffer` frees what `alloc` gave, once
        let _ = lock(&self.state).memory.free(address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), GpuError> {
        self.now("writing")?.memory.write(address, bytes).map_err(stopped)
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError> {
        self.now("zeroing")?.memory.write(address, &vec![0; bytes]).map_err(stopped)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.now("reading")?.memory.read(address, bytes).map_err(stopped)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        self.now("copying")?.memory.copy(from, to, bytes).map_err(stopped)
    }

    fn launch(&self, kernel: &KernelSpec, shape: LaunchShape, args: &[Vec<u8>]) -> Result<(), GpuError> {
        let limit = self.arch.shared_bytes();
        if shape.shared_bytes > limit {
            let reason = format!("{} bytes of shared memory, a block may have {limit}", shape.shared_bytes);
            return Err(GpuError::shape(kernel.entry, reason));
        }
        let launch = Prepared { module: self.module(kernel)?, entry: kernel.entry, shape, args: args.to_vec() };
        let mut state = lock(&self.state);
        match &mut state.recording {
            Some(recording) => recording.push(launch),
            None => state.run(&launch)?,
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), GpuError> {
        Ok(())
    }

    fn begin_recording(&self) -> Result<(), GpuError> {
        lock(&self.state).recording = Some(vec![]);
        Ok(())
    }

    fn end_recording(&self) -> Result<Box<dyn Replay>, GpuError> {
        let launches = lock(&self.state).recording.take().unwrap_or_default();
        Ok(Box::new(Launches { state: self.state.clone(), launches }))
    }

    fn tensor_map(&self, map: &TensorMapShape) -> Result<[u8; 128], GpuError> {
        let map = ptx_emulator::TensorMap {
            element_bytes: 2,
            base: map.base,
            dims: map.dims.clone(),
            strides: map.strides.clone(),
            box_dims: map.box_dims.clone(),
            swizzle_bytes: map.swizzle_bytes,
        };
        map.encode().map_err(|e| GpuError::Emulator(e.to_string()))
    }

    fn mark(&self) -> Result<Box<dyn Mark>, GpuError> {
        Ok(Box::new(NoClock))
    }

    fn counts(&self) -> Option<Counts> {
        Some(lock(&self.state).counts)
    }
}

struct Launches {
    state: Arc<Mutex<State>>,
    launches: Vec<Prepared>,
}

impl Replay for Launches {
    fn replay(&self) -> Result<(), GpuError> {
        let mut state = lock(&self.state);
        self.launches.iter().try_for_each(|launch| state.run(launch))
    }
}

/// Time on an emulated device means nothing.
struct NoClock;

impl Mark for NoClock {
    fn milliseconds_until(&self, _later: &dyn Mark) -> Result<Option<f32>, GpuError> {
        Ok(None)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
