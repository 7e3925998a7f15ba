//! The layouts a quantized checkpoint can be written in, and what each asks of codes.

use cpu_kernels::GroupCodes;
use half::f16;
use model::checkpoint::quantized::awq::{AwqLayout, AwqPacked};
use model::checkpoint::quantized::gptq::{GptqLayout, GptqPacked};
use model::checkpoint::{Dtype, NewTensor, StoredCodes};
use model::names::Source;
use model::{Architecture, block};
use serde_json::{Value, json};
use weights::{GroupSpec, WeightsSpec};

use super::NewValues;
use crate::EngineError;

/// How the matrices of a written folder are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// AutoGPTQ and GPTQModel; `v2` stores zeros as they are.
    Gptq {
        /// `checkpoint_format` "gptq_v2".
        v2: bool,
    },
    /// AutoAWQ's GEMM.
    Awq,
    /// Plain f16: the dequantised values, for any method and any reader.
    F16,
}

impl CheckpointFormat {
    /// Refuses what the layout cannot hold, before any work is done.
    pub fn check(self, spec: &WeightsSpec, a: &Architecture) -> Result<(), EngineError> {
        let refuse = |problem: String| Err(EngineError::Mismatch(problem));
        if self == CheckpointFormat::F16 {
            return Ok(());
        }
        let Some(grid) = spec.group_grid() else {
            let tag = spec.tag();
            return refuse(format!("weights `{tag}` are no group codes; write them with --format safetensors"));
        };
        if grid.activation_bits.is_some() {
            return refuse("a checkpoint says nothing about rounded activations; leave activation_bits out".into());
        }
        let act_order = matches!(spec, WeightsSpec::Gptq(gptq) if gptq.act_order && !gptq.static_groups);
        if self == CheckpointFormat::Awq && (grid.bits != 4 || act_order) {
            return refuse("the AWQ layout holds 4 bits in input order: use --bits 4 without --act-order (or with --static-groups)".into());
        }
        let mut sources = (0..a.n_layers).flat_map(|layer| {
            let places = block::sources(a, layer);
            let slots = places.slots(layer).into_iter().filter(|(slot, _)| !slot.exact);
            slots.flat_map(|(_, sources)| sources.clone()).collect::<Vec<_>>()
        });
        let does_not_fit = |[n, k]: [usize; 2]| match self {
            CheckpointFormat::Awq => !n.is_multiple_of(8) || !k.is_multiple_of(grid.group.unwrap_or(k).min(k)),
            _ => [n, k].into_iter().any(|len| !(len * grid.bits as usize).is_multiple_of(32)),
        };
        match sources.find(|source| does_not_fit(source.shape)) {
            None => Ok(()),
            Some(source) => refuse(format!(
                "`{}` {:?} does not fill the words of this layout at {} bits; choose other bits or groups, or --format safetensors",
                source.name, source.shape, grid.bits
            )),
        }
    }

    /// `quantization_config`, for a folder that needs one.
    pub(super) fn config(self, spec: &WeightsSpec, left: &[&str]) -> Option<Value> {
        let grid = spec.group_grid()?;
        let group = grid.group.map_or(-1, |group| group as i64);
        match self {
            CheckpointFormat::F16 => None,
            CheckpointFormat::Gptq { v2 } => Some(gptq_config(spec, grid, group, v2)),
            CheckpointFormat::Awq => Some(json!({
                "quant_method": "awq", "bits": 4, "group_size": group, "zero_point": true, "version": "gemm",
                "modules_to_not_convert": if left.is_empty() { Value::Null } else { json!(left) },
            })),
        }
    }

    /// The tensors of `source`, called `module` in the checkpoint; nothing where the layout cannot hold the values.
    pub(super) fn tensors(self, module: &str, source: &Source, values: &NewValues) -> Option<Vec<NewTensor>> {
        match (self, values) {
            (_, NewValues::Unchanged) => None,
            (CheckpointFormat::Gptq { v2 }, NewValues::Group(codes)) => gptq(module, codes, v2),
            (CheckpointFormat::Awq, NewValues::Group(codes)) => awq(module, codes),
            (CheckpointFormat::F16, NewValues::Group(codes)) => {
                Some(vec![plain(module, source, &StoredCodes::Group(codes.clone()).dequantise())])
            }
            (CheckpointFormat::F16, NewValues::Dequantised(values)) => Some(vec![plain(module, source, values)]),
            _ => None,
        }
    }
}

fn gptq_config(spec: &WeightsSpec, grid: GroupSpec, group: i64, v2: bool) -> Value {
    let mut config = json!({
        "quant_method": "gptq", "bits": grid.bits, "group_size": group, "sym": grid.symmetric, "desc_act": false,
        "static_groups": false, "true_sequential": false, "lm_head": false, "pack_dtype": "int32",
        "checkpoint_format": if v2 { "gptq_v2" } else { "gptq" },
        "meta": { "quantizer": [concat!("infermark:", env!("CARGO_PKG_VERSION"))], "method": spec.tag() },
    });
    if let WeightsSpec::Gptq(gptq) = spec {
        config["desc_act"] = json!(gptq.act_order && !gptq.static_groups);
        config["static_groups"] = json!(gptq.static_groups);
        config["damp_percent"] = json!(gptq.damping);
    }
    config
}

fn words(name: String, shape: [usize; 2], words: &[u32]) -> NewTensor {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    NewTensor { name, dtype: Dtype::I32, shape: shape.to_vec(), bytes }
}

fn halves(name: String, shape: [usize; 2], values: impl Iterator<Item = f32>) -> NewTensor {
    let bytes = values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
    NewTensor { name, dtype: Dtype::F16, shape: shape.to_vec(), bytes }
}

fn gptq(module: &str, codes: &GroupCodes, v2: bool) -> Option<Vec<NewTensor>> {
    let layout = GptqLayout {
        bits: codes.bits,
        group: Some(codes.group),
        act_order: codes.order.is_some(),
        v2,
        symmetric: false,
    };
    let GptqPacked { qweight, qzeros, scales, g_idx } = layout.pack(codes)?;
    let groups = codes.k.div_ceil(codes.group);
    let name = |part: &str| format!("{module}.{part}");
    let mut order = words(name("g_idx"), [codes.k, 1], &g_idx);
    order.shape = vec![codes.k];
    Some(vec![
        words(name("qweight"), [qweight.len() / codes.n, codes.n], &qweight),
        words(name("qzeros"), [groups, qzeros.len() / groups], &qzeros),
        halves(name("scales"), [groups, codes.n], scales.into_iter()),
        order,
    ])
}

fn awq(module: &str, codes: &GroupCodes) -> Option<Vec<NewTensor>> {
    let AwqPacked { qweight, qzeros, scales } = AwqLayout::pack(codes)?;
    let (groups, width) = (codes.k / codes.group, codes.n / 8);
    let name = |part: &str| format!("{module}.{part}");
    Some(vec![
        words(name("qweight"), [codes.k, width], &qweight),
        words(name("qzeros"), [groups, width], &qzeros),
        halves(name("scales"), [groups, codes.n], scales.into_iter()),
    ])
}

fn plain(module: &str, source: &Source, values: &[f32]) -> NewTensor {
    let ([n, k], name) = (source.shape, format!("{module}.weight"));
    if !source.transposed {
        return halves(name, [n, k], values.iter().copied());
    }
    halves(name, [k, n], (0..k * n).map(|at| values[at % n * k + at / n]))
}
