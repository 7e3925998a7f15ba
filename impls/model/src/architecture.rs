//! Architecture as data: what `config.json` says a decoder is made of. One forward pass reads this; families are rows,
//! not copies.

mod families;
mod fields;
mod rope;

use std::path::Path;

pub use cpu_kernels::Activation;
pub use fields::ConfigError;

use crate::Alibi;
use crate::names::Names;

/// Rescaling of the rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies divided by `factor` (position interpolation).
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// NTK-aware: the base grows with the length of the sequence once it exceeds what was trained.
    Dynamic {
        /// Growth of the base.
        factor: f32,
        /// Context length up to which nothing changes.
        original_max_positions: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths above `original / low` are low frequencies.
        low_freq_factor: f32,
        /// Wavelengths below `original / high` are high frequencies.
        high_freq_factor: f32,
        /// Context length before extension.
        original_max_positions: f32,
    },
    /// YaRN: a ramp over dimensions between frequencies kept and frequencies divided by `factor`.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Rotations over the original context above which a dimension is kept.
        beta_fast: f32,
        /// Rotations below which a dimension is interpolated.
        beta_slow: f32,
        /// Round the ends of the ramp to whole dimensions.
        truncate: bool,
        /// Context length before extension.
        original_max_positions: f32,
    },
    /// LongRoPE: one divisor per pair, of two sets by the length of the sequence.
    LongRope {
        /// Divisors up to the original length.
        short: Vec<f32>,
        /// Divisors beyond.
        long: Vec<f32>,
        /// Context length before extension.
        original_max_positions: f32,
    },
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the geometric frequencies.
    pub theta: f32,
    /// Leading features of a head that are rotated; even.
    pub dim: usize,
    /// Pairs are `(2i, 2i + 1)` instead of `(i, i + dim / 2)`.
    pub interleaved: bool,
    /// Factor on cos and sin (YaRN, LongRoPE).
    pub attention_factor: f32,
    /// Rescaling.
    pub scaling: RopeScaling,
}

/// How a token's place in its sequence enters.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated.
    Rope(Rope),
    /// A learned vector is added to the embedding; position p uses row `p + offset` of the table.
    Learned {
        /// First row in use.
        offset: usize,
    },
    /// Scores fall with the distance of query and key, by a slope of each head's own (ALiBi).
    Alibi(Alibi),
}

/// Normalisation of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// x / rms(x) · gain.
    Rms,
    /// x / rms(x) · (1 + weight).
    RmsUnitOffset,
    /// (x − mean) / deviation · gain + bias.
    Layer,
    /// (x − mean) / deviation · (1 + weight) + bias.
    LayerUnitOffset,
    /// [`NormKind::Layer`] without bias.
    LayerNoBias,
    /// (x − mean) / deviation alone: nothing is stored.
    LayerBare,
}

impl NormKind {
    /// Whether the mean is taken out.
    pub fn is_layer(self) -> bool {
        !matches!(self, NormKind::Rms | NormKind::RmsUnitOffset)
    }

    /// Whether a checkpoint stores a gain.
    pub fn has_gain(self) -> bool {
        self != NormKind::LayerBare
    }

    /// Whether a checkpoint stores a bias.
    pub fn has_bias(self) -> bool {
        matches!(self, NormKind::Layer | NormKind::LayerUnitOffset)
    }

    /// What the gain is more than what is stored.
    pub fn offset(self) -> f32 {
        if matches!(self, NormKind::RmsUnitOffset | NormKind::LayerUnitOffset) { 1.0 } else { 0.0 }
    }
}

/// Where a sublayer's norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// x + f(norm(x)).
    Pre,
    /// norm(x + f(x)), the 2017 form; no final norm.
    Post,
    /// x + norm(f(x)).
    Output,
    /// x + norm(f(norm(x))).
    Sandwich,
}

/// How attention and MLP join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// One after the other.
    Serial,
    /// Both read x: x + attention(norm(x)) + mlp(norm(x)).
    Parallel {
        /// One norm serves both.
        shared_norm: bool,
    },
}

/// What the q/k norms see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNormScope {
    /// Each head alone, one gain for all heads.
    Head,
    /// Each head alone, a gain per head.
    EachHead,
    /// All heads of a row together.
    Row,
}

/// Norm of queries and keys before positions are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QkNorm {
    /// Kind.
    pub kind: NormKind,
    /// What it sees.
    pub scope: QkNormScope,
}

/// Which projections add a bias.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Biases {
    /// q, k and v.
    pub qkv: bool,
    /// Attention output.
    pub out: bool,
    /// Feed-forward.
    pub mlp: bool,
    /// Head.
    pub head: bool,
}

