//! The driver's library: there, whole and new enough. What is missing would otherwise be found by a panic at the call.

use cudarc::driver::{DriverError, result, sys};

use crate::{Arch, GpuError};

/// The oldest driver whose calls are all there.
const LEAST_VERSION: (i32, &str) = (12_000, "12.0");
/// What even an old driver has.
const ALWAYS: &[&str] = &["cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString"];
/// Everything else that is called here and in the bindings that are used here.
const CALLED: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventQuery",
    "cuEventRecord",
    "cuFuncSetAttribute",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamQuery",
    "cuTensorMapEncodeTiled",
];

/// The driver's words and name of an error.
pub(super) fn describe(error: &DriverError) -> String {
    let text = error.error_string().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown");
    let name = error.error_name().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown");
    format!("{text} ({name})")
}

/// Whether the library, which has been opened, has a function of this name.
pub(super) fn has(name: &str) -> bool {
    // SAFETY: the symbol is looked up and not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_ok()
}

fn has_all(names: &[&str]) -> Result<(), GpuError> {
    match names.iter().find(|name| !has(name)) {
        Some(name) => Err(GpuError::IncompleteDriver { missing: (*name).into() }),
        None => Ok(()),
    }
}

/// Opens and initialises the library.
fn open() -> Result<(), GpuError> {
    // SAFETY: opens and closes a library by its usual names.
    if !unsafe { sys::is_culib_present() } {
        return Err(GpuError::NoDevice(
            "no NVIDIA driver (libcuda.so) on this machine; with one installed `nvidia-smi` lists its devices".into(),
        ));
    }
    has_all(ALWAYS)?;
    let mut version = 0;
    // SAFETY: the pointer is of an integer that outlives the call.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|e| GpuError::NoDevice(format!("cuDriverGetVersion: {}", describe(&e))))?;
    if version < LEAST_VERSION.0 {
        let found = format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(GpuError::OldDriver { found, needed: LEAST_VERSION.1 });
    }
    has_all(CALLED)?;
    let advice = "see what `nvidia-smi` says, and whether this process may use the device";
    result::init().map_err(|e| GpuError::NoDevice(format!("cuInit: {}; {advice}", describe(&e))))
}

/// What a device is.
pub(crate) struct Probed {
    /// The architecture whose code it runs.
    pub(super) arch: Arch,
    /// It is newer than the machine code that is made here: the driver assembles PTX for it.
    pub(super) assembles: bool,
    /// Its own architecture's name, e.g. `sm_120`.
    pub(super) capability: String,
}

/// Looks at device `ordinal` without making a context on it.
pub(crate) fn probe(ordinal: usize) -> Result<Probed, GpuError> {
    open()?;
    let none = |e: DriverError| GpuError::NoDevice(describe(&e));
    let devices = result::device::get_count().map_err(none)?;
    if ordinal as i64 >= i64::from(devices) {
        let reason = format!("device {ordinal} asked for, {devices} present, counted from 0; give another `ordinal`");
        return Err(GpuError::NoDevice(reason));
    }
    let device = result::device::get(ordinal as i32).map_err(none)?;
    // SAFETY: the device exists.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(none);
    let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let capability = format!("sm_{major}{minor}");
    match Arch::of_device(major, minor) {
        Some(arch) => Ok(Probed { arch, assembles: major >= 10, capability }),
        None => Err(GpuError::Architecture {
            what: "infermark".into(),
            needed: "compute capability 8.0 (Ampere) or newer".into(),
            found: capability,
        }),
    }
}
