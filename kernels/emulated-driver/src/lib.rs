//! A stand-in for `libcuda.so`: the calls of the CUDA driver that this repository makes, on a device that executes PTX on the CPU.
//!
//! An instrument of tests, never part of a program. A child process finds it as `libcuda.so.1` on `LD_LIBRARY_PATH`, and the same
//! code that talks to a GPU's driver talks to it. It refuses what a driver refuses, and more: handles that do not exist, freed
//! twice or bound to no thread, launches beyond the device's limits, tensor maps against the documented rules, what a capture
//! forbids, reads of memory that nobody wrote. A kernel that goes astray gives a *sticky* error, which appears at a later call.
//!
//! Work is done in order when it is asked for. Machine code is refused as code for another device is
//! (`CUDA_ERROR_NO_BINARY_FOR_GPU`): the caller is expected to offer PTX then. Every launch takes 4 ms of a clock that means
//! nothing, so that loops which time kernels end. What a test wants of the device is in [`SETTINGS`].
//!
//! By hand, any program or test runs on it: `cargo build -p emulated-driver`, then in a folder `libcuda.so` and `libcuda.so.1` as links to
//! `target/debug/libemulated_driver.so`, then the program with `LD_LIBRARY_PATH` naming that folder. With `DRIVER_TEST_CHILD=1` the
//! tests of cuda-kernels leave the emulator out and run on this device alone.

#![allow(non_snake_case)]

mod answer;
mod capture;
mod device;
mod event;
mod launch;
mod memory;
mod module;
mod settings;
mod state;
mod stream;
mod tensor_map;

/// Environment variable with the device's properties and failures, as words `key=value`: `capability=9.0`, `devices=1`,
/// `version=13000`, `memory=17179869184` (bytes), `fail-alloc=N`, `fail-launch=N`, `hang-launch=N` (the N-th of the process, from
/// 1), `refuse-ptx=1`.
pub const SETTINGS: &str = "EMULATED_DRIVER";

/// What its name begins with.
pub const NAME: &str = "emulated CUDA device (its times mean nothing)";
