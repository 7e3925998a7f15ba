//! Every rung of every ladder computes the same thing within its own tolerance.

use crate::oracle::{cpus, values};
use cpu_kernels::{Isa, OPS, Problem, ladder, roofline};

#[test]
fn every_available_rung_meets_its_tolerance() {
    for (rows, n, k) in [(1, 70, 300), (9, 33, 130), (40, 64, 256)] {
        let problem = Problem::new(rows, n, k, values(1, rows * k), values(2, n * k));
        for op in OPS {
            let rungs = ladder(op);
            assert!(rungs.len() >= 3, "{op} has a ladder");
            for rung in rungs.iter().filter(|rung| rung.is_available()) {
                for cpu in cpus(&[1, 2]).iter().filter(|cpu| cpu.isa() == Isa::Scalar) {
                    let mut out = vec![f32::NAN; rung.out_len(&problem)];
                    rung.run(cpu, &problem, &mut out);
                    let error = rung.max_error(&problem, &out);
                    assert!(error <= rung.tolerance, "{op}/{}: error {error} at {rows}×{n}×{k}", rung.name);
                    assert!(rung.bytes(&problem) > 0 && rung.flops(&problem) > 0);
                }
            }
        }
    }
    assert!(ladder("no such operation").is_empty());
}

#[test]
fn roofline_kernels_report_what_they_did() {
    for cpu in cpus(&[1, 2]) {
        let a = values(1, 1003);
        let mut b = vec![0.0; 1003];
        assert_eq!(roofline::stream_read(&cpu, &a), 4012);
        assert_eq!(roofline::stream_copy(&cpu, &a, &mut b), 8024);
        assert_eq!(a, b);
        let mut c = vec![0.0; 1003];
        assert_eq!(roofline::stream_triad(&cpu, &a, &b, 2.0, &mut c), 12036);
        assert!(c.iter().zip(&a).all(|(c, a)| *c == a + 2.0 * a || (c / a - 3.0).abs() < 1e-6));
        assert!(roofline::fma_peak(&cpu, 10) > 0 && roofline::int8_peak(&cpu, 10) > 0);
    }
}
