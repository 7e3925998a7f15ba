//! Layer-by-layer calibration: the inputs of each layer come from the layers before it, already quantized.
//!
//! Source: Frantar et al. 2022 (GPTQ), §4: one layer's full-precision weights at a time, Hessians of its four inputs
//! from one pass, then the quantized layer makes the next layer's inputs.

use kv_cache::KvSpec;
use model::block::{Block, Trunk, Workspace};
use model::probe::{Probe, Site};
use model::{Activations, KvShape, SeqId, Step, TokenId};
use weights::CalibrationStats;

use crate::EngineError;

/// Input statistics of the four matrix products of a layer.
pub struct LayerHessians {
    /// Input of q, k, v.
    pub qkv: CalibrationStats,
    /// Input of the attention output projection.
    pub out: CalibrationStats,
    /// Input of gate, up.
    pub gate_up: CalibrationStats,
    /// Input of down.
    pub down: CalibrationStats,
}

impl LayerHessians {
    fn new(trunk: &Trunk) -> LayerHessians {
        let a = &trunk.architecture;
        let stats = |features: usize| CalibrationStats::new(features);
        LayerHessians {
            qkv: stats(a.hidden),
            out: stats(a.n_heads * a.head_dim),
            gate_up: stats(a.hidden),
            down: stats(a.ffn),
        }
    }
}

struct Collect<'a> {
    trunk: &'a Trunk,
    hessians: LayerHessians,
}

impl Probe for Collect<'_> {
    fn tap(&mut self, site: Site, x: &Activations) {
        let stats = match site {
            Site::QkvIn(_) => &mut self.hessians.qkv,
            Site::OutIn(_) => &mut self.hessians.out,
            Site::GateUpIn(_) => &mut self.hessians.gate_up,
            Site::DownIn(_) => &mut self.hessians.down,
            Site::Residual(_) | Site::HeadIn => return,
        };
        stats.add(self.trunk.device.cpu(), x);
    }
}

/// Collects what `block` (full precision) sees of the residual streams `samples`, which stay as they are.
pub fn calibrate_layer(trunk: &Trunk, block: &Block, samples: &[Activations]) -> Result<LayerHessians, EngineError> {
    let mut collect = Collect { trunk, hessians: LayerHessians::new(trunk) };
    for sample in samples {
        run_layer(trunk, block, &mut sample.clone(), Some(&mut collect))?;
    }
    Ok(collect.hessians)
}

/// Advances one sample's residual stream through `block`, with a cache of its own that is dropped afterwards.
pub(crate) fn run_layer(
    trunk: &Trunk,
    block: &Block,
    x: &mut Activations,
    probe: Option<&mut dyn Probe>,
) -> Result<(), EngineError> {
    let (a, seq) = (&trunk.architecture, SeqId(0));
    let shape = KvShape::new(1, a.n_kv_heads, a.head_dim);
    let mut kv = KvSpec::default().build(shape, x.rows(), &trunk.device)?;
    kv.reserve(seq, x.rows())?;
    let step = Step::extend(seq, 0, &vec![TokenId(0); x.rows()]);
    let mut workspace = Workspace::default();
    workspace.begin(trunk, &step);
    block.forward(trunk, 0, &step, x, &mut *kv, &mut workspace, probe);
    Ok(())
}
