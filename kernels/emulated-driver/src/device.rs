//! The library, its devices and their primary contexts.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::NAME;
use crate::answer::*;
use crate::settings::Settings;
use crate::state::{CURRENT, Handle, State, bound, give, initialised, plain};

/// As many as an H200 has.
const MULTIPROCESSORS: c_int = 132;

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> Code {
    plain(|state| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if !state.is_initialised {
            state.settings = Settings::of_environment().map_err(|e| {
                eprintln!("emulated driver: {}: {e}", crate::SETTINGS);
                INVALID_VALUE
            })?;
            state.is_initialised = true;
        }
        if state.settings.devices == 0 { Err(NO_DEVICE) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    plain(|state| {
        // the one call that may come before `cuInit`
        let settings =
            if state.is_initialised { state.settings.clone() } else { Settings::of_environment().unwrap_or_default() };
        give(version, settings.version as c_int)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    initialised(|state| give(count, state.settings.devices as c_int))
}

fn device(state: &State, device: c_int) -> Answer<u32> {
    let devices = state.settings.devices;
    u32::try_from(device).ok().filter(|&device| device < devices).ok_or(INVALID_DEVICE)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(to: *mut c_int, ordinal: c_int) -> Code {
    initialised(|state| give(to, device(state, ordinal)? as c_int))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, of: c_int) -> Code {
    initialised(|state| {
        device(state, of)?;
        if name.is_null() || bytes < 1 {
            return Err(INVALID_VALUE);
        }
        let (major, minor) = state.settings.capability;
        let text = format!("{NAME}, {major}.{minor}");
        let shown = &text.as_bytes()[..text.len().min(bytes as usize - 1)];
        // SAFETY: the caller's buffer has `bytes` bytes, and `shown` with its zero is not longer.
        unsafe {
            name.copy_from_nonoverlapping(shown.as_ptr().cast(), shown.len());
            name.add(shown.len()).write(0);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, of: c_int) -> Code {
    initialised(|state| {
        device(state, of)?;
        give(bytes, state.settings.memory)
    })
}

/// Numbers are those of `CUdevice_attribute`.
#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(to: *mut c_int, attribute: c_uint, of: c_int) -> Code {
    initialised(|state| {
        device(state, of)?;
        let value = match attribute {
            // threads per block; shared memory without asking; of a warp
            1 => 1024,
            8 => 48 << 10,
            10 => 32,
            16 => MULTIPROCESSORS,
            // L2 cache; threads of a multiprocessor
            38 => 50 << 20,
            39 => 2048,
            75 => state.settings.capability.0 as c_int,
            76 => state.settings.capability.1 as c_int,
            81 => state.settings.most_shared() as c_int + 1024,
            82 => 65_536,
            97 => state.settings.most_shared() as c_int,
            // memory pools
            115 => 0,
            _ => return Err(INVALID_VALUE),
        };
        give(to, value)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(to: *mut Handle, of: c_int) -> Code {
    initialised(|state| {
        let device = device(state, of)?;
        let held = state.contexts.iter().find(|(_, (of, _))| *of == device).map(|(&context, _)| context);
        let context = held.unwrap_or_else(|| state.handle());
        state.contexts.entry(context).or_insert((device, 0)).1 += 1;
        give(to, context)
    })
}

/// The last holder takes everything of the context along, except memory and graphs: what nobody freed is a leak that tests ask for.
#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(of: c_int) -> Code {
    initialised(|state| {
        let device = device(state, of)?;
        state.wait_for_all()?;
        let context = state.contexts.iter_mut().find(|(_, (of, _))| *of == device);
        let (&context, (_, holders)) = context.ok_or(INVALID_CONTEXT)?;
        *holders -= 1;
        if *holders == 0 {
            state.contexts.remove(&context);
            // the context that failed is gone
            state.failed = None;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(to: *mut Handle) -> Code {
    initialised(|_| give(to, CURRENT.get()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> Code {
    initialised(|state| {
        if context != 0 && !state.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    bound(|state| {
        state.forbidden_in_captures()?;
        state.wait_for_all()
    })
}

/// The compiler NVRTC 13 asks a driver that it finds for tables of undocumented functions, to keep what it compiles there. It goes
/// without where there are none, and does not look whether this function exists.
#[unsafe(no_mangle)]
extern "C" fn cuGetExportTable(_table: *mut *const c_void, _id: *const c_void) -> Code {
    NOT_FOUND
}
