//! Events: points in a stream. Their clock means nothing.

use std::ffi::c_uint;

use crate::answer::*;
use crate::state::{Handle, State, bound, give};

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: c_uint = 2;

/// An event.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    is_timed: bool,
    /// The stream's clock where it was recorded, and whether the stream gets there.
    recorded: Option<(u64, bool)>,
}

impl State {
    fn event(&mut self, event: Handle) -> Answer<&mut Event> {
        self.events.get_mut(&event).ok_or(INVALID_HANDLE)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(to: *mut Handle, flags: c_uint) -> Code {
    bound(|state| {
        let event = state.handle();
        state.events.insert(event, Event { is_timed: flags & NO_TIMING == 0, recorded: None });
        give(to, event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> Code {
    bound(|state| state.events.remove(&event).map(|_| ()).ok_or(INVALID_HANDLE))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Code {
    bound(|state| {
        state.forbidden_in_capture_of(stream)?;
        let at = state.stream(stream).map(|stream| (stream.clock, !stream.hangs))?;
        state.event(event)?.recorded = Some(at);
        Ok(())
    })
}

fn reached(state: &mut State, event: Handle, otherwise: Code) -> Answer {
    match state.event(event)?.recorded {
        Some((_, false)) => Err(otherwise),
        _ => Ok(()),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> Code {
    bound(|state| reached(state, event, NOT_READY))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> Code {
    bound(|state| reached(state, event, FOREVER))
}

fn elapsed(to: *mut f32, start: Handle, end: Handle) -> Code {
    bound(|state| {
        let (start, end) = (*state.event(start)?, *state.event(end)?);
        let (Some((from, started)), Some((until, ended))) = (start.recorded, end.recorded) else {
            return Err(INVALID_HANDLE);
        };
        if !start.is_timed || !end.is_timed {
            return Err(INVALID_HANDLE);
        }
        if !started || !ended {
            return Err(NOT_READY);
        }
        give(to, until as f32 - from as f32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(to: *mut f32, start: Handle, end: Handle) -> Code {
    elapsed(to, start, end)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(to: *mut f32, start: Handle, end: Handle) -> Code {
    elapsed(to, start, end)
}
