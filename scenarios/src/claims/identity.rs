//! Identities: statements of papers that hold exactly or not at all, each measured once through the crates' own doors.
//!
//! They emit numbers ([`Event::Value`]); whether a number is small enough is the claim's rule in the scenario file, so a
//! broken identity reads as a violated claim and not as a crashed cell.

mod attention;
mod attention_parts;
mod awq;
mod collaborative;
mod experts;
mod four_bit;
mod incoherent;
mod int8;
mod invariance;
mod latent;
mod lora;
mod outliers;
mod packed;
mod quantization;
mod rotation;
mod sampling;
mod smoothing;
mod speculation;
mod transformer;
mod translation;
mod vectors;

use std::sync::LazyLock;

use anyhow::{Result, bail};
use engine::Engine;
use model::{SeqId, Session, TokenId};
use results::trace::Event;

use crate::diagnostic::nearest;
use crate::worker::{Held, Outcome};

const SEQ: SeqId = SeqId(0);

/// One entry of the registry.
struct Identity {
    name: &'static str,
    about: &'static str,
    measure: fn(&Held) -> Result<Outcome>,
}

const REGISTRY: &[Identity] = &[
    Identity {
        name: "transformer-forward-exact",
        about: "logits of whole prompts against the f64 reference, by prompt length",
        measure: transformer::forward_exact,
    },
    Identity {
        name: "transformer-cache-exact",
        about: "logits through the KV cache, in chunks and beside another sequence, against one full pass",
        measure: transformer::cache_exact,
    },
    Identity {
        name: "translation",
        about: "an encoder-decoder on its held-out pairs: exact translations, steps and likelihood, greedy and beam 4",
        measure: translation::held_out,
    },
    Identity {
        name: "batch-invariance",
        about: "bits of a sequence's logits among others, in pieces, on one thread; distinct completions under random load",
        measure: invariance::batch_invariance,
    },
    Identity {
        name: "collab-fullrank-exact",
        about: "attention scores of a trained model against its collaborative form at full rank; decomposition error by rank",
        measure: collaborative::full_rank,
    },
    Identity {
        name: "mla-absorb",
        about: "latent attention with absorbed projections against its expanded form; values per cached token",
        measure: latent::absorbed,
    },
    Identity {
        name: "mla-cache",
        about: "bytes of a latent cache over a multi-head cache at the sizes of DeepSeek-V2",
        measure: latent::cache,
    },
    Identity {
        name: "moe-dropless-exact",
        about: "rows grouped by expert against one token at a time; visits dropped with and without a capacity",
        measure: experts::dropless_exact,
    },
    Identity {
        name: "moe-padding-waste",
        about: "FLOPs and time of experts padded to the largest over dropless ones, Zipf routing",
        measure: experts::padding_waste,
    },
    Identity {
        name: "flash-exact",
        about: "the cell's attention against softmax(QKᵀ)V in f64: causal, full, ragged batch, one-row decode",
        measure: attention::exact,
    },
    Identity {
        name: "gqa-degenerate",
        about: "grouped-query attention against one attention per head: as many groups as heads, one group, and between",
        measure: attention::grouped_queries,
    },
    Identity {
        name: "flash2-unnormalised",
        about: "output writes and divisions of the FlashAttention-1 and -2 loops, counted",
        measure: attention::unnormalised,
    },
    Identity {
        name: "flash-io-model",
        about: "words moved by the FlashAttention-1 loop against its closed form, by size of the fast memory",
        measure: attention::io_model,
    },
    Identity {
        name: "splitkv-merge",
        about: "partial results over any partition of the keys, joined in any order, against one pass",
        measure: attention_parts::split_merge,
    },
    Identity {
        name: "attention-tree-mask",
        about: "rows of a token tree in one pass against each of its paths alone",
        measure: attention_parts::tree_paths,
    },
    Identity {
        name: "gptq-identity-hessian",
        about: "codes of GPTQ with H = I that differ from round-to-nearest",
        measure: quantization::identity_hessian,
    },
    Identity {
        name: "gptq-lazy-batch-exact",
        about: "GPTQ with lazy blocks of 1 and of 128 columns, and against brute-force OBS",
        measure: quantization::lazy_batch,
    },
    Identity {
        name: "gptq-layer-error",
        about: "layer error of GPTQ over round-to-nearest, each linear layer of the model on its calibration text",
        measure: quantization::layer_error,
    },
    Identity {
        name: "lut-exact",
        about: "sums of looked-up table entries against integer sums by the definition, by bits",
        measure: packed::lookup_exact,
    },
    Identity {
        name: "dequantise-then-multiply",
        about: "the fused product of 4-bit codes against f32 products with the decoded weights, by rows",
        measure: packed::dequantise_then_multiply,
    },
    Identity {
        name: "awq-scaling-equivalent",
        about: "logits with AWQ's scales folded in and nothing quantized against the model as it is",
        measure: awq::scaling_equivalent,
    },
    Identity {
        name: "awq-never-worse",
        about: "calibration error with AWQ's scales and with its clipping over rounding to nearest, each input and matrix",
        measure: awq::never_worse,
    },
    Identity {
        name: "nf4-codebook",
        about: "NF4's table against the published one and the normal quantiles; codes that change when coded twice",
        measure: four_bit::nf4_codebook,
    },
    Identity {
        name: "nf4-gaussian-mse",
        about: "mean squared errors of NF4, FP4 and Int4 on normal tensors, blocks of 64",
        measure: four_bit::nf4_gaussian_mse,
    },
    Identity {
        name: "nf4-double-quant-bits",
        about: "bits per weight of NF4 with scales in f32 and double-quantized",
        measure: four_bit::double_quant_bits,
    },
    Identity {
        name: "mxfp4-codes",
        about: "values, ties and scales of MXFP4 and NVFP4 against vectors worked out by hand; their bits per weight",
        measure: four_bit::microscaling_codes,
    },
    Identity {
        name: "microscaling-mse",
        about: "mean squared error of NVFP4 and of Int4 over that of MXFP4, on normal and Laplace tensors",
        measure: four_bit::microscaling_mse,
    },
    Identity {
        name: "weight-normality",
        about: "kurtosis of the rows of each matrix of the model; 3 for normal weights",
        measure: four_bit::weight_normality,
    },
    Identity {
        name: "int8-threshold-limits",
        about: "LLM.int8() at threshold 0 and ∞ against f16 and vector-wise int8; integer products that are not exact",
        measure: int8::threshold_limits,
    },
    Identity {
        name: "outliers",
        about: "what enters attention and MLP on the evaluation text: values above 6, features above it, kurtosis, largest over median",
        measure: outliers::scan,
    },
    Identity {
        name: "smoothquant-equivalent",
        about: "logits of the smoothed model, unquantized, against the model; how much flatter its activations are",
        measure: int8::smoothing,
    },
    Identity {
        name: "lora-merge",
        about: "logits with a LoRA adapter beside the weights against merged weights, f32 and NF4",
        measure: lora::merge,
    },
    Identity {
        name: "vq-2bit",
        about: "2-bit error of E8P, Lloyd-Max and uniform codes on a Gaussian; incoherence of weights under Hadamard transforms",
        measure: vectors::two_bits,
    },
    Identity {
        name: "sage-k-smoothing",
        about: "softmax with and without the mean of the keys; error of int8 scores on keys with a bias per channel",
        measure: smoothing::keys,
    },
    Identity {
        name: "fa3-incoherent-fp8",
        about: "error of attention in emulated 8-bit floats: scales per tensor and per block, with and without Hadamard transforms",
        measure: incoherent::eight_bit_floats,
    },
    Identity {
        name: "quarot-equivalent",
        about: "logits of the model rotated, by Hadamard and by random orthogonal matrices, against those of the model as it is",
        measure: rotation::equivalent,
    },
    Identity {
        name: "quarot-kurtosis",
        about: "kurtosis and peaks of activations before and after a Hadamard rotation, by place",
        measure: rotation::kurtosis,
    },
    Identity {
        name: "quarot-rotations",
        about: "likelihood under random rotations, Hadamard and orthogonal, with the cell's weights",
        measure: rotation::spread,
    },
    Identity {
        name: "spec-lossless-greedy",
        about: "prompts whose greedy tokens change when a draft proposes them, by γ",
        measure: speculation::lossless_greedy,
    },
    Identity {
        name: "spec-lossless-sampling",
        about: "χ² of speculatively sampled tokens against the target's exact distribution, by γ",
        measure: speculation::lossless_sampling,
    },
    Identity {
        name: "spec-expected-tokens",
        about: "tokens per target run against (1 − α^{γ+1})/(1 − α), on i.i.d. tables and on the model pair",
        measure: speculation::expected_tokens,
    },
    Identity {
        name: "minp-definition",
        about: "the set that min-p keeps against its definition, and sampled frequencies against that set",
        measure: sampling::min_p_definition,
    },
];