/// Sparse feed-forward: a router sends each token to the `top_k` best of `n` experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Experts per layer.
    pub n: usize,
    /// Experts per token.
    pub top_k: usize,
    /// Width inside an expert.
    pub ffn: usize,
    /// The weights of the chosen experts are divided by their sum.
    pub renormalise: bool,
    /// How a router's logits become scores.
    pub scoring: Scoring,
    /// Experts are chosen among those of the best groups only.
    pub groups: Option<Groups>,
    /// Factor on the weights of the chosen experts.
    pub scale: f32,
    /// Width of the expert that every token visits, weighted by a sigmoid gate where the family has one.
    pub shared_ffn: Option<usize>,
    /// Which layers are sparse; the others have an ordinary MLP.
    pub layers: Vec<bool>,
}

impl Experts {
    /// `top_k` of `n`, `ffn` wide, by softmax, in `layers`.
    pub fn new(n: usize, top_k: usize, ffn: usize, layers: Vec<bool>) -> Experts {
        let (scoring, groups) = (Scoring::Softmax, None);
        Experts { n, top_k, ffn, renormalise: false, scoring, groups, scale: 1.0, shared_ffn: None, layers }
    }
}

/// How a router's logits become the scores that experts are chosen and weighted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// A sigmoid each; where experts are chosen, and only there, a stored bias is added (DeepSeek-V3, §2.1.2).
    BiasedSigmoid,
}

/// Experts in equal groups, of which a token visits some (DeepSeek-V2, §2.2.2). By softmax a group is worth its best expert,
/// by sigmoid its best two together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Groups there are.
    pub n: usize,
    /// Groups visited.
    pub top: usize,
}

/// Multi-head latent attention (DeepSeek-V2, §2.1): keys and values come from one compressed vector per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Width of the compressed query, when queries are compressed.
    pub q_rank: Option<usize>,
    /// Width of the compressed keys and values.
    pub kv_rank: usize,
    /// Features of a query and key that carry no position.
    pub nope_dim: usize,
    /// Features that are rotated; their key is shared by all heads.
    pub rope_dim: usize,
    /// Features of a value.
    pub value_dim: usize,
}

impl Latent {
    /// ε of the norms of compressed vectors, whatever the others have.
    pub const NORM_EPS: f32 = 1e-6;
}

/// A decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// `model_type` of the checkpoint.
    pub family: String,
    /// Vocabulary entries.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the embedding table; when not `hidden`, projections lead in and out.
    pub embedding_dim: usize,
    /// Width inside the MLP.
    pub ffn: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Features per head; not always `hidden / n_heads`.
    pub head_dim: usize,
    /// Longest context the checkpoint declares.
    pub max_positions: usize,
    /// Kind of every norm of the residual stream.
    pub norm: NormKind,
    /// ε of every norm.
    pub norm_eps: f32,
    /// Where the norms stand.
    pub norm_place: NormPlace,
    /// A norm before the head.
    pub final_norm: bool,
    /// How sublayers join.
    pub residual: Residual,
    /// Norm of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Positions.
    pub positions: Positions,
    /// Rotation of the layers with a sliding window, where it is another one.
    pub window_rope: Option<Rope>,
    /// Which layers rotate, where positions enter by rotation.
    pub rotated: Vec<bool>,
    /// Factor on q·k before the softmax.
    pub attention_scale: f32,
    /// Layer i divides its scores by i + 1 (GPT-2's option).
    pub scale_by_layer: bool,
    /// Queries, keys and values are cut to ± this.
    pub clip_qkv: Option<f32>,
    /// Soft cap on attention scores.
    pub attention_softcap: Option<f32>,
    /// Sliding window of each layer, in positions.
    pub windows: Vec<Option<usize>>,
    /// Activation of the MLP.
    pub activation: Activation,
    /// The activation gates a second projection (SwiGLU and kin).
    pub gated: bool,
    /// Sparse layers.
    pub experts: Option<Experts>,
    /// Latent attention.
    pub latent: Option<Latent>,
    /// Collaborative attention: features of queries and keys that all heads share (see `transform::Collaborate`).
    pub shared_keys: Option<usize>,
    /// Hadamard matrices multiply what enters output and down projections as it passes: across heads, and across all features
    /// (see `transform::Rotate`).
    pub online_hadamard: bool,
    /// Biases.
    pub biases: Biases,
    /// The head is the embedding.
    pub tied_head: bool,
    /// A norm on embeddings.
    pub embedding_norm: bool,
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Factor on what a sublayer adds to the residual stream.
    pub residual_scale: f32,
    /// Factor on logits.
    pub logit_scale: f32,
    /// Soft cap on logits.
    pub logit_softcap: Option<f32>,
    /// Names of its tensors in a checkpoint.
    pub names: &'static Names,
}

