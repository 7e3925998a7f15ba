//! A decoder layer of any family: attention and MLP, joined to the residual stream as the architecture says.

mod collaborative;
mod equalise;
mod experts;
mod latent;
mod matrix;
mod parts;
mod read;
mod sources;
mod workspace;

pub use equalise::{Divisible, Place, divide, divisible};
pub use experts::{Visit, route};
pub use latent::LatentForm;
pub(crate) use latent::kv_shape as latent_kv_shape;
pub use matrix::{Matrix, MatrixValues, NormWeights, Reader};
pub use parts::{AttentionOf, BlockOf, FeedForwardOf, MlpOf, Slot};
pub use read::{BlockVectors, read_layer};
pub use sources::sources;
pub use workspace::{Angles, Inputs, Workspace};

use crate::architecture::{Architecture, NormPlace, Positions, QkNormScope, Residual};
use crate::probe::{Probe, Site};
use crate::rope::RopeTable;
use crate::{Activations, Attention, Device, HeadShape, KvCache, KvShape, Linear, Parameters, Step, ops};

/// What every layer of a model shares.
pub struct Trunk {
    /// Sizes.
    pub architecture: Architecture,
    /// Where it computes.
    pub device: Device,
    /// The attention variant.
    pub attention: Box<dyn Attention>,
    /// Rotary frequencies, when positions enter by rotation.
    pub rope: Option<RopeTable>,
    /// Those of the layers with a sliding window, where they differ.
    pub window_rope: Option<RopeTable>,
    /// What the cache keeps, where attention is latent.
    pub latent_form: LatentForm,
    /// One for each width that enters a down projection, where the architecture mixes those.
    hadamards: Vec<cpu_kernels::Hadamard>,
    /// Across heads, under the same condition.
    head_hadamard: Option<cpu_kernels::Hadamard>,
}

impl Trunk {
    /// Builds the shared part.
    pub fn new(architecture: Architecture, device: Device, attention: Box<dyn Attention>) -> Trunk {
        let rope = architecture.rope().map(RopeTable::new);
        let window_rope = architecture.window_rope.as_ref().map(RopeTable::new);
        let experts = architecture.experts.as_ref();
        let mut widths = vec![architecture.ffn];
        widths.extend(experts.iter().flat_map(|experts| experts.shared_ffn.into_iter().chain([experts.ffn])));
        widths.retain(|_| architecture.online_hadamard);
        let head_hadamard = architecture.online_hadamard.then(|| cpu_kernels::Hadamard::new(architecture.n_heads));
        let hadamards = widths.into_iter().map(cpu_kernels::Hadamard::new).collect();
        let latent_form = LatentForm::default();
        Trunk { architecture, device, attention, rope, window_rope, latent_form, hadamards, head_hadamard }
    }

    /// The same with another form of latent attention.
    pub fn with_latent_form(self, latent_form: LatentForm) -> Trunk {
        Trunk { latent_form, ..self }
    }

    /// Shape of a KV cache for this model.
    pub fn kv_shape(&self) -> KvShape {
        let a = &self.architecture;
        match a.latent {
            Some(latent) => latent_kv_shape(a, latent, self.latent_form),
            None if a.shared_keys.is_some() => collaborative::kv_shape(a),
            None => KvShape::new(a.n_layers, a.n_kv_heads, a.head_dim),
        }
    }

    /// Heads of layer `layer`: sizes, scale, window and cap.
    pub fn head_shape(&self, layer: usize) -> HeadShape {
        let a = &self.architecture;
        let heads = match a.latent {
            Some(latent) => latent::head_shape(a, latent, self.latent_form),
            None if a.shared_keys.is_some() => collaborative::head_shape(a),
            None => HeadShape::new(a.n_heads, a.n_kv_heads, a.head_dim),
        };
        HeadShape {
            window: a.windows[layer],
            softcap: a.attention_softcap,
            alibi: if let Positions::Alibi(alibi) = a.positions { Some(alibi) } else { None },
            scale: a.attention_scale / if a.scale_by_layer { (layer + 1) as f32 } else { 1.0 },
            ..heads
        }
    }
}

/// One layer's share of a forward pass.
pub struct Pass<'a> {
    /// What the layers share.
    pub trunk: &'a Trunk,
    /// Which layer.
    pub layer: usize,
    /// The rows that advance.
    pub step: &'a Step,
    /// Their keys and values.
    pub kv: &'a mut dyn KvCache,
    /// Buffers; [`Workspace::begin`] has seen this Step.
    pub ws: &'a mut Workspace,
    /// Who listens.
    pub probe: Option<&'a mut dyn Probe>,
}

impl Pass<'_> {
    fn tap(&mut self, site: Site, value: &Activations) {
        if let Some(probe) = self.probe.as_deref_mut() {
            probe.tap(site, value);
        }
    }

    /// `ws.normed` = norm(x), or x where the family has no norm here.
    fn enter(&mut self, norm: Option<&NormWeights>, x: &Activations) {
        let a = &self.trunk.architecture;
        match norm {
            Some(norm) => ops::norm(&self.trunk.device, a.norm, norm, a.norm_eps, x, &mut self.ws.normed),
            None => ops::copy(&self.trunk.device, x, &mut self.ws.normed),
        }
    }

    /// x += residual_scale · added.
    fn join(&self, added: &Activations, x: &mut Activations) {
        ops::add(&self.trunk.device, added, self.trunk.architecture.residual_scale, x);
    }
}

