//! Device memory, page-locked memory of the host, copies between them.

use std::ffi::{c_uchar, c_uint, c_void};

use crate::answer::*;
use crate::capture::Node;
use crate::state::{Handle, State, bound, give};

/// A copy from ordinary memory of the host up to this size is staged and returns at once; a longer one waits for the stream.
const STAGED_BYTES: usize = 64 << 10;

impl State {
    /// Whether these bytes lie in one allocation.
    pub fn holds(&self, address: u64, bytes: usize) -> bool {
        let below = self.allocations.range(..=address).next_back();
        below.is_some_and(|(start, length)| address + bytes as u64 <= start + *length as u64)
    }

    fn is_pinned(&self, address: Handle, bytes: usize) -> bool {
        self.pinned.iter().any(|(&start, held)| address >= start && address + bytes <= start + held.len())
    }

    fn in_use(&self) -> usize {
        self.allocations.values().sum()
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    bound(|state| {
        give(free, state.settings.memory.saturating_sub(state.in_use()))?;
        give(total, state.settings.memory)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(to: *mut u64, bytes: usize) -> Code {
    bound(|state| {
        state.forbidden_in_strict_captures()?;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        state.allocations_made += 1;
        let is_full = bytes > state.settings.memory.saturating_sub(state.in_use());
        if is_full || state.allocations_made == state.settings.fail_alloc {
            return Err(OUT_OF_MEMORY);
        }
        let address = state.memory.alloc(bytes);
        state.allocations.insert(address, bytes);
        give(to, address)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Code {
    bound(|state| {
        state.forbidden_in_strict_captures()?;
        state.wait_for_all()?;
        if state.allocations.remove(&address).is_none() {
            eprintln!("emulated driver: {address:#x} is freed, and no allocation begins there");
            return Err(INVALID_VALUE);
        }
        state.memory.free(address).map_err(|_| INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(to: *mut Handle, bytes: usize, _flags: c_uint) -> Code {
    bound(|state| {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let held = vec![0u8; bytes].into_boxed_slice();
        let address = held.as_ptr() as Handle;
        state.pinned.insert(address, held);
        give(to, address)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: Handle) -> Code {
    bound(|state| state.pinned.remove(&address).map(|_| ()).ok_or(INVALID_VALUE))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) -> Code {
    bound(|state| {
        state.host_copy(stream)?;
        if !state.holds(to, bytes) || from.is_null() {
            return Err(INVALID_VALUE);
        }
        if state.stream(stream)?.hangs {
            return if bytes > STAGED_BYTES && !state.is_pinned(from as Handle, bytes) { Err(FOREVER) } else { Ok(()) };
        }
        // SAFETY: the caller's memory, read before the call returns.
        let values = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) };
        state.memory.write(to, values).map_err(|_| INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) -> Code {
    bound(|state| {
        state.host_copy(stream)?;
        if !state.holds(from, bytes) || to.is_null() {
            return Err(INVALID_VALUE);
        }
        if state.stream(stream)?.hangs {
            return if state.is_pinned(to as Handle, bytes) { Ok(()) } else { Err(FOREVER) };
        }
        // SAFETY: the caller's memory, which nobody else uses until the call returns.
        let values = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), bytes) };
        if let Err(fault) = state.memory.read(from, values) {
            state.fail("cuMemcpyDtoHAsync", &fault);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> Code {
    bound(|state| {
        if !state.holds(from, bytes) || !state.holds(to, bytes) {
            return Err(INVALID_VALUE);
        }
        state.enqueue(stream, Node::Copy { to, from, bytes })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: c_uchar, bytes: usize, stream: Handle) -> Code {
    bound(|state| {
        if !state.holds(to, bytes) {
            return Err(INVALID_VALUE);
        }
        state.enqueue(stream, Node::Fill { to, value, bytes })
    })
}
