//! Which tensor of a GGUF file is which tensor of Hugging Face.

use std::collections::{HashMap, HashSet};

use super::header::{Header, Place};
use super::tensors::{KeysOrValues, Layout, Named};
use crate::architecture::{Architecture, Latent, NormKind};
use crate::checkpoint::CheckpointError;
use crate::names::{ExpertNames, QkvNames, UpNames, tensor_in_layer};

/// Architectures whose converter turns the rows of q and k from halves into pairs.
const PAIRED: &[&str] = &["llama", "arcee", "granite", "olmo", "smollm3"];

/// Tensors that are read before (rotary divisors) or that repeat what the metadata says.
const KNOWN_BESIDES: &[&str] = &["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];
const REPEATS_METADATA: &str = "attn_rot_embd.weight";

/// A tensor of GGUF without its ending, the same in Hugging Face, and what the converter did.
pub(super) struct Pair {
    pub(super) ours: String,
    pub(super) theirs: String,
    pub(super) layout: Layout,
    /// Endings in Hugging Face and in GGUF.
    pub(super) endings: &'static [[&'static str; 2]],
}

/// A matrix and its bias.
pub(super) const BOTH: &[[&str; 2]] = &[[".weight", ".weight"], [".bias", ".bias"]];

impl Pair {
    /// What the converter did to the tensor with this ending: biases of norms and of products stay.
    pub(super) fn layout_of(&self, ending: &str) -> Layout {
        if ending == ".bias" && matches!(self.layout, Layout::PlusOne | Layout::Turned) {
            Layout::Same
        } else {
            self.layout
        }
    }
}

/// Every tensor that `architecture` may have, `kind` being its name in GGUF. Sizes come from untrusted metadata, so what is
/// counted out (experts, heads) must be `present`; `stacked` are matrices of q, k and v where Hugging Face has three.
pub(super) fn pairs(
    a: &Architecture,
    kind: &str,
    present: &dyn Fn(&str) -> bool,
    stacked: &dyn Fn(&str) -> bool,
) -> Vec<Pair> {
    let mut list = List { a, kind, present, stacked, pairs: vec![] };
    let outer = |name: &str| format!("{}{name}", a.names.prefixes[0]);
    list.add("token_embd".into(), outer(a.names.embedding), Layout::Same);
    if a.embedding_norm {
        list.add("token_embd_norm".into(), outer(a.names.embedding_norm), Layout::Same);
    }
    if !a.names.positions.is_empty() {
        list.add("position_embd".into(), outer(a.names.positions), Layout::Same);
    }
    list.add("output_norm".into(), outer(a.names.final_norm), list.norm());
    list.add("output".into(), a.names.head.into(), Layout::Same);
    (0..a.n_layers).for_each(|layer| list.layer(layer));
    list.pairs
}

/// What the converter does to the gains of such norms.
fn plus_one(norm: NormKind) -> Layout {
    if norm.offset() == 1.0 { Layout::PlusOne } else { Layout::Same }
}

struct List<'a> {
    a: &'a Architecture,
    kind: &'a str,
    present: &'a dyn Fn(&str) -> bool,
    stacked: &'a dyn Fn(&str) -> bool,
    pairs: Vec<Pair>,
}

