//! Clusters: copies to several blocks, arrivals in another block, the barrier of all; and what goes wrong without an order.

use ptx_emulator::{Counts, Fault, TensorMap, Trouble};

use crate::device::{Device, int, pointer, random};

const PTX: &str = include_str!("../fixtures/cluster_tile.ptx");
const SYNC: &str = "\tbarrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;";
const STEPS: usize = 5;

/// Runs the tile of two blocks and compares the sums that both see.
fn run(ptx: &str, blocks: u32) -> Result<Counts, Fault> {
    let mut device = Device::new(ptx);
    let values: Vec<u32> = random(64 * STEPS, 21).into_iter().map(f32::to_bits).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (base, out) = (device.bytes(&bytes), device.memory.alloc(4 * 32 * blocks as usize));
    let map = TensorMap {
        element_bytes: 4,
        base,
        dims: vec![32, 2 * STEPS as u64],
        strides: vec![128],
        box_dims: vec![32, 1],
        swizzle_bytes: 0,
    };
    let args = [map.encode().expect("a valid map").to_vec(), pointer(out), int(STEPS as i32)];
    let counts = device.run("cluster_tile", [blocks, 1, 1], [64, 1, 1], 0, &args)?;
    for (at, sum) in device.read_words(out, 32 * blocks as usize).into_iter().enumerate() {
        let expected = values.iter().skip(at % 32).step_by(32).fold(0u32, |sum, &value| sum.wrapping_add(value));
        assert_eq!(sum, expected, "sum {at}");
    }
    Ok(counts)
}

fn fault(from: &str, to: &str) -> Fault {
    assert!(PTX.contains(from), "{from}");
    run(&PTX.replace(from, to), 2).expect_err("the order is gone")
}

#[test]
fn blocks_fetch_for_each_other() {
    let counts = run(PTX, 4).unwrap();
    // two clusters that read every row once, and meet twice
    assert_eq!((counts.global_read_sectors, counts.barriers), (2 * 2 * STEPS as u64 * 4, 4));
}

#[test]
fn an_mbarrier_that_may_not_be_there_yet() {
    let found = fault(SYNC, "\tbar.sync 0;");
    assert!(found.to_string().contains("nothing orders that after its initialisation"), "{found}");
}

#[test]
fn a_block_that_may_have_ended() {
    let last = PTX.rfind(SYNC).expect("the second of two");
    let text = format!("{}{}", &PTX[..last], &PTX[last + SYNC.len()..]);
    let found = run(&text, 2).expect_err("nothing keeps the block");
    assert!(matches!(found.what, Trouble::Protocol(_)), "{found}");
    assert!(found.to_string().contains("of the cluster"), "{found}");
}

/// Each block hands back to itself twice: both producers run at the pace of their own readers.
#[test]
fn a_tile_that_the_other_block_may_still_read() {
    let found = fault("mapa.shared::cluster.u32 there, %r27, %r2;", "mapa.shared::cluster.u32 there, %r27, %r15;");
    assert!(matches!(found.what, Trouble::Race { earlier: "read", .. }), "{found}");
}

#[test]
fn blocks_and_addresses_that_do_not_exist() {
    let found = fault("mov.u16 \t%rs1, 3;", "mov.u16 \t%rs1, 7;").to_string();
    assert!(found.contains("a copy to blocks 0b111 of a cluster of 2"), "{found}");
    let found =
        fault("mapa.shared::cluster.u32 there, %r27, %r2;", "mapa.shared::cluster.u32 there, %r27, 5;").to_string();
    assert!(found.contains("block 5 of a cluster of 2"), "{found}");
    // without `.shared::cluster` an arrival is at an own barrier
    let found =
        fault("arrive.release.cluster.shared::cluster.b64", "arrive.release.cluster.shared::cta.b64").to_string();
    assert!(found.contains("no initialised mbarrier"), "{found}");
    let refused = run(PTX, 3).expect_err("half a cluster").to_string();
    assert!(refused.contains("clusters of [2, 1, 1]"), "{refused}");
}

#[test]
fn a_barrier_of_the_cluster_used_wrongly() {
    let found = fault(SYNC, "\tbarrier.cluster.wait.acquire;").to_string();
    assert!(found.contains("without having arrived"), "{found}");
    let found = fault(SYNC, "\tbarrier.cluster.arrive.release;").to_string();
    assert!(found.contains("nothing orders") || found.contains("again without having waited"), "{found}");
    let last = PTX.rfind(SYNC).expect("the second of two");
    let text = format!("{}\tbarrier.cluster.arrive.release;{}", &PTX[..last], &PTX[last + SYNC.len()..]);
    let found = run(&text, 2).expect_err("threads leave").to_string();
    assert!(found.contains("without waiting for it"), "{found}");
}

#[test]
fn bytes_that_nobody_sends() {
    let found = fault("mov.u16 \t%rs1, 3;", "mov.u16 \t%rs1, 1;");
    assert!(matches!(found.what, Trouble::Deadlock { .. } | Trouble::Uninitialised { .. }), "{found}");
}
