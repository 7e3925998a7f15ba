//! Tensor maps, mbarriers and warpgroup products.

use ptx_emulator::{TensorMap, Trouble};

use crate::device::{Device, bf16, int, random};

fn run(rows: usize, columns: usize, k: usize) -> Result<(), ptx_emulator::Fault> {
    run_text(include_str!("../fixtures/wgmma_tile.ptx"), rows, columns, k)
}

fn run_text(ptx: &str, rows: usize, columns: usize, k: usize) -> Result<(), ptx_emulator::Fault> {
    let mut device = Device::new(ptx);
    let (a_bits, a): (Vec<u16>, Vec<f32>) = random(rows * k, 8).into_iter().map(bf16).unzip();
    let (b_bits, b): (Vec<u16>, Vec<f32>) = random(columns * k, 9).into_iter().map(bf16).unzip();
    let (x, y, out) = (device.halves(&a_bits), device.halves(&b_bits), device.memory.alloc(4 * rows * columns));
    let operand = |base: u64, height: usize, box_rows: u32| TensorMap {
        element_bytes: 2,
        base,
        dims: vec![k as u64, height as u64],
        strides: vec![2 * k as u64],
        box_dims: vec![64, box_rows],
        swizzle_bytes: 128,
    };
    let result = TensorMap {
        element_bytes: 4,
        base: out,
        dims: vec![columns as u64, rows as u64],
        strides: vec![4 * columns as u64],
        box_dims: vec![32, 64],
        swizzle_bytes: 128,
    };
    let maps = [operand(x, rows, 64), operand(y, columns, 128), result];
    let mut args: Vec<Vec<u8>> = maps.iter().map(|map| map.encode().expect("a valid map").to_vec()).collect();
    args.push(int(k as i32));
    let counts = device.run("wgmma_tile", [1, 1, 1], [160, 1, 1], 2 * 24576 + 32, &args)?;
    assert_eq!(counts.mma_flops, 2 * 64 * 128 * k as u64);
    let c = device.read_floats(out, rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let exact: f64 = (0..k).map(|i| a[row * k + i] as f64 * b[column * k + i] as f64).sum();
            let got = c[row * columns + column] as f64;
            assert!((got - exact).abs() < 1e-4, "({row}, {column}): {got} is not {exact}");
        }
    }
    Ok(())
}

#[test]
fn a_pipeline_of_tensor_copies_and_warpgroup_products() {
    run(64, 128, 64).unwrap();
    run(64, 128, 320).unwrap();
}

#[test]
fn boxes_over_the_edge_are_filled_with_zeros_and_clipped() {
    run(50, 100, 192).unwrap();
}

#[test]
fn a_store_of_what_was_not_fenced() {
    let ptx = include_str!("../fixtures/wgmma_tile.ptx").replace("fence.proxy.async.shared::cta;", "");
    let fault = run_text(&ptx, 64, 128, 64).expect_err("the copies may not see the results");
    assert!(matches!(fault.what, Trouble::Unfenced { .. }), "{fault}");
}

#[test]
fn a_map_comes_back_from_its_bytes() {
    let map = TensorMap {
        element_bytes: 2,
        base: 4096,
        dims: vec![64, 100, 2, 8, 3],
        strides: vec![2048, 128, 256, 204_800],
        box_dims: vec![64, 128, 2, 1, 1],
        swizzle_bytes: 128,
    };
    assert_eq!(TensorMap::decode(&map.encode().unwrap()), Some(map.clone()));
    assert_eq!(map.box_bytes(), 64 * 128 * 2 * 2);
    assert_eq!(TensorMap::decode(&[0; 128]), None);
    let refused = |change: fn(&mut TensorMap)| {
        let mut map = map.clone();
        change(&mut map);
        map.encode().expect_err("breaks a rule").to_string()
    };
    assert!(refused(|map| map.base = 8).contains("multiple of 16"));
    assert!(refused(|map| map.box_dims[0] = 128).contains("swizzle"));
    assert!(refused(|map| map.box_dims[1] = 257).contains("1 to 256"));
    assert!(refused(|map| map.strides[0] = 100).contains("stride"));
    assert!(refused(|map| map.dims.push(1)).contains("dimensions"));
}

/// One thread initialises a barrier of two arrivals and waits for a phase that nobody completes.
const NEVER: &str = "
.version 9.0
.target sm_90
.address_size 64
.visible .entry never()
{
    .reg .pred %p<2>;
    .shared .align 8 .b64 barrier;
    mbarrier.init.shared.b64 [barrier], 2;
    mbarrier.arrive.shared.b64 _, [barrier];
AGAIN:
    mbarrier.try_wait.parity.shared.b64 %p1, [barrier], 0;
    @!%p1 bra AGAIN;
    ret;
}";

#[test]
fn a_phase_that_never_ends() {
    let mut device = Device::new(NEVER);
    let fault = device.run("never", [1, 1, 1], [1, 1, 1], 0, &[]).expect_err("one arrival is missing");
    assert!(matches!(fault.what, Trouble::Deadlock { .. }), "{fault}");
    assert!(fault.to_string().contains("phase 0, 1 of 2 arrivals and 0 bytes missing"), "{fault}");
}
