//! What: group codes with some columns of the matrix beside them in f16.
//! Source: the mixed-precision probe of AWQ (arXiv 2306.00978) §3.1.
//! Shapes: x `[rows, in]` → y `[rows, out]`; codes as the group format, kept columns `[out, m]` in f16.
//! Method: 1. the product with the codes, where kept columns are 0. 2. gather the m inputs, the product with the kept columns,
//!   added.
//! Exactness: decoded weights equal `Quantized::dequantise` bit for bit; two sums as in the f32 format, then one addition.
//! Cost: the group format's, and 2·m bytes per output.
//! Not handled: fusing the two products.

use std::sync::Arc;

use cpu_kernels::{Cpu, PackedF16, PackedGroup};
use model::{Activations, Linear};

use crate::quantizer::salient::SalientCodes;

/// The format.
pub struct SalientLinear {
    cpu: Arc<Cpu>,
    group: PackedGroup,
    columns: Vec<u32>,
    kept: PackedF16,
}

impl SalientLinear {
    /// Multiplies with `codes` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, codes: SalientCodes) -> SalientLinear {
        let SalientCodes { group, columns, values } = codes;
        let kept = PackedF16::pack_exact(&values, group.n, columns.len());
        SalientLinear { cpu, group: PackedGroup::from_codes(group), columns, kept }
    }
}

impl Linear for SalientLinear {
    fn in_features(&self) -> usize {
        self.group.k()
    }

    fn out_features(&self) -> usize {
        self.group.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        // 1.
        y.reshape(x.rows(), self.group.n());
        self.group.forward(&self.cpu, x.as_slice(), x.rows(), y.as_mut_slice());
        // 2.
        let gather = |row| self.columns.iter().map(move |&j| x.row(row)[j as usize]);
        let inputs: Vec<f32> = (0..x.rows()).flat_map(gather).collect();
        let mut more = vec![0.0; y.as_slice().len()];
        self.kept.forward(&self.cpu, &inputs, x.rows(), &mut more);
        y.as_mut_slice().iter_mut().zip(&more).for_each(|(y, more)| *y += more);
    }

    fn weight_bytes(&self) -> usize {
        self.group.bytes() + self.kept.bytes() + size_of_val(&self.columns[..])
    }

    fn dequantised(&self) -> Vec<f32> {
        let mut weights = self.group.unpack();
        let kept = self.kept.unpack();
        for (row, kept) in weights.chunks_mut(self.group.k()).zip(kept.chunks(self.columns.len())) {
            self.columns.iter().zip(kept).for_each(|(&column, &value)| row[column as usize] = value);
        }
        weights
    }

    fn kernel_name(&self) -> String {
        format!("{} + {}", self.group.kernel_name(&self.cpu), self.kept.kernel_name(&self.cpu))
    }
}
