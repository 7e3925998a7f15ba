//! One layer on its way from a checkpoint to products: calibrated, equalised where the method asks for it, quantized.
//! Only one layer's full-precision weights are held at a time.

use model::block::{Block, BlockOf, BlockVectors, Matrix, MatrixValues, Slot, Trunk, divide, divisible};
use model::probe::Site;
use model::{Activations, Device, Linear};
use ndarray::ArrayView2;
use weights::equalise::SharedInput;
use weights::{CalibrationStats, Projection, WeightSource, WeightsSpec, build_linear};

use crate::EngineError;
use crate::calibrate::{LayerStats, calibrate_layer};

/// A layer whose codes can be chosen.
pub struct PreparedLayer {
    /// Which layer.
    pub layer: usize,
    /// Norms and biases, with what equalisation folded into them.
    pub vectors: BlockVectors,
    /// Matrices in full precision, equalised.
    pub matrices: BlockOf<Matrix>,
    /// What calibration saw of their inputs; `None` for weights that need no calibration.
    pub stats: Option<LayerStats>,
}

/// Calibrates layer `layer` of `trunk` on the residual streams `samples`, which stay as they are, as far as `spec` needs it.
pub fn prepare_layer(
    trunk: &Trunk,
    spec: &WeightsSpec,
    layer: usize,
    vectors: BlockVectors,
    matrices: BlockOf<Matrix>,
    samples: &[Activations],
) -> Result<PreparedLayer, EngineError> {
    let mut prepared = PreparedLayer { layer, vectors, matrices, stats: None };
    if samples.is_empty() {
        return Ok(prepared);
    }
    prepared.calibrate(trunk, samples)?;
    if prepared.equalise(trunk, spec)? {
        prepared.calibrate(trunk, samples)?;
    }
    Ok(prepared)
}

impl PreparedLayer {
    fn calibrate(&mut self, trunk: &Trunk, samples: &[Activations]) -> Result<(), EngineError> {
        let full = self.matrices.as_ref().try_map(self.layer, &mut |slot, matrix: &Matrix| {
            linear(&WeightsSpec::F32, &trunk.device, &self.name(slot), matrix, None)
        })?;
        let full = Block::new(trunk, self.vectors.clone(), full);
        self.stats = Some(calibrate_layer(trunk, self.layer, &full, samples)?);
        Ok(())
    }

    /// Divides the inputs that the spec's method wants divided; whether there was one.
    fn equalise(&mut self, trunk: &Trunk, spec: &WeightsSpec) -> Result<bool, EngineError> {
        let mut changed = false;
        for input in divisible(&trunk.architecture, self.layer, &self.vectors, &self.matrices) {
            let Some(stats) = self.stats.as_ref().and_then(|stats| stats.get(&input.sites[0])) else { continue };
            let Some(equaliser) = spec.at(self.layer, projection(input.sites[0])).equaliser() else { continue };
            if !equaliser.places().contains(&input.place) {
                continue;
            }
            let slots = self.matrices.slots(self.layer);
            let readers: Vec<_> =
                slots.into_iter().filter(|(slot, _)| input.sites.contains(&slot.site) && !slot.exact).collect();
            let values: Vec<_> = readers.iter().map(|(_, matrix)| matrix.to_f32()).collect();
            let views = readers.iter().zip(&values).map(|((_, m), v)| ArrayView2::from_shape((m.rows, m.cols), v));
            let shared = SharedInput {
                place: input.place,
                matrices: views.collect::<Result<_, _>>().map_err(|e| EngineError::Mismatch(e.to_string()))?,
                stats,
                device: &trunk.device,
            };
            let slot = self.name(readers[0].0);
            let scales =
                equaliser.scales(&shared).map_err(|source| EngineError::Weights { slot, source: source.into() })?;
            let matrices = self.matrices.clone();
            self.matrices = divide(&trunk.architecture, self.layer, &input, &scales, &mut self.vectors, matrices);
            changed = true;
        }
        Ok(changed)
    }

    /// Every matrix as `spec` says.
    pub fn build(&self, spec: &WeightsSpec, device: &Device) -> Result<BlockOf<Box<dyn Linear>>, EngineError> {
        self.matrices
            .as_ref()
            .try_map(self.layer, &mut |slot: Slot, matrix: &Matrix| self.build_one(spec, device, slot, matrix))
    }

    /// The matrix at `slot` as `spec` says.
    pub fn build_one(
        &self,
        spec: &WeightsSpec,
        device: &Device,
        slot: Slot,
        matrix: &Matrix,
    ) -> Result<Box<dyn Linear>, EngineError> {
        let name = self.name(slot);
        if slot.exact {
            return linear(&WeightsSpec::F32, device, &name, matrix, None);
        }
        let spec = spec.at(self.layer, projection(slot.site));
        linear(spec, device, &name, matrix, self.stats_of(spec, slot)?)
    }

    /// What calibration saw of the input of `slot`, where `spec` needs it.
    pub fn stats_of(&self, spec: &WeightsSpec, slot: Slot) -> Result<Option<&CalibrationStats>, EngineError> {
        let Some(stats) = self.stats.as_ref().filter(|_| spec.needs_calibration()) else { return Ok(None) };
        stats.get(&slot.site).map(Some).ok_or_else(|| {
            EngineError::Mismatch(format!(
                "{}: no calibration token reached it ({:?}); use more or longer windows in [calibration]",
                self.name(slot),
                slot.site
            ))
        })
    }

    /// What errors and tables call the matrix at `slot`.
    pub fn name(&self, slot: Slot) -> String {
        format!("layer {}, {}", self.layer, slot.name)
    }
}

/// What a rule of mixed weights calls the matrices that read at `site`.
pub fn projection(site: Site) -> Projection {
    match site {
        Site::OutIn(_) => Projection::Out,
        Site::GateUpIn(_) | Site::ExpertIn(..) | Site::RouterIn(_) => Projection::GateUp,
        Site::DownIn(_) | Site::ExpertDownIn(..) => Projection::Down,
        Site::QkvIn(_) | Site::QueryUpIn(_) | Site::LatentUpIn(_) | Site::Residual(_) | Site::HeadIn => Projection::Qkv,
    }
}

pub(crate) fn source(matrix: &Matrix) -> WeightSource<'_> {
    match &matrix.values {
        MatrixValues::F32(values) => WeightSource::F32(values),
        MatrixValues::F16(values) => WeightSource::F16(values),
        MatrixValues::Bf16(values) => WeightSource::Bf16(values),
        MatrixValues::Stored(parts) => WeightSource::Stored(parts),
    }
}

/// `matrix` as `spec` says; `slot` names it in errors.
pub(crate) fn linear(
    spec: &WeightsSpec,
    device: &Device,
    slot: &str,
    matrix: &Matrix,
    stats: Option<&CalibrationStats>,
) -> Result<Box<dyn Linear>, EngineError> {
    build_linear(spec, device, source(matrix), matrix.rows, matrix.cols, stats)
        .map_err(|source| EngineError::Weights { slot: slot.into(), source })
}
