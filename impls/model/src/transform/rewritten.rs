//! A checkpoint with some tensors replaced.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::checkpoint::{CheckpointError, StoredCodes, Tensor, TensorData, Tensors};

/// Shape and row-major values of the tensors that a transform makes, by name.
pub type NewTensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// Tensors of a checkpoint, except those that a transform made.
pub struct Rewritten {
    inner: Box<dyn Tensors>,
    changed: NewTensors,
}

impl Rewritten {
    /// `inner` with `changed` in place of its own.
    pub fn new(inner: Box<dyn Tensors>, changed: NewTensors) -> Rewritten {
        Rewritten { inner, changed }
    }
}

impl Tensors for Rewritten {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        match self.changed.get(name) {
            Some((shape, values)) => {
                Ok(Tensor { shape: shape.clone(), data: TensorData::F32(Cow::Borrowed(values.as_slice())) })
            }
            None => self.inner.get(name),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.changed.contains_key(name) || self.inner.contains(name)
    }

    fn codes(&self, name: &str) -> Result<Option<StoredCodes>, CheckpointError> {
        if self.changed.contains_key(name) { Ok(None) } else { self.inner.codes(name) }
    }

    fn stored_as(&self, name: &str) -> Option<String> {
        if self.changed.contains_key(name) { None } else { self.inner.stored_as(name) }
    }
}
