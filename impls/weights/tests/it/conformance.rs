//! Every spec × instruction set × thread count passes the checks of its seam.

use std::sync::Arc;

use cpu_kernels::{Cpu, Isa};
use model::{Activations, Device, conformance};
use weights::{CalibrationStats, WeightSource, WeightsSpec, build_linear};

use crate::wave;

#[test]
fn every_spec_multiplies_what_it_stores() {
    for isa in Isa::available() {
        for threads in [1, 2] {
            let device = Device::Cpu(Arc::new(Cpu::new(Some(isa), threads).expect("listed as available")));
            for (n, k) in [(1, 1), (5, 31), (16, 32), (17, 33), (33, 130), (50, 256), (70, 301)] {
                let weight = wave(1, n, k);
                let mut stats = CalibrationStats::new(k);
                stats.add(device.cpu(), &Activations::from_vec(2 * k, k, wave(2, 2 * k, k)));
                for spec in WeightsSpec::all() {
                    let source = WeightSource::F32(&weight);
                    let linear = build_linear(&spec, &device, source, n, k, Some(&stats))
                        .unwrap_or_else(|error| panic!("{} [{n}, {k}]: {error}", spec.tag()));
                    assert_eq!((linear.out_features(), linear.in_features()), (n, k));
                    assert_eq!(
                        linear.is_int8(),
                        matches!(spec, WeightsSpec::Int8(_) | WeightsSpec::Lut(_)) || spec.activation_bits() == Some(8)
                    );
                    assert_eq!(linear.rows_are_independent(), spec.rows_are_independent());
                    conformance::linear::check(&*linear, spec.bits_per_weight().floor());
                }
            }
        }
    }
}

#[test]
fn size_is_as_nominal() {
    let device = crate::device();
    let (n, k) = (256, 1024);
    let weight = wave(3, n, k);
    let mut stats = CalibrationStats::new(k);
    stats.add(device.cpu(), &Activations::from_vec(64, k, wave(4, 64, k)));
    for spec in WeightsSpec::all() {
        let linear = build_linear(&spec, &device, WeightSource::F32(&weight), n, k, Some(&stats)).expect("builds");
        let bits = linear.weight_bytes() as f64 * 8.0 / (n * k) as f64;
        // act-order adds an index per column, rows a constant each
        let bound = spec.bits_per_weight() * 1.02 + 0.2;
        assert!(bits >= spec.bits_per_weight() * 0.99 && bits <= bound, "{}: {bits} bits", spec.tag());
    }
}
