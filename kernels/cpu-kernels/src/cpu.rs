//! The machine handle: which instruction set to use and the threads to use it on.

use crate::isa::{Isa, Token};
use crate::pool::Pool;
use std::sync::Arc;

/// The asked-for instruction set is not on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("instruction set `{}` is not available on this machine (available: {}); pin one of those or leave it unset", .isa.name(), available_names())]
pub struct UnsupportedIsa {
    /// The level that was asked for.
    pub isa: Isa,
}

fn available_names() -> String {
    Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

/// One instruction-set level and one thread pool; every kernel takes it first. Shared as `Arc<Cpu>`.
pub struct Cpu {
    token: Token,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpu").field("isa", &self.isa()).field("threads", &self.threads()).finish()
    }
}

impl Cpu {
    /// A handle at `isa` (`None`: the best of this machine) with `threads` threads, the caller's included (0 counts as 1).
    pub fn new(isa: Option<Isa>, threads: usize) -> Result<Cpu, UnsupportedIsa> {
        let isa = isa.unwrap_or_else(Isa::best);
        let token = Token::detect(isa).ok_or(UnsupportedIsa { isa })?;
        Ok(Cpu { token, pool: Arc::new(Pool::new(threads)) })
    }

    /// The same threads at another instruction-set level.
    pub fn at(&self, isa: Isa) -> Result<Cpu, UnsupportedIsa> {
        let token = Token::detect(isa).ok_or(UnsupportedIsa { isa })?;
        Ok(Cpu { token, pool: Arc::clone(&self.pool) })
    }

    /// The level kernels run at.
    pub fn isa(&self) -> Isa {
        self.token.isa()
    }

    /// Threads that take part in [`Cpu::parallel`], the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// Runs `f(0) … f(n_items − 1)`, each once, and returns when all are done. Item ranges are contiguous per thread
    /// with stealing at the end; a call from inside a task, or while another thread uses the pool, runs inline.
    /// A panic in a task reaches the caller after the other tasks have ended.
    pub fn parallel(&self, n_items: usize, f: &(dyn Fn(usize) + Sync)) {
        self.pool.run(n_items, f);
    }

    /// Runs `f(i, chunk_i)` over consecutive disjoint chunks of `chunk` values (the last may be shorter), in parallel.
    pub fn parallel_chunks_mut(&self, data: &mut [f32], chunk: usize, f: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let chunk = chunk.max(1);
        let len = data.len();
        let base = SendPtr(data.as_mut_ptr());
        self.parallel(len.div_ceil(chunk), &|i| {
            let start = i * chunk;
            let n = chunk.min(len - start);
            // SAFETY: each i is handed out once, so the ranges [start, start + n) are disjoint and inside `data`,
            // which stays mutably borrowed until `parallel` returns.
            f(i, unsafe { std::slice::from_raw_parts_mut(base.get().add(start), n) });
        });
    }

    /// [`Cpu::parallel`] where `cycles`, a rough estimate of the whole work, is worth a hand-over; else inline.
    pub(crate) fn parallel_if_worth(&self, cycles: usize, n_items: usize, f: &(dyn Fn(usize) + Sync)) {
        if cycles < WORTH_CYCLES {
            (0..n_items).for_each(f);
        } else {
            self.parallel(n_items, f);
        }
    }
}

/// Below this (about 10–20 µs) waking and rejoining the other threads costs more than they save.
pub(crate) const WORTH_CYCLES: usize = 40_000;

/// A raw pointer that tasks may carry to other threads; each use states why its writes are disjoint.
#[derive(Clone, Copy)]
pub(crate) struct SendPtr<T>(pub(crate) *mut T);
// SAFETY: the pointer is only dereferenced in tasks that touch disjoint ranges while the owner's borrow is alive.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    /// The pointer; a method so that closures capture the whole wrapper.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}
