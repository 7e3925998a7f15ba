//! The matrices of a layer, as a shape that weights, statistics and finished products share.

use crate::probe::Site;

/// The matrices of a layer. Those that share an input are stacked into one product (rows are independent in every
/// weight format, so stacking changes no value).
#[derive(Debug, Clone)]
pub struct BlockOf<M> {
    /// Of attention.
    pub attention: AttentionOf<M>,
    /// Of the MLP.
    pub mlp: MlpOf<M>,
}

/// The matrices of attention.
#[derive(Debug, Clone)]
pub enum AttentionOf<M> {
    /// Multi-head, grouped-query and multi-query attention.
    Grouped {
        /// `[(n_heads + 2·n_kv_heads)·head_dim, hidden]`.
        qkv: M,
        /// `[hidden, n_heads·head_dim]`.
        out: M,
    },
    /// Multi-head latent attention.
    Latent {
        /// To all queries, or to the compressed query.
        q: M,
        /// From the compressed query to all queries.
        q_up: Option<M>,
        /// To the compressed keys and values and the shared rotary key.
        kv: M,
        /// From the compressed vector to each head's key and value.
        kv_up: M,
        /// `[hidden, n_heads·value_dim]`.
        out: M,
    },
}

/// The two matrices of a feed-forward.
#[derive(Debug, Clone)]
pub struct FeedForwardOf<M> {
    /// `[2·ffn, hidden]`, gate first, or `[ffn, hidden]` when not gated.
    pub gate_up: M,
    /// `[hidden, ffn]`.
    pub down: M,
}

/// The matrices of the MLP.
#[derive(Debug, Clone)]
pub enum MlpOf<M> {
    /// One feed-forward for every token.
    Dense(FeedForwardOf<M>),
    /// A mixture of experts.
    Experts {
        /// `[experts, hidden]`.
        router: M,
        /// The experts.
        experts: Vec<FeedForwardOf<M>>,
        /// The expert that every token visits.
        shared: Option<FeedForwardOf<M>>,
    },
}

/// Which matrix of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where its input passes.
    pub site: Site,
    /// What it is called in errors and tables.
    pub name: &'static str,
    /// Kept in full precision whatever the format of the others: too small to matter, too decisive to round.
    pub exact: bool,
}

impl<M> BlockOf<M> {
    /// The same layer with every matrix turned into something else; `layer` numbers the sites.
    pub fn try_map<N, E>(self, layer: usize, f: &mut dyn FnMut(Slot, M) -> Result<N, E>) -> Result<BlockOf<N>, E> {
        let slot = |name, site| Slot { site, name, exact: false };
        let attention = match self.attention {
            AttentionOf::Grouped { qkv, out } => AttentionOf::Grouped {
                qkv: f(slot("q, k, v", Site::QkvIn(layer)), qkv)?,
                out: f(slot("attention output", Site::OutIn(layer)), out)?,
            },
            AttentionOf::Latent { q, q_up, kv, kv_up, out } => AttentionOf::Latent {
                q: f(slot("queries", Site::QkvIn(layer)), q)?,
                q_up: q_up.map(|m| f(slot("queries, second half", Site::QueryUpIn(layer)), m)).transpose()?,
                kv: f(slot("compressed keys and values", Site::QkvIn(layer)), kv)?,
                kv_up: f(slot("keys and values", Site::LatentUpIn(layer)), kv_up)?,
                out: f(slot("attention output", Site::OutIn(layer)), out)?,
            },
        };
        let mut feed_forward = |part: FeedForwardOf<M>, [up, down]: [Site; 2]| {
            Ok(FeedForwardOf {
                gate_up: f(slot("gate, up", up), part.gate_up)?,
                down: f(slot("down", down), part.down)?,
            })
        };
        let dense = [Site::GateUpIn(layer), Site::DownIn(layer)];
        let mlp = match self.mlp {
            MlpOf::Dense(part) => MlpOf::Dense(feed_forward(part, dense)?),
            MlpOf::Experts { router, experts, shared } => {
                let experts = experts
                    .into_iter()
                    .enumerate()
                    .map(|(e, part)| feed_forward(part, [Site::ExpertIn(layer, e), Site::ExpertDownIn(layer, e)]))
                    .collect::<Result<_, E>>()?;
                let shared = shared.map(|part| feed_forward(part, dense)).transpose()?;
                let router = f(Slot { exact: true, ..slot("router", Site::RouterIn(layer)) }, router)?;
                MlpOf::Experts { router, experts, shared }
            }
        };
        Ok(BlockOf { attention, mlp })
    }

    /// References to the matrices.
    pub fn as_ref(&self) -> BlockOf<&M> {
        BlockOf { attention: self.attention.as_ref(), mlp: self.mlp.as_ref() }
    }

    /// Mutable references to the matrices.
    pub fn as_mut(&mut self) -> BlockOf<&mut M> {
        BlockOf { attention: self.attention.as_mut(), mlp: self.mlp.as_mut() }
    }

    /// Every matrix with its slot, in the order of [`BlockOf::try_map`].
    pub fn slots(&self, layer: usize) -> Vec<(Slot, &M)> {
        let mut all = vec![];
        let collected = self.as_ref().try_map(layer, &mut |slot, m| {
            all.push((slot, m));
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(_) = collected;
        all
    }
}

impl<M> AttentionOf<M> {
    fn as_ref(&self) -> AttentionOf<&M> {
        match self {
            AttentionOf::Grouped { qkv, out } => AttentionOf::Grouped { qkv, out },
            AttentionOf::Latent { q, q_up, kv, kv_up, out } => {
                AttentionOf::Latent { q, q_up: q_up.as_ref(), kv, kv_up, out }
            }
        }
    }

    fn as_mut(&mut self) -> AttentionOf<&mut M> {
        match self {
            AttentionOf::Grouped { qkv, out } => AttentionOf::Grouped { qkv, out },
            AttentionOf::Latent { q, q_up, kv, kv_up, out } => {
                AttentionOf::Latent { q, q_up: q_up.as_mut(), kv, kv_up, out }
            }
        }
    }
}

impl<M> FeedForwardOf<M> {
    fn as_ref(&self) -> FeedForwardOf<&M> {
        FeedForwardOf { gate_up: &self.gate_up, down: &self.down }
    }

    fn as_mut(&mut self) -> FeedForwardOf<&mut M> {
        FeedForwardOf { gate_up: &mut self.gate_up, down: &mut self.down }
    }
}

impl<M> MlpOf<M> {
    fn as_ref(&self) -> MlpOf<&M> {
        match self {
            MlpOf::Dense(part) => MlpOf::Dense(part.as_ref()),
            MlpOf::Experts { router, experts, shared } => MlpOf::Experts {
                router,
                experts: experts.iter().map(FeedForwardOf::as_ref).collect(),
                shared: shared.as_ref().map(FeedForwardOf::as_ref),
            },
        }
    }

    fn as_mut(&mut self) -> MlpOf<&mut M> {
        match self {
            MlpOf::Dense(part) => MlpOf::Dense(part.as_mut()),
            MlpOf::Experts { router, experts, shared } => MlpOf::Experts {
                router,
                experts: experts.iter_mut().map(FeedForwardOf::as_mut).collect(),
                shared: shared.as_mut().map(FeedForwardOf::as_mut),
            },
        }
    }
}
