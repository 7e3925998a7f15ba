//! What hardware punishes or leaves undefined is a fault with a place.

use ptx_emulator::{Module, Trouble};

use crate::device::{Device, int, pointer};

#[test]
fn writes_past_the_end() {
    let mut device = Device::new(include_str!("../fixtures/vector_add.ptx"));
    let n = 100;
    let (x, out) = (device.floats(&vec![1.0; 128]), device.memory.alloc(4 * n));
    let args = [pointer(x), pointer(x), pointer(out)];
    let fault = device.run("vector_add_unguarded", [1, 1, 1], [128, 1, 1], 0, &args).expect_err("28 threads too many");
    assert!(matches!(fault.what, Trouble::OutOfBounds { address, bytes: 4, .. } if address == out + 400), "{fault}");
    let place = fault.place.expect("a kernel was running");
    assert_eq!((place.thread, place.kernel.as_str()), ([100, 0, 0], "vector_add_unguarded"));
    assert!(place.text.starts_with("st.global.f32"), "{}", place.text);
}

#[test]
fn reads_of_what_nobody_wrote() {
    let mut device = Device::new(include_str!("../fixtures/vector_add.ptx"));
    let (x, out) = (device.memory.alloc(64), device.memory.alloc(64));
    device.memory.write(x, &[0; 60]).unwrap();
    let args = [pointer(x), pointer(x), pointer(out), int(16)];
    let fault = device.run("vector_add", [1, 1, 1], [32, 1, 1], 0, &args).expect_err("the last value is not there");
    assert!(
        matches!(fault.what, Trouble::Uninitialised { space: "global", address, .. } if address == x + 60),
        "{fault}"
    );
    assert!(device.memory.read(out, &mut [0; 64]).is_err(), "the output was not written whole");
}

/// Lanes below 16 go to barrier 0, the others to barrier 1.
const TWO_BARRIERS: &str = "
.version 9.0
.target sm_80
.address_size 64
.visible .entry two_barriers()
{
    .reg .pred %p<2>;
    .reg .b32 %r<2>;
    mov.u32 %r1, %tid.x;
    setp.lt.u32 %p1, %r1, 16;
    @%p1 bra LOW;
    bar.sync 1;
    ret;
LOW:
    bar.sync 0;
    ret;
}";

#[test]
fn a_barrier_in_half_a_warp() {
    let mut device = Device::new(TWO_BARRIERS);
    let fault = device.run("two_barriers", [1, 1, 1], [32, 1, 1], 0, &[]).expect_err("half a warp each");
    assert!(matches!(fault.what, Trouble::Divergent { needed: 0xffff_ffff, .. }), "{fault}");
}

/// Two warps; the first waits for barrier 0, the second has two more threads to wait for at barrier 1.
const WAITING: &str = "
.version 9.0
.target sm_80
.address_size 64
.visible .entry waiting()
{
    .reg .pred %p<2>;
    .reg .b32 %r<2>;
    mov.u32 %r1, %tid.x;
    setp.lt.u32 %p1, %r1, 32;
    @%p1 bra LOW;
    bar.sync 1, 64;
    ret;
LOW:
    bar.sync 0;
    ret;
}";

#[test]
fn barriers_that_never_open() {
    let mut device = Device::new(WAITING);
    let fault = device.run("waiting", [1, 1, 1], [64, 1, 1], 0, &[]).expect_err("nobody opens them");
    assert!(matches!(fault.what, Trouble::Deadlock { .. }), "{fault}");
    assert!(fault.to_string().contains("barrier 1 (32 of 64 threads came)"), "{fault}");
}

#[test]
fn unknown_instructions_are_named() {
    let text = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n\t.reg .f32 %f<3>;\n\tfrobnicate.f32 %f1, %f2;\n\tret;\n}\n";
    let error = Module::parse(text).expect_err("there is no such instruction");
    assert_eq!(error.line, 7);
    assert!(error.to_string().contains("unsupported instruction `frobnicate.f32`"), "{error}");
}

#[test]
fn launches_that_do_not_fit() {
    let mut device = Device::new(include_str!("../fixtures/tiled_matmul.ptx"));
    let text = |result: Result<ptx_emulator::Counts, ptx_emulator::Fault>| result.expect_err("refused").to_string();
    let args: Vec<Vec<u8>> = vec![pointer(0); 3];
    let found = text(device.run("matmul", [1, 1, 1], [16, 16, 1], 0, &args));
    assert_eq!(found, "there is no kernel `matmul`; the module has tiled_matmul");
    let found = text(device.run("tiled_matmul", [1, 1, 1], [16, 16, 1], 0, &args));
    assert_eq!(found, "kernel `tiled_matmul` takes 6 parameters, 3 were given");
    let found = text(device.run("tiled_matmul", [1, 1, 1], [32, 32, 1], 0, &args));
    assert_eq!(found, "1024 threads, kernel `tiled_matmul` is compiled for 256");
}

#[test]
fn a_race_between_warps() {
    let mut device = Device::new(include_str!("../fixtures/block_sum.ptx"));
    let out = device.memory.alloc(256);
    let fault = device.run("missing_barrier", [1, 1, 1], [64, 1, 1], 0, &[pointer(out)]).expect_err("no barrier");
    let text = fault.to_string();
    // the first warp runs alone: it reads what the second has not written yet
    assert!(text.contains("before anything was written"), "{text}");
}

/// Each warp writes its word, all meet, and each writes the other's: the second round races with the reads of the first.
const OVERWRITTEN: &str = "
.version 9.0
.target sm_80
.address_size 64
.visible .entry overwritten()
{
    .reg .b32 %r<9>;
    .shared .align 4 .b8 words[256];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, words;
    shl.b32 %r3, %r1, 2;
    add.s32 %r4, %r2, %r3;
    st.shared.u32 [%r4], %r1;
    bar.sync 0;
    xor.b32 %r5, %r3, 128;
    add.s32 %r6, %r2, %r5;
    ld.shared.u32 %r7, [%r6];
    BARRIER
    add.s32 %r7, %r7, 1;
    st.shared.u32 [%r4], %r7;
    ret;
}";

#[test]
fn a_word_that_is_overwritten_while_others_read() {
    let run = |text: &str| Device::new(text).run("overwritten", [1, 1, 1], [64, 1, 1], 0, &[]);
    let fault = run(&OVERWRITTEN.replace("BARRIER", "")).expect_err("reads and writes are not ordered");
    assert!(matches!(fault.what, Trouble::Race { .. }), "{fault}");
    run(&OVERWRITTEN.replace("BARRIER", "bar.sync 0;")).expect("they are now");
}
