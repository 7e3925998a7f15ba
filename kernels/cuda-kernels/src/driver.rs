//! The back end on a real device, through the CUDA driver. The driver's library is opened when first asked for.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::gpu::{Backend, DeviceMemory, LaunchShape, Mark, Replay};
use crate::{Arch, GpuError, KernelSpec, Nvrtc, TensorMapShape};

/// The oldest driver whose calls are all there.
const LEAST_VERSION: (i32, &str) = (12_000, "12.0");
/// Shared memory that a kernel gets without asking, bytes.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

pub(crate) struct Driver {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    nvrtc: Nvrtc,
    arch: Arch,
    /// The device is newer than the machine code that is made here: the driver assembles PTX for it.
    assembles: bool,
    name: String,
    multiprocessors: usize,
    l2_bytes: usize,
    kernels: Mutex<HashMap<String, Loaded>>,
}

/// A kernel in device memory.
#[derive(Clone, Copy)]
struct Loaded {
    function: sys::CUfunction,
    /// Dynamic shared memory it may have so far.
    shared_bytes: u32,
}

// SAFETY: a function handle is an address inside the driver, which is thread-safe; it lives as long as the context.
unsafe impl Send for Loaded {}

fn refused(call: &str) -> impl Fn(DriverError) -> GpuError + '_ {
    move |e| GpuError::Driver { call: call.into(), reason: describe(&e) }
}

fn describe(error: &DriverError) -> String {
    let text = error.error_string().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown");
    let name = error.error_name().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown");
    format!("{text} ({name})")
}

impl Driver {
    pub(crate) fn open(ordinal: usize, nvrtc: Nvrtc) -> Result<Driver, GpuError> {
        check_driver()?;
        let devices = CudaContext::device_count().map_err(|e| GpuError::NoDevice(describe(&e)))?;
        if ordinal as i64 >= i64::from(devices) {
            return Err(GpuError::NoDevice(format!("device {ordinal} asked for, {devices} present")));
        }
        let context = CudaContext::new(ordinal).map_err(|e| GpuError::NoDevice(describe(&e)))?;
        let (major, minor) = context.compute_capability().map_err(refused("compute capability"))?;
        let arch = Arch::of_device(major, minor).ok_or_else(|| GpuError::Architecture {
            what: "infermark".into(),
            needed: "compute capability 8.0 or newer".into(),
            found: format!("sm_{major}{minor}"),
        })?;
        let attribute = |of| context.attribute(of).map(|value| value as usize).map_err(refused("cuDeviceGetAttribute"));
        let multiprocessors = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let l2_bytes = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        let name = context.name().map_err(refused("device name"))?;
        let stream = context.new_stream().map_err(refused("cuStreamCreate"))?;
        let assembles = major >= 10;
        Ok(Driver {
            context,
            stream,
            nvrtc,
            arch,
            assembles,
            name,
            multiprocessors,
            l2_bytes,
            kernels: Mutex::default(),
        })
    }

    /// Makes the device this thread's, as every call of the driver expects.
    fn bind(&self) -> Result<(), GpuError> {
        self.context.bind_to_thread().map_err(refused("cuCtxSetCurrent"))
    }

    fn kernels(&self) -> MutexGuard<'_, HashMap<String, Loaded>> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, kernel: &KernelSpec, shared_bytes: u32) -> Result<sys::CUfunction, GpuError> {
        let key = format!("{}:{}", kernel.source.name, kernel.label());
        let known = self.kernels().get(&key).copied();
        let mut loaded = match known {
            Some(loaded) => loaded,
            None => {
                // the driver assembles PTX itself, up to its closing zero byte
                let image = if kernel.source.is_ptx() {
                    [kernel.source.text.as_bytes(), &[0]].concat()
                } else {
                    let compiled = self.nvrtc.compile(kernel, self.arch)?;
                    if self.assembles { [compiled.ptx.as_bytes(), &[0]].concat() } else { compiled.cubin }
                };
                let entry = CString::new(kernel.entry).map_err(|_| GpuError::shape("kernel name", "a zero byte"))?;
                // SAFETY: the image is a whole cubin or PTX with its zero byte, and stays alive during the call; modules live as long as the context.
                let function = unsafe {
                    let module =
                        result::module::load_data(image.as_ptr().cast()).map_err(refused("cuModuleLoadData"))?;
                    result::module::get_function(module, entry).map_err(refused("cuModuleGetFunction"))?
                };
                Loaded { function, shared_bytes: SHARED_WITHOUT_ASKING }
            }
        };
        if shared_bytes > loaded.shared_bytes {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to this context.
            unsafe { result::function::set_function_attribute(loaded.function, attribute, shared_bytes as i32) }
                .map_err(refused("cuFuncSetAttribute (shared memory)"))?;
            loaded.shared_bytes = shared_bytes;
        }
        self.kernels().insert(key, loaded);
        Ok(loaded.function)
    }
}

/// The library is there and new enough: what is missing would otherwise be found by a panic.
fn check_driver() -> Result<(), GpuError> {
    // SAFETY: opens and closes a library by its usual names.
    if !unsafe { sys::is_culib_present() } {
        return Err(GpuError::NoDevice("no NVIDIA driver (libcuda.so) on this machine".into()));
    }
    result::init().map_err(|e| GpuError::NoDevice(describe(&e)))?;
    let mut version = 0;
    // SAFETY: the pointer is of an integer that outlives the call.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(refused("cuDriverGetVersion"))?;
    if version < LEAST_VERSION.0 {
        let found = format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(GpuError::OldDriver { found, needed: LEAST_VERSION.1 });
    }
    Ok(())
}

