//! `EngineSpec`: one part per axis. A scenario embeds it; frames print its tags.

use std::sync::Arc;

use attention::AttentionSpec;
use cpu_kernels::{Cpu, Isa};
use decoding::DecodingSpec;
use kv_cache::KvSpec;
use model::{Device, Unsupported};
use serde::{Deserialize, Serialize};
use weights::WeightsSpec;

use crate::EngineError;

/// The parts of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// Attention variant.
    pub attention: AttentionSpec,
    /// Weight format and quantizer.
    pub weights: WeightsSpec,
    /// KV cache.
    pub kv: KvSpec,
    /// Decoding method.
    pub decoding: DecodingSpec,
    /// Device.
    pub device: DeviceSpec,
}

/// Where a cell computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DeviceSpec {
    /// This processor.
    Cpu(CpuSpec),
}

/// CPU device: instruction set pinned, or the best one present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSpec {
    /// Instruction set; absent means the best that this machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<IsaName>,
}

/// Instruction sets a scenario can pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsaName {
    /// No SIMD intrinsics.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 (F, BW, VL) and VNNI where used.
    Avx512,
}

impl IsaName {
    /// The kernels' token.
    pub fn isa(self) -> Isa {
        match self {
            IsaName::Scalar => Isa::Scalar,
            IsaName::Avx2 => Isa::Avx2,
            IsaName::Avx512 => Isa::Avx512,
        }
    }
}

impl Default for DeviceSpec {
    fn default() -> DeviceSpec {
        DeviceSpec::Cpu(CpuSpec::default())
    }
}

impl DeviceSpec {
    /// Opens the device with `threads` worker threads.
    pub fn open(&self, threads: usize) -> Result<Device, EngineError> {
        let DeviceSpec::Cpu(spec) = self;
        let cpu = Cpu::new(spec.isa.map(IsaName::isa), threads)
            .map_err(|e| unsupported_device(&self.tag(), e.to_string()))?;
        Ok(Device::Cpu(Arc::new(cpu)))
    }

    /// Name in frames: `cpu` (best) or `cpu-avx2` (pinned).
    pub fn tag(&self) -> String {
        let DeviceSpec::Cpu(spec) = self;
        match spec.isa {
            None => "cpu".into(),
            Some(isa) => format!("cpu-{}", isa.isa().name()),
        }
    }

    fn plan(&self) -> Result<(), Unsupported> {
        let DeviceSpec::Cpu(spec) = self;
        match spec.isa.map(IsaName::isa) {
            Some(isa) if !isa.is_available() => {
                let has = Isa::available().iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
                Err(unsupported("device", &self.tag(), format!("this processor has {has}")))
            }
            _ => Ok(()),
        }
    }
}

fn unsupported(axis: &'static str, variant: &str, reason: String) -> Unsupported {
    Unsupported { axis, variant: variant.into(), reason }
}

fn unsupported_device(variant: &str, reason: String) -> EngineError {
    EngineError::Unsupported(unsupported("device", variant, reason))
}

/// What planning may know about the models of a cell before any weight is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanFacts {
    /// A draft checkpoint is named.
    pub has_draft: bool,
    /// The weights are random: text means nothing to them.
    pub random_weights: bool,
}

impl EngineSpec {
    /// Whether this combination can run here; a refusal becomes a skipped cell with its reason.
    pub fn plan(&self, facts: PlanFacts) -> Result<(), Unsupported> {
        self.device.plan()?;
        if self.decoding.needs_draft() && !facts.has_draft {
            return Err(unsupported(
                "decoding",
                &self.decoding.tag(),
                "needs a draft checkpoint: set `draft` in [model]".into(),
            ));
        }
        if self.decoding.needs_draft() && !self.weights.rows_are_independent() {
            return Err(unsupported(
                "weights",
                &self.weights.tag(),
                "one activation scale per call: a token verified among others is not that token alone".into(),
            ));
        }
        if self.weights.needs_calibration() && facts.random_weights {
            return Err(unsupported(
                "weights",
                &self.weights.tag(),
                "calibration on random weights says nothing; use rtn for a speed-only cell".into(),
            ));
        }
        Ok(())
    }
}
