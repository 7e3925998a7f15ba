//! Seeded random weights of a named shape, for speed-only cells: no file, no meaning.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{CheckpointError, Tensor, TensorData, Tensors};
use crate::architecture::Architecture;
use crate::names;

/// Tensors drawn on demand: the same seed and name give the same values.
pub struct RandomTensors {
    shapes: HashMap<String, Vec<usize>>,
    seed: u64,
}

impl RandomTensors {
    /// Weights of `architecture` from `seed`.
    pub fn new(architecture: Architecture, seed: u64) -> RandomTensors {
        RandomTensors { shapes: names::tensors(&architecture).into_iter().collect(), seed }
    }
}

impl Tensors for RandomTensors {
    /// Norm gains are one, biases zero, matrices uniform with variance 1/columns: activations keep their size.
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let shape = self
            .shapes
            .get(name)
            .cloned()
            .ok_or_else(|| CheckpointError::MissingTensor { file: PathBuf::from("random"), name: name.into() })?;
        let n: usize = shape.iter().product();
        let values = match shape.as_slice() {
            [_] if name.ends_with(".bias") => vec![0.0; n],
            [_] => vec![1.0; n],
            _ => {
                let bound = (3.0 / shape[shape.len() - 1] as f32).sqrt();
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ name_hash(name));
                (0..n).map(|_| rng.random_range(-bound..bound)).collect()
            }
        };
        Ok(Tensor { shape, data: TensorData::F32(Cow::Owned(values)) })
    }

    fn contains(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }
}

/// FNV-1a of the name: gives each tensor its own stream.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf29ce484222325, |h, b| (h ^ b as u64).wrapping_mul(0x100000001b3))
}
