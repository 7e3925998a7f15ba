//! Streams: work in order, done when it is asked for.

use std::ffi::c_uint;

use crate::answer::*;
use crate::capture::Capture;
use crate::state::{Handle, State, bound, give};

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// What it records instead of running it.
    pub capture: Option<Capture>,
    /// A kernel on it never ends.
    pub hangs: bool,
    /// Milliseconds of work behind it.
    pub clock: u64,
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(to: *mut Handle, _flags: c_uint) -> Code {
    bound(|state| {
        let stream = state.handle();
        state.streams.insert(stream, Stream::default());
        give(to, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Code {
    bound(|state| {
        if stream == 0 {
            return Err(INVALID_HANDLE);
        }
        state.stream(stream)?;
        // returns at once; what runs goes on
        if !state.streams[&stream].hangs {
            state.streams.remove(&stream);
        }
        Ok(())
    })
}

fn idle(state: &mut State, stream: Handle, otherwise: Code) -> Answer {
    state.forbidden_in_capture_of(stream)?;
    if state.stream(stream)?.hangs { Err(otherwise) } else { Ok(()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> Code {
    // errors of the work before appear here as well, which `bound` has seen to
    bound(|state| idle(state, stream, FOREVER))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: Handle) -> Code {
    bound(|state| idle(state, stream, NOT_READY))
}
