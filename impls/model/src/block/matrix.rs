//! Weight matrices as the forward pass wants them, from tensors as checkpoints store them.

use half::{bf16, f16};

use crate::Parameters;
use crate::architecture::{Architecture, NormKind};
use crate::checkpoint::{CheckpointError, StoredCodes, Tensor, TensorData, Tensors};
use crate::names::Source;

/// Values of a weight matrix in the type they were stored in.
#[derive(Debug, Clone)]
pub enum MatrixValues {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// Codes as the checkpoint stores them, in as few parts as their forms allow, one below the other.
    Stored(Vec<StoredCodes>),
}

/// A weight matrix `[rows, cols]` = `[out_features, in_features]`, row-major.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Values.
    pub values: MatrixValues,
}

impl Matrix {
    /// Whether every value is finite, for blocks too, which are not looked at when they are read.
    pub fn is_finite(&self) -> bool {
        let MatrixValues::Stored(parts) = &self.values else { return true };
        parts.iter().all(|part| !matches!(part, StoredCodes::Blocks(_)) || part.is_finite())
    }

    /// The values widened to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            MatrixValues::F32(values) => values.clone(),
            MatrixValues::F16(values) => TensorData::F16(values.into()).to_f32(),
            MatrixValues::Bf16(values) => TensorData::Bf16(values.into()).to_f32(),
            MatrixValues::Stored(parts) => parts.iter().flat_map(StoredCodes::dequantise).collect(),
        }
    }
}

/// Gain and bias of a norm; unit offsets are already added.
#[derive(Debug, Clone)]
pub struct NormWeights {
    /// `[features]`.
    pub gain: Parameters,
    /// `[features]`; zeros in a layer norm without bias, empty in an RMS norm.
    pub bias: Parameters,
}

/// A checkpoint read in the words of its architecture.
pub struct Reader<'a> {
    /// What is read.
    pub architecture: &'a Architecture,
    tensors: &'a dyn Tensors,
    prefix: &'static str,
}

