//! What: a linear of any format with a low-rank addition to some of its outputs, kept apart from it.
//! Source: LoRA, Hu et al. 2021, arXiv 2106.09685, eq. 3; over 4-bit weights QLoRA, arXiv 2305.14314, eq. 5.
//! Shapes: A `[r, k]`, B `[m, r]` for m of the n outputs, several such pairs; x `[rows, k]` → y `[rows, n]`.
//! Method: 1. y = the format's product. 2. per pair, y of its outputs += factor · (x·Aᵀ)·Bᵀ.
//! Exactness: f32 sums; merged into f32 weights the same up to rounding. The format inside may round its inputs, the addition does not.
//! Cost: the format's, and 2·r·(k + m) FLOPs and 4·r·(k + m) bytes a pair.
//! Not handled: dropout (inference has none), biases.

use std::ops::Range;
use std::sync::Arc;

use cpu_kernels::{Cpu, PackedF32};
use model::{Activations, Device, Linear};

use super::F32Linear;

/// One addition B·A to consecutive outputs.
#[derive(Debug, Clone)]
pub struct LowRankPair {
    /// A `[r, k]`, row-major.
    pub a: Vec<f32>,
    /// B `[outputs.len(), r]`, row-major.
    pub b: Vec<f32>,
    /// Rank.
    pub r: usize,
    /// What B·A is multiplied by.
    pub factor: f32,
    /// Which outputs.
    pub outputs: Range<usize>,
}

/// A format with low-rank additions.
pub struct LowRankLinear {
    cpu: Arc<Cpu>,
    inner: Box<dyn Linear>,
    pairs: Vec<LowRankPair>,
    packed: Vec<[PackedF32; 2]>,
}

impl LowRankLinear {
    /// `inner` with `pairs` added.
    ///
    /// # Panics
    /// If a pair's factors do not have its sizes, or its outputs are not the format's.
    pub fn new(cpu: Arc<Cpu>, inner: Box<dyn Linear>, pairs: Vec<LowRankPair>) -> LowRankLinear {
        let k = inner.in_features();
        assert!(pairs.iter().all(|p| p.outputs.end <= inner.out_features()), "outputs of the format");
        let pack = |p: &LowRankPair| [PackedF32::pack(&p.a, p.r, k), PackedF32::pack(&p.b, p.outputs.len(), p.r)];
        let packed = pairs.iter().map(pack).collect();
        LowRankLinear { cpu, inner, pairs, packed }
    }
}

impl Linear for LowRankLinear {
    fn in_features(&self) -> usize {
        self.inner.in_features()
    }

    fn out_features(&self) -> usize {
        self.inner.out_features()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        // 1.
        self.inner.forward(x, y);
        // 2.
        let rows = x.rows();
        for (pair, [a, b]) in self.pairs.iter().zip(&self.packed) {
            let (mut small, mut added) = (vec![0.0; rows * pair.r], vec![0.0; rows * pair.outputs.len()]);
            a.forward(&self.cpu, x.as_slice(), rows, &mut small);
            b.forward(&self.cpu, &small, rows, &mut added);
            for (row, added) in added.chunks_exact(pair.outputs.len()).enumerate() {
                let y = &mut y.row_mut(row)[pair.outputs.clone()];
                y.iter_mut().zip(added).for_each(|(y, added)| *y += pair.factor * added);
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        self.inner.weight_bytes() + self.packed.iter().flatten().map(PackedF32::bytes).sum::<usize>()
    }

    fn dequantised(&self) -> Vec<f32> {
        let mut values = self.inner.dequantised();
        for pair in &self.pairs {
            pair.add_to(&mut values, self.in_features());
        }
        values
    }

    fn input_levels(&self) -> Option<f32> {
        self.inner.input_levels()
    }

    fn rows_are_independent(&self) -> bool {
        self.inner.rows_are_independent()
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        let (n, k) = (self.out_features(), self.in_features());
        let cpu = device.cpu().clone();
        let inner = match self.inner.on(device) {
            Some(inner) => inner,
            None => Box::new(F32Linear::new(cpu.clone(), PackedF32::pack(&self.inner.dequantised(), n, k))),
        };
        Some(Box::new(LowRankLinear::new(cpu, inner, self.pairs.clone())))
    }

    fn kernel_name(&self) -> String {
        format!("{}+lora", self.inner.kernel_name())
    }
}

impl LowRankPair {
    /// Adds factor · B·A to the rows `outputs` of `weight [n, k]`, products summed in f64.
    pub fn add_to(&self, weight: &mut [f32], k: usize) {
        for (b, row) in self.b.chunks_exact(self.r).zip(weight[self.outputs.start * k..].chunks_exact_mut(k)) {
            for (j, w) in row.iter_mut().enumerate() {
                let sum: f64 = b.iter().enumerate().map(|(i, b)| f64::from(*b) * f64::from(self.a[i * k + j])).sum();
                *w = (f64::from(*w) + f64::from(self.factor) * sum) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apart_is_merged() {
        let cpu = Arc::new(Cpu::new(None, 1).expect("the best level is there"));
        let (n, k, r) = (7, 19, 3);
        let wave =
            |seed: usize, len: usize| (0..len).map(|i| ((i * 37 + seed) % 23) as f32 / 11.0 - 1.0).collect::<Vec<_>>();
        let weight = wave(1, n * k);
        let pair = |seed, outputs: Range<usize>| LowRankPair {
            a: wave(seed, r * k),
            b: wave(seed + 5, outputs.len() * r),
            r,
            factor: 0.5,
            outputs,
        };
        let pairs = vec![pair(2, 0..2), pair(3, 4..7)];
        let mut merged = weight.clone();
        pairs.iter().for_each(|pair| pair.add_to(&mut merged, k));
        let inner = Box::new(F32Linear::new(cpu.clone(), PackedF32::pack(&weight, n, k)));
        let apart = LowRankLinear::new(cpu.clone(), inner, pairs);
        assert_eq!(apart.dequantised(), merged);
        model::conformance::linear::check(&apart, 32.0);
        let x = Activations::from_vec(2, k, wave(9, 2 * k));
        let (mut a, mut b) = (Activations::default(), Activations::default());
        apart.forward(&x, &mut a);
        F32Linear::new(cpu, PackedF32::pack(&merged, n, k)).forward(&x, &mut b);
        a.as_slice().iter().zip(b.as_slice()).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
        // an output that no pair adds to is the format's own
        assert_eq!(a.row(0)[3], b.row(0)[3]);
    }
}