impl List<'_> {
    fn add(&mut self, theirs: String, ours: String, layout: Layout) {
        self.pairs.push(Pair { ours, theirs, layout, endings: BOTH });
    }

    fn norm(&self) -> Layout {
        plus_one(self.a.norm)
    }

    /// GPT-2 stores matrices the other way round.
    fn turned(&self) -> Layout {
        if self.a.names.transposed { Layout::Turned } else { Layout::Same }
    }

    fn inside(&mut self, layer: usize, theirs: &str, ours: &str, layout: Layout) {
        if !ours.is_empty() {
            self.add(format!("blk.{layer}.{theirs}"), tensor_in_layer(self.a, layer, ours), layout);
        }
    }

    fn layer(&mut self, layer: usize) {
        let (a, names, norm) = (self.a, self.a.names, self.norm());
        let two_norms_before_one = names.norms[0] == "ln_attn";
        let norms = match self.kind {
            _ if two_norms_before_one => ["attn_norm_2", "attn_norm"],
            // llama.cpp calls the second norm by where it stands
            "seed_oss" => ["attn_norm", "post_attention_norm"],
            _ => ["attn_norm", "ffn_norm"],
        };
        let paired = |heads: usize| if PAIRED.contains(&self.kind) { Layout::Paired(heads) } else { Layout::Same };
        let (q, k) = (paired(a.n_heads), paired(a.n_kv_heads));
        for (theirs, ours) in norms.into_iter().zip(names.norms) {
            self.inside(layer, theirs, ours, norm);
        }
        for (theirs, ours) in ["post_attention_norm", "post_ffw_norm"].into_iter().zip(names.output_norms) {
            self.inside(layer, theirs, ours, norm);
        }
        match a.latent {
            Some(latent) => self.latent(layer, latent),
            None => self.queries_keys_values(layer, q, k),
        }
        self.inside(layer, "attn_output", names.out, self.turned());
        match &names.experts {
            Some(experts) if a.is_sparse(layer) => self.experts(layer, experts),
            _ => self.mlp(layer),
        }
    }

    fn queries_keys_values(&mut self, layer: usize, q: Layout, k: Layout) {
        let (a, names) = (self.a, self.a.names);
        match &names.qkv {
            QkvNames::Separate(names) if (self.stacked)(&format!("blk.{layer}.attn_qkv.weight")) => {
                let mut start = 0;
                for (name, heads) in names.iter().zip([a.n_heads, a.n_kv_heads, a.n_kv_heads]) {
                    let rows = heads * a.head_dim;
                    self.inside(layer, "attn_qkv", name, Layout::Rows { start, rows });
                    start += rows;
                }
            }
            QkvNames::Separate([qn, kn, vn]) => {
                self.inside(layer, "attn_q", qn, q);
                self.inside(layer, "attn_k", kn, k);
                self.inside(layer, "attn_v", vn, Layout::Same);
            }
            QkvNames::Stacked(name) => self.inside(layer, "attn_qkv", name, self.turned()),
            // how the writer orders rows; the reader orders them back
            QkvNames::ByGroup(name) | QkvNames::ByPart { name, .. } => {
                self.inside(layer, "attn_qkv", name, Layout::Grouped([a.n_heads, a.n_kv_heads, a.head_dim]));
            }
        }
        let norm = a.qk_norm.map_or(Layout::Same, |norm| plus_one(norm.kind));
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
                self.inside(layer, theirs, ours, norm);
            }
        }
    }

    /// Keys and values that leave the compressed vector are one matrix in old files and two in new ones, the first turned.
    fn latent(&mut self, layer: usize, l: Latent) {
        let (inside, heads) = (|name: &str| format!("self_attn.{name}"), self.a.n_heads);
        if l.q_rank.is_some() {
            self.inside(layer, "attn_q_a", &inside("q_a_proj"), Layout::Same);
            self.inside(layer, "attn_q_a_norm", &inside("q_a_layernorm"), Layout::Same);
            self.inside(layer, "attn_q_b", &inside("q_b_proj"), Layout::Same);
        } else {
            self.inside(layer, "attn_q", &inside("q_proj"), Layout::Same);
        }
        self.inside(layer, "attn_kv_a_mqa", &inside("kv_a_proj_with_mqa"), Layout::Same);
        self.inside(layer, "attn_kv_a_norm", &inside("kv_a_layernorm"), Layout::Same);
        if (self.present)(&format!("blk.{layer}.attn_k_b.weight")) {
            let part = KeysOrValues { heads, key: l.nope_dim, value: l.value_dim, rank: l.kv_rank };
            self.inside(layer, "attn_k_b", &inside("kv_b_proj"), Layout::Keys(part));
            self.inside(layer, "attn_v_b", &inside("kv_b_proj"), Layout::Values(part));
        } else {
            self.inside(layer, "attn_kv_b", &inside("kv_b_proj"), Layout::Same);
        }
    }

    fn mlp(&mut self, layer: usize) {
        match &self.a.names.up {
            UpNames::Separate([up]) => self.inside(layer, "ffn_up", up, self.turned()),
            UpNames::Separate(both) => {
                for (theirs, ours) in ["ffn_gate", "ffn_up"].into_iter().zip(*both) {
                    self.inside(layer, theirs, ours, Layout::Same);
                }
            }
            UpNames::Stacked(name) => self.inside(layer, "ffn_up", name, Layout::Same),
        }
        self.inside(layer, "ffn_down", self.a.names.down, self.turned());
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
        if !names.choice_bias.is_empty() {
            let (theirs, ours) =
                (format!("blk.{layer}.exp_probs_b"), tensor_in_layer(self.a, layer, names.choice_bias));
            self.pairs.push(Pair { ours, theirs, layout: Layout::Same, endings: &[["", ".bias"]] });
        }
        if !names.shared.is_empty() {
            for (theirs, ours) in parts() {
                self.inside(layer, &format!("{theirs}_shexp"), &format!("{}.{ours}", names.shared), Layout::Same);
            }
            self.inside(layer, "ffn_gate_inp_shexp", names.shared_gate, Layout::Row);
        }
    }
}

