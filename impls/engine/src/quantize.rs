//! A checkpoint quantized layer by layer and given out as it goes: never more than one layer's weights are held, so a model
//! larger than memory can be quantized. What is held throughout are the residual streams of the texts.
//!
//! Method: for each layer: 1. read it. 2. the text that is scored passes the layer in full precision. 3. calibrate and equalise
//! (`prepare_layer`). 4. choose codes; measure how far the layer's products move on the calibration text. 5. hand the codes
//! out. 6. calibration and scored text pass the quantized layer. At the end both streams of the scored text leave through
//! the head: perplexity before and after, from one pass over the weights.

mod folder;
mod format;

use std::collections::HashMap;

use attention::{AttentionSpec, FlashSpec};
use cpu_kernels::GroupCodes;
use model::block::{Block, BlockOf, BlockVectors, Matrix, Slot, Trunk, Workspace, read_layer, sources};
use model::names::Source;
use model::{Activations, Device, Linear, SeqId, Step, TokenId, Transformer, read_ends};
use ndarray::ArrayView2;
use weights::{Quantized, WeightsSpec, output_error, quantize};

pub use folder::{FolderWriter, HalfTables, Sealed, SideFiles, WrittenFolder};
pub use format::CheckpointFormat;

use crate::calibrate::run_layer;
use crate::engine::{plain_format, windows_used};
use crate::layer::{PreparedLayer, linear, prepare_layer, projection, source};
use crate::{Checkpoint, EngineError};

/// What quantizing a checkpoint needs.
pub struct QuantizeOptions<'a> {
    /// How codes are chosen.
    pub weights: &'a WeightsSpec,
    /// Windows that methods calibrate on and layer errors are measured on; may be empty when the method needs none.
    pub calibration: &'a [Vec<TokenId>],
    /// Windows whose perplexity is measured before and after; may be empty.
    pub scored: &'a [Vec<TokenId>],
    /// Called with (layers done, layers in all).
    pub progress: &'a mut dyn FnMut(usize, usize),
}

/// A matrix of the checkpoint with its codes.
pub struct QuantizedMatrix {
    /// Which tensor it is.
    pub source: Source,
    /// Its rows in the tensor's order.
    pub values: NewValues,
}

/// What a matrix becomes.
pub enum NewValues {
    /// It stays as it is.
    Unchanged,
    /// Group codes, which checkpoints can store.
    Group(GroupCodes),
    /// The values `[n, k]` that codes of another form stand for.
    Dequantised(Vec<f32>),
}

/// A layer whose codes are chosen.
pub struct QuantizedLayer {
    /// Which layer.
    pub layer: usize,
    /// Its matrices.
    pub matrices: Vec<QuantizedMatrix>,
    /// Vectors that equalisation changed: (name without prefix, values).
    pub vectors: Vec<(String, Vec<f32>)>,
}

/// How far a product of a layer moved: ‖(W − Ŵ)·X‖² / ‖W·X‖² on the calibration text.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixError {
    /// Which layer.
    pub layer: usize,
    /// Which matrix of it.
    pub name: &'static str,
    /// Output and input features.
    pub shape: [usize; 2],
    /// With the chosen codes.
    pub error: f64,
    /// With the same grids rounded to nearest, for methods that choose otherwise.
    pub round_to_nearest: Option<f64>,
}

/// Likelihood of the scored text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Targets scored.
    pub tokens: usize,
    /// Sum of −ln p with the weights as they were.
    pub nll_before: f64,
    /// Sum of −ln p with the quantized weights.
    pub nll_after: f64,
}

/// What quantizing did.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeOutcome {
    /// In order of layers; empty without calibration text.
    pub errors: Vec<MatrixError>,
    /// `None` when no text was scored.
    pub likelihood: Option<Likelihood>,
}

