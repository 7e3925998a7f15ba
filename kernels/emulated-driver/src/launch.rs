//! Launches, and what a driver refuses of them.

use std::ffi::{c_uint, c_void};

use crate::answer::*;
use crate::capture::{KernelLaunch, Node};
use crate::module::Function;
use crate::state::{Handle, bound};

/// Bytes of a tensor map, and what its address must be a multiple of.
const TENSOR_MAP: (u64, usize) = (128, 64);

/// The rule that a launch breaks, if it breaks one.
fn broken(function: &Function, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, most_shared: u32) -> Option<String> {
    let threads: u64 = block.iter().map(|&n| u64::from(n)).product();
    let all_shared = shared_bytes + function.info.shared_bytes as u32;
    let rules = [
        (grid.contains(&0) || block.contains(&0), "an empty grid or block".to_string()),
        (threads > 1024 || block[2] > 64, format!("blocks of {block:?} threads; 1024 are possible, 64 along z")),
        (grid[0] > i32::MAX as u32 || grid[1] > 65_535 || grid[2] > 65_535, format!("a grid of {grid:?} blocks")),
        (
            function.info.max_threads != 0 && threads > function.info.max_threads,
            format!("{threads} threads, compiled for {}", function.info.max_threads),
        ),
        (
            shared_bytes > function.most_dynamic,
            format!("{shared_bytes} bytes of dynamic shared memory, {} were asked for", function.most_dynamic),
        ),
        (all_shared > most_shared, format!("{all_shared} bytes of shared memory, a block may have {most_shared}")),
    ];
    rules.into_iter().find(|(breaks, _)| *breaks).map(|(_, rule)| rule)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: Handle,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Code {
    bound(|state| {
        let most_shared = state.settings.most_shared();
        let function = state.function(function)?.clone();
        let refuse = |rule: &str| {
            eprintln!("emulated driver: launch of `{}` refused: {rule}", function.name);
            Err(INVALID_VALUE)
        };
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        if let Some(rule) = broken(&function, grid, block, shared_bytes, most_shared) {
            return refuse(&rule);
        }
        if !extra.is_null() || (params.is_null() && !function.info.parameters.is_empty()) {
            return refuse("parameters as one block of bytes, or none at all");
        }
        let mut args = vec![];
        for (index, &bytes) in function.info.parameters.iter().enumerate() {
            // SAFETY: the caller gives one address per parameter, as a driver demands.
            let address = unsafe { *params.add(index) };
            if address.is_null() || (bytes == TENSOR_MAP.0 && !(address as usize).is_multiple_of(TENSOR_MAP.1)) {
                return refuse(&format!("parameter {index} of {bytes} bytes at {address:?}"));
            }
            // SAFETY: and each address holds a value as large as the parameter.
            args.push(unsafe { std::slice::from_raw_parts(address.cast::<u8>(), bytes as usize) }.to_vec());
        }
        let Function { module, name: kernel, .. } = function;
        state.enqueue(stream, Node::Launch(KernelLaunch { module, kernel, grid, block, shared_bytes, args }))
    })
}
