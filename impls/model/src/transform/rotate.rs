//! What: the same function in rotated coordinates: no feature of the residual stream, of a value head or of a down projection's
//!   input is special any more.
//! Source: Ashkboos et al. 2024, QuaRot, arXiv 2404.00456, §4 (and SliceGPT, arXiv 2401.15024, for the layer norm); R1, R2 as in
//!   SpinQuant, arXiv 2405.16406, §3.
//! Shapes: every tensor keeps its own; a tied head becomes one of its own, and norm biases become biases of the next projections.
//! Method: 1. a norm's gain goes into the columns of what reads it, its bias into their biases; a layer norm leaves an RMS norm behind,
//!   because whatever writes the residual stream first loses its mean. 2. R1: the stream becomes Q·x: embeddings, positions and
//!   outputs are multiplied by Q, inputs by Qᵀ. 3. R2, one per layer: values and the output projection, head by head.
//!   4. `online`: what enters the output projection is mixed across heads by H ⊗ 1 as it passes, what enters the down projection is
//!   multiplied by an H of its width; the projections take up the inverses.
//! Exactness: equal in real arithmetic; computed in f64 and stored in f32.
//! Cost: one pass over the weights; per token and layer n·(log₂ n + m) additions for the down projection (see `cpu_kernels::hadamard`) and
//!   heads²·head_dim for the output projection.
//! Not handled: norms after sublayers, latent attention, shared keys, an embedding of another width; H on rotated queries and keys,
//!   which only a quantized cache needs.

mod dense;
mod rotation;

use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::{NewTensors, TransformError};
use crate::architecture::{Biases, NormKind, NormPlace, Positions};
use crate::block::Reader;
use crate::checkpoint::Tensors;
use crate::names::{self, Source, in_layer};
use crate::{Architecture, block::NormWeights};
use dense::Dense;
use rotation::Rotation;

const NAME: &str = "rotate";

/// Which rotation, and whether the part that must run with the model does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// How Q and the rotation of a value head are drawn.
    #[serde(default)]
    pub kind: RotationKind,
    /// Seed of the draw.
    #[serde(default)]
    pub seed: u64,
    /// Whether the inputs of output and down projections are multiplied by Hadamard matrices while the model runs.
    #[serde(default = "yes")]
    pub online: bool,
}

fn yes() -> bool {
    true
}

/// A family of orthogonal matrices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationKind {
    /// A Hadamard matrix with its columns' signs drawn.
    #[default]
    Hadamard,
    /// Uniform over all rotations (Haar).
    Orthogonal,
}

impl Rotate {
    /// `hadamard`, `orthogonal-s3`, `hadamard-offline`: the seed is said when it is not 0.
    pub fn tag(&self) -> String {
        let kind = match self.kind {
            RotationKind::Hadamard => "hadamard",
            RotationKind::Orthogonal => "orthogonal",
        };
        let seed = if self.seed == 0 { String::new() } else { format!("-s{}", self.seed) };
        format!("{kind}{seed}{}", if self.online { "" } else { "-offline" })
    }

    /// `a` as it is afterwards.
    pub fn architecture(&self, a: &Architecture) -> Result<Architecture, TransformError> {
        let layer_norm = a.norm.is_layer();
        let problem = if a.norm_place != NormPlace::Pre {
            "has norms after its sublayers, whose gains do not commute with a rotation"
        } else if a.latent.is_some() || a.shared_keys.is_some() {
            "has latent or shared keys; rotate only ordinary attention"
        } else if a.embedding_dim != a.hidden {
            "has an embedding of another width than its residual stream"
        } else if a.embedding_norm {
            "has a norm on its embeddings"
        } else if a.clip_qkv.is_some() {
            "cuts its values, which does not commute with a rotation"
        } else if layer_norm && !a.final_norm {
            "has no final norm, so its head sees the mean that the rotated stream lacks"
        } else if a.norm.has_bias() && a.experts.is_some() {
            "has experts behind a layer norm with bias, and experts have no biases to take it up"
        } else if a.online_hadamard {
            "is rotated already"
        } else {
            let folded = a.norm.has_bias();
            let biases = Biases {
                qkv: a.biases.qkv || folded,
                mlp: a.biases.mlp || folded,
                head: a.biases.head || folded,
                out: a.biases.out,
            };
            let online_hadamard = self.online;
            return Ok(Architecture { norm: NormKind::Rms, tied_head: false, biases, online_hadamard, ..a.clone() });
        };
        Err(TransformError::Refused { transform: NAME, problem: format!("family `{}` {problem}", a.family) })
    }

