//! Tensors of a Hugging Face folder that would change the numbers and that its config.json has no place for: a head beside a tied
//! embedding, biases, norms. They are refused by name. Other libraries pass over them, or use them, by their version.
//!
//! What changes nothing stays: a head that is the embedding again, biases of zero, buffers, layers behind the last.

use std::collections::HashSet;

use super::{CheckpointError, RawTensor, RawTensors};
use crate::architecture::{Architecture, Experts};

/// Refuses tensors of `tensors` that `a` does not compute with.
pub(super) fn refuse_strays(a: &Architecture, tensors: &dyn RawTensors) -> Result<(), CheckpointError> {
    other_head(a, tensors)?;
    // no family has biases or norms inside experts, and their number is only a config's word
    let without_experts = a.experts.as_ref().map(|experts| Experts { n: 0, ..experts.clone() });
    let known: HashSet<String> = crate::names::tensors(&Architecture { experts: without_experts, ..a.clone() })
        .into_iter()
        .map(|(name, _)| bare(a, &name).to_string())
        .collect();
    let mut names = tensors.all();
    names.sort_unstable();
    for name in names {
        if known.contains(bare(a, name)) || !belongs_to_a_layer(a, bare(a, name)) || !is_bias_or_norm(name) {
            continue;
        }
        let found = tensors.raw(name)?;
        // a vector: buffers called bias have more dimensions
        if found.shape.len() == 1 && !(name.ends_with(".bias") && is_zero(tensors, name)?) {
            return Err(stray(a, name, found));
        }
    }
    Ok(())
}

/// `name` without what may precede it.
fn bare<'n>(a: &Architecture, name: &'n str) -> &'n str {
    a.names
        .prefixes
        .iter()
        .filter(|prefix| !prefix.is_empty())
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// Whether `name` is inside a layer that is run, or beside embedding, last norm or head.
fn belongs_to_a_layer(a: &Architecture, name: &str) -> bool {
    let number = name.strip_prefix(a.names.layers).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let outside = [a.names.final_norm, a.names.head, a.names.embedding];
    match number {
        Some(layer) => layer < a.n_layers,
        None => outside.iter().any(|part| name.strip_prefix(part).is_some_and(|rest| rest == ".bias")),
    }
}

fn is_bias_or_norm(name: &str) -> bool {
    let module = name.rsplit('.').nth(1).unwrap_or_default();
    name.ends_with(".bias") || name.ends_with(".weight") && (module.contains("norm") || module.starts_with("ln_"))
}

fn is_zero(tensors: &dyn RawTensors, name: &str) -> Result<bool, CheckpointError> {
    Ok(tensors.get(name)?.data.to_f32().iter().all(|value| *value == 0.0))
}

fn stray(a: &Architecture, name: &str, found: RawTensor<'_>) -> CheckpointError {
    CheckpointError::Malformed {
        file: found.file.into(),
        problem: format!("tensor `{name}` has no place in a `{}` model as config.json describes it", a.family),
        advice: "running on without it could give wrong numbers; set the field of config.json that asks for it, or remove it",
    }
}

/// Refuses a head that is another matrix than the embedding it is said to be.
fn other_head(a: &Architecture, tensors: &dyn RawTensors) -> Result<(), CheckpointError> {
    let head = format!("{}.weight", a.names.head);
    if !a.tied_head || !tensors.contains(&head) {
        return Ok(());
    }
    let embedding = a.names.prefixes.iter().map(|prefix| format!("{prefix}{}.weight", a.names.embedding));
    let Some(embedding) = embedding.into_iter().find(|name| tensors.contains(name)) else { return Ok(()) };
    let (ours, theirs) = (tensors.raw(&embedding)?, tensors.raw(&head)?);
    let same = ours.shape == theirs.shape
        && (ours.dtype == theirs.dtype && ours.bytes == theirs.bytes
            || tensors.get(&embedding)?.data.to_f32() == tensors.get(&head)?.data.to_f32());
    if same {
        return Ok(());
    }
    Err(CheckpointError::Malformed {
        file: theirs.file.into(),
        problem: format!(
            "tensor `{head}` differs from `{embedding}`, but config.json says tie_word_embeddings = true (or leaves it to that default)"
        ),
        advice: "set tie_word_embeddings to false to use the head of the file, or remove the head from it",
    })
}
