//! Vectors beside activations: those that a checkpoint gives once, and those that every Step brings anew.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use bytemuck::{AnyBitPattern, NoUninit};
use cuda_kernels::{Buffer, GpuError};

use crate::{Cuda, Device};

/// Values of a checkpoint: on the host, and on a GPU from their first use there.
#[derive(Debug, Default)]
pub struct Parameters {
    values: Vec<f32>,
    placed: OnceLock<Buffer<f32>>,
}

impl Parameters {
    /// The values in device memory.
    pub fn on(&self, cuda: &Cuda) -> Result<&Buffer<f32>, GpuError> {
        if let Some(buffer) = self.placed.get() {
            return Ok(buffer);
        }
        let buffer = cuda.alloc(self.values.len())?;
        buffer.write(0, &self.values)?;
        Ok(self.placed.get_or_init(|| buffer))
    }
}

impl From<Vec<f32>> for Parameters {
    fn from(values: Vec<f32>) -> Parameters {
        Parameters { values, placed: OnceLock::new() }
    }
}

impl Clone for Parameters {
    fn clone(&self) -> Parameters {
        self.values.clone().into()
    }
}

impl Deref for Parameters {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Parameters {
    fn deref_mut(&mut self) -> &mut [f32] {
        // a copy elsewhere would be of the old values
        self.placed = OnceLock::new();
        &mut self.values
    }
}

/// Values that each Step brings: on the host, and on a GPU at an address that stays while they fit.
#[derive(Debug)]
pub struct PerStep<T> {
    values: Vec<T>,
    placed: Option<Buffer<T>>,
}

impl<T> Default for PerStep<T> {
    fn default() -> PerStep<T> {
        PerStep { values: vec![], placed: None }
    }
}

impl<T: NoUninit + AnyBitPattern> PerStep<T> {
    /// Replaces the values by those that `fill` puts into an empty vector.
    pub fn set(&mut self, device: &Device, fill: impl FnOnce(&mut Vec<T>)) {
        self.values.clear();
        fill(&mut self.values);
        if let Some(cuda) = device.cuda() {
            cuda.run(|| cuda.room(&mut self.placed, self.values.len().max(1))?.write(0, &self.values));
        }
    }

    /// The values in device memory.
    pub fn placed(&self) -> Result<&Buffer<T>, GpuError> {
        self.placed.as_ref().ok_or_else(|| GpuError::shape("step", "its values are not in device memory"))
    }
}

impl<T> Deref for PerStep<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T> From<Vec<T>> for PerStep<T> {
    fn from(values: Vec<T>) -> PerStep<T> {
        PerStep { values, placed: None }
    }
}
