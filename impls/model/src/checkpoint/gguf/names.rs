//! Which tensor of a GGUF file is which tensor of Hugging Face.

use std::collections::{HashMap, HashSet};

use super::header::Header;
use super::tensors::{Layout, Named};
use crate::architecture::{Architecture, NormKind};
use crate::checkpoint::CheckpointError;
use crate::names::{ExpertNames, QkvNames, UpNames, tensor_in_layer};

/// Architectures whose converter turns the rows of q and k from halves into pairs.
const PAIRED: &[&str] = &["llama", "granite"];

/// Tensors that are read before (rotary divisors) or that repeat what the metadata says.
const KNOWN_BESIDES: &[&str] = &["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];
const REPEATS_METADATA: &str = "attn_rot_embd.weight";

/// A tensor of GGUF without its ending (`.weight`, `.bias`), the same in Hugging Face, and what the converter did.
pub(super) struct Pair {
    pub(super) ours: String,
    pub(super) theirs: String,
    pub(super) layout: Layout,
}

/// Every tensor that `architecture` may have, `kind` being its name in GGUF. Sizes come from untrusted metadata, so what is
/// counted out (experts, heads) must be `present`.
pub(super) fn pairs(a: &Architecture, kind: &str, present: &dyn Fn(&str) -> bool) -> Vec<Pair> {
    let mut list = List { a, kind, present, pairs: vec![] };
    let outer = |name: &str| format!("{}{name}", a.names.prefixes[0]);
    list.add("token_embd".into(), outer(a.names.embedding), Layout::Same);
    if !a.names.positions.is_empty() {
        list.add("position_embd".into(), outer(a.names.positions), Layout::Same);
    }
    list.add("output_norm".into(), outer(a.names.final_norm), list.norm());
    list.add("output".into(), a.names.head.into(), Layout::Same);
    (0..a.n_layers).for_each(|layer| list.layer(layer));
    list.pairs
}

struct List<'a> {
    a: &'a Architecture,
    kind: &'a str,
    present: &'a dyn Fn(&str) -> bool,
    pairs: Vec<Pair>,
}

