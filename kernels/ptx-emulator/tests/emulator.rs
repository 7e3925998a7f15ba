//! Kernels on the emulator against arithmetic in Rust.

#[path = "emulator/cluster.rs"]
mod cluster;
#[path = "emulator/device.rs"]
mod device;
#[path = "emulator/faults.rs"]
mod faults;
#[path = "emulator/hopper.rs"]
mod hopper;
#[path = "emulator/instructions.rs"]
mod instructions;
#[path = "emulator/kernels.rs"]
mod kernels;
#[path = "emulator/narrow.rs"]
mod narrow;
