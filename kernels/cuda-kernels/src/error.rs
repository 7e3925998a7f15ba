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
    /// No NVRTC library.
    #[error(
        "no NVRTC library to compile kernels with (looked for {looked}); install a CUDA runtime, or run ci/nvrtc.sh, which puts one in target/nvrtc"
    )]
    NoNvrtc {
        /// Files and names that were tried.
        looked: String,
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
    #[error("out of device memory: {bytes} bytes asked for, {free} free; use a smaller model, context or batch")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes that were free.
        free: usize,
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
