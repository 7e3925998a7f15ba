//! Kernels in device memory: machine code first, PTX where the driver takes none.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::Device;
use super::library::{describe, has};
use crate::{GpuError, KernelSpec};

/// Bytes kept of what the driver's assembler says.
const LOG_BYTES: usize = 4096;

/// A kernel in device memory.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) module: sys::CUmodule,
    pub(super) function: sys::CUfunction,
    /// Dynamic shared memory that was asked for so far. Without asking there are 48 KiB less what the text declares.
    shared_bytes: u32,
    /// Bytes of its parameters, where the driver (since 12.4) tells.
    parameters: Option<Arc<[usize]>>,
}

// SAFETY: handles are addresses inside the driver, which is thread-safe; they live as long as the device.
unsafe impl Send for Loaded {}

/// Machine code or PTX, with the zero byte that ends it.
struct Image {
    kind: &'static str,
    bytes: Vec<u8>,
}

impl Image {
    fn ptx(text: &str) -> Image {
        Image { kind: "PTX", bytes: [text.as_bytes(), &[0]].concat() }
    }
}

/// Whether another kind of image may be taken: this one is for another device, or by a compiler that the driver does not know.
fn may_try_another(code: sys::CUresult) -> bool {
    use sys::cudaError_enum as E;
    matches!(
        code,
        E::CUDA_ERROR_INVALID_IMAGE
            | E::CUDA_ERROR_NO_BINARY_FOR_GPU
            | E::CUDA_ERROR_INVALID_PTX
            | E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | E::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | E::CUDA_ERROR_JIT_COMPILATION_DISABLED
    )
}

/// A module of `image`, or the error with the words of the driver's assembler.
fn module(image: &Image) -> Result<sys::CUmodule, (DriverError, String)> {
    let mut module = std::ptr::null_mut();
    let mut log = vec![0u8; LOG_BYTES];
    let mut options =
        [sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
    // SAFETY: the image is a whole cubin, or PTX with its zero byte; two options with their two values, of which one is the address
    // of as many bytes as the other says. All of them outlive the call.
    let code = unsafe {
        sys::cuModuleLoadDataEx(&mut module, image.bytes.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
    };
    code.result().map(|()| module).map_err(|error| {
        let words = log.split(|&byte| byte == 0).next().unwrap_or_default();
        (error, String::from_utf8_lossy(words).trim().to_owned())
    })
}

/// Bytes of each parameter of `function`, where the driver tells.
fn parameters(function: sys::CUfunction) -> Option<Arc<[usize]>> {
    if !has("cuFuncGetParamInfo") {
        return None;
    }
    let mut sizes = vec![];
    loop {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: the function exists, and both addresses are of integers that outlive the call. It fails behind the last parameter.
        match unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut bytes) } {
            sys::cudaError_enum::CUDA_SUCCESS => sizes.push(bytes),
            _ => return Some(sizes.into()),
        }
    }
}

impl Loaded {
    /// The arguments' sizes are the parameters': a driver would read beyond those that are too short.
    pub(super) fn check(&self, kernel: &KernelSpec, args: &[Vec<u8>]) -> Result<(), GpuError> {
        let Some(expected) = &self.parameters else { return Ok(()) };
        if expected.iter().copied().eq(args.iter().map(Vec::len)) {
            return Ok(());
        }
        let given: Vec<usize> = args.iter().map(Vec::len).collect();
        Err(GpuError::shape(kernel.entry, format!("arguments of {given:?} bytes, its parameters have {expected:?}")))
    }
}

impl Device {
    /// Images in the order in which they are offered: machine code for this very architecture needs nothing of the driver; PTX must
    /// be assembled by it, and be no newer than it. A device newer than the code that is made here gets PTX alone.
    fn images(&self, kernel: &KernelSpec) -> Result<Vec<Image>, GpuError> {
        if kernel.source.is_ptx() {
            return Ok(vec![Image::ptx(kernel.source.text)]);
        }
        let compiled = self.nvrtc.compile(kernel, self.arch)?;
        let ptx = Image::ptx(&compiled.ptx);
        Ok(if self.assembles { vec![ptx] } else { vec![Image { kind: "machine code", bytes: compiled.cubin }, ptx] })
    }

    fn load_anew(&self, kernel: &KernelSpec) -> Result<Loaded, GpuError> {
        let entry = CString::new(kernel.entry).map_err(|_| GpuError::shape("kernel name", "a zero byte"))?;
        let mut refusals = vec![];
        for image in self.images(kernel)? {
            let module = match module(&image) {
                Ok(module) => module,
                Err((error, log)) if may_try_another(error.0) => {
                    let log = if log.is_empty() { log } else { format!(": {log}") };
                    refusals.push(format!("{}: {}{log}", image.kind, describe(&error)));
                    continue;
                }
                Err((error, _)) => return self.watch.answer("cuModuleLoadDataEx", Err(error)),
            };
            // SAFETY: the module was loaded, and lives as long as the device.
            let function = unsafe { result::module::get_function(module, entry) };
            let function = self.watch.answer("cuModuleGetFunction", function)?;
            return Ok(Loaded { module, function, shared_bytes: 0, parameters: parameters(function) });
        }
        let compiler = self.nvrtc.version();
        Err(GpuError::Refused { kernel: kernel.label(), reasons: refusals.join("; "), compiler })
    }

    /// The kernel, with as much dynamic shared memory as a launch wants.
    pub(super) fn load(&self, kernel: &KernelSpec, shared_bytes: u32) -> Result<Loaded, GpuError> {
        if self.arch < kernel.needs {
            return Err(GpuError::Architecture {
                what: format!("kernel {}", kernel.label()),
                needed: kernel.needs.to_string(),
                found: format!("{}, which runs what is written for {}", self.capability, self.arch),
            });
        }
        if shared_bytes > self.most_shared {
            let most = self.most_shared;
            let reason = format!("{shared_bytes} bytes of shared memory, a block of this device may have {most}");
            return Err(GpuError::shape(kernel.entry, reason));
        }
        let key = format!("{}:{}", kernel.source.name, kernel.label());
        let known = self.kernels().get(&key).cloned();
        let mut loaded = match known {
            Some(loaded) if shared_bytes <= loaded.shared_bytes => return Ok(loaded),
            Some(loaded) => loaded,
            None => {
                // a driver may wait for what runs before it loads more
                if !self.watch.is_recording() {
                    self.wait()?;
                }
                self.load_anew(kernel)?
            }
        };
        if shared_bytes > loaded.shared_bytes {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to this context.
            let set =
                unsafe { result::function::set_function_attribute(loaded.function, attribute, shared_bytes as i32) };
            self.watch.answer("cuFuncSetAttribute (shared memory)", set)?;
            loaded.shared_bytes = shared_bytes;
        }
        self.kernels().insert(key, loaded.clone());
        Ok(loaded)
    }
}
