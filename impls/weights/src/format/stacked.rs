//! What: a matrix whose rows are stored in several forms, one linear per run of rows.
//! Source: none; checkpoints quantize q, k and v apart, with orders and constants that one format cannot hold together.
//! Shapes: x `[rows, in]` → y `[rows, Σ out]`; part p owns the columns of y behind those of the parts before it.
//! Method: each part multiplies x by itself; its outputs are copied to their place.
//! Exactness: bit-equal to its parts.
//! Cost: as its parts, and one copy of y; x is read once per part.
//! Not handled: nothing; one part alone needs no stack.

use std::sync::Mutex;

use model::{Activations, Linear};

/// The format.
pub struct StackedLinear {
    parts: Vec<Box<dyn Linear>>,
    /// Outputs of one part; forwards that overlap make their own.
    scratch: Mutex<Activations>,
}

impl StackedLinear {
    /// The rows of `parts`, one part below the other.
    ///
    /// # Panics
    /// If there are no parts or they read inputs of different widths.
    pub fn new(parts: Vec<Box<dyn Linear>>) -> StackedLinear {
        assert!(parts.iter().all(|part| part.in_features() == parts[0].in_features()), "parts of one width");
        assert!(!parts.is_empty(), "a matrix has rows");
        StackedLinear { parts, scratch: Mutex::default() }
    }
}

impl Linear for StackedLinear {
    fn in_features(&self) -> usize {
        self.parts[0].in_features()
    }

    fn out_features(&self) -> usize {
        self.parts.iter().map(|part| part.out_features()).sum()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        y.reshape(x.rows(), self.out_features());
        let mut own = Activations::default();
        let mut held = self.scratch.try_lock();
        let scratch = held.as_deref_mut().unwrap_or(&mut own);
        let mut first = 0;
        for part in &self.parts {
            part.forward(x, scratch);
            for row in 0..x.rows() {
                y.row_mut(row)[first..first + scratch.cols()].copy_from_slice(scratch.row(row));
            }
            first += part.out_features();
        }
    }

    fn weight_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.weight_bytes()).sum()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.parts.iter().flat_map(|part| part.dequantised()).collect()
    }

    fn is_int8(&self) -> bool {
        self.parts.iter().all(|part| part.is_int8())
    }

    fn kernel_name(&self) -> String {
        let mut names: Vec<String> = vec![];
        for name in self.parts.iter().map(|part| part.kernel_name()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" over ")
    }
}