/// A decoder layer.
pub struct Block {
    vectors: BlockVectors,
    /// Its matrix products.
    pub linears: BlockOf<Box<dyn Linear>>,
    absorbed: Option<latent::Absorbed>,
}

impl Block {
    /// Joins the vectors of a layer with its matrix products.
    pub fn new(trunk: &Trunk, vectors: BlockVectors, linears: BlockOf<Box<dyn Linear>>) -> Block {
        let absorbed = latent::Absorbed::new(trunk, &linears.attention);
        Block { vectors, linears, absorbed }
    }

    /// The same layer with every matrix product turned into another; `layer` numbers the sites.
    pub fn try_map<E>(
        self,
        layer: usize,
        f: &mut dyn FnMut(Slot, Box<dyn Linear>) -> Result<Box<dyn Linear>, E>,
    ) -> Result<Block, E> {
        Ok(Block { linears: self.linears.try_map(layer, f)?, ..self })
    }

    /// Its norms and biases, as they are multiplied.
    pub fn vectors(&self) -> &BlockVectors {
        &self.vectors
    }

    /// Its matrix products, in the order of [`BlockOf::slots`].
    pub fn linears(&self) -> Vec<&dyn Linear> {
        self.linears.slots(0).into_iter().map(|(_, linear)| &**linear).collect()
    }

    /// Updates the residual stream `x [rows, hidden]` in place; keys and values go to the pass's layer of its cache.
    pub fn forward(&self, pass: &mut Pass<'_>, x: &mut Activations) {
        let (a, norms) = (&pass.trunk.architecture, &self.vectors.norms);
        let post = a.norm_place == NormPlace::Post;
        let before = |norm| if post { None } else { norm };
        // attention
        pass.enter(before(norms.attention.as_ref()), x);
        self.attend(pass);
        let mut attended = std::mem::take(&mut pass.ws.projected);
        normalise(pass, norms.attention_out.as_ref(), &mut attended);
        match a.residual {
            Residual::Serial => match before(norms.mlp.as_ref()) {
                Some(norm) => {
                    let (norm, added) = ((a.norm, norm, a.norm_eps), (&attended, a.residual_scale));
                    ops::add_norm(&pass.trunk.device, added, norm, x, &mut pass.ws.normed);
                }
                None => {
                    pass.join(&attended, x);
                    normalise(pass, norms.attention.as_ref().filter(|_| post), x);
                    pass.enter(None, x);
                }
            },
            Residual::Parallel { shared_norm: true } => {}
            Residual::Parallel { shared_norm: false } => pass.enter(norms.mlp.as_ref(), x),
        }
        // MLP
        self.feed(pass);
        let mut fed = std::mem::take(&mut pass.ws.mlp_out);
        normalise(pass, norms.mlp_out.as_ref(), &mut fed);
        if let Residual::Parallel { .. } = a.residual {
            pass.join(&attended, x);
        }
        pass.join(&fed, x);
        normalise(pass, norms.mlp.as_ref().filter(|_| post), x);
        pass.ws.projected = attended;
        pass.ws.mlp_out = fed;
        pass.tap(Site::Residual(pass.layer + 1), x);
    }

    /// `ws.normed` → `ws.projected`: W_o · softmax(q kᵀ) v.
    fn attend(&self, pass: &mut Pass<'_>) {
        let (trunk, layer, vectors) = (pass.trunk, pass.layer, &self.vectors);
        let a = &trunk.architecture;
        let mut ws = std::mem::take(pass.ws);
        let AttentionOf::Grouped { qkv, out } = &self.linears.attention else {
            latent::attend(&self.linears.attention, vectors, self.absorbed.as_ref(), pass, &mut ws);
            *pass.ws = ws;
            return;
        };
        pass.tap(Site::QkvIn(layer), &ws.normed);
        ops::linear(&trunk.device, &**qkv, &ws.normed, vectors.qkv_bias.as_ref(), &mut ws.qkv);
        self.remember(pass, &mut ws);
        trunk.attention.forward(pass.step, layer, &trunk.head_shape(layer), &ws.q, pass.kv, &mut ws.attended);
        if let Some(matrix) = &trunk.head_hadamard {
            ops::hadamard_runs(&trunk.device, matrix, a.value_dim(), &mut ws.attended);
        }
        pass.tap(Site::OutIn(layer), &ws.attended);
        ops::linear(&trunk.device, &**out, &ws.attended, vectors.out_bias.as_ref(), &mut ws.projected);
        *pass.ws = ws;
    }

