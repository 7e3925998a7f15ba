//! Waiting for a device that may never be done, and remembering what it died of.
//!
//! A call of the driver that waits cannot be left once a kernel does not end. So nothing here waits inside the driver: the stream
//! is asked whether it is done, without a pause for the first polls (some ten milliseconds: the length of a decoding step, whose
//! latency must not suffer), then with pauses of a 256th of the wait so far, 5 ms at most.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cudarc::driver::{DriverError, sys};

use super::library::describe;
use crate::GpuError;

/// Questions asked without a pause.
const POLLS: u32 = 20_000;
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// How long work may take if nobody says otherwise: no kernel here takes a second of its own.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
/// Names kept of what was launched.
const KEPT: usize = 8;

/// Kernels in the order of their launches, the last few by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Launched {
    names: Vec<(&'static str, usize)>,
    forgotten: usize,
}

impl Launched {
    pub(super) fn push(&mut self, name: &'static str) {
        self.push_many(name, 1);
    }

    fn push_many(&mut self, name: &'static str, count: usize) {
        match self.names.last_mut() {
            Some((last, times)) if *last == name => *times += count,
            _ => self.names.push((name, count)),
        }
        if self.names.len() > KEPT {
            self.forgotten += self.names.remove(0).1;
        }
    }

    fn append(&mut self, other: &Launched) {
        self.forgotten += other.forgotten;
        other.names.iter().for_each(|&(name, count)| self.push_many(name, count));
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl fmt::Display for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return f.write_str("nothing");
        }
        if self.forgotten > 0 {
            write!(f, "{} others, ", self.forgotten)?;
        }
        let words = self.names.iter().map(|(name, times)| match times {
            1 => format!("`{name}`"),
            _ => format!("`{name}` {times} times"),
        });
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

/// What a device is known to be doing.
pub(super) struct Watch {
    limit_ms: AtomicU64,
    /// Since the device was last idle.
    launched: Mutex<Launched>,
    /// What is recorded instead of launched.
    recorded: Mutex<Option<Launched>>,
    /// The error that made the device useless to this process.
    lost: OnceLock<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Errors after which no call of this process succeeds.
fn is_fatal(code: sys::CUresult) -> bool {
    use sys::cudaError_enum as E;
    matches!(
        code,
        E::CUDA_ERROR_ECC_UNCORRECTABLE
            | E::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | E::CUDA_ERROR_ILLEGAL_ADDRESS
            | E::CUDA_ERROR_LAUNCH_TIMEOUT
            | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | E::CUDA_ERROR_ASSERT
            | E::CUDA_ERROR_HARDWARE_STACK_ERROR
            | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | E::CUDA_ERROR_MISALIGNED_ADDRESS
            | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | E::CUDA_ERROR_INVALID_PC
            | E::CUDA_ERROR_LAUNCH_FAILED
    )
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch {
            limit_ms: AtomicU64::new(DEFAULT_LIMIT.as_millis() as u64),
            launched: Mutex::default(),
            recorded: Mutex::default(),
            lost: OnceLock::new(),
        }
    }

    pub(super) fn set_limit(&self, limit: Duration) {
        self.limit_ms.store(limit.as_millis() as u64, Ordering::Relaxed);
    }

    /// Nothing fatal has happened yet.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        match self.lost.get() {
            Some(first) => Err(GpuError::Lost { first: first.clone() }),
            None => Ok(()),
        }
    }

    /// The outcome of a call. A fatal one is remembered, with what was running: it may belong to any of it.
    pub(super) fn answer<T>(&self, call: &str, outcome: Result<T, DriverError>) -> Result<T, GpuError> {
        outcome.map_err(|error| {
            let mut reason = describe(&error);
            if is_fatal(error.0) {
                if let Err(lost) = self.check() {
                    return lost;
                }
                reason = format!("{reason}; launched since the device was last idle: {}", lock(&self.launched));
                let _ = self.lost.set(format!("{call} failed: {reason}"));
            }
            GpuError::Driver { call: call.into(), reason }
        })
    }

    pub(super) fn begin_recording(&self) {
        *lock(&self.recorded) = Some(Launched::default());
    }

    pub(super) fn end_recording(&self) -> Launched {
        lock(&self.recorded).take().unwrap_or_default()
    }

    pub(super) fn is_recording(&self) -> bool {
        lock(&self.recorded).is_some()
    }

    /// A kernel was launched, or recorded.
    pub(super) fn launched(&self, name: &'static str) {
        match &mut *lock(&self.recorded) {
            Some(recorded) => recorded.push(name),
            None => lock(&self.launched).push(name),
        }
    }

    /// A recording was launched.
    pub(super) fn replayed(&self, recorded: &Launched) {
        lock(&self.launched).append(recorded);
    }

    /// Whether anything was launched that nobody has waited for.
    pub(super) fn is_busy(&self) -> bool {
        !lock(&self.launched).is_empty()
    }

    /// Everything launched so far is done.
    pub(super) fn is_idle_now(&self) {
        *lock(&self.launched) = Launched::default();
    }

    /// Asks `query` until it says something else than that the device is not ready. Pauses are counted and not timed, so that the
    /// limit is a lower bound.
    pub(super) fn poll(&self, call: &str, query: impl Fn() -> sys::CUresult) -> Result<(), GpuError> {
        let limit = Duration::from_millis(self.limit_ms.load(Ordering::Relaxed));
        let (mut polls, mut paused) = (0, Duration::ZERO);
        loop {
            match query() {
                sys::cudaError_enum::CUDA_ERROR_NOT_READY => {}
                code => return self.answer(call, code.result()),
            }
            if polls < POLLS {
                polls += 1;
                std::hint::spin_loop();
                continue;
            }
            if paused >= limit {
                let (seconds, kernels) = (limit.as_secs_f64(), lock(&self.launched).to_string());
                let hangs = GpuError::Hangs { seconds, kernels };
                let _ = self.lost.set(hangs.to_string());
                return Err(hangs);
            }
            let pause = (paused / 256).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            std::thread::sleep(pause);
            paused += pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_named_from_the_last() {
        let mut launched = Launched::default();
        assert_eq!(launched.to_string(), "nothing");
        for name in ["a", "b", "b", "c"] {
            launched.push(name);
        }
        assert_eq!(launched.to_string(), "`a`, `b` 2 times, `c`");
        for name in ["d", "e", "f", "g", "h", "i"] {
            launched.push(name);
        }
        assert_eq!(launched.to_string(), "1 others, `b` 2 times, `c`, `d`, `e`, `f`, `g`, `h`, `i`");
    }

    #[test]
    fn a_wait_ends_at_its_limit_and_is_remembered() {
        let watch = Watch::new();
        watch.set_limit(Duration::from_millis(30));
        watch.launched("endless");
        let never = || sys::cudaError_enum::CUDA_ERROR_NOT_READY;
        let error = watch.poll("cuStreamQuery", never).unwrap_err().to_string();
        assert!(error.contains("`endless`") && error.contains("0.03 s"), "{error}");
        let later = watch.check().unwrap_err().to_string();
        assert!(later.contains("`endless`"), "{later}");
    }
}
