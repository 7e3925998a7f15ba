//! What: 8 weights as one 16-bit code of a lattice codebook, between randomised Hadamard transforms or without them.
//! Source: QuIP#, Tseng et al. 2024, arXiv 2402.04396, algorithm 2 (inference).
//! Shapes: codes `[n, ⌈k/8⌉]`, scales `[n]`; signs `[k]` and `[n]`.
//! Method: 1. x is multiplied by random signs and a Hadamard matrix. 2. the packed kernel multiplies. 3. the result goes through
//!   another Hadamard matrix and signs.
//! Exactness: without transforms, decoded weights equal `Quantized::dequantise` bit for bit; with them the same product up to f32 rounding.
//! Cost: 1/4 byte per weight and 4 per row; about k·log k + n·log n additions a row of x.
//! Not handled: other codebooks.

use std::sync::Arc;

use cpu_kernels::{Cpu, PackedLattice};
use model::{Activations, Linear};

use crate::quantizer::e8p::{Incoherence, TurnedLattice};

/// Lattice codes ready to multiply.
pub struct LatticeLinear {
    cpu: Arc<Cpu>,
    packed: PackedLattice,
    incoherence: Option<Incoherence>,
}

impl LatticeLinear {
    /// Packs `source` for `cpu`.
    pub fn new(cpu: Arc<Cpu>, source: TurnedLattice) -> LatticeLinear {
        LatticeLinear { cpu, packed: PackedLattice::from_codes(&source.codes), incoherence: source.incoherence }
    }
}

impl Linear for LatticeLinear {
    fn in_features(&self) -> usize {
        self.packed.k()
    }

    fn out_features(&self) -> usize {
        self.packed.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        let rows = x.rows();
        y.reshape(rows, self.packed.n());
        let Some(Incoherence { input, output }) = &self.incoherence else {
            return self.packed.forward(&self.cpu, x.as_slice(), rows, y.as_mut_slice());
        };
        // 1.
        let mut turned = x.clone();
        multiply_rows(&mut turned, &input.1);
        input.0.forward(&self.cpu, turned.as_mut_slice(), rows);
        // 2.
        self.packed.forward(&self.cpu, turned.as_slice(), rows, y.as_mut_slice());
        // 3.
        output.0.forward(&self.cpu, y.as_mut_slice(), rows);
        multiply_rows(y, &output.1);
    }

    fn weight_bytes(&self) -> usize {
        let signs = self.incoherence.as_ref().map_or(0, |i| i.input.1.len() + i.output.1.len());
        self.packed.bytes() + signs
    }

    fn dequantised(&self) -> Vec<f32> {
        let values = self.packed.unpack();
        let Some(incoherence) = &self.incoherence else { return values };
        let mut wide: Vec<f64> = values.into_iter().map(f64::from).collect();
        incoherence.undo(&mut wide, [self.packed.n(), self.packed.k()]);
        wide.into_iter().map(|v| v as f32).collect()
    }

    fn kernel_name(&self) -> String {
        let kernel = self.packed.kernel_name(&self.cpu);
        if self.incoherence.is_some() { format!("hadamard_{kernel}") } else { kernel.to_string() }
    }
}

/// Every row of `x` times `signs`, value by value.
fn multiply_rows(x: &mut Activations, signs: &[i8]) {
    for row in 0..x.rows() {
        x.row_mut(row).iter_mut().zip(signs).for_each(|(x, sign)| *x *= f32::from(*sign));
    }
}
