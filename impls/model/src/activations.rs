//! Row-major two-dimensional activations.

use cuda_kernels::{Buffer, GpuError};
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::Cuda;

/// `[rows, cols]` of f32, row-major, in host memory or on a GPU. Parts of one engine keep all of theirs in one place, so
/// the accessors of host values are for host parts, and panic on others.
#[derive(Debug)]
pub struct Activations {
    rows: usize,
    cols: usize,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Host(Vec<f32>),
    /// At least as many values as the shape says.
    Cuda(Buffer<f32>),
}

const ELSEWHERE: &str = "activations on a GPU are read through `read_into`";

impl Default for Activations {
    fn default() -> Activations {
        Activations { rows: 0, cols: 0, storage: Storage::Host(vec![]) }
    }
}

/// # Panics
/// On a GPU: there a copy can fail.
impl Clone for Activations {
    fn clone(&self) -> Activations {
        Activations { rows: self.rows, cols: self.cols, storage: Storage::Host(self.as_slice().to_vec()) }
    }
}

impl Activations {
    /// Zeros of `[rows, cols]` in host memory.
    pub fn zeros(rows: usize, cols: usize) -> Activations {
        Activations { rows, cols, storage: Storage::Host(vec![0.0; rows * cols]) }
    }

    /// Takes `[rows, cols]` values in row-major order.
    ///
    /// # Panics
    /// If `values.len() != rows * cols`.
    pub fn from_vec(rows: usize, cols: usize, values: Vec<f32>) -> Activations {
        assert_eq!(values.len(), rows * cols, "activations of {rows}x{cols}");
        Activations { rows, cols, storage: Storage::Host(values) }
    }

    /// Changes the shape, keeping the allocation, in host memory; contents are unspecified afterwards.
    pub fn reshape(&mut self, rows: usize, cols: usize) {
        (self.rows, self.cols) = (rows, cols);
        match &mut self.storage {
            Storage::Host(values) => values.resize(rows * cols, 0.0),
            Storage::Cuda(_) => self.storage = Storage::Host(vec![0.0; rows * cols]),
        }
    }

    /// Changes the shape, in the memory of `cuda`: the buffer stays while the values fit. Contents are unspecified afterwards.
    pub fn reshape_on(&mut self, cuda: &Cuda, rows: usize, cols: usize) -> Result<&Buffer<f32>, GpuError> {
        let fits = matches!(&self.storage, Storage::Cuda(buffer) if buffer.len() >= rows * cols);
        if !fits {
            self.storage = Storage::Cuda(cuda.alloc(rows * cols)?);
        }
        (self.rows, self.cols) = (rows, cols);
        self.buffer()
    }

    /// The device memory; the first `rows * cols` values count.
    pub fn buffer(&self) -> Result<&Buffer<f32>, GpuError> {
        match &self.storage {
            Storage::Cuda(buffer) => Ok(buffer),
            Storage::Host(_) => Err(GpuError::shape("activations", "they are in host memory")),
        }
    }

    /// Whether they are on a GPU.
    pub fn is_on_device(&self) -> bool {
        matches!(self.storage, Storage::Cuda(_))
    }

    /// Copies the values to `host`, from wherever they are, waiting for the work that makes them.
    pub fn read_into(&self, host: &mut Activations) -> Result<(), GpuError> {
        host.reshape(self.rows, self.cols);
        match &self.storage {
            Storage::Host(values) => host.as_mut_slice().copy_from_slice(values),
            Storage::Cuda(buffer) => buffer.read_into(0, host.as_mut_slice())?,
        }
        Ok(())
    }

    /// Becomes a copy of `host` in the memory of `cuda`.
    pub fn write_from(&mut self, cuda: &Cuda, host: &Activations) -> Result<(), GpuError> {
        self.reshape_on(cuda, host.rows, host.cols)?.write(0, host.as_slice())
    }

    /// Becomes a copy of `other`, keeping the allocation.
    pub fn copy_from(&mut self, other: &Activations) {
        self.reshape(other.rows, other.cols);
        self.as_mut_slice().copy_from_slice(other.as_slice());
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
    ///
    /// # Panics
    /// On a GPU.
    pub fn as_slice(&self) -> &[f32] {
        match &self.storage {
            Storage::Host(values) => values,
            Storage::Cuda(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// All values, row-major, to write.
    ///
    /// # Panics
    /// On a GPU.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        match &mut self.storage {
            Storage::Host(values) => values,
            Storage::Cuda(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// One row.
    ///
    /// # Panics
    /// On a GPU.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.as_slice()[row * self.cols..(row + 1) * self.cols]
    }

    /// One row, to write.
    ///
    /// # Panics
    /// On a GPU.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let cols = self.cols;
        &mut self.as_mut_slice()[row * cols..(row + 1) * cols]
    }

    /// The values as an ndarray view `[rows, cols]`.
    ///
    /// # Panics
    /// On a GPU.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        ArrayView2::from_shape((self.rows, self.cols), self.as_slice()).expect("rows * cols values by construction")
    }

    /// The values as a mutable ndarray view `[rows, cols]`.
    ///
    /// # Panics
    /// On a GPU.
    pub fn view_mut(&mut self) -> ArrayViewMut2<'_, f32> {
        let shape = (self.rows, self.cols);
        ArrayViewMut2::from_shape(shape, self.as_mut_slice()).expect("rows * cols values by construction")
    }
}
