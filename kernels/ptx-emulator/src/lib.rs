//! Runs PTX on the CPU, thread by thread: a correctness oracle of compiled kernels where there is no GPU.
//!
//! A [`Module`] is the text that a compiler emitted, decoded once. [`launch`] executes a kernel of it on a [`Memory`], a warp's lanes
//! together, and gives [`Counts`] or a [`Fault`] that names block, thread and PTX line. Addresses, uninitialised bytes, barriers, races
//! between warps, asynchronous copies and the fences before them are checked; time is not modelled. The blocks of a cluster run in turns; clusters run one after the other,
//! so a kernel whose earlier clusters wait for later ones does not end here.

#![warn(missing_docs)]

mod counts;
mod decode;
mod execute;
mod fault;
mod float;
mod lexer;
mod memory;
mod operation;
mod parse;
mod races;
mod shared;
mod syntax;
mod tensor_map;

pub use counts::Counts;
pub use fault::{Fault, Near, ParseError, Place, Trouble};
pub use memory::Memory;
pub use tensor_map::{TensorMap, TensorMapError};

use decode::{Global, Program};
use execute::Geometry;

/// Kernels of one PTX text.
#[derive(Debug)]
pub struct Module {
    programs: Vec<Program>,
    globals: Vec<Global>,
    source: String,
}

impl Module {
    /// Decodes all kernels. Every instruction must be known, also those that are never reached.
    pub fn parse(ptx: &str) -> Result<Module, ParseError> {
        let text = parse::parse(ptx)?;
        let (programs, globals) = decode::decode(&text, ptx)?;
        Ok(Module { programs, globals, source: ptx.to_owned() })
    }

    /// Names of the kernels, in order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().map(|program| program.name.as_str())
    }
}

/// What a launch of a kernel has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelInfo {
    /// Bytes of each parameter.
    pub parameters: Vec<u64>,
    /// Shared memory that the text declares, bytes.
    pub shared_bytes: u64,
    /// Threads of a block it is compiled for; 0 where the text says nothing.
    pub max_threads: u64,
}

impl Module {
    /// The kernel `name`, if there is one.
    pub fn kernel(&self, name: &str) -> Option<KernelInfo> {
        let program = self.programs.iter().find(|program| program.name == name)?;
        Some(KernelInfo {
            parameters: program.params.iter().map(|&(_, bytes)| bytes).collect(),
            shared_bytes: program.dynamic_shared - shared::FIRST_SHARED,
            max_threads: program.max_threads,
        })
    }
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Name of the kernel.
    pub kernel: &'a str,
    /// Blocks per axis.
    pub grid: [u32; 3],
    /// Threads per axis.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Little-endian bytes of every parameter.
    pub args: &'a [Vec<u8>],
}

/// Runs a kernel to its end. Module-level variables have their initial values at every launch.
pub fn launch(module: &Module, memory: &mut Memory, launch: &Launch<'_>) -> Result<Counts, Fault> {
    let refuse = |text: String| Fault::from(Trouble::Launch(text));
    let program = module.programs.iter().find(|program| program.name == launch.kernel).ok_or_else(|| {
        let names: Vec<&str> = module.kernels().collect();
        refuse(format!("there is no kernel `{}`; the module has {}", launch.kernel, names.join(", ")))
    })?;
    let threads: u64 = launch.block.iter().map(|&n| n as u64).product();
    if threads == 0 || threads > 1024 || launch.grid.contains(&0) || launch.block[2] > 64 {
        let (grid, block) = (launch.grid, launch.block);
        return Err(refuse(format!("a grid of {grid:?} blocks of {block:?} threads; 1 to 1024 threads are possible")));
    }
    if launch.grid[1] > 65_535 || launch.grid[2] > 65_535 {
        return Err(refuse(format!("a grid of {:?} blocks; 65535 are possible along y and z", launch.grid)));
    }
    if program.max_threads != 0 && threads > program.max_threads {
        let most = program.max_threads;
        return Err(refuse(format!("{threads} threads, kernel `{}` is compiled for {most}", program.name)));
    }
    let cluster = program.cluster;
    if cluster.contains(&0) || cluster.iter().product::<u32>() > 8 {
        let name = &program.name;
        return Err(refuse(format!("kernel `{name}` wants clusters of {cluster:?} blocks; 1 to 8 are possible")));
    }
    if (0..3).any(|axis| !launch.grid[axis].is_multiple_of(cluster[axis])) {
        let (grid, name) = (launch.grid, &program.name);
        return Err(refuse(format!("a grid of {grid:?} blocks, kernel `{name}` runs in clusters of {cluster:?}")));
    }
    let geometry_bytes = launch.shared_bytes as u64 + program.dynamic_shared - shared::FIRST_SHARED;
    if geometry_bytes > 232_448 {
        return Err(refuse(format!("{geometry_bytes} bytes of shared memory; 232448 are possible")));
    }
    let params = parameters(program, launch.args).map_err(refuse)?;
    let geometry = Geometry {
        grid: launch.grid,
        block: launch.block,
        cluster,
        shared_bytes: launch.shared_bytes,
        params: &params,
    };
    execute::run(program, &module.globals, &module.source, memory, &geometry)
}

fn parameters(program: &Program, args: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    if program.params.len() != args.len() {
        let (name, need) = (&program.name, program.params.len());
        return Err(format!("kernel `{name}` takes {need} parameters, {} were given", args.len()));
    }
    let end = program.params.last().map_or(0, |(at, bytes)| at + bytes);
    let mut all = vec![0; end as usize];
    for (index, (&(at, bytes), arg)) in program.params.iter().zip(args).enumerate() {
        if arg.len() as u64 != bytes {
            let name = &program.name;
            return Err(format!("parameter {index} of kernel `{name}` has {bytes} bytes, {} were given", arg.len()));
        }
        all[at as usize..(at + bytes) as usize].copy_from_slice(arg);
    }
    Ok(all)
}