    /// `ws.qkv` → `ws.q`, positions applied; keys and values go to the cache.
    fn remember(&self, pass: &mut Pass<'_>, ws: &mut Workspace) {
        let (trunk, layer, vectors) = (pass.trunk, pass.layer, &self.vectors);
        let a = &trunk.architecture;
        let norms = vectors.q_norm.is_some() || vectors.k_norm.is_some();
        let between = vectors.mixing.is_some() || norms || a.clip_qkv.is_some();
        let (rope, own) = (a.rope_of(layer), a.window_rope.is_some() && a.windows[layer].is_some());
        let fused = |ws: &mut Workspace, cache| {
            let angles = ws.inputs.angles(own);
            ops::split_turn_append(&trunk.device, rope, &ws.qkv, a.n_heads, angles, cache, &mut ws.q)
        };
        if !between && fused(ws, pass.kv.on_cuda(layer)) {
            return;
        }
        let kv = trunk.kv_shape();
        let (k_dim, v_dim) = (kv.n_key_heads * kv.key_dim, kv.n_value_heads * kv.value_dim);
        let q_dim = a.shared_keys.unwrap_or(a.n_heads * a.head_dim);
        let parts = [(&mut ws.q, q_dim), (&mut ws.k, k_dim), (&mut ws.v, v_dim)];
        ops::split_columns(&trunk.device, &ws.qkv, parts);
        if let Some(mixing) = &vectors.mixing {
            collaborative::mix(mixing, a.n_heads, &ws.q, &mut ws.spare);
            std::mem::swap(&mut ws.q, &mut ws.spare);
        }
        head_norm(trunk, vectors.q_norm.as_ref(), &mut ws.q);
        head_norm(trunk, vectors.k_norm.as_ref(), &mut ws.k);
        if let Some(bound) = a.clip_qkv {
            [&mut ws.q, &mut ws.k, &mut ws.v].into_iter().for_each(|x| ops::clip(&trunk.device, bound, x));
        }
        if let Some(rope) = rope {
            ops::rope(&trunk.device, rope, &mut ws.q, a.head_dim, ws.inputs.angles(own));
            ops::rope(&trunk.device, rope, &mut ws.k, a.head_dim, ws.inputs.angles(own));
        }
        pass.kv.append(layer, pass.step, &ws.k, &ws.v);
    }

    /// `ws.normed` → `ws.mlp_out`.
    fn feed(&self, pass: &mut Pass<'_>) {
        let MlpOf::Dense(part) = &self.linears.mlp else {
            let vectors = [&self.vectors.choice_bias, &self.vectors.shared_gate].map(Option::as_deref);
            return experts::forward(&self.linears.mlp, vectors, pass);
        };
        let x = std::mem::take(&mut pass.ws.normed);
        let mut out = std::mem::take(&mut pass.ws.mlp_out);
        let biases = [self.vectors.gate_up_bias.as_ref(), self.vectors.down_bias.as_ref()];
        feed_forward(part, biases, [Site::GateUpIn(pass.layer), Site::DownIn(pass.layer)], &x, &mut out, pass);
        pass.ws.normed = x;
        pass.ws.mlp_out = out;
    }
}

/// W_down · activation(W_up · x), gated where the family gates.
fn feed_forward(
    part: &FeedForwardOf<Box<dyn Linear>>,
    [up_bias, down_bias]: [Option<&Parameters>; 2],
    [up_site, down_site]: [Site; 2],
    x: &Activations,
    y: &mut Activations,
    pass: &mut Pass<'_>,
) {
    let (a, device) = (&pass.trunk.architecture, &pass.trunk.device);
    pass.tap(up_site, x);
    let mut up = std::mem::take(&mut pass.ws.gate_up);
    let mut inner = std::mem::take(&mut pass.ws.gated);
    ops::linear(device, &*part.gate_up, x, up_bias, &mut up);
    if a.gated {
        ops::activate_mul(device, a.activation, &up, &mut inner);
    } else {
        ops::activate(device, a.activation, &mut up);
        std::mem::swap(&mut up, &mut inner);
    }
    if let Some(matrix) = pass.trunk.hadamards.iter().find(|matrix| matrix.n() == inner.cols()) {
        ops::hadamard(device, matrix, &mut inner);
    }
    pass.tap(down_site, &inner);
    ops::linear(device, &*part.down, &inner, down_bias, y);
    pass.ws.gate_up = up;
    pass.ws.gated = inner;
}

/// x = norm(x), where there is a norm.
fn normalise(pass: &mut Pass<'_>, norm: Option<&NormWeights>, x: &mut Activations) {
    let Some(norm) = norm else { return };
    let a = &pass.trunk.architecture;
    ops::norm(&pass.trunk.device, a.norm, norm, a.norm_eps, x, &mut pass.ws.spare);
    std::mem::swap(x, &mut pass.ws.spare);
}

/// Norm of queries or keys `[rows, heads·head_dim]` in place.
fn head_norm(trunk: &Trunk, norm: Option<&NormWeights>, x: &mut Activations) {
    let (Some(norm), Some(kind)) = (norm, trunk.architecture.qk_norm) else { return };
    let width = if kind.scope == QkNormScope::Row { x.cols() } else { trunk.architecture.head_dim };
    ops::norm_groups(&trunk.device, kind.kind, norm, trunk.architecture.norm_eps, width, x);
}