/// Name and one line about each identity.
pub fn identities() -> &'static [(&'static str, &'static str)] {
    static NAMES: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| REGISTRY.iter().map(|i| (i.name, i.about)).collect());
    &NAMES
}

/// Measures the identity called `name` on the held cell.
pub fn identity(name: &str, held: &Held) -> Result<Outcome> {
    match REGISTRY.iter().find(|i| i.name == name) {
        Some(identity) => (identity.measure)(held),
        None => match nearest(name, REGISTRY.iter().map(|i| i.name)) {
            Some(meant) => bail!("no identity is called `{name}`; did you mean `{meant}`?"),
            None => {
                let known: Vec<&str> = REGISTRY.iter().map(|i| i.name).collect();
                bail!("no identity is called `{name}`; there are {}", known.join(", "))
            }
        },
    }
}

/// A named number at `x`.
fn value(name: &str, x: impl Into<f64>, value: f64) -> Event {
    Event::Value { name: name.into(), x: x.into(), value }
}

/// A count as the coordinate of a sweep.
fn at(n: usize) -> f64 {
    n as f64
}

/// The cell's engine, or why this identity cannot be measured without one.
fn engine(held: &Held) -> std::result::Result<&Engine, Outcome> {
    held.engine
        .as_ref()
        .ok_or_else(|| Outcome::Refused("this identity is one of a model: add a [model] to the scenario".into()))
}

/// A session of the target with room for `context` tokens, whatever the scenario's other workloads need.
fn session(engine: &Engine, context: usize) -> Result<Session> {
    let kv = engine.spec.kv.build(engine.target.kv_shape(), context, &engine.device)?;
    Ok(Session::new(engine.target.clone(), kv))
}

/// `n` token runs of `len` tokens spread evenly over the evaluation text.
fn prompts(held: &Held, n: usize, len: usize) -> Result<Vec<Vec<TokenId>>> {
    let tokens = held.tokens_of("embedded:evaluation")?;
    let Some(last) = tokens.len().checked_sub(len) else {
        bail!("the evaluation text has {} tokens, fewer than one prompt of {len}", tokens.len());
    };
    Ok((0..n).map(|i| i * last / n.max(1)).map(|start| tokens[start..start + len].to_vec()).collect())
}

/// Largest |a − b|; NaN when any value is.
fn largest_difference(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let worse = |worst: f64, gap: f64| if worst.is_nan() || gap.is_nan() { f64::NAN } else { worst.max(gap) };
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, worse)
}
