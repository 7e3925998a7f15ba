//! Kernel texts, and what is compiled from them.

use std::fmt;

/// Architectures that kernels are written for. A device runs what its own or an older one needs; `Sm90a` alone runs `Sm90a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// Ampere (A100): `mma.sync`, `cp.async`.
    Sm80,
    /// Ada (L40, RTX 40): the same with 99 KB of shared memory a block.
    Sm89,
    /// Hopper with its own instructions: wgmma, TMA, `setmaxnreg`.
    Sm90a,
}

impl Arch {
    /// All, oldest first.
    pub const ALL: [Arch; 3] = [Arch::Sm80, Arch::Sm89, Arch::Sm90a];

    /// The architecture whose code a device of compute capability `major.minor` runs; a newer one has the driver assemble
    /// what every device since Ampere can.
    pub fn of_device(major: i32, minor: i32) -> Option<Arch> {
        match (major, minor) {
            (9, 0) => Some(Arch::Sm90a),
            (8, 9) => Some(Arch::Sm89),
            (8, _) | (10.., _) => Some(Arch::Sm80),
            _ => None,
        }
    }

    /// The compiler's name, e.g. `sm_90a`.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm89 => "sm_89",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// The oldest compiler that knows it, major and minor version.
    pub fn least_compiler(self) -> (i32, i32) {
        match self {
            Arch::Sm80 => (11, 2),
            Arch::Sm89 => (11, 8),
            Arch::Sm90a => (12, 0),
        }
    }

    /// Shared memory that one block may have, bytes.
    pub fn shared_bytes(self) -> u32 {
        match self {
            Arch::Sm80 => 163 << 10,
            Arch::Sm89 => 99 << 10,
            Arch::Sm90a => 227 << 10,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A file of CUDA C++.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path below `src/`, for the compiler's messages.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

impl Source {
    /// Whether the text is PTX, compiled ahead of time: devices take it as it is.
    pub fn is_ptx(&self) -> bool {
        self.name.ends_with(".ptx")
    }
}

/// Files that a kernel may include by name.
pub const HEADERS: &[Source] = &[
    Source { name: "numbers.cuh", text: include_str!("numbers.cuh") },
    Source { name: "warp.cuh", text: include_str!("warp.cuh") },
    Source { name: "mma.cuh", text: include_str!("mma.cuh") },
    Source { name: "lanes.cuh", text: include_str!("lanes.cuh") },
    Source { name: "places.cuh", text: include_str!("places.cuh") },
    Source { name: "tile.cuh", text: include_str!("linear/tile.cuh") },
    Source { name: "inputs.cuh", text: include_str!("linear/inputs.cuh") },
    Source { name: "stored.cuh", text: include_str!("linear/stored.cuh") },
    Source { name: "specialised.cuh", text: include_str!("gemm/specialised.cuh") },
    Source { name: "tensor_store.cuh", text: include_str!("gemm/tensor_store.cuh") },
    Source { name: "scales.cuh", text: include_str!("linear/scales.cuh") },
    Source { name: "wgmma.cuh", text: include_str!("wgmma.cuh") },
    Source { name: "hopper.cuh", text: include_str!("hopper.cuh") },
    Source { name: "attention.cuh", text: include_str!("attention/attention.cuh") },
    Source { name: "swizzled.cuh", text: include_str!("attention/swizzled.cuh") },
    Source { name: "hopper_tiles.cuh", text: include_str!("attention/hopper_tiles.cuh") },
    Source { name: "runs.cuh", text: include_str!("attention/runs.cuh") },
    Source { name: "parts.cuh", text: include_str!("attention/parts.cuh") },
    Source { name: "cache.cuh", text: include_str!("attention/cache.cuh") },
];

/// One compiled kernel: a text, its entry point and the constants it is compiled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSpec {
    /// The text.
    pub source: &'static Source,
    /// Name of the `extern "C" __global__` function.
    pub entry: &'static str,
    /// Constants, given to the compiler as `-DNAME=VALUE`.
    pub defines: Vec<(&'static str, String)>,
    /// The oldest architecture it runs on.
    pub needs: Arch,
}

impl KernelSpec {
    /// A kernel without constants that runs everywhere.
    pub fn new(source: &'static Source, entry: &'static str) -> KernelSpec {
        KernelSpec { source, entry, defines: vec![], needs: Arch::Sm80 }
    }

    /// The same with one more constant.
    pub fn define(mut self, name: &'static str, value: impl ToString) -> KernelSpec {
        self.defines.push((name, value.to_string()));
        self
    }

    /// The same, needing `arch`.
    pub fn needs(self, arch: Arch) -> KernelSpec {
        KernelSpec { needs: arch, ..self }
    }

    /// Name in tables: the entry point and its constants, e.g. `attention_mma[HEAD_DIM=128]`.
    pub fn label(&self) -> String {
        let constants: Vec<String> = self.defines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if constants.is_empty() { self.entry.to_string() } else { format!("{}[{}]", self.entry, constants.join(",")) }
    }
}
