//! What: W8A8 on grids of any of LLM.int8()'s kinds, with outlier features in 16 bits where asked for.
//! Source: LLM.int8() (arXiv 2208.07339) §2.1 (absmax, zeropoint, row-wise, vector-wise), §3.2 eq. 8 (decomposition).
//! Shapes: x `[rows, in]` → y `[rows, out]`; W codes `[out, in]`, a scale and a zero per output; outlier columns f16 `[in, out]`.
//! Method: 1. the outliers of a row, O = {j : |x_j| > threshold}, are set to 0. 2. a grid per row, per call, or the fixed one.
//!   3. integer product with zero-point corrections (`cpu_kernels::Int8Grid`). 4. y += x_O · W_O with W in f16, x and sums f32.
//! Exactness: threshold 0 is the f16 product but for the order of its sum, threshold ∞ the product without decomposition, bit for
//!   bit. The paper takes O over all rows of a call, here it is each row's own: no row depends on another, fewer values are 16-bit.
//!   With one grid per call (`Int8Range::Call`) rows do depend on each other, as in the papers that do so.
//! Cost: 1 byte per weight, read once; with outliers 2 bytes more per weight stored, of which a row reads 2·out per outlier.
//! Not handled: outliers beside a fixed grid, 16-bit weights of outlier features only (which ones is known per row).

use std::sync::Arc;

use cpu_kernels::{Cpu, Int8Grid, PackedInt8, axpy, finite_range};
use half::f16;
use half::slice::HalfFloatSliceExt;
use model::{Activations, BufferPool, Device, Int8Inputs, Int8Range, Linear};

/// The format.
#[derive(Debug)]
pub struct Int8GridLinear {
    cpu: Arc<Cpu>,
    codes: Arc<PackedInt8>,
    /// Code of weight 0 of each output; empty where all are 0.
    zeros: Arc<[i32]>,
    inputs: Int8Inputs,
    /// The weights in 16 bits, column after column; empty without decomposition.
    columns: Arc<[f16]>,
    pool: BufferPool,
}

impl Int8GridLinear {
    /// Multiplies by scale·(code − zero) with inputs rounded as `inputs` says; `columns [in, out]` are the weights that
    /// multiply values above `inputs.exact_above`, empty where that is infinite.
    ///
    /// # Panics
    /// On lengths that disagree.
    pub fn new(
        cpu: Arc<Cpu>,
        codes: PackedInt8,
        zeros: Vec<i32>,
        inputs: Int8Inputs,
        columns: Vec<f16>,
    ) -> Int8GridLinear {
        let (n, k) = (codes.n(), codes.k());
        assert!(zeros.is_empty() || zeros.len() == n, "a zero per output");
        assert_eq!(columns.len(), if inputs.exact_above < f32::INFINITY { n * k } else { 0 }, "16-bit columns");
        let (codes, pool) = (Arc::new(codes), BufferPool::default());
        Int8GridLinear { cpu, codes, zeros: zeros.into(), inputs, columns: columns.into(), pool }
    }

    fn grid(&self, (low, high): (f32, f32)) -> Int8Grid {
        match self.inputs.zero_point {
            true => Int8Grid::affine(low, high),
            // not `f32::max`, which drops NaN
            false => Int8Grid::symmetric(if low.is_nan() { low } else { high.max(-low) }),
        }
    }

    /// Step 2.
    fn grids(&self, x: &[f32]) -> Vec<Int8Grid> {
        let range = |x: &[f32]| self.grid(finite_range(&self.cpu, x));
        match self.inputs.range {
            Int8Range::Row => x.chunks_exact(self.codes.k()).map(range).collect(),
            Int8Range::Call => vec![range(x)],
            Int8Range::Fixed { low, high } => vec![self.grid((low, high))],
        }
    }

    /// Steps 2 and 3.
    fn multiply(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        self.codes.forward_on(&self.cpu, x, rows, &self.grids(x), &self.zeros, y);
    }

    fn is_outlier(&self, x: f32) -> bool {
        x.abs() > self.inputs.exact_above
    }

    /// Step 4.
    fn add_outliers(&self, x: &[f32], y: &mut [f32]) {
        let (n, k) = (self.codes.n(), self.codes.k());
        self.cpu.parallel_chunks_mut(y, n, &|row, y| {
            let mut column = self.pool.take(n);
            for (j, &x) in x[row * k..][..k].iter().enumerate().filter(|(_, x)| self.is_outlier(**x)) {
                self.columns[j * n..][..n].convert_to_f32_slice(&mut column);
                axpy(&self.cpu, x, &column, y);
            }
        });
    }
}

impl Linear for Int8GridLinear {
    fn in_features(&self) -> usize {
        self.codes.k()
    }

    fn out_features(&self) -> usize {
        self.codes.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        let rows = x.rows();
        y.reshape(rows, self.codes.n());
        let all = x.as_slice();
        if self.columns.is_empty() || !all.iter().any(|&x| self.is_outlier(x)) {
            return self.multiply(all, rows, y.as_mut_slice());
        }
        // 1.
        let mut rest = self.pool.take(all.len());
        rest.iter_mut().zip(all).for_each(|(rest, &x)| *rest = if self.is_outlier(x) { 0.0 } else { x });
        self.multiply(&rest, rows, y.as_mut_slice());
        self.add_outliers(all, y.as_mut_slice());
    }

    fn weight_bytes(&self) -> usize {
        self.codes.bytes() + size_of_val(&*self.zeros)
    }

    fn resident_bytes(&self) -> usize {
        self.weight_bytes() + size_of_val(&*self.columns)
    }

    fn dequantised(&self) -> Vec<f32> {
        self.codes.unpack_on(&self.zeros)
    }

    fn int8_inputs(&self) -> Option<Int8Inputs> {
        Some(self.inputs)
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        Some(Box::new(Int8GridLinear {
            cpu: device.cpu().clone(),
            codes: self.codes.clone(),
            zeros: self.zeros.clone(),
            inputs: self.inputs,
            columns: self.columns.clone(),
            pool: BufferPool::default(),
        }))
    }

    fn kernel_name(&self) -> String {
        let outliers = if self.columns.is_empty() { "" } else { " + f16_axpy" };
        format!("{} on grids{outliers}", self.codes.kernel_name(&self.cpu))
    }
}