impl<'a> Reader<'a> {
    /// Finds out which of the family's prefixes this checkpoint uses.
    pub fn new(architecture: &'a Architecture, tensors: &'a dyn Tensors) -> Reader<'a> {
        let names = architecture.names;
        let embedding = |prefix: &&&str| tensors.contains(&format!("{prefix}{}.weight", names.embedding));
        let prefix = names.prefixes.iter().find(embedding).unwrap_or(&names.prefixes[0]);
        Reader { architecture, tensors, prefix }
    }

    /// The whole name of the tensor of a layer or a norm called `name`: with the prefix of this checkpoint.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// How the matrices of `layer` are stored, each way once, where they are codes.
    pub fn stored_as(&self, layer: usize) -> Vec<String> {
        let mut found = vec![];
        for (_, list) in super::sources(self.architecture, layer).slots(layer) {
            let words = list.iter().filter_map(|source| self.tensors.stored_as(&self.stored_name(&source.weight())));
            words.for_each(|word| {
                if !found.contains(&word) {
                    found.push(word);
                }
            });
        }
        found
    }

    /// The name in this checkpoint of the tensor called `name` without prefix: the head never has one.
    fn stored_name(&self, name: &str) -> String {
        let outside = name.strip_prefix(self.architecture.names.head).is_some_and(|rest| rest.starts_with('.'));
        if outside { name.to_string() } else { self.full_name(name) }
    }

    /// A tensor of this shape with only finite values; `name` is without prefix.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, CheckpointError> {
        let name = self.stored_name(name);
        let tensor = self.tensors.get(&name)?;
        if tensor.shape != shape {
            return Err(CheckpointError::Shape { name, expected: shape.to_vec(), found: tensor.shape });
        }
        let finite = match &tensor.data {
            TensorData::F32(values) => values.iter().all(|v| v.is_finite()),
            TensorData::F16(values) => values.iter().all(|v| v.is_finite()),
            TensorData::Bf16(values) => values.iter().all(|v| v.is_finite()),
        };
        if finite { Ok(tensor) } else { Err(CheckpointError::NotFinite { name }) }
    }

    /// A vector of `len` values as f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.tensor(name, &[len])?.data.to_f32())
    }

    /// A tensor `[rows, cols]` as f32.
    pub fn table(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.tensor(name, &shape)?.data.to_f32())
    }

    /// The matrix whose rows are those of `sources`, one after the other.
    pub fn matrix(&self, sources: &[Source]) -> Result<Matrix, CheckpointError> {
        let (rows, cols) = (sources.iter().map(Source::n_rows).sum(), sources[0].shape[1]);
        if let Some(parts) = self.codes(sources)? {
            return Ok(Matrix { rows, cols, values: MatrixValues::Stored(parts) });
        }
        let stored = |s: &Source| if s.transposed { [s.shape[1], s.shape[0]] } else { s.shape };
        let parts = sources
            .iter()
            .map(|source| Ok((self.tensor(&source.weight(), &stored(source))?.data, source)))
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        let values = if parts.iter().all(|(data, _)| matches!(data, TensorData::F16(_))) {
            let typed =
                parts.iter().filter_map(|(d, s)| if let TensorData::F16(v) = d { Some((&**v, *s)) } else { None });
            MatrixValues::F16(gather(typed))
        } else if parts.iter().all(|(data, _)| matches!(data, TensorData::Bf16(_))) {
            let typed =
                parts.iter().filter_map(|(d, s)| if let TensorData::Bf16(v) = d { Some((&**v, *s)) } else { None });
            MatrixValues::Bf16(gather(typed))
        } else {
            let wide: Vec<_> = parts.iter().map(|(data, source)| (data.to_f32(), *source)).collect();
            MatrixValues::F32(gather(wide.iter().map(|(values, source)| (&values[..], *source))))
        };
        Ok(Matrix { rows, cols, values })
    }

    /// The codes of `sources`, where all of them are stored quantized.
    fn codes(&self, sources: &[Source]) -> Result<Option<Vec<StoredCodes>>, CheckpointError> {
        let mut parts: Vec<StoredCodes> = vec![];
        for source in sources {
            let name = self.stored_name(&source.weight());
            let Some(codes) = self.tensors.codes(&name)? else { return Ok(None) };
            let found = [codes.n(), codes.k()];
            if found != source.shape {
                return Err(CheckpointError::Shape { name, expected: source.shape.to_vec(), found: found.to_vec() });
            }
            // blocks are judged when they are packed, or when a matrix is read that is not: looking at all of them first would
            // read the file twice
            if !matches!(codes, StoredCodes::Blocks(_)) && !codes.is_finite() {
                return Err(CheckpointError::NotFinite { name });
            }
            let codes = codes.rows(&source.rows);
            let left = match parts.last_mut() {
                Some(above) => above.stack(codes),
                None => Some(codes),
            };
            parts.extend(left);
        }
        Ok(Some(parts))
    }

    /// The bias beside the matrix of `sources`, in its row order.
    pub fn bias(&self, on: bool, sources: &[Source]) -> Result<Option<Vec<f32>>, CheckpointError> {
        if !on {
            return Ok(None);
        }
        let mut all = vec![];
        for source in sources {
            let stored = self.vector(&source.bias(), source.shape[0])?;
            source.rows.iter().for_each(|rows| all.extend_from_slice(&stored[rows.clone()]));
        }
        Ok(Some(all))
    }

    /// A norm over `width` features.
    pub fn norm(&self, name: &str, kind: NormKind, width: usize) -> Result<NormWeights, CheckpointError> {
        let mut gain = if kind.has_gain() { self.vector(&format!("{name}.weight"), width)? } else { vec![1.0; width] };
        gain.iter_mut().for_each(|g| *g += kind.offset());
        let bias = match kind {
            NormKind::Rms | NormKind::RmsUnitOffset => vec![],
            NormKind::LayerNoBias | NormKind::LayerBare => vec![0.0; width],
            NormKind::Layer | NormKind::LayerUnitOffset => self.vector(&format!("{name}.bias"), width)?,
        };
        Ok(NormWeights { gain: gain.into(), bias: bias.into() })
    }
}

/// The rows of each source, transposed where they are stored so.
fn gather<'v, T: Copy + 'v>(parts: impl Iterator<Item = (&'v [T], &'v Source)>) -> Vec<T> {
    let mut all = vec![];
    for (values, source) in parts {
        let [n_rows, cols] = source.shape;
        for rows in &source.rows {
            if source.transposed {
                rows.clone().for_each(|row| all.extend((0..cols).map(|col| values[col * n_rows + row])));
            } else {
                all.extend_from_slice(&values[rows.start * cols..rows.end * cols]);
            }
        }
    }
    all
}
