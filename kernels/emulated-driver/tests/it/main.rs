//! The driver's own rules, asked through its C interface as a program does that opened it.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

// the library itself; what it exports is declared below
use emulated_driver as _;

type Handle = usize;

#[allow(non_snake_case)]
mod driver {
    use super::*;

    unsafe extern "C" {
        pub safe fn cuInit(flags: c_uint) -> u32;
        pub safe fn cuDevicePrimaryCtxRetain(to: &mut Handle, device: c_int) -> u32;
        pub safe fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> u32;
        pub safe fn cuCtxSetCurrent(context: Handle) -> u32;
        pub safe fn cuMemAlloc_v2(to: &mut u64, bytes: usize) -> u32;
        pub safe fn cuMemFree_v2(address: u64) -> u32;
        pub safe fn cuStreamCreate(to: &mut Handle, flags: c_uint) -> u32;
        pub safe fn cuStreamDestroy_v2(stream: Handle) -> u32;
        pub safe fn cuStreamSynchronize(stream: Handle) -> u32;
        pub safe fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> u32;
        pub safe fn cuStreamEndCapture(stream: Handle, graph: &mut Handle) -> u32;
        pub safe fn cuGraphDestroy(graph: Handle) -> u32;
        pub safe fn cuEventCreate(to: &mut Handle, flags: c_uint) -> u32;
        pub safe fn cuEventRecord(event: Handle, stream: Handle) -> u32;
        pub safe fn cuEventElapsedTime(ms: &mut f32, start: Handle, end: Handle) -> u32;
        pub safe fn cuEventDestroy_v2(event: Handle) -> u32;
        pub safe fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: Handle) -> u32;
        pub safe fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) -> u32;
        pub safe fn cuModuleUnload(module: Handle) -> u32;
        pub fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) -> u32;
        pub fn cuModuleLoadData(to: &mut Handle, image: *const c_void) -> u32;
        pub fn cuModuleGetFunction(to: &mut Handle, module: Handle, name: *const c_char) -> u32;
        pub fn cuLaunchKernel(
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
        ) -> u32;
        pub fn cuTensorMapEncodeTiled(
            to: *mut c_void,
            data_type: c_uint,
            rank: c_uint,
            base: u64,
            dims: *const u64,
            strides: *const u64,
            box_dims: *const u32,
            element_strides: *const u32,
            interleave: c_uint,
            swizzle: c_uint,
            promotion: c_uint,
            fill: c_uint,
        ) -> u32;
    }
}

use driver::*;

const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;
const NO_BINARY_FOR_GPU: u32 = 209;
const INVALID_HANDLE: u32 = 400;
const NOT_FOUND: u32 = 500;
const ILLEGAL_ADDRESS: u32 = 700;
const CAPTURE_UNSUPPORTED: u32 = 900;
const CAPTURE_INVALIDATED: u32 = 901;
const CAPTURE_UNMATCHED: u32 = 903;