impl Architecture {
    /// A Llama: pre-norm RMSNorm, RoPE with base 10000, grouped attention, SwiGLU, no bias, untied head.
    pub fn llama(vocab_size: usize, hidden: usize, n_layers: usize, heads: [usize; 3], ffn: usize) -> Architecture {
        let [n_heads, n_kv_heads, head_dim] = heads;
        Architecture {
            family: "llama".into(),
            vocab_size,
            hidden,
            embedding_dim: hidden,
            ffn,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            max_positions: 2048,
            norm: NormKind::Rms,
            norm_eps: 1e-5,
            norm_place: NormPlace::Pre,
            final_norm: true,
            residual: Residual::Serial,
            qk_norm: None,
            positions: Positions::Rope(Rope {
                theta: 10000.0,
                dim: head_dim,
                interleaved: false,
                attention_factor: 1.0,
                scaling: RopeScaling::None,
            }),
            window_rope: None,
            rotated: vec![true; n_layers],
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            scale_by_layer: false,
            clip_qkv: None,
            attention_softcap: None,
            windows: vec![None; n_layers],
            activation: Activation::Silu,
            gated: true,
            experts: None,
            latent: None,
            shared_keys: None,
            online_hadamard: false,
            biases: Biases::default(),
            tied_head: false,
            embedding_norm: false,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            names: &crate::names::LLAMA,
        }
    }

    /// Reads the text of a Hugging Face `config.json`; `file` names it in errors.
    pub fn from_json(file: &Path, text: &str) -> Result<Architecture, ConfigError> {
        families::read(&fields::Fields::parse(file, text)?)
    }

    /// Every family that [`Architecture::from_json`] reads, by `model_type`.
    pub fn families() -> impl Iterator<Item = &'static str> {
        families::FAMILIES.iter().map(|(name, _)| *name)
    }

    /// Parameters, biases and norms included, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        crate::names::tensors(self).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Parameters that one token passes through: of each sparse layer, only the experts it is sent to.
    pub fn active_parameters(&self) -> u64 {
        let Some(experts) = &self.experts else { return self.parameters() };
        let expert = (if self.gated { 3 } else { 2 }) * self.hidden * experts.ffn;
        let idle = experts.layers.iter().filter(|sparse| **sparse).count() * (experts.n - experts.top_k) * expert;
        self.parameters() - idle as u64
    }

    /// Tokens that one sequence may hold: what the checkpoint declares, or what its rotation was stretched to.
    pub fn context_limit(&self) -> usize {
        let stretched = match self.rope().map(|rope| &rope.scaling) {
            // it grows with the sequence
            Some(RopeScaling::Dynamic { .. }) => usize::MAX,
            Some(RopeScaling::Linear { factor }) => (*factor * self.max_positions as f32) as usize,
            Some(RopeScaling::Yarn { factor, original_max_positions, .. }) => {
                (factor * original_max_positions) as usize
            }
            _ => self.max_positions,
        };
        stretched.max(self.max_positions)
    }

    /// The rotary embedding, when positions enter by rotation.
    pub fn rope(&self) -> Option<&Rope> {
        match &self.positions {
            Positions::Rope(rope) => Some(rope),
            Positions::Learned { .. } | Positions::Alibi(_) => None,
        }
    }

    /// The rotary embedding of layer `layer`.
    pub fn rope_of(&self, layer: usize) -> Option<&Rope> {
        match (&self.window_rope, self.windows[layer]) {
            _ if !self.rotated[layer] => None,
            (Some(rope), Some(_)) => Some(rope),
            _ => self.rope(),
        }
    }

    /// Features of a query and key of one head.
    pub fn key_dim(&self) -> usize {
        match (self.latent, self.shared_keys) {
            (Some(l), _) => l.nope_dim + l.rope_dim,
            // each head's content bias is one more feature of the shared key
            (None, Some(rank)) => rank + self.n_heads,
            (None, None) => self.head_dim,
        }
    }

    /// Features of a value of one head.
    pub fn value_dim(&self) -> usize {
        self.latent.map_or(self.head_dim, |l| l.value_dim)
    }

    /// Whether layer `layer` is a mixture of experts.
    pub fn is_sparse(&self, layer: usize) -> bool {
        self.experts.as_ref().is_some_and(|experts| experts.layers[layer])
    }
}
