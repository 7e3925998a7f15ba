//! The back end on a real device, through the CUDA driver. The driver's library is opened when first asked for.

mod encode;
mod library;
mod load;
mod watch;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result, sys};

pub(crate) use library::probe;

use self::library::{Probed, describe};
use self::load::Loaded;
use self::watch::{Launched, Watch};
use crate::gpu::{Backend, DeviceMemory, LaunchShape, Mark, Replay};
use crate::{Arch, GpuError, KernelSpec, Nvrtc, TensorMapShape};

/// Reads up to this size go through page-locked memory, behind the work before: others may wait inside the driver.
const STAGE_BYTES: usize = 1 << 20;
/// Writes up to this size are copied before the call returns; the driver may make longer ones wait for the stream.
const STAGED_BY_DRIVER: usize = 64 << 10;

/// A device. Recordings and marks hold it as well.
struct Device {
    kernels: Mutex<HashMap<String, Loaded>>,
    stage: Mutex<Stage>,
    watch: Watch,
    nvrtc: Nvrtc,
    arch: Arch,
    /// The device is newer than the machine code that is made here: the driver assembles PTX for it.
    assembles: bool,
    /// Its own architecture's name.
    capability: String,
    name: String,
    multiprocessors: usize,
    l2_bytes: usize,
    /// Shared memory that a block may have if it asks, bytes.
    most_shared: u32,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// Page-locked memory of the host.
enum Stage {
    NotYet,
    Held(*mut c_void),
    /// The system gives none.
    Refused,
}

// SAFETY: the address is used by whoever holds the mutex around it.
unsafe impl Send for Stage {}

pub(crate) struct Driver(Arc<Device>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    pub(crate) fn open(ordinal: usize, nvrtc: Nvrtc) -> Result<Driver, GpuError> {
        let Probed { arch, assembles, capability } = probe(ordinal)?;
        let failed = |e: DriverError| {
            GpuError::NoDevice(format!(
                "device {ordinal} cannot be opened: {}; does another program hold it?",
                describe(&e)
            ))
        };
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let attribute = |which| context.attribute(which).map_err(failed);
        let multiprocessors = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        let l2_bytes = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize;
        let most_shared =
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32;
        let name = context.name().map_err(failed)?;
        // The bindings' own call waits for everything on the device, which is forbidden while another thread records.
        // SAFETY: a fresh stream, destroyed when the device is dropped.
        let stream = unsafe {
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed)?;
            context.wrap_borrowed_stream(stream)
        };
        Ok(Driver(Arc::new(Device {
            kernels: Mutex::default(),
            stage: Mutex::new(Stage::NotYet),
            watch: Watch::new(),
            nvrtc,
            arch,
            assembles,
            capability,
            name,
            multiprocessors,
            l2_bytes,
            most_shared,
            stream,
            context,
        })))
    }
}

impl Device {
    /// Makes the device this thread's, as every call of the driver expects, unless it is past use.
    fn bind(&self) -> Result<(), GpuError> {
        self.watch.check()?;
        self.watch.answer("cuCtxSetCurrent", self.context.bind_to_thread())
    }

    fn kernels(&self) -> MutexGuard<'_, HashMap<String, Loaded>> {
        lock(&self.kernels)
    }

    /// Fails while launches are recorded, none of which runs.
    fn runs(&self, call: &str) -> Result<(), GpuError> {
        if self.watch.is_recording() {
            let reason = "launches are recorded, none of them runs".into();
            return Err(GpuError::Driver { call: call.into(), reason });
        }
        Ok(())
    }

    /// Waits for everything asked so far; for longer than the limit it does not.
    fn wait(&self) -> Result<(), GpuError> {
        self.runs("waiting")?;
        let stream = self.stream.cu_stream();
        // SAFETY: the stream exists as long as the device.
        self.poll("cuStreamQuery", || unsafe { sys::cuStreamQuery(stream) })?;
        self.watch.is_idle_now();
        Ok(())
    }

    /// Asks until the answer is another than that the device is not ready.
    fn poll(&self, call: &str, query: impl Fn() -> sys::CUresult) -> Result<(), GpuError> {
        let outcome = self.watch.poll(call, query);
        if let Err(GpuError::Hangs { .. }) = outcome {
            // closing the context would wait for what never ends
            std::mem::forget(self.context.clone());
        }
        outcome
    }

    /// Reads through page-locked memory; false where there is none.
    fn read_staged(&self, address: u64, bytes: &mut [u8]) -> Result<bool, GpuError> {
        let mut stage = lock(&self.stage);
        if let Stage::NotYet = *stage {
            // SAFETY: the memory is written before it is read.
            *stage = unsafe { result::malloc_host(STAGE_BYTES, 0) }.map_or(Stage::Refused, Stage::Held);
        }
        let Stage::Held(held) = *stage else { return Ok(false) };
        // SAFETY: as long as the allocation, and nobody else's while the mutex is held.
        let between = unsafe { std::slice::from_raw_parts_mut(held.cast::<u8>(), bytes.len()) };
        // SAFETY: `Buffer` has checked the range; nobody looks at `between` before the wait is over.
        let copied = unsafe { result::memcpy_dtoh_async(between, address, self.stream.cu_stream()) };
        self.watch.answer("cuMemcpyDtoH", copied)?;
        self.wait()?;
        bytes.copy_from_slice(between);
        Ok(true)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        // Other holders of the device keep its context, and would keep these with it. Nothing can be done where it takes nothing back.
        for loaded in lock(&self.kernels).drain().map(|(_, loaded)| loaded) {
            // SAFETY: recordings, which launch these functions, hold the device.
            let _ = unsafe { result::module::unload(loaded.module) };
        }
        if let Stage::Held(held) = *lock(&self.stage) {
            // SAFETY: given by `malloc_host`, freed once.
            let _ = unsafe { result::free_host(held) };
        }
        // SAFETY: recordings and marks, which use the stream, hold the device.
        let _ = unsafe { result::stream::destroy(self.stream.cu_stream()) };
    }
}