/// Quantizes `checkpoint` and gives each layer to `each` as it is done.
pub fn quantize_layers(
    checkpoint: &Checkpoint,
    device: &Device,
    options: QuantizeOptions<'_>,
    each: &mut dyn FnMut(QuantizedLayer) -> Result<(), EngineError>,
) -> Result<QuantizeOutcome, EngineError> {
    let (a, tensors, spec) = (&checkpoint.architecture, &*checkpoint.tensors, options.weights);
    if spec.needs_calibration() && options.calibration.is_empty() {
        return Err(EngineError::Mismatch(format!("weights `{}` need a calibration text", spec.tag())));
    }
    let trunk = Trunk::new(a.clone(), device.clone(), AttentionSpec::Flash(FlashSpec::default()).build(device)?);
    let (entry, exit) = read_ends(a, tensors)?;
    let embed = |window: &Vec<TokenId>| {
        let mut x = Activations::default();
        entry.embed(&trunk, &Step::extend(SeqId(0), 0, window), &mut x);
        x
    };
    let mut samples: Vec<Activations> = windows_used(spec, options.calibration).map(embed).collect();
    let mut before: Vec<Activations> = options.scored.iter().map(embed).collect();
    let mut after = before.clone();
    let mut errors = vec![];
    for layer in 0..a.n_layers {
        (options.progress)(layer, a.n_layers);
        let (vectors, matrices) = read_layer(a, tensors, layer)?;
        let mut work = Layer { trunk: &trunk, spec, layer, vectors, matrices };
        work.pass_unchanged(&mut before)?;
        let (codes, prepared) = work.choose(&samples, &mut errors)?;
        let block = work.finish(prepared, codes, each)?;
        for x in samples.iter_mut().chain(&mut after) {
            run_layer(&trunk, layer, &block, x, None)?;
        }
    }
    (options.progress)(a.n_layers, a.n_layers);
    let mut likelihood = None;
    if !options.scored.is_empty() {
        // before and after leave through the head as it will be stored
        let head = linear(&plain_format(spec), device, "head", &exit.head, None)?;
        let ends = Transformer { trunk, entry, blocks: vec![], exit: exit.with_head(head) };
        let [(tokens, nll_before), (_, nll_after)] = [&before, &after].map(|x| score(&ends, x, options.scored));
        likelihood = Some(Likelihood { tokens, nll_before, nll_after });
    }
    Ok(QuantizeOutcome { errors, likelihood })
}

/// A layer on its way.
struct Layer<'a> {
    trunk: &'a Trunk,
    spec: &'a WeightsSpec,
    layer: usize,
    vectors: BlockVectors,
    matrices: BlockOf<Matrix>,
}

type Codes = BlockOf<Option<Quantized>>;

impl Layer<'_> {
    /// 2.
    fn pass_unchanged(&self, samples: &mut [Activations]) -> Result<(), EngineError> {
        if samples.is_empty() {
            return Ok(());
        }
        let full = self.matrices.as_ref().try_map(self.layer, &mut |slot, matrix: &Matrix| {
            linear(&WeightsSpec::F32, &self.trunk.device, slot.name, matrix, None)
        })?;
        let full = Block::new(self.trunk, self.vectors.clone(), full);
        samples.iter_mut().try_for_each(|x| run_layer(self.trunk, self.layer, &full, x, None))
    }

    /// 3. and 4.
    fn choose(
        &mut self,
        samples: &[Activations],
        errors: &mut Vec<MatrixError>,
    ) -> Result<(Codes, PreparedLayer), EngineError> {
        let prepare = |spec: &WeightsSpec| {
            let (vectors, matrices) = (self.vectors.clone(), self.matrices.clone());
            prepare_layer(self.trunk, spec, self.layer, vectors, matrices, samples)
        };
        let baseline = self.spec.group_grid().map(WeightsSpec::Rtn).filter(|rtn| rtn != self.spec);
        let mut nearest = HashMap::new();
        let equalises = self.spec.equaliser().is_some();
        if equalises && let Some(rtn) = &baseline {
            // an equalised layer has other inputs: the baseline is measured on the layer as it was
            let plain = prepare(rtn)?;
            self.codes(&plain, rtn, |slot, matrix, codes| {
                nearest.extend(self.error(&plain, slot, matrix, codes).map(|error| (slot.site, error)));
            })?;
        }
        let prepared = prepare(self.spec)?;
        if !equalises && let Some(rtn) = &baseline {
            self.codes(&prepared, rtn, |slot, matrix, codes| {
                nearest.extend(self.error(&prepared, slot, matrix, codes).map(|error| (slot.site, error)));
            })?;
        }
        let codes = self.codes(&prepared, self.spec, |slot, matrix, codes| {
            errors.extend(self.error(&prepared, slot, matrix, codes).map(|error| MatrixError {
                layer: self.layer,
                name: slot.name,
                shape: [matrix.rows, matrix.cols],
                error,
                round_to_nearest: nearest.get(&slot.site).copied(),
            }));
        })?;
        Ok((codes, prepared))
    }

    /// The codes of every matrix that `spec` quantizes; `seen` is shown each.
    fn codes(
        &self,
        prepared: &PreparedLayer,
        spec: &WeightsSpec,
        mut seen: impl FnMut(Slot, &Matrix, &Quantized),
    ) -> Result<Codes, EngineError> {
        prepared.matrices.as_ref().try_map(self.layer, &mut |slot: Slot, matrix: &Matrix| {
            let spec = spec.at(self.layer, projection(slot.site));
            if slot.exact {
                return Ok(None);
            }
            let stats = prepared.stats_of(spec, slot)?;
            let codes = quantize(spec, &self.trunk.device, source(matrix), matrix.rows, matrix.cols, stats)
                .map_err(|source| EngineError::Weights { slot: prepared.name(slot), source })?;
            if let Some(codes) = &codes {
                seen(slot, matrix, codes);
            }
            Ok(codes)
        })
    }

    fn error(&self, prepared: &PreparedLayer, slot: Slot, matrix: &Matrix, codes: &Quantized) -> Option<f64> {
        let stats = prepared.stats.as_ref()?.get(&slot.site)?;
        let values = matrix.to_f32();
        let view = ArrayView2::from_shape((matrix.rows, matrix.cols), &values).ok()?;
        Some(output_error(self.trunk.device.cpu(), view, codes, stats))
    }

    /// 5. Gives the layer out, and the block that it has become.
    fn finish(
        self,
        prepared: PreparedLayer,
        codes: Codes,
        each: &mut dyn FnMut(QuantizedLayer) -> Result<(), EngineError>,
    ) -> Result<Block, EngineError> {
        let (a, device) = (&self.trunk.architecture, &self.trunk.device);
        let mut products = codes.slots(self.layer).into_iter().map(|(_, codes)| codes.clone());
        let linears = prepared.matrices.as_ref().try_map(self.layer, &mut |slot: Slot, matrix: &Matrix| {
            let at = self.spec.at(self.layer, projection(slot.site));
            let plain = if slot.exact { &WeightsSpec::F32 } else { at };
            match products.next().flatten() {
                Some(codes) => Ok(weights::format_codes(device, codes, at.activation_bits())),
                None => linear(plain, device, &prepared.name(slot), matrix, None),
            }
        })?;
        let linears: BlockOf<Box<dyn Linear>> = linears;
        let old: HashMap<_, _> = self.vectors.stored(a, self.layer).into_iter().collect();
        let vectors = prepared.vectors.stored(a, self.layer);
        let vectors = vectors.into_iter().filter(|(name, values)| old.get(name) != Some(values)).collect();
        let mut places =
            sources(a, self.layer).slots(self.layer).into_iter().map(|(_, s)| s.clone()).collect::<Vec<_>>();
        let mut matrices = vec![];
        for ((_, codes), sources) in codes.slots(self.layer).into_iter().zip(places.drain(..)) {
            matrices.extend(apart(codes.as_ref(), sources));
        }
        each(QuantizedLayer { layer: self.layer, matrices, vectors })?;
        Ok(Block::new(self.trunk, prepared.vectors, linears))
    }
}