    /// The tensors of `a` that change.
    pub fn tensors(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<NewTensors, TransformError> {
        let new = self.architecture(a)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let stream = Rotation::draw(self.kind, a.hidden, &mut rng);
        let mut pass = Pass { a, new: &new, reader: Reader::new(a, tensors), stream, changed: NewTensors::new() };
        pass.ends()?;
        for layer in 0..a.n_layers {
            let head = Rotation::draw(self.kind, a.head_dim, &mut rng);
            pass.attention(layer, &head)?;
            pass.feed_forwards(layer)?;
            for norm in a.norm_names().into_iter().flatten() {
                pass.plain_norm(&in_layer(a, layer, norm));
            }
        }
        Ok(pass.changed)
    }
}

/// One rewriting of a checkpoint.
struct Pass<'a> {
    a: &'a Architecture,
    new: &'a Architecture,
    reader: Reader<'a>,
    /// Q.
    stream: Rotation,
    changed: NewTensors,
}

impl Pass<'_> {
    /// The whole tensor of `source`; with zeros for a bias that the architecture gains.
    fn load(&self, source: &Source, biased: bool, gains_bias: bool) -> Result<Dense, TransformError> {
        Ok(Dense::read(&self.reader, source, biased, gains_bias)?)
    }

    fn keep(&mut self, dense: Dense) {
        let outside = dense.name() == self.a.names.head;
        let full = if outside { dense.name().to_string() } else { self.reader.full_name(dense.name()) };
        dense.store(&full, &mut self.changed);
    }

    fn norm(&self, name: &str) -> Result<NormWeights, TransformError> {
        Ok(self.reader.norm(name, self.a.norm, self.a.hidden)?)
    }

    /// What remains of a norm once its gain and bias are elsewhere.
    fn plain_norm(&mut self, name: &str) {
        let full = self.reader.full_name(&format!("{name}.weight"));
        self.changed.insert(full, (vec![self.a.hidden], vec![1.0; self.a.hidden]));
    }

    /// Whether what is written to the stream must lose its mean.
    fn centred(&self) -> bool {
        self.a.norm.is_layer()
    }

    /// Embedding, positions, final norm, head.
    fn ends(&mut self) -> Result<(), TransformError> {
        let (a, names) = (self.a, self.a.names);
        let mut embedding =
            self.load(&Source::whole(names.embedding.into(), [a.vocab_size, a.hidden], false), false, false)?;
        let mut head = match a.tied_head {
            true => {
                let bias = a.biases.head.then(|| self.reader.vector(&format!("{}.bias", names.head), a.vocab_size));
                embedding.copy_as(names.head, bias.transpose()?, self.new.biases.head)
            }
            false => {
                let source = Source::whole(names.head.into(), [a.vocab_size, a.hidden], false);
                self.load(&source, a.biases.head, self.new.biases.head)?
            }
        };
        let norm = match a.final_norm {
            true => self.norm(names.final_norm)?,
            false => NormWeights { gain: vec![1.0; a.hidden].into(), bias: vec![].into() },
        };
        head.fold_input(&norm, &self.stream);
        embedding.rotate_rows(&self.stream, self.centred());
        self.keep(head);
        self.keep(embedding);
        if let Positions::Learned { offset } = a.positions {
            let source = Source::whole(names.positions.into(), [a.max_positions + offset, a.hidden], false);
            let mut positions = self.load(&source, false, false)?;
            positions.rotate_rows(&self.stream, self.centred());
            self.keep(positions);
        }
        if a.final_norm {
            self.plain_norm(names.final_norm);
        }
        Ok(())
    }

    /// q, k, v and the output projection of `layer`; `head` is R2.
    fn attention(&mut self, layer: usize, head: &Rotation) -> Result<(), TransformError> {
        let a = self.a;
        let norm = match a.norm_names()[0] {
            Some(name) => self.norm(&in_layer(a, layer, name))?,
            None => NormWeights { gain: vec![1.0; a.hidden].into(), bias: vec![].into() },
        };
        let sources = names::qkv(a, layer);
        let mut parts: Vec<Dense> =
            sources.iter().map(|s| self.load(s, a.biases.qkv, self.new.biases.qkv)).collect::<Result<_, _>>()?;
        parts.iter_mut().for_each(|part| part.fold_input(&norm, &self.stream));
        // v is what comes last, wherever the family stores it
        let rows: Vec<(usize, usize)> = sources
            .iter()
            .enumerate()
            .flat_map(|(part, source)| source.rows.iter().flat_map(Clone::clone).map(move |row| (part, row)))
            .collect();
        for rows in rows[rows.len() - a.n_kv_heads * a.head_dim..].chunks(a.head_dim) {
            Dense::rotate_outputs(&mut parts, rows, head);
        }
        let mut out = self.load(&names::out(a, layer), a.biases.out, self.new.biases.out)?;
        out.rotate_input_groups(head);
        if self.new.online_hadamard {
            out.rotate_input_runs(&Rotation::hadamard(a.n_heads));
        }
        out.fold_output(&self.stream, self.centred());
        parts.push(out);
        parts.into_iter().for_each(|part| self.keep(part));
        Ok(())
    }

    /// The MLP of `layer`, or its experts.
    fn feed_forwards(&mut self, layer: usize) -> Result<(), TransformError> {
        let a = self.a;
        // a norm that serves both sublayers has attention's name
        let [attention, mlp, ..] = a.norm_names();
        let norm = match mlp.or(attention) {
            Some(name) => self.norm(&in_layer(a, layer, name))?,
            None => NormWeights { gain: vec![1.0; a.hidden].into(), bias: vec![].into() },
        };
        let (Some(experts), Some(of)) = (a.experts.as_ref().filter(|_| a.is_sparse(layer)), &a.names.experts) else {
            return self.feed_forward(&norm, names::up(a, layer), names::down(a, layer), true);
        };
        let mut readers = vec![Source::whole(in_layer(a, layer, of.router), [experts.n, a.hidden], false)];
        if experts.shared_ffn.is_some() && !of.shared_gate.is_empty() {
            readers.push(Source::whole(in_layer(a, layer, of.shared_gate), [1, a.hidden], false));
        }
        for source in readers {
            let mut reader = self.load(&source, false, false)?;
            reader.fold_input(&norm, &self.stream);
            self.keep(reader);
        }
        let routed = (0..experts.n).map(|e| (format!("{}{e}", of.expert), experts.ffn));
        let shared = experts.shared_ffn.map(|ffn| (of.shared.to_string(), ffn));
        for (module, ffn) in routed.chain(shared) {
            let (up, down) = names::expert(a, layer, of, &module, ffn);
            self.feed_forward(&norm, up, down, false)?;
        }
        Ok(())
    }

    fn feed_forward(
        &mut self,
        norm: &NormWeights,
        up: Vec<Source>,
        down: Source,
        dense: bool,
    ) -> Result<(), TransformError> {
        let [has, gains] = [self.a.biases.mlp && dense, self.new.biases.mlp && dense];
        for source in up {
            let mut up = self.load(&source, has, gains)?;
            up.fold_input(norm, &self.stream);
            self.keep(up);
        }
        let mut down = self.load(&down, has, gains)?;
        if self.new.online_hadamard {
            down.rotate_input_groups(&Rotation::hadamard(down.cols()));
        }
        down.fold_output(&self.stream, self.centred());
        self.keep(down);
        Ok(())
    }
}