impl List<'_> {
    fn add(&mut self, theirs: String, ours: String, layout: Layout) {
        self.pairs.push(Pair { ours, theirs, layout });
    }

    fn norm(&self) -> Layout {
        if self.a.norm == NormKind::RmsUnitOffset { Layout::PlusOne } else { Layout::Same }
    }

    fn inside(&mut self, layer: usize, theirs: &str, ours: &str, layout: Layout) {
        if !ours.is_empty() {
            self.add(format!("blk.{layer}.{theirs}"), tensor_in_layer(self.a, layer, ours), layout);
        }
    }

    fn layer(&mut self, layer: usize) {
        let (a, names, norm) = (self.a, self.a.names, self.norm());
        let two_norms_before_one = names.norms[0] == "ln_attn";
        let norms = if two_norms_before_one { ["attn_norm_2", "attn_norm"] } else { ["attn_norm", "ffn_norm"] };
        let paired = |heads: usize| if PAIRED.contains(&self.kind) { Layout::Paired(heads) } else { Layout::Same };
        let (q, k) = (paired(a.n_heads), paired(a.n_kv_heads));
        for (theirs, ours) in norms.into_iter().zip(names.norms) {
            self.inside(layer, theirs, ours, norm);
        }
        for (theirs, ours) in ["post_attention_norm", "post_ffw_norm"].into_iter().zip(names.output_norms) {
            self.inside(layer, theirs, ours, norm);
        }
        match &names.qkv {
            QkvNames::Separate([qn, kn, vn]) => {
                self.inside(layer, "attn_q", qn, q);
                self.inside(layer, "attn_k", kn, k);
                self.inside(layer, "attn_v", vn, Layout::Same);
            }
            QkvNames::Stacked(name) | QkvNames::ByGroup(name) | QkvNames::ByPart { name, .. } => {
                self.inside(layer, "attn_qkv", name, Layout::Same)
            }
        }
        for ((theirs, ours), heads) in
            ["attn_q_norm", "attn_k_norm"].into_iter().zip(names.qk_norms).zip([a.n_heads, a.n_kv_heads])
        {
            if ours.contains("{}") {
                let heads = if (self.present)(&format!("blk.{layer}.{theirs}.weight")) { heads } else { 0 };
                (0..heads).for_each(|at| {
                    let one = ours.replace("{}", &at.to_string());
                    self.inside(layer, theirs, &one, Layout::Part { at, of: heads });
                });
            } else {
                self.inside(layer, theirs, ours, Layout::Same);
            }
        }
        self.inside(layer, "attn_output", names.out, Layout::Same);
        match &names.experts {
            Some(experts) if a.is_sparse(layer) => self.experts(layer, experts),
            _ => self.mlp(layer),
        }
    }

    fn mlp(&mut self, layer: usize) {
        match &self.a.names.up {
            UpNames::Separate([up]) => self.inside(layer, "ffn_up", up, Layout::Same),
            UpNames::Separate(both) => {
                for (theirs, ours) in ["ffn_gate", "ffn_up"].into_iter().zip(*both) {
                    self.inside(layer, theirs, ours, Layout::Same);
                }
            }
            UpNames::Stacked(name) => self.inside(layer, "ffn_up", name, Layout::Same),
        }
        self.inside(layer, "ffn_down", self.a.names.down, Layout::Same);
    }

    fn experts(&mut self, layer: usize, names: &ExpertNames) {
        let of = self.a.experts.as_ref().map_or(0, |experts| experts.n);
        self.inside(layer, "ffn_gate_inp", names.router, Layout::Same);
        let parts = || ["ffn_gate", "ffn_up"].into_iter().zip(names.up).chain([("ffn_down", &names.down)]);
        let there = (self.present)(&format!("blk.{layer}.ffn_down_exps.weight"));
        for at in 0..if there { of } else { 0 } {
            for (theirs, ours) in parts() {
                let one = format!("{}{at}.{ours}", names.expert);
                self.inside(layer, &format!("{theirs}_exps"), &one, Layout::Part { at, of });
            }
        }
        if !names.shared.is_empty() {
            for (theirs, ours) in parts() {
                self.inside(layer, &format!("{theirs}_shexp"), &format!("{}.{ours}", names.shared), Layout::Same);
            }
            self.inside(layer, "ffn_gate_inp_shexp", names.shared_gate, Layout::Row);
        }
    }
}

/// The tensors of `header` by their names in Hugging Face; one that nobody knows is refused.
pub(super) fn named(a: &Architecture, kind: &str, header: &Header) -> Result<HashMap<String, Named>, CheckpointError> {
    let places: HashMap<&str, _> = header.tensors.iter().map(|place| (place.name.as_str(), place)).collect();
    let mut used: HashSet<&str> = KNOWN_BESIDES.iter().copied().collect();
    let mut all = HashMap::new();
    for pair in pairs(a, kind, &|name| places.contains_key(name)) {
        for ending in ["weight", "bias"] {
            let Some(&place) = places.get(format!("{}.{ending}", pair.theirs).as_str()) else { continue };
            fits(header, place, pair.layout)?;
            used.insert(&place.name);
            all.insert(format!("{}.{ending}", pair.ours), Named { place: place.clone(), layout: pair.layout });
        }
    }
    match header.tensors.iter().find(|p| !used.contains(p.name.as_str()) && !p.name.ends_with(REPEATS_METADATA)) {
        Some(extra) => Err(CheckpointError::Malformed {
            file: header.metadata.file().into(),
            problem: format!("tensor `{}` has no meaning in a `{kind}` model as far as known", extra.name),
            advice: "running on without it would give wrong numbers; use the Hugging Face checkpoint instead",
        }),
        None => Ok(all),
    }
}

/// Whether the tensor can be cut as `layout` says.
fn fits(header: &Header, place: &super::header::Place, layout: Layout) -> Result<(), CheckpointError> {
    let right = match layout {
        Layout::Part { of, .. } => place.shape.len() > 1 && place.shape[0] == of,
        Layout::Paired(heads) => place.shape[0].is_multiple_of(2 * heads),
        _ => true,
    };
    if right {
        return Ok(());
    }
    Err(CheckpointError::Malformed {
        file: header.metadata.file().into(),
        problem: format!(
            "tensor `{}` has shape {:?}, which does not fit the number of heads or experts",
            place.name, place.shape
        ),
        advice: "convert the model to GGUF again",
    })
}
