//! Row-major two-dimensional activations.

use ndarray::{ArrayView2, ArrayViewMut2};

/// `[rows, cols]` of f32, row-major. The storage is private so that another device can join without moving a caller.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    rows: usize,
    cols: usize,
    host: Vec<f32>,
}

impl Activations {
    /// Zeros of `[rows, cols]`.
    pub fn zeros(rows: usize, cols: usize) -> Activations {
        Activations { rows, cols, host: vec![0.0; rows * cols] }
    }

    /// Takes `[rows, cols]` values in row-major order.
    ///
    /// # Panics
    /// If `values.len() != rows * cols`.
    pub fn from_vec(rows: usize, cols: usize, values: Vec<f32>) -> Activations {
        assert_eq!(values.len(), rows * cols, "activations of {rows}x{cols}");
        Activations { rows, cols, host: values }
    }

    /// Changes the shape, keeping the allocation; contents are unspecified afterwards.
    pub fn reshape(&mut self, rows: usize, cols: usize) {
        self.rows = rows;
        self.cols = cols;
        self.host.resize(rows * cols, 0.0);
    }

    /// Becomes a copy of `other`, keeping the allocation.
    pub fn copy_from(&mut self, other: &Activations) {
        self.reshape(other.rows, other.cols);
        self.host.copy_from_slice(&other.host);
    }

    /// Number of rows (tokens).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (features).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row-major.
    pub fn as_slice(&self) -> &[f32] {
        &self.host
    }

    /// All values, row-major, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.host
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.host[row * self.cols..(row + 1) * self.cols]
    }

    /// One row, to write.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.host[row * self.cols..(row + 1) * self.cols]
    }

    /// The values as an ndarray view `[rows, cols]`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        ArrayView2::from_shape((self.rows, self.cols), &self.host).expect("rows * cols values by construction")
    }

    /// The values as a mutable ndarray view `[rows, cols]`.
    pub fn view_mut(&mut self) -> ArrayViewMut2<'_, f32> {
        ArrayViewMut2::from_shape((self.rows, self.cols), &mut self.host).expect("rows * cols values by construction")
    }
}
