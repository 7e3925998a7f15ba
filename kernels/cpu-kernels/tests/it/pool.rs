//! The thread pool: every item once, panics reach the caller, nesting and sharing do not deadlock.

use cpu_kernels::{Cpu, Isa};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn cpu(threads: usize) -> Cpu {
    Cpu::new(Some(Isa::Scalar), threads).expect("scalar is everywhere")
}

#[test]
fn every_item_runs_once() {
    for threads in [1, 2, 3, 7] {
        let cpu = cpu(threads);
        assert_eq!(cpu.threads(), threads);
        for n in [0usize, 1, 2, 3, 10, 1000] {
            for _ in 0..50 {
                let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                cpu.parallel(n, &|i| {
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{threads} threads, {n} items");
            }
        }
    }
}

#[test]
fn a_pause_lets_workers_park_and_they_come_back() {
    let cpu = cpu(3);
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let sum = AtomicUsize::new(0);
        cpu.parallel(100, &|i| {
            sum.fetch_add(i, Relaxed);
        });
        assert_eq!(sum.load(Relaxed), 4950);
    }
}

#[test]
fn panics_reach_the_caller_and_the_pool_lives_on() {
    let cpu = cpu(3);
    for bad in [0usize, 50, 99] {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            cpu.parallel(100, &|i| assert!(i != bad, "item {i} fails"));
        }));
        let payload = outcome.expect_err("the panic must come through");
        assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some(format!("item {bad} fails").as_str()));
        let sum = AtomicUsize::new(0);
        cpu.parallel(10, &|i| {
            sum.fetch_add(i, Relaxed);
        });
        assert_eq!(sum.load(Relaxed), 45);
    }
}

#[test]
fn nested_and_concurrent_calls_finish() {
    let cpu = cpu(2);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    cpu.parallel(4, &|_| {
                        cpu.parallel(3, &|i| {
                            sum.fetch_add(i, Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(sum.load(Relaxed), 4 * 200 * 4 * 3);
}

#[test]
fn chunks_are_disjoint_and_cover() {
    for threads in [1, 2] {
        let mut data = vec![0.0f32; 1003];
        cpu(threads).parallel_chunks_mut(&mut data, 10, &|i, chunk| {
            assert_eq!(chunk.len(), if i == 100 { 3 } else { 10 });
            chunk.iter_mut().for_each(|v| *v += i as f32 + 1.0);
        });
        assert!(data.iter().enumerate().all(|(i, &v)| v == (i / 10) as f32 + 1.0));
    }
}
