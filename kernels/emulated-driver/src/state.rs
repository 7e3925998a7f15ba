//! What the driver knows: one per process, as a driver is. Nothing of it decides a result outside of tests.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ptx_emulator::{Fault, Memory, Trouble};

use crate::answer::*;
use crate::capture::Node;
use crate::event::Event;
use crate::module::{Function, LoadedModule};
use crate::settings::Settings;
use crate::stream::Stream;

/// The address of something of the driver's, as the caller knows it.
pub type Handle = usize;

/// Everything.
pub struct State {
    pub settings: Settings,
    /// Whether `cuInit` was called.
    pub is_initialised: bool,
    /// Device number and holders of each primary context.
    pub contexts: HashMap<Handle, (u32, u32)>,
    pub memory: Memory,
    /// Bytes by address.
    pub allocations: BTreeMap<u64, usize>,
    /// Page-locked memory of the host.
    pub pinned: HashMap<Handle, Box<[u8]>>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub modules: HashMap<Handle, LoadedModule>,
    pub functions: HashMap<Handle, Function>,
    pub graphs: HashMap<Handle, Vec<Node>>,
    pub executables: HashMap<Handle, Vec<Node>>,
    /// The error that every later call gives.
    pub failed: Option<Code>,
    pub allocations_made: u64,
    pub launches_made: u64,
    next: Handle,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| Mutex::new(State::new()));

thread_local! {
    /// The context that is this thread's; 0 is none.
    pub static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

impl State {
    fn new() -> State {
        State {
            settings: Settings::default(),
            is_initialised: false,
            contexts: HashMap::new(),
            memory: Memory::new(),
            allocations: BTreeMap::new(),
            pinned: HashMap::new(),
            // the stream that needs no creation
            streams: HashMap::from([(0, Stream::default())]),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            failed: None,
            allocations_made: 0,
            launches_made: 0,
            next: 0x1000,
        }
    }

    /// An address that nothing else has.
    pub fn handle(&mut self) -> Handle {
        self.next += 0x40;
        self.next
    }

    /// The stream, unless it does not exist.
    pub fn stream(&mut self, stream: Handle) -> Answer<&mut Stream> {
        self.streams.get_mut(&stream).ok_or(INVALID_HANDLE)
    }

    /// Calls that wait for everything on the device wait for a kernel that never ends as well.
    pub fn wait_for_all(&self) -> Answer {
        if self.streams.values().any(|stream| stream.hangs) { Err(FOREVER) } else { Ok(()) }
    }

    /// A kernel or a copy went astray: the context is lost, and every later call says so.
    pub fn fail(&mut self, what: &str, fault: &Fault) {
        let code = match fault.what {
            Trouble::OutOfBounds { .. } | Trouble::Uninitialised { .. } => ILLEGAL_ADDRESS,
            Trouble::Misaligned { .. } => MISALIGNED_ADDRESS,
            _ => LAUNCH_FAILED,
        };
        eprintln!("emulated driver: {what}: {fault}");
        self.failed.get_or_insert(code);
    }
}

/// A call that needs `cuInit` and nothing else.
pub fn plain(call: impl FnOnce(&mut State) -> Answer) -> Code {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        call(&mut state)
    }));
    match outcome {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(FOREVER)) => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        Ok(Err(code)) => code,
        // no panic may leave through C
        Err(_) => UNKNOWN,
    }
}

/// A call that needs `cuInit`.
pub fn initialised(call: impl FnOnce(&mut State) -> Answer) -> Code {
    plain(|state| if state.is_initialised { call(state) } else { Err(NOT_INITIALIZED) })
}

/// A call that needs a context bound to this thread, and one that has not failed.
pub fn bound(call: impl FnOnce(&mut State) -> Answer) -> Code {
    initialised(|state| {
        if !state.contexts.contains_key(&CURRENT.get()) {
            return Err(INVALID_CONTEXT);
        }
        match state.failed {
            Some(code) => Err(code),
            None => call(state),
        }
    })
}

/// Writes a result to where the caller wants it.
pub fn give<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() || !to.is_aligned() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller's address of a `T`, which is neither null nor misaligned.
    unsafe { to.write(value) };
    Ok(())
}

/// For tests: how many contexts, streams, events, modules, graphs (with their executables) and allocations there are, in this order.
#[unsafe(no_mangle)]
extern "C" fn emulatedDriverLiving(counts: *mut [u64; 6]) -> Code {
    plain(|state| {
        let streams = state.streams.len() - 1;
        let graphs = state.graphs.len() + state.executables.len();
        let memory = state.allocations.len() + state.pinned.len();
        let all = [state.contexts.len(), streams, state.events.len(), state.modules.len(), graphs, memory];
        give(counts, all.map(|count| count as u64))
    })
}