/// Undoes the stacking of a matrix: each source gets its rows back, in its own order.
fn apart(codes: Option<&Quantized>, sources: Vec<Source>) -> Vec<QuantizedMatrix> {
    let dequantised = match codes {
        None | Some(Quantized::Group(_)) => vec![],
        Some(other) => other.dequantise(),
    };
    let mut first = 0;
    let one = |source: Source| {
        // the stacked row of each row of the source
        let mut place: Vec<usize> = vec![0; source.shape[0]];
        source.rows.iter().flat_map(Clone::clone).zip(first..).for_each(|(row, at)| place[row] = at);
        first += source.n_rows();
        let values = match codes {
            None => NewValues::Unchanged,
            Some(Quantized::Group(codes)) => NewValues::Group(rows(codes, &place)),
            Some(_) => {
                let k = source.shape[1];
                let row = |&at: &usize| dequantised[at * k..(at + 1) * k].iter().copied();
                NewValues::Dequantised(place.iter().flat_map(row).collect())
            }
        };
        QuantizedMatrix { source, values }
    };
    sources.into_iter().map(one).collect()
}

/// The rows `place` of `codes`, in that order.
fn rows(codes: &GroupCodes, place: &[usize]) -> GroupCodes {
    let groups = codes.k.div_ceil(codes.group);
    let constants = |all: &[f32]| place.iter().flat_map(|at| all[at * groups..(at + 1) * groups].to_vec()).collect();
    GroupCodes {
        n: place.len(),
        codes: place.iter().flat_map(|at| codes.codes[at * codes.k..(at + 1) * codes.k].to_vec()).collect(),
        scales: constants(&codes.scales),
        zeros: constants(&codes.zeros),
        order: codes.order.clone(),
        ..*codes
    }
}

/// Targets in `windows` and the sum of their −ln p, given the residual streams behind the last layer.
fn score(ends: &Transformer, residuals: &[Activations], windows: &[Vec<TokenId>]) -> (usize, f64) {
    let mut workspace = Workspace::default();
    let (mut n, mut sum) = (0, 0.0);
    for (x, window) in residuals.iter().zip(windows) {
        let logits = ends.logits_of(x, &mut workspace);
        for (row, target) in window.iter().skip(1).enumerate() {
            let logits = logits.row(row);
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|&v| f64::from(v - most).exp()).sum();
            sum += total.ln() + f64::from(most) - f64::from(logits[target.0 as usize]);
            n += 1;
        }
    }
    (n, sum)
}
