//! The embedding table: in the checkpoint's type on the host, and on a GPU from its first use there.

use std::ops::Deref;
use std::sync::OnceLock;

use bytemuck::{AnyBitPattern, NoUninit};
use cuda_kernels::rows::Stored;
use cuda_kernels::{Buffer, GpuError};
use half::{bf16, f16};

use crate::Cuda;
use crate::block::{Matrix, MatrixValues};

/// A table `[vocab, embedding_dim]`.
#[derive(Debug)]
pub struct Embedding {
    table: Matrix,
    placed: OnceLock<Placed>,
}

#[derive(Debug)]
enum Placed {
    F32(Buffer<f32>),
    F16(Buffer<f16>),
    Bf16(Buffer<bf16>),
}

impl Embedding {
    /// The table in device memory; stored codes as the values that they stand for.
    pub fn on(&self, cuda: &Cuda) -> Result<Stored<'_>, GpuError> {
        if self.placed.get().is_none() {
            let placed = self.place(cuda)?;
            // of two that placed it at once, one copy stays
            let _ = self.placed.set(placed);
        }
        match self.placed.get() {
            Some(Placed::F32(buffer)) => Ok(Stored::F32(buffer)),
            Some(Placed::F16(buffer)) => Ok(Stored::F16(buffer)),
            Some(Placed::Bf16(buffer)) => Ok(Stored::Bf16(buffer)),
            None => Err(GpuError::shape("embedding", "it was not placed")),
        }
    }

    fn place(&self, cuda: &Cuda) -> Result<Placed, GpuError> {
        Ok(match &self.table.values {
            MatrixValues::F16(values) => Placed::F16(upload(cuda, values)?),
            MatrixValues::Bf16(values) => Placed::Bf16(upload(cuda, values)?),
            MatrixValues::F32(_) | MatrixValues::Stored(_) => Placed::F32(upload(cuda, &self.table.to_f32())?),
        })
    }
}

fn upload<T: NoUninit + AnyBitPattern>(cuda: &Cuda, values: &[T]) -> Result<Buffer<T>, GpuError> {
    let buffer = cuda.alloc(values.len())?;
    buffer.write(0, values)?;
    Ok(buffer)
}

impl From<Matrix> for Embedding {
    fn from(table: Matrix) -> Embedding {
        Embedding { table, placed: OnceLock::new() }
    }
}

impl Deref for Embedding {
    type Target = Matrix;

    fn deref(&self) -> &Matrix {
        &self.table
    }
}
