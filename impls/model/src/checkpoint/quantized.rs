//! Already quantized Hugging Face checkpoints: which layout a folder has, and its matrices as codes or as values.
//!
//! The layout comes from `quantization_config` in config.json (or the quantizers' own `quantize_config.json`,
//! `quant_config.json`); fields that change the numbers are read or refused by name. Which matrices are quantized is seen in
//! the tensors, so lists of modules left alone need no reading.

pub mod awq;
pub mod bitsandbytes;
mod fields;
pub mod gptq;
mod words;

use std::borrow::Cow;
use std::path::Path;

use fields::ConfigFields;
pub use words::{pack_words, packed_len, unpack_words};

use super::{CheckpointError, Dtype, RawTensor, RawTensors, StoredCodes, Tensor, TensorData, Tensors};
use crate::architecture::Architecture;

/// How a checkpoint packs its codes.
#[derive(Debug, Clone, PartialEq)]
pub enum Layout {
    /// AutoGPTQ, GPTQModel.
    Gptq(gptq::GptqLayout),
    /// AutoAWQ's GEMM.
    Awq(awq::AwqLayout),
    /// bitsandbytes, 4 and 8 bit: each tensor says how it is stored.
    BitsAndBytes,
}

impl Layout {
    /// What `config`, whose text is `text`, and the quantizers' own files in `folder` say; nothing for plain weights.
    pub fn of_folder(folder: &Path, config: &Path, text: &str) -> Result<Option<Layout>, CheckpointError> {
        if let Some(fields) = ConfigFields::inside(config, text)? {
            return Layout::read(&fields).map(Some);
        }
        for (name, method) in [("quantize_config.json", "gptq"), ("quant_config.json", "awq")] {
            let file = folder.join(name);
            match std::fs::read_to_string(&file) {
                Ok(text) => return Layout::read(&ConfigFields::whole(&file, &text, method)?).map(Some),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(CheckpointError::Io { file, action: "cannot read", source }),
            }
        }
        Ok(None)
    }

    fn read(fields: &ConfigFields) -> Result<Layout, CheckpointError> {
        match fields.method()?.as_str() {
            "gptq" => gptq::GptqLayout::read(fields).map(Layout::Gptq),
            "awq" => awq::AwqLayout::read(fields).map(Layout::Awq),
            "bitsandbytes" => bitsandbytes::check(fields).map(|()| Layout::BitsAndBytes),
            _ => Err(fields.unsupported("quant_method", "\"gptq\", \"awq\", \"bitsandbytes\"")),
        }
    }
}

/// Tensors of a quantized checkpoint, dequantised when asked for.
pub struct QuantizedTensors {
    layout: Layout,
    /// Matrices of the layers are wanted `[in, out]`; quantizers store `[out, in]` whatever the family.
    transposed: bool,
    head: &'static str,
    inner: Box<dyn RawTensors>,
}

impl QuantizedTensors {
    /// `inner` read by `layout`.
    pub fn new(layout: Layout, architecture: &Architecture, inner: Box<dyn RawTensors>) -> QuantizedTensors {
        let names = architecture.names;
        QuantizedTensors { layout, transposed: names.transposed, head: names.head, inner }
    }

    /// The matrix `{module}.weight`, where it is quantized.
    fn unpacked(&self, name: &str) -> Result<Option<Unpacked>, CheckpointError> {
        let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
        let tensors = &*self.inner;
        match &self.layout {
            Layout::Gptq(layout) if tensors.contains(&format!("{module}.qweight")) => layout.unpack(tensors, module),
            Layout::Awq(layout) if tensors.contains(&format!("{module}.qweight")) => {
                layout.unpack(tensors, module).map(Unpacked::Codes)
            }
            Layout::BitsAndBytes => {
                return bitsandbytes::unpack(tensors, module);
            }
            _ => return Ok(None),
        }
        .map(Some)
    }
}

/// A matrix out of its packing.
enum Unpacked {
    /// In a form that kernels read.
    Codes(StoredCodes),
    /// In none: groups of uneven length, blocks that cross rows. Values `[n, k]` alone.
    Values { n: usize, k: usize, values: Vec<f32> },
}

impl Tensors for QuantizedTensors {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let (n, k, values) = match self.unpacked(name)? {
            None => return self.inner.get(name),
            Some(Unpacked::Codes(codes)) => (codes.n(), codes.k(), codes.dequantise()),
            Some(Unpacked::Values { n, k, values }) => (n, k, values),
        };
        if !self.transposed || name.strip_prefix(self.head).is_some_and(|rest| rest.starts_with('.')) {
            return Ok(Tensor { shape: vec![n, k], data: TensorData::F32(Cow::Owned(values)) });
        }
        let mut turned = vec![0.0; n * k];
        for (row, values) in values.chunks(k.max(1)).enumerate() {
            values.iter().enumerate().for_each(|(column, &value)| turned[column * n + row] = value);
        }
        Ok(Tensor { shape: vec![k, n], data: TensorData::F32(Cow::Owned(turned)) })
    }

    fn contains(&self, name: &str) -> bool {
        let packed = || name.strip_suffix(".weight").is_some_and(|m| self.inner.contains(&format!("{m}.qweight")));
        self.inner.contains(name) || packed()
    }

    fn codes(&self, name: &str) -> Result<Option<StoredCodes>, CheckpointError> {
        match self.unpacked(name)? {
            Some(Unpacked::Codes(codes)) => Ok(Some(codes)),
            _ => Ok(None),
        }
    }
}

/// Refuses a tensor that is not what its layout says, before anything is made of it.
fn malformed(tensor: RawTensor<'_>, name: &str, expected: &str) -> CheckpointError {
    CheckpointError::Malformed {
        file: tensor.file.into(),
        problem: format!("tensor `{name}`: expected {expected}, found {:?} {:?}", tensor.dtype, tensor.shape),
        advice: "its quantization_config does not describe these weights; fetch or quantize the checkpoint again",
    }
}

/// 32-bit words of a tensor `[rows, columns]`; `None` stands for any number of rows.
fn words(
    tensors: &dyn RawTensors,
    name: &str,
    rows: Option<usize>,
    columns: Option<usize>,
) -> Result<(Vec<u32>, [usize; 2]), CheckpointError> {
    let tensor = tensors.raw(name)?;
    let fits = |wanted: Option<usize>, found: usize| found > 0 && wanted.is_none_or(|wanted| wanted == found);
    match *tensor.shape {
        [r, c] if tensor.dtype == Dtype::I32 && fits(rows, r) && fits(columns, c) => {
            let words = tensor.bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned);
            Ok((words.collect(), [r, c]))
        }
        _ => {
            let size = |n: Option<usize>| n.map_or("·".to_string(), |n| n.to_string());
            Err(malformed(tensor, name, &format!("I32 [{}, {}]", size(rows), size(columns))))
        }
    }
}

/// Floats of a tensor of this shape, as f32.
fn floats(tensors: &dyn RawTensors, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
    let tensor = tensors.get(name)?;
    if tensor.shape != shape {
        return Err(CheckpointError::Shape { name: name.into(), expected: shape.to_vec(), found: tensor.shape });
    }
    Ok(tensor.data.to_f32())
}

/// `table [rows, columns]` transposed.
fn turned<T: Copy + Default>(table: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = vec![T::default(); rows * columns];
    for (r, row) in table.chunks(columns.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(c, &value)| out[c * rows + r] = value);
    }
    out
}
