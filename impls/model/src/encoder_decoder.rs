//! The encoder–decoder from scratch: an encoder that sees its whole source, a decoder that sees its own past and the source.
//!
//! Source: Vaswani et al. 2017, arXiv:1706.03762, §3 (post-norm); the pre-norm sibling after the Annotated Transformer
//! (Rush 2018): norm before each sublayer, one more after each stack. Tensor names are those of Marian checkpoints.
//! Embeddings are shared by source, target and head; positions are sinusoids, sines in the first half of the features.

mod layers;
pub mod reference;
mod session;
mod shape;

pub use layers::{Buffers, MakeLinear};
pub use session::{Caches, EncoderDecoderSession, SourceError};
pub use shape::{EncoderDecoderShape, FAMILIES, Stack};

use layers::{Common, Layer, Norm, Reader};

use crate::checkpoint::{CheckpointError, Tensors};
use crate::{Activations, Attention, Device, Embedding, KvCache, Linear, Parameters, Step, ops};

/// The shared embedding `[vocab, hidden]`; other names hold the same tensor where it is absent.
const EMBEDDINGS: [&str; 4] =
    ["model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"];

/// Bias of the logits `[1, vocab]`, zero where absent.
const LOGITS_BIAS: &str = "final_logits_bias";

/// An encoder–decoder ready to run; immutable, so that several sessions share it.
pub struct EncoderDecoder {
    common: Common,
    embedding: Embedding,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    /// After encoder and decoder; pre-norm only.
    last_norms: Option<[Norm; 2]>,
    head: Box<dyn Linear>,
    logits_bias: Parameters,
}

impl EncoderDecoder {
    /// Reads `tensors`; `make` puts each matrix into its weight format.
    pub fn build<E: From<CheckpointError>>(
        shape: EncoderDecoderShape,
        device: Device,
        attention: Box<dyn Attention>,
        tensors: &dyn Tensors,
        make: MakeLinear<'_, E>,
    ) -> Result<EncoderDecoder, E> {
        let (reader, hidden, vocab) = (Reader { tensors }, shape.hidden, shape.vocab_size);
        let name = EMBEDDINGS.iter().find(|name| tensors.contains(name)).unwrap_or(&EMBEDDINGS[0]);
        let embedding = reader.matrix(&[name.to_string()], vocab, hidden)?;
        let mut layers = |side: &str, stack: Stack, has_cross: bool| -> Result<Vec<Layer>, E> {
            let name = |layer: usize| format!("model.{side}.layers.{layer}");
            (0..stack.n_layers).map(|l| reader.layer(&name(l), hidden, stack.ffn, has_cross, make)).collect()
        };
        let (encoder, decoder) = (layers("encoder", shape.encoder, false)?, layers("decoder", shape.decoder, true)?);
        let last_norms = match shape.pre_norm {
            false => None,
            true => Some([
                reader.norm("model.encoder.layer_norm", hidden)?,
                reader.norm("model.decoder.layer_norm", hidden)?,
            ]),
        };
        let logits_bias = match tensors.contains(LOGITS_BIAS) {
            true => reader.vector(LOGITS_BIAS, &[1, vocab])?,
            false => vec![0.0; vocab],
        };
        let head = make("head", &embedding)?;
        let common = Common { shape, device, attention };
        Ok(EncoderDecoder {
            common,
            embedding: embedding.into(),
            encoder,
            decoder,
            last_norms,
            head,
            logits_bias: logits_bias.into(),
        })
    }

    /// Sizes.
    pub fn shape(&self) -> &EncoderDecoderShape {
        &self.common.shape
    }

    /// Every matrix product: encoder, decoder, head.
    pub fn linears(&self) -> impl Iterator<Item = &dyn Linear> {
        self.encoder.iter().chain(&self.decoder).flat_map(Layer::linears).chain([&*self.head])
    }

