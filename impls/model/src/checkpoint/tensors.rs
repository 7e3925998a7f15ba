//! safetensors files, memory-mapped or inside the binary. The header is validated before anything is allocated.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
pub use safetensors::Dtype;
use safetensors::SafeTensors;

use super::{CheckpointError, Tensor, TensorData, Tensors};

/// The bytes of a file.
pub enum Bytes {
    /// Mapped from disk.
    Mapped(memmap2::Mmap),
    /// Part of the binary.
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps `file` read-only.
    pub fn map(file: &Path) -> Result<Bytes, CheckpointError> {
        let io = |action| move |source| CheckpointError::Io { file: file.to_path_buf(), action, source };
        let handle = std::fs::File::open(file).map_err(io("cannot open"))?;
        if handle.metadata().map_err(io("cannot read its size"))?.len() == 0 {
            return Err(CheckpointError::Malformed {
                file: file.into(),
                problem: "the file is empty".into(),
                advice: "copy or download it again",
            });
        }
        // SAFETY: the map is read-only. Another process truncating the file meanwhile would fault; weights are not
        // expected to change during a run, and their hash is recorded.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&handle) }.map_err(io("cannot map into memory"))?;
        Ok(Bytes::Mapped(map))
    }

    /// Tells the system that the bytes `range` are not needed for now: they leave this process's memory, and come back from
    /// the file when they are read.
    pub fn release(&self, range: std::ops::Range<usize>) {
        let Bytes::Mapped(map) = self else { return };
        // SAFETY: the map is private, read-only and of a file: dropped pages are read from it again, the same bytes.
        #[allow(unsafe_code)]
        let told = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        // advice that the system does not take costs memory and changes nothing
        let _ = told;
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// A tensor as its file holds it, whatever its type.
#[derive(Debug, Clone, Copy)]
pub struct RawTensor<'a> {
    /// The file.
    pub file: &'a Path,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Element type.
    pub dtype: Dtype,
    /// Little-endian values, row-major.
    pub bytes: &'a [u8],
}

/// A store whose tensors can be read as bytes.
pub trait RawTensors: Tensors {
    /// The tensor called `name`.
    fn raw(&self, name: &str) -> Result<RawTensor<'_>, CheckpointError>;
    /// Names of all, in no order.
    fn all(&self) -> Vec<&str>;
}

struct Place {
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// One safetensors file.
pub struct SafeTensorsFile {
    file: PathBuf,
    bytes: Bytes,
    places: HashMap<String, Place>,
}

impl SafeTensorsFile {
    /// Reads and validates the header of `bytes`; `file` names them in errors.
    pub fn new(file: &Path, bytes: Bytes) -> Result<SafeTensorsFile, CheckpointError> {
        let slice = bytes.as_slice();
        let view = SafeTensors::deserialize(slice).map_err(|e| CheckpointError::Malformed {
            file: file.into(),
            problem: format!("not a valid safetensors file: {e}"),
            advice: "copy or download it again",
        })?;
        let base = slice.as_ptr() as usize;
        let places = view
            .iter()
            .map(|(name, tensor)| {
                let start = tensor.data().as_ptr() as usize - base;
                let place = Place {
                    dtype: tensor.dtype(),
                    shape: tensor.shape().to_vec(),
                    start,
                    end: start + tensor.data().len(),
                };
                (name.to_string(), place)
            })
            .collect();
        Ok(SafeTensorsFile { file: file.into(), places, bytes })
    }

    /// Names of the tensors inside.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }
}

/// Borrows when aligned, copies otherwise (offsets in a safetensors file need not be aligned).
pub(super) fn floats<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()),
    }
}

impl RawTensors for SafeTensorsFile {
    fn raw(&self, name: &str) -> Result<RawTensor<'_>, CheckpointError> {
        let place = self
            .places
            .get(name)
            .ok_or_else(|| CheckpointError::MissingTensor { file: self.file.clone(), name: name.into() })?;
        let bytes = &self.bytes.as_slice()[place.start..place.end];
        Ok(RawTensor { file: &self.file, shape: &place.shape, dtype: place.dtype, bytes })
    }

    fn all(&self) -> Vec<&str> {
        self.names().collect()
    }
}

impl Tensors for SafeTensorsFile {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let RawTensor { shape, dtype, bytes, .. } = self.raw(name)?;
        let data = match dtype {
            Dtype::F32 => TensorData::F32(floats(bytes)),
            Dtype::F16 => TensorData::F16(floats(bytes)),
            Dtype::BF16 => TensorData::Bf16(floats(bytes)),
            other => {
                return Err(CheckpointError::Dtype {
                    file: self.file.clone(),
                    name: name.into(),
                    found: format!("{other:?}"),
                });
            }
        };
        Ok(Tensor { shape: shape.to_vec(), data })
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

/// A sharded checkpoint: several files and the index that says which tensor is where.
pub struct SafeTensorsSet {
    index: PathBuf,
    files: Vec<SafeTensorsFile>,
    place: HashMap<String, usize>,
}

impl SafeTensorsSet {
    /// Joins `files`; `place` maps tensor names to positions in it, `index` names the set in errors.
    pub fn new(index: PathBuf, files: Vec<SafeTensorsFile>, place: HashMap<String, usize>) -> SafeTensorsSet {
        SafeTensorsSet { index, files, place }
    }
}

impl SafeTensorsSet {
    fn file_of(&self, name: &str) -> Result<&SafeTensorsFile, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { file: self.index.clone(), name: name.into() };
        self.place.get(name).map(|&at| &self.files[at]).ok_or_else(missing)
    }
}

impl RawTensors for SafeTensorsSet {
    fn raw(&self, name: &str) -> Result<RawTensor<'_>, CheckpointError> {
        self.file_of(name)?.raw(name)
    }

    fn all(&self) -> Vec<&str> {
        self.place.keys().map(String::as_str).collect()
    }
}

impl Tensors for SafeTensorsSet {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        self.file_of(name)?.get(name)
    }

    fn contains(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }
}