impl Backend for Driver {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn arch(&self) -> Arch {
        self.arch
    }

    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn l2_bytes(&self) -> usize {
        self.l2_bytes
    }

    fn memory(&self) -> Result<DeviceMemory, GpuError> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(refused("cuMemGetInfo"))?;
        Ok(DeviceMemory { free, total })
    }

    fn alloc(&self, bytes: usize) -> Result<u64, GpuError> {
        self.bind()?;
        // SAFETY: the memory is handed out uninitialised; `Buffer` says so.
        unsafe { result::malloc_sync(bytes) }.map_err(|e| match e.0 {
            sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY => {
                GpuError::OutOfMemory { bytes, free: result::mem_get_info().map_or(0, |(free, _)| free) }
            }
            _ => refused("cuMemAlloc")(e),
        })
    }

    fn free(&self, address: u64) {
        // nothing can be done about a device that refuses to take memory back
        if self.bind().is_ok() {
            // SAFETY: `Buffer` frees what `alloc` gave, once.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), GpuError> {
        self.bind()?;
        // SAFETY: `Buffer` has checked the range. Pageable memory is staged before the call returns.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) }.map_err(refused("cuMemcpyHtoD"))
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), GpuError> {
        self.bind()?;
        // SAFETY: `Buffer` has checked the range.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) }.map_err(refused("cuMemsetD8"))
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.bind()?;
        // SAFETY: `Buffer` has checked the range; the copy is complete before `bytes` is looked at.
        unsafe { result::memcpy_dtoh_async(bytes, address, self.stream.cu_stream()) }
            .map_err(refused("cuMemcpyDtoH"))?;
        self.synchronize()
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        self.bind()?;
        // SAFETY: `Buffer` has checked both ranges.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }.map_err(refused("cuMemcpyDtoD"))
    }

    fn launch(&self, kernel: &KernelSpec, shape: LaunchShape, args: &[Vec<u8>]) -> Result<(), GpuError> {
        self.bind()?;
        let function = self.load(kernel, shape.shared_bytes)?;
        // 128-byte maps must be aligned to 64 where the driver reads them
        let mut aligned: Vec<Aligned> = args.iter().map(|bytes| Aligned::of(bytes)).collect();
        let mut pointers: Vec<*mut c_void> = aligned.iter_mut().map(|arg| arg.0.as_mut_ptr().cast()).collect();
        let ([x, y, z], [bx, by, bz]) = (shape.grid, shape.block);
        // SAFETY: the caller of `Gpu::launch` vouches for arguments and shape; the driver copies them before it returns.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (bx, by, bz),
                shape.shared_bytes,
                self.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(refused(kernel.entry))
    }

    fn synchronize(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(refused("cuStreamSynchronize"))
    }

    fn begin_recording(&self) -> Result<(), GpuError> {
        self.bind()?;
        // a kernel may be launched for the first time while it is recorded, and loading it allocates
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.stream.begin_capture(mode).map_err(refused("cuStreamBeginCapture"))
    }

    fn end_recording(&self) -> Result<Box<dyn Replay>, GpuError> {
        let flags = sys::CUgraphInstantiate_flags_enum::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags).map_err(refused("cuStreamEndCapture"))?;
        let graph = graph.ok_or_else(|| GpuError::Driver {
            call: "cuStreamEndCapture".into(),
            reason: "nothing was recorded".into(),
        })?;
        Ok(Box::new(Graph(Mutex::new(graph))))
    }

    fn tensor_map(&self, map: &TensorMapShape) -> Result<[u8; 128], GpuError> {
        self.bind()?;
        encode(map)
    }

    fn mark(&self) -> Result<Box<dyn Mark>, GpuError> {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = self.stream.record_event(timed).map_err(refused("cuEventRecord"))?;
        Ok(Box::new(Event(event)))
    }

    fn counts(&self) -> Option<ptx_emulator::Counts> {
        None
    }

    fn raw_stream(&self) -> Result<Option<u64>, GpuError> {
        self.bind()?;
        Ok(Some(self.stream.cu_stream() as u64))
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

struct Graph(Mutex<cudarc::driver::CudaGraph>);

// SAFETY: graph handles are addresses inside the driver; the mutex keeps two threads from launching one graph at once.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl Replay for Graph {
    fn replay(&self) -> Result<(), GpuError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).launch().map_err(refused("cuGraphLaunch"))
    }
}

struct Event(cudarc::driver::CudaEvent);

impl Mark for Event {
    fn milliseconds_until(&self, later: &dyn Mark) -> Result<Option<f32>, GpuError> {
        match later.as_any().downcast_ref::<Event>() {
            Some(later) => self.0.elapsed_ms(&later.0).map(Some).map_err(refused("cuEventElapsedTime")),
            None => Ok(None),
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn encode(map: &TensorMapShape) -> Result<[u8; 128], GpuError> {
    use sys::CUtensorMapSwizzle_enum as Swizzle;
    let swizzle = match map.swizzle_bytes {
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
    };
    let steps = vec![1u32; map.dims.len()];
    let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: all arrays have `dims.len()` entries (strides one less), which `TensorMapShape::check` has seen to.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            // bf16 and f16 are moved alike
            sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            map.dims.len() as u32,
            map.base as *mut c_void,
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.box_dims.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(refused("cuTensorMapEncodeTiled"))?;
    let mut bytes = [0; 128];
    for (to, word) in bytes.chunks_exact_mut(8).zip(encoded.opaque) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}