    /// Bytes that one decoder pass must read of the stored weights (embedding rows excluded; k and v of the source are
    /// computed once per source and excluded too).
    pub fn decoder_weight_bytes(&self) -> usize {
        let all: usize = self.decoder.iter().flat_map(Layer::linears).map(|l| l.weight_bytes()).sum();
        let of_source = self.decoder.iter().filter_map(|l| l.cross.as_ref()).map(|c| c.kv.linear.weight_bytes());
        all - of_source.sum::<usize>() + self.head.weight_bytes()
    }

    /// Kernel of the attention.
    pub fn attention_kernel(&self) -> String {
        self.common.attention.kernel_name()
    }

    /// The encoder's output `[rows, hidden]` for the source rows of `step` (full visibility), as keys and values of every
    /// decoder layer in `sources`. `scratch` is the encoder's own cache; room must have been reserved in both.
    fn encode(&self, step: &Step, scratch: &mut dyn KvCache, sources: &mut dyn KvCache, b: &mut Buffers) {
        let mut x = std::mem::take(&mut b.x);
        self.embed(step, &mut x);
        for (layer, block) in self.encoder.iter().enumerate() {
            block.forward(&self.common, (step, layer, self.shape().encoder.n_heads), &mut x, scratch, None, b);
        }
        if let Some([norm, _]) = &self.last_norms {
            norm.apply(&self.common, &x, &mut b.gathered);
            std::mem::swap(&mut x, &mut b.gathered);
        }
        for (layer, block) in self.decoder.iter().enumerate() {
            if let Some(cross) = &block.cross {
                cross.remember(&self.common, (step, layer), &x, sources, b);
            }
        }
        b.x = x;
    }

    /// Logits `[step.logit_rows, vocab]` of target rows. `look` has the same rows in spans of their sources' sequences.
    fn decode<'b>(
        &self,
        step: &Step,
        look: &Step,
        kv: &mut dyn KvCache,
        sources: &dyn KvCache,
        b: &'b mut Buffers,
    ) -> &'b Activations {
        let mut x = std::mem::take(&mut b.x);
        self.embed(step, &mut x);
        for (layer, block) in self.decoder.iter().enumerate() {
            let place = (step, layer, self.shape().decoder.n_heads);
            block.forward(&self.common, place, &mut x, kv, Some((look, sources)), b);
        }
        let mut rows = std::mem::take(&mut b.gathered);
        let wanted = step.logit_rows.iter().map(|&row| row as u32).collect::<Vec<_>>();
        ops::gather_rows(&self.common.device, &x, &wanted.into(), &mut rows);
        if let Some([_, norm]) = &self.last_norms {
            norm.apply(&self.common, &rows, &mut x);
            std::mem::swap(&mut x, &mut rows);
        }
        ops::linear(&self.common.device, &*self.head, &rows, Some(&self.logits_bias), &mut b.logits);
        (b.x, b.gathered) = (x, rows);
        &b.logits
    }

    fn embed(&self, step: &Step, x: &mut Activations) {
        let hidden = self.shape().hidden;
        let scale = if self.shape().scale_embedding { (hidden as f32).sqrt() } else { 1.0 };
        let tokens = step.tokens.iter().map(|token| token.0).collect::<Vec<_>>();
        ops::embed(&self.common.device, &self.embedding, &tokens.into(), 1.0, x);
        for (row, &position) in step.positions.iter().enumerate() {
            for (feature, value) in x.row_mut(row).iter_mut().enumerate() {
                *value = *value * scale + sinusoid(position, feature, hidden) as f32;
            }
        }
    }
}

/// Feature `feature` of the encoding of `position`: sines first, then cosines of the same angles
/// `position / 10000^(2i/hidden)`; an odd width has one sine more.
fn sinusoid(position: u32, feature: usize, hidden: usize) -> f64 {
    let sines = hidden.div_ceil(2);
    let pair = if feature < sines { feature } else { feature - sines };
    let angle = f64::from(position) / 10000f64.powf(2.0 * pair as f64 / hidden as f64);
    if feature < sines { angle.sin() } else { angle.cos() }
}
