//! What: matrices that bitsandbytes stored: NF4 and FP4, their constants plain or quantized again, and LLM.int8().
//! Source: QLoRA (arXiv 2305.14314) §3 and LLM.int8() (arXiv 2208.07339) §2 in bitsandbytes' serialisation.
//! Shapes: 4 bit: weight, two codes a byte over the flattened `[out, in]`, the even one in the high nibble; absmax per block,
//!   quant_map `[16]`; doubly quantized: absmax U8, nested_absmax, nested_quant_map `[256]`; `quant_state.bitsandbytes__nf4`
//!   or `__fp4`, JSON in bytes. int8: weight I8 `[out, in]`, SCB `[out]`, the largest magnitude of each row.
//! Method: w = quant_map\[code\]·absmax; absmax = nested_quant_map\[code\]·nested_absmax + offset; int8: w = code·SCB/127.
//! Exactness: values in f32, not rounded to the data type that the weights had before.
//! Cost: one pass over the bytes, one byte per code.
//! Not handled: int8 activations with outlier columns; they belong to how a checkpoint is run, not to what it stores.

use cpu_kernels::{BlockScales, CodebookCodes, NestedScales};
use serde::Deserialize;

use super::fields::ConfigFields;
use super::{Unpacked, floats, malformed};
use crate::checkpoint::{CheckpointError, Dtype, RawTensors, RowCodes, StoredCodes};

/// Refuses what would change the numbers; the tensors say the rest.
pub(super) fn check(f: &ConfigFields) -> Result<(), CheckpointError> {
    f.must_be_unset("llm_int8_has_fp16_weight")?;
    f.word(&["bnb_4bit_quant_type"], &["nf4", "fp4"], "fp4")?;
    Ok(())
}

#[derive(Deserialize)]
struct QuantState {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    #[serde(default)]
    nested_blocksize: Option<usize>,
    #[serde(default)]
    nested_offset: Option<f32>,
}

/// The matrix `{module}.weight`, where it is quantized.
pub(super) fn unpack(tensors: &dyn RawTensors, module: &str) -> Result<Option<Unpacked>, CheckpointError> {
    let weight = format!("{module}.weight");
    for kind in ["nf4", "fp4"] {
        let state = format!("{weight}.quant_state.bitsandbytes__{kind}");
        if tensors.contains(&state) {
            return four_bit(tensors, &weight, &state, kind).map(Some);
        }
    }
    let scales = format!("{module}.SCB");
    if tensors.contains(&scales) { int8(tensors, &weight, &scales).map(Unpacked::Codes).map(Some) } else { Ok(None) }
}

fn four_bit(tensors: &dyn RawTensors, weight: &str, state_name: &str, kind: &str) -> Result<Unpacked, CheckpointError> {
    let raw = tensors.raw(state_name)?;
    let state: QuantState = serde_json::from_slice(raw.bytes)
        .map_err(|e| malformed(raw, state_name, &format!("the JSON of a quant state ({e})")))?;
    let refuse = |expected: &str| malformed(raw, state_name, expected);
    let [n, k] = state.shape[..] else { return Err(refuse("a shape of two sizes")) };
    if state.quant_type != kind || state.blocksize == 0 {
        return Err(refuse(&format!("quant_type {kind} and a blocksize")));
    }
    let packed = tensors.raw(weight)?;
    // the bytes of the file bound every allocation
    let len = n.checked_mul(k).filter(|len| *len > 0 && packed.bytes.len() == len.div_ceil(2));
    let Some(len) = len else { return Err(malformed(packed, weight, &format!("half a byte for each of {n} x {k}"))) };
    let codes: Vec<u8> = packed.bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(len).collect();
    let mut table = [0.0; 16];
    table.copy_from_slice(&floats(tensors, &format!("{weight}.quant_map"), &[16])?);
    let (absmax, blocks) = (format!("{weight}.absmax"), len.div_ceil(state.blocksize));
    let scales = match state.nested_blocksize {
        None => BlockScales::F32(floats(tensors, &absmax, &[blocks])?),
        Some(0) => return Err(refuse("a nested_blocksize above 0")),
        Some(nested_block) => {
            let stored = tensors.raw(&absmax)?;
            if stored.dtype != Dtype::U8 || stored.shape.iter().product::<usize>() != blocks {
                return Err(malformed(stored, &absmax, &format!("U8 [{blocks}]")));
            }
            let constants = floats(tensors, &format!("{weight}.nested_absmax"), &[blocks.div_ceil(nested_block)])?;
            let mut map = Box::new([0.0; 256]);
            map.copy_from_slice(&floats(tensors, &format!("{weight}.nested_quant_map"), &[256])?);
            let offset = state.nested_offset.ok_or_else(|| refuse("a nested_offset beside nested_blocksize"))?;
            let codes = stored.bytes.to_vec();
            if nested_block == NestedScales::PER_CONSTANT {
                BlockScales::Nested(NestedScales { codes, map, constants, offset })
            } else {
                let scale = |(i, &code): (usize, &u8)| map[code as usize] * constants[i / nested_block] + offset;
                BlockScales::F32(codes.iter().enumerate().map(scale).collect())
            }
        }
    };
    let block = state.blocksize;
    if k.is_multiple_of(block) && block.is_multiple_of(8) {
        return Ok(Unpacked::Codes(StoredCodes::Codebook(CodebookCodes { n, k, block, table, codes, scales })));
    }
    // a block crosses rows
    let value = |(i, &code): (usize, &u8)| table[code as usize] * scales.get(i / block);
    Ok(Unpacked::Values { n, k, values: codes.iter().enumerate().map(value).collect() })
}

fn int8(tensors: &dyn RawTensors, weight: &str, scales: &str) -> Result<StoredCodes, CheckpointError> {
    let raw = tensors.raw(weight)?;
    let [n, k] = *raw.shape else { return Err(malformed(raw, weight, "I8 [out, in]")) };
    if raw.dtype != Dtype::I8 || n * k == 0 {
        return Err(malformed(raw, weight, "I8 [out, in]"));
    }
    let order = format!("{}_format", weight);
    if tensors.contains(&order) && tensors.raw(&order)?.bytes.iter().any(|&byte| byte != 0) {
        return Err(malformed(tensors.raw(&order)?, &order, "0: rows as they are, not the order of a GPU's tiles"));
    }
    let codes = raw.bytes.iter().map(|&byte| byte as i8).collect();
    let scales = floats(tensors, scales, &[n])?.into_iter().map(|absmax| absmax / 127.0).collect();
    Ok(StoredCodes::Row(RowCodes { n, k, codes, scales }))
}
