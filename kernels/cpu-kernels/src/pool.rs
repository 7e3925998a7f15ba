//! What: a spin-then-park thread pool for jobs of 10 µs to 10 ms; the caller takes part.
//!
//! Method: one atomic word holds (epoch, open, joined workers). 1. The caller writes the job, then opens the word.
//! 2. A worker that sees a new open epoch joins by compare-exchange, works, and leaves. 3. Items are claimed from one counter per
//! thread: its own contiguous range first (so the same weights stay in the same core's cache), then the others'.
//! 4. When nothing is left to claim the caller closes the word and waits only for workers that joined: a parked or
//! descheduled worker never delays it.
//! Waiting: [`SPINS`] pause instructions (about 20–90 µs, by microarchitecture), then park.
//! Panics: caught per thread, rethrown by the caller when all joined workers have left. Not handled: nested parallelism
//! (a nested call runs inline), priorities, pinning.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};

const SPINS: usize = 2000;
const OPEN: u64 = 1 << 32;
const EPOCH: u64 = 1 << 33;
const JOINED: u64 = OPEN - 1;

type Task = *const (dyn Fn(usize) + Sync);

/// A worker's or the caller's claim counter, alone on its cache lines.
#[repr(align(128))]
struct Claim {
    next: AtomicUsize,
    end: AtomicUsize,
}

struct Shared {
    state: AtomicU64,
    task: UnsafeCell<Option<Task>>,
    claims: Vec<Claim>,
    parked: Vec<AtomicBool>,
    waiting_caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    shutdown: AtomicBool,
}

// SAFETY: `task` is written only by the holder of `submit` while the word is closed and no worker is joined, and read
// only by joined workers; the word's acquire/release orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the task pointer is only called while its owner, the submitting thread, waits in `run`.
unsafe impl Send for Shared {}

/// The threads behind a [`crate::Cpu`].
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    submit: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads including the caller's; fewer if the system refuses to start one.
    pub(crate) fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            claims: (0..threads).map(|_| Claim { next: AtomicUsize::new(0), end: AtomicUsize::new(0) }).collect(),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            waiting_caller: Mutex::new(None),
            panic: Mutex::new(None),
            shutdown: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("kernel-{i}")).spawn(move || shared.work(i)).ok()
        };
        let workers = (1..threads).map_while(spawn).collect();
        Self { shared, workers, submit: Mutex::new(()) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    pub(crate) fn run(&self, n_items: usize, f: &(dyn Fn(usize) + Sync)) {
        let exclusive = if self.workers.is_empty() || n_items <= 1 { None } else { try_lock(&self.submit) };
        let Some(exclusive) = exclusive else {
            return (0..n_items).for_each(f);
        };
        let outcome = self.run_shared(n_items, f);
        let from_worker = lock(&self.shared.panic).take();
        drop(exclusive);
        if let Some(payload) = outcome.err().or(from_worker) {
            resume_unwind(payload);
        }
    }

    fn run_shared(&self, n_items: usize, f: &(dyn Fn(usize) + Sync)) -> Result<(), Box<dyn Any + Send>> {
        let shared = &*self.shared;
        let threads = shared.claims.len();
        for (t, claim) in shared.claims.iter().enumerate() {
            claim.next.store(n_items * t / threads, Relaxed);
            claim.end.store(n_items * (t + 1) / threads, Relaxed);
        }
        // SAFETY: only the lifetime changes; the pointer is dead to all once this function returns, see below.
        let task: Task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: the word is closed with nobody joined (the previous run waited for that) and `submit` is held.
        unsafe { *shared.task.get() = Some(task) };
        shared.state.fetch_add(EPOCH | OPEN, Release);
        fence(SeqCst); // pairs with the fence in `wait_for_job`: either we see the flag or the worker sees the job
        for (flag, worker) in shared.parked.iter().zip(&self.workers) {
            if flag.load(Relaxed) {
                worker.thread().unpark();
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.claim_and_run(0, f)));
        // From here on nobody can join, and returning waits for those who did: `f` outlives every use.
        shared.state.fetch_and(!OPEN, AcqRel);
        shared.wait_until_left();
        outcome
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker cannot panic outside a task, and those panics are caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Claims items, own range first, until none is left anywhere.
    fn claim_and_run(&self, me: usize, f: &(dyn Fn(usize) + Sync)) {
        let threads = self.claims.len();
        for offset in 0..threads {
            let claim = &self.claims[(me + offset) % threads];
            let end = claim.end.load(Relaxed);
            while claim.next.load(Relaxed) < end {
                let i = claim.next.fetch_add(1, Relaxed);
                if i < end {
                    f(i);
                }
            }
        }
    }

    /// The life of worker `me`.
    fn work(&self, me: usize) {
        let mut last_epoch = 0;
        while let Some(state) = self.wait_for_job(me, last_epoch) {
            if self.state.compare_exchange_weak(state, state + 1, Acquire, Relaxed).is_err() {
                continue;
            }
            last_epoch = state / EPOCH;
            // SAFETY: joined, so the submitter keeps both the cell and the closure alive and unchanged until we leave.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe {
                if let Some(task) = *self.task.get() {
                    self.claim_and_run(me, &*task);
                }
            }));
            if let Err(payload) = outcome {
                lock(&self.panic).get_or_insert(payload);
            }
            let before = self.state.fetch_sub(1, AcqRel);
            if before & OPEN == 0
                && before & JOINED == 1
                && let Some(caller) = &*lock(&self.waiting_caller)
            {
                caller.unpark();
            }
        }
    }

    /// Spins, then parks, until an open epoch other than `last_epoch` is seen; `None` on shutdown.
    fn wait_for_job(&self, me: usize, last_epoch: u64) -> Option<u64> {
        let fresh = || Some(self.state.load(Acquire)).filter(|s| s & OPEN != 0 && s / EPOCH != last_epoch);
        loop {
            for _ in 0..SPINS {
                if let Some(state) = fresh() {
                    return Some(state);
                }
                if self.shutdown.load(Relaxed) {
                    return None;
                }
                std::hint::spin_loop();
            }
            let parked = &self.parked[me - 1];
            parked.store(true, Relaxed);
            fence(SeqCst);
            while fresh().is_none() && !self.shutdown.load(SeqCst) {
                std::thread::park();
            }
            parked.store(false, Relaxed);
        }
    }

    /// Waits, on the caller's side, until every joined worker has left the closed job.
    fn wait_until_left(&self) {
        let busy = || self.state.load(Acquire) & JOINED != 0;
        for _ in 0..SPINS {
            if !busy() {
                return;
            }
            std::hint::spin_loop();
        }
        *lock(&self.waiting_caller) = Some(std::thread::current());
        while busy() {
            std::thread::park();
        }
        *lock(&self.waiting_caller) = None;
    }
}

/// The lock, whether or not a task panicked while it was held: the data are valid at every point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock(mutex: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
