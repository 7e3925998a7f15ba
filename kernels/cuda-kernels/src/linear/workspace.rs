//! Device memory that products need between their kernels: one for all linears of a model.

use crate::{Buffer, Gpu, GpuError};

/// Grows to the largest product asked of it and then stays. Growing allocates, and a recording keeps the addresses of its time: run
/// (or [`super::DeviceLinear::reserve`]) the largest number of rows before anything is recorded.
#[derive(Debug)]
pub struct Workspace {
    gpu: Gpu,
    pub(crate) inputs: Buffer<u32>,
    pub(crate) per_row: Buffer<f32>,
    pub(crate) partial: Buffer<f32>,
}

/// Values of each part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    /// Packed inputs, words of 4 bytes.
    pub(crate) inputs: usize,
    /// Scales or sums of inputs.
    pub(crate) per_row: usize,
    /// Sums of slices.
    pub(crate) partial: usize,
}

impl Workspace {
    /// An empty one.
    pub fn new(gpu: &Gpu) -> Result<Workspace, GpuError> {
        Ok(Workspace { gpu: gpu.clone(), inputs: gpu.alloc(0)?, per_row: gpu.alloc(0)?, partial: gpu.alloc(0)? })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * (self.inputs.len() + self.per_row.len() + self.partial.len())
    }

    /// Fills it with NaN, so that what is read and was not written shows.
    pub fn poison(&self) -> Result<(), GpuError> {
        self.inputs.write(0, &vec![u32::MAX; self.inputs.len()])?;
        self.per_row.write(0, &vec![f32::NAN; self.per_row.len()])?;
        self.partial.write(0, &vec![f32::NAN; self.partial.len()])
    }

    pub(crate) fn fit(&mut self, needs: Needs) -> Result<(), GpuError> {
        if self.inputs.len() < needs.inputs {
            self.inputs = self.gpu.alloc(needs.inputs)?;
        }
        if self.per_row.len() < needs.per_row {
            self.per_row = self.gpu.alloc(needs.per_row)?;
        }
        if self.partial.len() < needs.partial {
            self.partial = self.gpu.alloc(needs.partial)?;
        }
        Ok(())
    }
}