impl Backend for Driver {
    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn arch(&self) -> Arch {
        self.0.arch
    }

    fn multiprocessors(&self) -> usize {
        self.0.multiprocessors
    }

    fn l2_bytes(&self) -> usize {
        self.0.l2_bytes
    }

    fn set_wait_limit(&self, limit: Duration) {
        self.0.watch.set_limit(limit);
    }

    fn memory(&self) -> Result<DeviceMemory, GpuError> {
        self.0.bind()?;
        let (free, total) = self.0.watch.answer("cuMemGetInfo", result::mem_get_info())?;
        Ok(DeviceMemory { free, total })
    }

    fn alloc(&self, bytes: usize) -> Result<u64, GpuError> {
        self.0.bind()?;
        // SAFETY: the memory is handed out uninitialised; `Buffer` says so.
        match unsafe { result::malloc_sync(bytes) } {
            Err(DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, total) = result::mem_get_info().unwrap_or_default();
                Err(GpuError::OutOfMemory { bytes, free, total })
            }
            outcome => self.0.watch.answer("cuMemAlloc", outcome),
        }
    }

    fn free(&self, address: u64) {
        // the driver waits for what runs before it takes memory back; where it runs for ever, the memory is lost with the device
        let idle = || self.0.watch.is_recording() || !self.0.watch.is_busy() || self.0.wait().is_ok();
        if self.0.bind().is_ok() && idle() {
            // SAFETY: `Buffer` frees what `alloc` gave, once.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), GpuError> {
        self.0.bind()?;
        // a driver would record the copy, and every replay read these bytes again, which are gone by then
        self.0.runs("writing")?;
        if bytes.len() > STAGED_BY_DRIVER && self.0.watch.is_busy() {
            self.0.wait()?;
        }
        // SAFETY: `Buffer` has checked the range. Pageable memory is staged before the call returns.
        let copied = unsafe { result::memcpy_htod_async(address, bytes, self.0.stream.cu_stream()) };
        self.0.watch.answer("cuMemcpyHtoD", copied)
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError> {
        self.0.bind()?;
        // SAFETY: `Buffer` has checked the range.
        let set = unsafe { result::memset_d8_async(address, 0, bytes, self.0.stream.cu_stream()) };
        self.0.watch.answer("cuMemsetD8", set)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.0.bind()?;
        self.0.runs("reading")?;
        if bytes.len() <= STAGE_BYTES && self.0.read_staged(address, bytes)? {
            return Ok(());
        }
        self.0.wait()?;
        // SAFETY: `Buffer` has checked the range; the copy is complete before `bytes` is looked at.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, address, self.0.stream.cu_stream()) };
        self.0.watch.answer("cuMemcpyDtoH", copied)?;
        self.0.wait()
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        self.0.bind()?;
        // SAFETY: `Buffer` has checked both ranges.
        let copied = unsafe { result::memcpy_dtod_async(to, from, bytes, self.0.stream.cu_stream()) };
        self.0.watch.answer("cuMemcpyDtoD", copied)
    }

    fn launch(&self, kernel: &KernelSpec, shape: LaunchShape, args: &[Vec<u8>]) -> Result<(), GpuError> {
        self.0.bind()?;
        let loaded = self.0.load(kernel, shape.shared_bytes)?;
        loaded.check(kernel, args)?;
        // 128-byte maps must be aligned to 64 where the driver reads them
        let mut aligned: Vec<Aligned> = args.iter().map(|bytes| Aligned::of(bytes)).collect();
        let mut pointers: Vec<*mut c_void> = aligned.iter_mut().map(|arg| arg.0.as_mut_ptr().cast()).collect();
        let ([x, y, z], [bx, by, bz]) = (shape.grid, shape.block);
        // SAFETY: the caller of `Gpu::launch` vouches for arguments and shape; the driver copies them before it returns.
        let launched = unsafe {
            result::launch_kernel(
                loaded.function,
                (x, y, z),
                (bx, by, bz),
                shape.shared_bytes,
                self.0.stream.cu_stream(),
                &mut pointers,
            )
        };
        self.0.watch.answer(&format!("launch of `{}`", kernel.entry), launched)?;
        self.0.watch.launched(kernel.entry);
        Ok(())
    }

    fn synchronize(&self) -> Result<(), GpuError> {
        self.0.bind()?;
        self.0.wait()
    }

    fn begin_recording(&self) -> Result<(), GpuError> {
        self.0.bind()?;
        self.0.wait()?;
        // a kernel may be launched for the first time while it is recorded, and loading it allocates
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.0.watch.answer("cuStreamBeginCapture", self.0.stream.begin_capture(mode))?;
        self.0.watch.begin_recording();
        Ok(())
    }

    fn end_recording(&self) -> Result<Box<dyn Replay>, GpuError> {
        let recorded = self.0.watch.end_recording();
        let flags = sys::CUgraphInstantiate_flags_enum::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.0.watch.answer("cuStreamEndCapture", self.0.stream.end_capture(flags))?;
        let graph = graph.ok_or_else(|| GpuError::Driver {
            call: "cuStreamEndCapture".into(),
            reason: "nothing was recorded".into(),
        })?;
        Ok(Box::new(Graph { graph: Mutex::new(graph), recorded, device: self.0.clone() }))
    }

    fn tensor_map(&self, map: &TensorMapShape) -> Result<[u8; 128], GpuError> {
        self.0.bind()?;
        self.0.watch.answer("cuTensorMapEncodeTiled", encode::encode(map))
    }

    fn mark(&self) -> Result<Box<dyn Mark>, GpuError> {
        self.0.bind()?;
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = self.0.watch.answer("cuEventRecord", self.0.stream.record_event(timed))?;
        Ok(Box::new(Event { event, device: self.0.clone() }))
    }

    fn counts(&self) -> Option<ptx_emulator::Counts> {
        None
    }

    fn raw_stream(&self) -> Result<Option<u64>, GpuError> {
        self.0.bind()?;
        Ok(Some(self.0.stream.cu_stream() as u64))
    }
}

/// Argument bytes at an address that suits any parameter.
#[repr(align(64))]
struct Aligned([u8; 128]);

impl Aligned {
    fn of(bytes: &[u8]) -> Aligned {
        let mut aligned = Aligned([0; 128]);
        aligned.0[..bytes.len()].copy_from_slice(bytes);
        aligned
    }
}

struct Graph {
    graph: Mutex<CudaGraph>,
    recorded: Launched,
    device: Arc<Device>,
}

// SAFETY: graph handles are addresses inside the driver; the mutex keeps two threads from launching one graph at once.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl Replay for Graph {
    fn replay(&self) -> Result<(), GpuError> {
        self.device.bind()?;
        let launched = lock(&self.graph).launch();
        self.device.watch.answer("cuGraphLaunch", launched)?;
        self.device.watch.replayed(&self.recorded);
        Ok(())
    }
}