/// A context that is this thread's, for one test at a time: the driver is the process's.
struct Bound(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

fn bound() -> Bound {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut context = 0;
    assert_eq!([cuInit(0), cuDevicePrimaryCtxRetain(&mut context, 0), cuCtxSetCurrent(context)], [0; 3]);
    Bound(turn)
}

impl Drop for Bound {
    fn drop(&mut self) {
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
    }
}

fn stream() -> Handle {
    let mut stream = 0;
    assert_eq!(cuStreamCreate(&mut stream, 1), 0);
    stream
}

fn memory(bytes: usize) -> u64 {
    let mut address = 0;
    assert_eq!(cuMemAlloc_v2(&mut address, bytes), 0);
    address
}

#[test]
fn handles_must_exist_and_memory_is_freed_once() {
    let _bound = bound();
    let address = memory(256);
    assert_eq!(cuMemFree_v2(address + 8), INVALID_VALUE);
    assert_eq!(cuMemFree_v2(address), 0);
    assert_eq!(cuMemFree_v2(address), INVALID_VALUE);
    assert_eq!(cuMemsetD8Async(address, 0, 8, 0), INVALID_VALUE);
    assert_eq!(cuMemAlloc_v2(&mut 0, 0), INVALID_VALUE);
    let stream = stream();
    assert_eq!([cuStreamDestroy_v2(stream), cuStreamDestroy_v2(stream)], [0, INVALID_HANDLE]);
    assert_eq!(cuStreamSynchronize(stream), INVALID_HANDLE);
    assert_eq!(cuModuleUnload(stream), INVALID_HANDLE);
    assert_eq!(cuFuncSetAttribute(stream, 8, 1), INVALID_HANDLE);
    // the context is this thread's alone
    std::thread::spawn(|| assert_eq!(cuMemAlloc_v2(&mut 0, 8), INVALID_CONTEXT)).join().unwrap();
}

/// Questions and strict allocations spoil a recording; a relaxed one allows memory.
#[test]
fn recordings_forbid_what_a_driver_forbids() {
    let _bound = bound();
    let (stream, mut graph) = (stream(), 0);
    assert_eq!(cuStreamEndCapture(stream, &mut graph), CAPTURE_UNMATCHED);
    assert_eq!(cuStreamBeginCapture_v2(0, 2), CAPTURE_UNSUPPORTED);
    for (mode, expected) in [(0, CAPTURE_UNSUPPORTED), (1, CAPTURE_UNSUPPORTED), (2, 0)] {
        let (outside, mut inside) = (memory(8), 0);
        assert_eq!(cuStreamBeginCapture_v2(stream, mode), 0);
        assert_eq!(cuMemAlloc_v2(&mut inside, 8), expected);
        let outcome = if expected == 0 { 0 } else { CAPTURE_INVALIDATED };
        assert_eq!(cuMemsetD8Async(outside, 1, 8, stream), outcome);
        assert_eq!(cuStreamEndCapture(stream, &mut graph), outcome);
        if expected == 0 {
            assert_eq!([cuGraphDestroy(graph), cuGraphDestroy(graph), cuMemFree_v2(inside)], [0, INVALID_VALUE, 0]);
        }
        assert_eq!(cuMemFree_v2(outside), 0);
    }
    assert_eq!(cuStreamBeginCapture_v2(stream, 2), 0);
    assert_eq!(cuStreamSynchronize(stream), CAPTURE_UNSUPPORTED);
    assert_eq!(cuStreamEndCapture(stream, &mut graph), CAPTURE_INVALIDATED);
    assert_eq!(cuStreamDestroy_v2(stream), 0);
}

#[test]
fn times_need_events_that_were_recorded_and_time() {
    let _bound = bound();
    let [mut timed, mut other, mut untimed] = [0; 3];
    assert_eq!([cuEventCreate(&mut timed, 0), cuEventCreate(&mut other, 0), cuEventCreate(&mut untimed, 2)], [0; 3]);
    let mut ms = f32::NAN;
    assert_eq!(cuEventElapsedTime(&mut ms, timed, other), INVALID_HANDLE);
    assert_eq!([timed, other, untimed].map(|event| cuEventRecord(event, 0)), [0; 3]);
    assert_eq!(cuEventElapsedTime(&mut ms, timed, untimed), INVALID_HANDLE);
    assert_eq!(cuEventElapsedTime(&mut ms, timed, other), 0);
    assert_eq!(ms, 0.0);
    assert_eq!([timed, other, untimed].map(|event| cuEventDestroy_v2(event)), [0; 3]);
}

const TEXT: &str = ".version 8.0
.target sm_80
.address_size 64
.visible .entry store(.param .u64 to, .param .u32 value)
.maxntid 64, 1, 1
{
    .reg .b64 %rd<3>;
    .reg .b32 %r<2>;
    ld.param.u64 %rd1, [to];
    ld.param.u32 %r1, [value];
    cvta.to.global.u64 %rd2, %rd1;
    st.global.u32 [%rd2], %r1;
    ret;
}
";

fn load(text: &str, module: &mut Handle) -> u32 {
    let text = CString::new(text).unwrap();
    // SAFETY: text with its zero byte.
    unsafe { cuModuleLoadData(module, text.as_ptr().cast()) }
}

#[test]
fn modules_are_for_this_device_and_launches_within_its_limits() {
    let _bound = bound();
    let (mut module, mut function) = (0, 0);
    for target in ["sm_91", "sm_100", "sm_80a"] {
        assert_eq!(load(&TEXT.replace("sm_80", target), &mut module), NO_BINARY_FOR_GPU, "{target}");
    }
    assert_ne!(load(&TEXT.replace("8.0", "10.0"), &mut module), 0);
    assert_ne!(load("no PTX", &mut module), 0);
    assert_eq!(load(TEXT, &mut module), 0);
    // SAFETY: texts with their zero bytes.
    unsafe {
        assert_eq!(cuModuleGetFunction(&mut function, module, c"stores".as_ptr()), NOT_FOUND);
        assert_eq!(cuModuleGetFunction(&mut function, module, c"store".as_ptr()), 0);
    }
    let (address, value) = (memory(4), 7u32);
    let launch = |grid: [u32; 3], block: [u32; 3], shared: u32, to: u64, with_value: bool| {
        let value = if with_value { (&raw const value).cast() } else { std::ptr::null() };
        let params: [*const c_void; 2] = [(&raw const to).cast(), value];
        let ([x, y, z], [a, b, c]) = (grid, block);
        // SAFETY: one address per parameter, of values of their sizes.
        unsafe { cuLaunchKernel(function, x, y, z, a, b, c, shared, 0, params.as_ptr(), std::ptr::null()) }
    };
    let one = [1; 3];
    assert_eq!(launch(one, one, 0, address, true), 0);
    let mut found = [0u8; 4];
    // SAFETY: four bytes.
    assert_eq!(unsafe { cuMemcpyDtoHAsync_v2(found.as_mut_ptr().cast(), address, 4, 0) }, 0);
    assert_eq!(found, [7, 0, 0, 0]);
    for (grid, block, shared) in [
        ([0, 1, 1], one, 0),
        ([1, 65_536, 1], one, 0),
        (one, [65, 1, 1], 0),
        (one, [1025, 1, 1], 0),
        (one, one, (48 << 10) + 1),
    ] {
        assert_eq!(launch(grid, block, shared, address, true), INVALID_VALUE, "{grid:?} {block:?} {shared}");
    }
    assert_eq!(launch(one, one, 0, address, false), INVALID_VALUE);
    // more shared memory for those who ask, up to the device's
    assert_eq!([cuFuncSetAttribute(function, 8, 60_000), launch(one, one, 60_000, address, true)], [0; 2]);
    assert_eq!(cuFuncSetAttribute(function, 8, (227 << 10) + 1), INVALID_VALUE);
    assert_eq!([cuMemFree_v2(address), launch(one, one, 0, address, true)], [0; 2]);
    // the launch went astray: whatever comes next learns of it, until the context is gone
    assert_eq!([cuStreamSynchronize(0), cuMemAlloc_v2(&mut 0, 4)], [ILLEGAL_ADDRESS; 2]);
}

/// A map that is right, and one that breaks each rule.
#[test]
fn tensor_maps_obey_the_documented_rules() {
    #[repr(align(64))]
    struct Map([u8; 192]);

    let _bound = bound();
    let base = memory(1 << 16);
    let encode = |shift: usize, base: u64, dims: [u64; 2], stride: u64, box_dims: [u32; 2], swizzle: u32| {
        let mut map = Map([0; 192]);
        // SAFETY: the map has 128 bytes behind the shift; arrays of two, one stride.
        unsafe {
            let to = map.0.as_mut_ptr().add(shift).cast();
            let (dims, steps) = (dims.as_ptr(), [1u32, 1]);
            cuTensorMapEncodeTiled(to, 1, 2, base, dims, &stride, box_dims.as_ptr(), steps.as_ptr(), 0, swizzle, 3, 0)
        }
    };
    assert_eq!(encode(0, base, [64, 8], 128, [64, 8], 3), 0);
    let broken = [
        encode(16, base, [64, 8], 128, [64, 8], 3),
        encode(0, base + 8, [64, 8], 128, [64, 8], 3),
        encode(0, 16, [64, 8], 128, [64, 8], 3),
        encode(0, base, [64, 0], 128, [64, 8], 3),
        encode(0, base, [64, 8], 120, [64, 8], 3),
        encode(0, base, [64, 8], 128, [64, 257], 3),
        encode(0, base, [64, 8], 128, [4, 8], 0),
        encode(0, base, [128, 8], 256, [128, 8], 3),
    ];
    assert_eq!(broken, [INVALID_VALUE; 8]);
    assert_eq!(cuMemFree_v2(base), 0);
}