/// The tensors of `header` by their names in Hugging Face; one that nobody knows or uses is refused, and so is one that lacks.
pub(super) fn named(a: &Architecture, kind: &str, header: &Header) -> Result<HashMap<String, Named>, CheckpointError> {
    let places: HashMap<&str, _> = header.tensors.iter().map(|place| (place.name.as_str(), place)).collect();
    let mut used: HashSet<&str> = KNOWN_BESIDES.iter().copied().collect();
    let (mut all, mut called): (HashMap<String, Named>, HashMap<String, String>) = (HashMap::new(), HashMap::new());
    counted_out(a, header)?;
    let present = |name: &str| places.contains_key(name);
    for pair in pairs(a, kind, &present, &present) {
        for [ours, theirs] in pair.endings {
            let (ours, theirs) = (format!("{}{ours}", pair.ours), format!("{}{theirs}", pair.theirs));
            let Some(&place) = places.get(theirs.as_str()) else {
                called.entry(ours).or_insert(theirs);
                continue;
            };
            let layout = pair.layout_of(&theirs[pair.theirs.len()..]);
            fits(header, place, layout)?;
            used.insert(&place.name);
            match (layout, all.get_mut(&ours)) {
                (Layout::Values(_), Some(keys)) => keys.values = Some(place.clone()),
                _ => drop(all.insert(ours, Named { place: place.clone(), layout, values: None })),
            }
        }
    }
    let stray = |place: &&Place| !used.contains(place.name.as_str()) && !place.name.ends_with(REPEATS_METADATA);
    match header.tensors.iter().find(stray) {
        Some(extra) => Err(meaningless(header, kind, &extra.name)),
        None => belong(a, kind, header, &all, &called).map(|()| all),
    }
}

/// Sizes that metadata alone say are believed once a tensor has them.
fn counted_out(a: &Architecture, header: &Header) -> Result<(), CheckpointError> {
    let missing = |name: String| CheckpointError::Malformed {
        file: header.metadata.file().into(),
        problem: format!("tensor `{name}` is missing"),
        advice: "the file is damaged or incomplete; copy or download it again",
    };
    for layer in 0..a.n_layers {
        let per_head = a.qk_norm.is_some() && a.names.qk_norms[0].contains("{}");
        let wanted = [(a.is_sparse(layer), "ffn_down_exps"), (per_head, "attn_q_norm"), (per_head, "attn_k_norm")];
        for (_, part) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            let name = format!("blk.{layer}.{part}.weight");
            header.tensor(&name).ok_or_else(|| missing(name))?;
        }
    }
    Ok(())
}

fn meaningless(header: &Header, kind: &str, name: &str) -> CheckpointError {
    CheckpointError::Malformed {
        file: header.metadata.file().into(),
        problem: format!("tensor `{name}` has no meaning in a `{kind}` model as far as known"),
        advice: "running on without it would give wrong numbers; use the Hugging Face checkpoint instead",
    }
}

/// Whether the tensors found are those that `a` computes with, each of its shape; `called` says what GGUF calls those that lack.
fn belong(
    a: &Architecture,
    kind: &str,
    header: &Header,
    all: &HashMap<String, Named>,
    called: &HashMap<String, String>,
) -> Result<(), CheckpointError> {
    let wrong = |problem: String| CheckpointError::Malformed {
        file: header.metadata.file().into(),
        problem,
        advice: "the file is damaged or incomplete, or its metadata are another model's; convert or download it again",
    };
    let wanted: HashMap<String, Vec<usize>> = crate::names::tensors(a).into_iter().collect();
    let mut names: Vec<&String> = wanted.keys().collect();
    names.sort_unstable();
    for name in names {
        let shape = &wanted[name];
        match all.get(name) {
            None => {
                let name = called.get(name).map_or(name.as_str(), String::as_str);
                return Err(wrong(format!("tensor `{name}` is missing")));
            }
            Some(found) if found.shape() != *shape => {
                let (tensor, found) = (&found.place.name, found.shape());
                return Err(wrong(format!(
                    "tensor `{tensor}`: expected shape {shape:?} by the keys of the file, found {found:?}"
                )));
            }
            Some(_) => {}
        }
    }
    let mut stray: Vec<&str> = all
        .iter()
        .filter(|(name, _)| !wanted.contains_key(*name))
        .map(|(_, found)| found.place.name.as_str())
        .collect();
    stray.sort_unstable();
    match stray.first() {
        Some(name) => Err(meaningless(header, kind, name)),
        None => Ok(()),
    }
}

/// Whether the tensor can be cut as `layout` says.
fn fits(header: &Header, place: &Place, layout: Layout) -> Result<(), CheckpointError> {
    let right = match layout {
        Layout::Part { of, .. } => place.shape.len() > 1 && place.shape[0] == of,
        Layout::Paired(heads) => place.shape[0].is_multiple_of(2 * heads),
        Layout::Grouped([heads, groups, dim]) => place.shape[0] == (heads + 2 * groups) * dim,
        Layout::Rows { start, rows } => place.shape[0] >= start + rows,
        Layout::Turned => place.shape.len() == 2,
        Layout::Keys(part) => place.shape == [part.heads, part.rank, part.key],
        Layout::Values(part) => place.shape == [part.heads, part.value, part.rank],
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