struct Event {
    event: CudaEvent,
    device: Arc<Device>,
}

impl Event {
    fn wait(&self) -> Result<(), GpuError> {
        let event = self.event.cu_event();
        // SAFETY: the event lives as long as `self`.
        self.device.poll("cuEventQuery", || unsafe { sys::cuEventQuery(event) })
    }
}

/// Milliseconds between two events that have come. The bindings ask for the call's second version, which drivers have since 12.8;
/// the first does the same and is in all of them.
fn elapsed(start: &CudaEvent, end: &CudaEvent) -> Result<f32, DriverError> {
    type Call = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    let mut ms = 0.0;
    // SAFETY: the function of that name has that type, and `library` has seen that it is there; both events have been recorded.
    let code = unsafe {
        match sys::culib().get::<Call>(b"cuEventElapsedTime") {
            Ok(call) => call(&mut ms, start.cu_event(), end.cu_event()),
            Err(_) => sys::cudaError_enum::CUDA_ERROR_NOT_SUPPORTED,
        }
    };
    code.result().map(|()| ms)
}

impl Mark for Event {
    fn milliseconds_until(&self, later: &dyn Mark) -> Result<Option<f32>, GpuError> {
        let Some(later) = later.as_any().downcast_ref::<Event>() else { return Ok(None) };
        self.device.bind()?;
        self.wait()?;
        later.wait()?;
        self.device.watch.answer("cuEventElapsedTime", elapsed(&self.event, &later.event)).map(Some)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
