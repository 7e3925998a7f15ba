//! What can go wrong between a kernel's text and its results.

/// A kernel could not be compiled, loaded or run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GpuError {
    /// No driver, or no device behind it.
    #[error("no CUDA device: {0}")]
    NoDevice(String),
    /// The driver is older than what its calls need.
    #[error("the NVIDIA driver supports CUDA {found}, infermark needs {needed} or newer; update the driver")]
    OldDriver {
        /// What `cuDriverGetVersion` says, as `major.minor`.
        found: String,
        /// The least version, as `major.minor`.
        needed: &'static str,
    },
    /// A library that calls itself the driver and lacks functions of it.
    #[error(
        "the NVIDIA driver (libcuda.so) has no function {missing}: it is no whole driver of CUDA 12.0 or newer; update or reinstall it, and see that no stub library comes first in the search path"
    )]
    IncompleteDriver {
        /// The first function that was not found.
        missing: String,
    },
    /// No NVRTC library.
    #[error(
        "no NVRTC library to compile kernels with (looked for {looked}); install a CUDA runtime, or run ci/nvrtc.sh, which puts one in target/nvrtc"
    )]
    NoNvrtc {
        /// Files and names that were tried.
        looked: String,
    },
    /// A compiler from before the architecture.
    #[error(
        "NVRTC {found} cannot compile for {arch}, which needs {needed} or newer; install a newer CUDA runtime, or run ci/nvrtc.sh"
    )]
    OldNvrtc {
        /// Its version.
        found: String,
        /// What to compile for.
        arch: String,
        /// The least version.
        needed: String,
    },
    /// The device is of an architecture that this kernel, or all of them, cannot run on.
    #[error("{what} needs {needed}, this device is {found}")]
    Architecture {
        /// The kernel.
        what: String,
        /// The least architecture.
        needed: String,
        /// The device's.
        found: String,
    },
    /// The compiler refused the text.
    #[error("kernel {kernel} does not compile for {arch}:\n{log}")]
    Compile {
        /// The kernel's entry point.
        kernel: String,
        /// Architecture.
        arch: String,
        /// The compiler's words.
        log: String,
    },
    /// An allocation did not fit.
    #[error(
        "out of device memory: {bytes} bytes asked for, {free} free of {total}; use a smaller model, context or batch, or end what else runs on the device"
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes that were free.
        free: usize,
        /// Bytes that the device has.
        total: usize,
    },
    /// Sizes that a kernel cannot take; nothing was launched.
    #[error("{kernel}: {reason}")]
    Shape {
        /// The kernel.
        kernel: &'static str,
        /// What does not fit and what would.
        reason: String,
    },
    /// The driver refused a call.
    #[error("{call} failed: {reason}")]
    Driver {
        /// The call.
        call: String,
        /// The driver's words.
        reason: String,
    },
    /// The driver takes a kernel neither as machine code nor as PTX.
    #[error(
        "the driver refuses kernel {kernel} as NVRTC {compiler} compiled it: {reasons}; update the driver, or use an NVRTC that is no newer than it"
    )]
    Refused {
        /// The kernel.
        kernel: String,
        /// What the driver said of each image.
        reasons: String,
        /// The compiler's version.
        compiler: String,
    },
    /// Work did not end in the time it may take.
    #[error(
        "the device was not done after {seconds} s and was given up: a kernel does not end; launched since it was last idle: {kernels}"
    )]
    Hangs {
        /// The limit.
        seconds: f64,
        /// Names of the kernels it may be.
        kernels: String,
    },
    /// An earlier error made the device useless to this process.
    #[error("the device takes no more work from this process, because of an earlier error: {first}")]
    Lost {
        /// That error.
        first: String,
    },
    /// The emulated device stopped a kernel.
    #[error("emulated device: {0}")]
    Emulator(String),
}

impl GpuError {
    /// Sizes that `kernel` cannot take.
    pub fn shape(kernel: &'static str, reason: impl Into<String>) -> GpuError {
        GpuError::Shape { kernel, reason: reason.into() }
    }
}
