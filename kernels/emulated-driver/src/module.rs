//! Modules and their functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use ptx_emulator::{KernelInfo, Module};

use crate::answer::*;
use crate::settings::Settings;
use crate::state::{Handle, State, bound, give};

/// Numbers of `CUjit_option`.
const ERROR_LOG: c_uint = 5;
const ERROR_LOG_BYTES: c_uint = 6;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const DYNAMIC_SHARED: c_uint = 8;
/// Shared memory that a block gets without asking, static and dynamic, bytes.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// PTX that was accepted.
#[derive(Debug)]
pub struct LoadedModule(Arc<Module>);

/// A kernel of a module.
#[derive(Debug, Clone)]
pub struct Function {
    pub module: Arc<Module>,
    pub name: String,
    pub info: KernelInfo,
    /// Dynamic shared memory it may have so far, bytes.
    pub most_dynamic: u32,
    of: Handle,
}

/// Offsets of parameters: each at a multiple of its own alignment, which is its size up to a tensor map's 64.
fn offset_of(info: &KernelInfo, index: usize) -> usize {
    info.parameters[..index]
        .iter()
        .zip(info.parameters[1..].iter())
        .fold(0, |at, (&bytes, &next)| (at + bytes as usize).next_multiple_of((next as usize).clamp(1, 64)))
}

/// The module, or why the device does not take it.
fn accept(settings: &Settings, image: &[u8]) -> Result<Module, (Code, String)> {
    if image.starts_with(b"\x7fELF") {
        return Err((NO_BINARY_FOR_GPU, "machine code, and this device executes PTX".into()));
    }
    let text = std::str::from_utf8(image).map_err(|e| (INVALID_IMAGE, e.to_string()))?;
    let words = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    if settings.refuse_ptx {
        return Err((INVALID_PTX, "ptxas fatal   : PTX is refused, as the test wants it".into()));
    }
    let version = words(".version").ok_or((INVALID_IMAGE, "neither machine code nor PTX".to_string()))?;
    // CUDA 12 brought PTX 8, CUDA 13 PTX 9
    let known = settings.version / 1000 - 4;
    if version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u32| major > known) {
        return Err((UNSUPPORTED_PTX_VERSION, format!("PTX {version}, this driver knows {known}.x")));
    }
    let target = words(".target").and_then(|t| t.split(',').next()).unwrap_or_default().trim();
    let number = target.trim_start_matches("sm_");
    let (major, minor) = settings.capability;
    let here = major * 10 + minor;
    let runs = match number.strip_suffix('a') {
        Some(exact) => exact.parse() == Ok(here),
        None => number.parse().is_ok_and(|oldest: u32| oldest <= here),
    };
    if !runs {
        return Err((NO_BINARY_FOR_GPU, format!("PTX for {target}, this device is sm_{here}")));
    }
    Module::parse(text).map_err(|e| (INVALID_PTX, format!("ptxas fatal   : {e}")))
}

/// # Safety
/// `image` must be a cubin, or text with a zero byte behind it; options and their values must be `count` each.
unsafe fn load(
    to: *mut Handle,
    image: *const c_void,
    count: c_uint,
    options: *const c_uint,
    values: *const *mut c_void,
) -> Code {
    bound(|state| {
        state.wait_for_all()?;
        if image.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: a cubin is longer than its mark; text ends with a zero byte.
        let bytes = unsafe {
            let mark = std::slice::from_raw_parts(image.cast::<u8>(), 1);
            if mark[0] == 0x7f {
                std::slice::from_raw_parts(image.cast::<u8>(), 4)
            } else {
                CStr::from_ptr(image.cast()).to_bytes()
            }
        };
        match accept(&state.settings, bytes) {
            Ok(module) => {
                let handle = state.handle();
                state.modules.insert(handle, LoadedModule(Arc::new(module)));
                give(to, handle)
            }
            Err((code, log)) => {
                // SAFETY: as promised by the caller.
                unsafe { write_log(&log, count, options, values) };
                Err(code)
            }
        }
    })
}

/// # Safety
/// As `load`.
unsafe fn write_log(log: &str, count: c_uint, options: *const c_uint, values: *const *mut c_void) {
    // SAFETY: `count` options with a value each.
    let pair = |at: usize| unsafe { (*options.add(at), *values.add(at)) };
    let value = |of: c_uint| (0..count as usize).map(pair).find(|(option, _)| *option == of).map(|(_, value)| value);
    if let (Some(buffer), Some(bytes)) = (value(ERROR_LOG), value(ERROR_LOG_BYTES)) {
        let shown = &log.as_bytes()[..log.len().min((bytes as usize).saturating_sub(1))];
        // SAFETY: the buffer has `bytes` bytes; its last is left as the caller set it, or is behind the zero.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(shown.as_ptr(), shown.len());
            buffer.cast::<u8>().add(shown.len()).write(0);
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(to: *mut Handle, image: *const c_void) -> Code {
    // SAFETY: the caller's image; no options.
    unsafe { load(to, image, 0, std::ptr::null(), std::ptr::null()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    to: *mut Handle,
    image: *const c_void,
    count: c_uint,
    options: *const c_uint,
    values: *const *mut c_void,
) -> Code {
    // SAFETY: the caller's image and options.
    unsafe { load(to, image, count, options, values) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> Code {
    bound(|state| {
        state.wait_for_all()?;
        state.functions.retain(|_, function| function.of != module);
        state.modules.remove(&module).map(|_| ()).ok_or(INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(to: *mut Handle, module: Handle, name: *const c_char) -> Code {
    bound(|state| {
        let loaded = state.modules.get(&module).ok_or(INVALID_HANDLE)?.0.clone();
        // SAFETY: the caller's text ends with a zero byte.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| NOT_FOUND)?.to_owned();
        let info = loaded.kernel(&name).ok_or(NOT_FOUND)?;
        let most_dynamic = SHARED_WITHOUT_ASKING.saturating_sub(info.shared_bytes as u32);
        let function = state.handle();
        state.functions.insert(function, Function { module: loaded, name, info, most_dynamic, of: module });
        give(to, function)
    })
}

impl State {
    pub fn function(&mut self, function: Handle) -> Answer<&mut Function> {
        self.functions.get_mut(&function).ok_or(INVALID_HANDLE)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> Code {
    bound(|state| {
        let most = state.settings.most_shared();
        let function = state.function(function)?;
        if attribute != DYNAMIC_SHARED || value < 0 || value as u32 + function.info.shared_bytes as u32 > most {
            return Err(INVALID_VALUE);
        }
        function.most_dynamic = value as u32;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetParamInfo(function: Handle, index: usize, offset: *mut usize, bytes: *mut usize) -> Code {
    bound(|state| {
        let info = &state.function(function)?.info;
        let size = *info.parameters.get(index).ok_or(INVALID_VALUE)?;
        give(offset, offset_of(info, index))?;
        if bytes.is_null() { Ok(()) } else { give(bytes, size as usize) }
    })
}
