//! What can go wrong: text that is not understood, and programs that do what hardware would punish or leave undefined.

use std::fmt;

/// PTX text that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {problem} in `{text}`")]
pub struct ParseError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The line itself, trimmed.
    pub text: String,
    /// What was expected or is not supported.
    pub problem: String,
}

/// Where a running kernel was when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the kernel.
    pub kernel: String,
    /// Index of the block in the grid.
    pub block: [u32; 3],
    /// Index of the thread in the block; the first one concerned where a whole warp is.
    pub thread: [u32; 3],
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The line itself, trimmed.
    pub text: String,
}

/// A run that ended early: what happened, and where, if a kernel was running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// What happened.
    pub what: Trouble,
    /// Where; absent for calls from the host.
    pub place: Option<Box<Place>>,
}

impl From<Trouble> for Fault {
    fn from(what: Trouble) -> Fault {
        Fault { what, place: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            let ([x, y, z], [i, j, k]) = (place.block, place.thread);
            write!(out, "kernel `{}`, block ({x}, {y}, {z}), thread ({i}, {j}, {k}), ", place.kernel)?;
            write!(out, "PTX line {} `{}`: ", place.line, place.text)?;
        }
        write!(out, "{}", self.what)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No allocation holds these bytes.
    #[error("{bytes} bytes at {space} address {address:#x} lie outside every allocation{near}")]
    OutOfBounds {
        /// Address space.
        space: &'static str,
        /// First byte.
        address: u64,
        /// Length of the access.
        bytes: u64,
        /// The nearest allocation below, in words.
        near: Near,
    },
    /// Bytes nobody wrote.
    #[error(
        "{bytes} bytes at {space} address {address:#x} are read before anything was written there (or while a copy into them is under way)"
    )]
    Uninitialised {
        /// Address space.
        space: &'static str,
        /// First byte.
        address: u64,
        /// Length of the access.
        bytes: u64,
    },
    /// An address that is no multiple of what the access needs.
    #[error("address {address:#x} is no multiple of {alignment}")]
    Misaligned {
        /// The address.
        address: u64,
        /// What it should be a multiple of.
        alignment: u64,
    },
    /// Lanes of a warp that a barrier or collective waits for left or wait elsewhere.
    #[error(
        "lanes {missing:#010x} of the warp never reach this instruction, which needs lanes {needed:#010x} together"
    )]
    Divergent {
        /// Mask of the lanes that did not come.
        missing: u32,
        /// Mask of the lanes that were to come.
        needed: u32,
    },
    /// Every thread of the block waits.
    #[error("deadlock: every thread left in the block or cluster waits; {waits}")]
    Deadlock {
        /// Who waits for what.
        waits: String,
    },
    /// Two warps touched the same shared word, one writing, and no barrier orders the two accesses.
    #[error(
        "race in shared memory: the word at {address:#x} was {earlier} by warp {warp}, and nothing orders the two accesses"
    )]
    Race {
        /// Offset in shared memory.
        address: u64,
        /// "written" or "read".
        earlier: &'static str,
        /// The other warp of the block.
        warp: u32,
    },
    /// A copy or warpgroup product reads what an ordinary write may not have made visible to it.
    #[error(
        "shared byte {address:#x} was written by thread {thread}, and no `fence.proxy.async` stands between: \
         copies and warpgroup products may not see it"
    )]
    Unfenced {
        /// Offset in shared memory.
        address: u64,
        /// Linear index of the thread in the block that wrote it.
        thread: u32,
    },
    /// `trap`, or an assertion of the kernel.
    #[error("the kernel executed `trap`")]
    Trap,
    /// A launch that does not fit the kernel.
    #[error("{0}")]
    Launch(String),
    /// Something this emulator does not do.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// An asynchronous protocol used wrongly.
    #[error("{0}")]
    Protocol(String),
}

/// The nearest allocation below an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Near(
    /// Address and length, if there is one.
    pub Option<(u64, u64)>,
);

impl fmt::Display for Near {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((address, bytes)) => write!(out, "; the nearest below holds {bytes} bytes from {address:#x}"),
            None => Ok(()),
        }
    }
}
