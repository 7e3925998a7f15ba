//! Layer-by-layer calibration: the inputs of each layer come from the layers before it, already quantized.
//!
//! Source: Frantar et al. 2022 (GPTQ), §4: one layer's full-precision weights at a time, Hessians of its inputs from one
//! pass, then the quantized layer makes the next layer's inputs.

use std::collections::HashMap;

use kv_cache::KvSpec;
use model::block::{Block, Pass, Trunk, Workspace};
use model::probe::{Probe, Site, reborrow};
use model::{Activations, KvShape, SeqId, Step, TokenId};
use weights::CalibrationStats;

use crate::EngineError;

/// Input statistics of a layer's matrix products, by where their input passes.
pub type LayerStats = HashMap<Site, CalibrationStats>;

struct Collect<'a> {
    trunk: &'a Trunk,
    stats: LayerStats,
}

impl Probe for Collect<'_> {
    fn tap(&mut self, site: Site, x: &Activations) {
        if !matches!(site, Site::Residual(_) | Site::HeadIn) {
            let stats = self.stats.entry(site).or_insert_with(|| CalibrationStats::new(x.cols()));
            stats.add(self.trunk.device.cpu(), x);
        }
    }
}

/// Collects what `block` (full precision, number `layer`) sees of the residual streams `samples`, which stay as they are.
pub fn calibrate_layer(
    trunk: &Trunk,
    layer: usize,
    block: &Block,
    samples: &[Activations],
) -> Result<LayerStats, EngineError> {
    let mut collect = Collect { trunk, stats: LayerStats::new() };
    for sample in samples {
        run_layer(trunk, layer, block, &mut sample.clone(), Some(&mut collect))?;
    }
    Ok(collect.stats)
}

/// Advances one sample's residual stream through `block`, with a cache of its own that is dropped afterwards.
pub fn run_layer(
    trunk: &Trunk,
    layer: usize,
    block: &Block,
    x: &mut Activations,
    mut probe: Option<&mut dyn Probe>,
) -> Result<(), EngineError> {
    let seq = SeqId(0);
    // the layer keeps its number, because windows and scales may depend on it; the cache is short-lived
    let shape = KvShape { n_layers: layer + 1, ..trunk.kv_shape() };
    let mut kv = KvSpec::default().build(shape, x.rows(), &trunk.device)?;
    kv.reserve(seq, x.rows())?;
    let step = Step::extend(seq, 0, &vec![TokenId(0); x.rows()]);
    let mut workspace = Workspace::default();
    workspace.begin(trunk, &step);
    let probe = reborrow(&mut probe);
    block.forward(&mut Pass { trunk, layer, step: &step, kv: &mut *kv, ws: &mut workspace, probe }, x);
    Ok(())
}
