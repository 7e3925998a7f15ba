//! What a stream does or records, and graphs made of records.

use std::ffi::{c_uint, c_ulonglong};
use std::sync::Arc;

use ptx_emulator::{Launch, Module};

use crate::answer::*;
use crate::state::{Handle, State, bound, give};

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: allocations are allowed meanwhile.
const RELAXED: c_uint = 2;
/// What every launch takes, milliseconds of a clock that means nothing.
const LAUNCH_MS: u64 = 4;

/// A recording under way.
#[derive(Debug)]
pub struct Capture {
    nodes: Vec<Node>,
    is_relaxed: bool,
    /// Something that a recording forbids was called.
    is_broken: bool,
}

/// A piece of work.
#[derive(Debug, Clone)]
pub enum Node {
    /// A kernel.
    Launch(KernelLaunch),
    /// A copy inside the device.
    Copy { to: u64, from: u64, bytes: usize },
    /// The same byte everywhere.
    Fill { to: u64, value: u8, bytes: usize },
}

/// A kernel with everything it needs.
#[derive(Debug, Clone)]
pub struct KernelLaunch {
    pub module: Arc<Module>,
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub args: Vec<Vec<u8>>,
}

impl State {
    /// Runs a piece of work on a stream, or records it there.
    pub fn enqueue(&mut self, stream: Handle, node: Node) -> Answer {
        let at = self.stream(stream)?;
        match &mut at.capture {
            Some(capture) if capture.is_broken => Err(CAPTURE_INVALIDATED),
            Some(capture) => {
                capture.nodes.push(node);
                Ok(())
            }
            None => self.run(stream, &node),
        }
    }

    /// Errors of the work appear at a later call.
    fn run(&mut self, stream: Handle, node: &Node) -> Answer {
        let at = self.stream(stream)?;
        if at.hangs {
            return Ok(());
        }
        let (what, outcome) = match node {
            Node::Copy { to, from, bytes } => ("copy", self.memory.copy(*from, *to, *bytes)),
            Node::Fill { to, value, bytes } => ("fill", self.memory.write(*to, &vec![*value; *bytes])),
            Node::Launch(launch) => {
                at.clock += LAUNCH_MS;
                self.launches_made += 1;
                if self.launches_made == self.settings.hang_launch {
                    self.stream(stream)?.hangs = true;
                    return Ok(());
                }
                if self.launches_made == self.settings.fail_launch {
                    self.failed.get_or_insert(LAUNCH_FAILED);
                    return Ok(());
                }
                let KernelLaunch { module, kernel, grid, block, shared_bytes, args } = launch;
                let (grid, block, shared_bytes) = (*grid, *block, *shared_bytes);
                let what = Launch { kernel, grid, block, shared_bytes, args };
                (kernel.as_str(), ptx_emulator::launch(module, &mut self.memory, &what).map(|_| ()))
            }
        };
        if let Err(fault) = outcome {
            self.fail(what, &fault);
        }
        Ok(())
    }

    /// Copies from and to the host and questions about the stream have no place in a recording, and spoil it.
    pub fn forbidden_in_capture_of(&mut self, stream: Handle) -> Answer {
        match &mut self.stream(stream)?.capture {
            None => Ok(()),
            Some(capture) => {
                capture.is_broken = true;
                Err(CAPTURE_UNSUPPORTED)
            }
        }
    }

    /// The same for copies, which run in the stream.
    pub fn host_copy(&mut self, stream: Handle) -> Answer {
        self.forbidden_in_capture_of(stream)
    }

    /// What waits for every stream spoils every recording.
    pub fn forbidden_in_captures(&mut self) -> Answer {
        let mut recording = self.streams.values_mut().filter_map(|stream| stream.capture.as_mut()).peekable();
        if recording.peek().is_none() {
            return Ok(());
        }
        recording.for_each(|capture| capture.is_broken = true);
        Err(CAPTURE_UNSUPPORTED)
    }

    /// The same of recordings that are not relaxed.
    pub fn forbidden_in_strict_captures(&mut self) -> Answer {
        let mut strict =
            self.streams.values_mut().filter_map(|stream| stream.capture.as_mut()).filter(|c| !c.is_relaxed);
        match strict.next() {
            None => Ok(()),
            Some(capture) => {
                capture.is_broken = true;
                Err(CAPTURE_UNSUPPORTED)
            }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> Code {
    bound(|state| {
        // the stream that everybody shares cannot be recorded
        if stream == 0 {
            return Err(CAPTURE_UNSUPPORTED);
        }
        state.forbidden_in_capture_of(stream)?;
        let capture = Capture { nodes: vec![], is_relaxed: mode == RELAXED, is_broken: false };
        state.stream(stream)?.capture = Some(capture);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: Handle, to: *mut c_uint) -> Code {
    bound(|state| {
        let status = state.stream(stream)?.capture.as_ref().map_or(0, |capture| 1 + u32::from(capture.is_broken));
        give(to, status)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: Handle, to: *mut Handle) -> Code {
    bound(|state| {
        let capture = state.stream(stream)?.capture.take().ok_or(CAPTURE_UNMATCHED)?;
        if capture.is_broken {
            give(to, 0)?;
            return Err(CAPTURE_INVALIDATED);
        }
        let graph = state.handle();
        state.graphs.insert(graph, capture.nodes);
        give(to, graph)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(to: *mut Handle, graph: Handle, _flags: c_ulonglong) -> Code {
    bound(|state| {
        let nodes = state.graphs.get(&graph).ok_or(INVALID_VALUE)?.clone();
        let executable = state.handle();
        state.executables.insert(executable, nodes);
        give(to, executable)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> Code {
    bound(|state| {
        let nodes = state.executables.get(&executable).ok_or(INVALID_VALUE)?.clone();
        state.forbidden_in_capture_of(stream)?;
        nodes.iter().try_for_each(|node| state.run(stream, node))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: Handle) -> Code {
    bound(|state| state.executables.remove(&executable).map(|_| ()).ok_or(INVALID_VALUE))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> Code {
    bound(|state| state.graphs.remove(&graph).map(|_| ()).ok_or(INVALID_VALUE))
}
