//! `EngineSpec`: one part per axis. A scenario embeds it; frames print its tags.

use std::sync::Arc;

use attention::AttentionSpec;
use cpu_kernels::{Cpu, Isa};
use cuda_kernels::{Arch, Gpu, GpuError, Nvrtc};
use decoding::DecodingSpec;
use kv_cache::KvSpec;
use model::{Cuda, Device, Unsupported};
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
    /// A CUDA device.
    Cuda(CudaSpec),
}

/// CUDA device: which, or the emulator that executes the same kernels on this processor, thread by thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaSpec {
    /// Number of the device.
    #[serde(skip_serializing_if = "is_default")]
    pub ordinal: usize,
    /// No device: results are those of the kernels, times say nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub emulate: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What emulated kernels are compiled for: every kernel runs there.
const EMULATED: Arch = Arch::Sm90a;

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
    /// Opens the device with `threads` worker threads on the processor, which prepares what a GPU computes with.
    pub fn open(&self, threads: usize) -> Result<Device, EngineError> {
        let isa = match self {
            DeviceSpec::Cpu(spec) => spec.isa.map(IsaName::isa),
            DeviceSpec::Cuda(_) => None,
        };
        let cpu = Cpu::new(isa, threads).map_err(|e| unsupported_device(&self.tag(), e.to_string()))?;
        let cpu = Arc::new(cpu);
        match self {
            DeviceSpec::Cpu(_) => Ok(Device::Cpu(cpu)),
            DeviceSpec::Cuda(spec) => {
                let gpu = spec.open().map_err(|e| unsupported_device(&self.tag(), e.to_string()))?;
                Ok(Device::Cuda(Arc::new(Cuda::new(gpu, cpu))))
            }
        }
    }

    /// Name in frames: `cpu` (best), `cpu-avx2` (pinned), `cuda`, `cuda-1` (the second), `cuda-emulated`.
    pub fn tag(&self) -> String {
        match self {
            DeviceSpec::Cpu(CpuSpec { isa: None }) => "cpu".into(),
            DeviceSpec::Cpu(CpuSpec { isa: Some(isa) }) => format!("cpu-{}", isa.isa().name()),
            DeviceSpec::Cuda(CudaSpec { emulate: true, .. }) => "cuda-emulated".into(),
            DeviceSpec::Cuda(CudaSpec { ordinal: 0, .. }) => "cuda".into(),
            DeviceSpec::Cuda(CudaSpec { ordinal, .. }) => format!("cuda-{ordinal}"),
        }
    }

    /// Whether it is a GPU and not an emulated one.
    pub fn is_gpu(&self) -> bool {
        matches!(self, DeviceSpec::Cuda(CudaSpec { emulate: false, .. }))
    }

    /// Whether the device is here and has what cells need of it. Takes nothing of it: a GPU is looked at and not opened.
    pub fn plan(&self) -> Result<(), Unsupported> {
        match self {
            DeviceSpec::Cpu(CpuSpec { isa: Some(isa) }) if !isa.isa().is_available() => {
                let has = Isa::available().iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
                Err(unsupported("device", &self.tag(), format!("this processor has {has}")))
            }
            DeviceSpec::Cpu(_) => Ok(()),
            DeviceSpec::Cuda(spec) => spec.probe().map_err(|e| unsupported("device", &self.tag(), e.to_string())),
        }
    }
}

impl CudaSpec {
    fn probe(&self) -> Result<(), GpuError> {
        Nvrtc::open()?;
        if self.emulate { Ok(()) } else { Gpu::probe(self.ordinal) }
    }

    fn open(&self) -> Result<Gpu, GpuError> {
        let nvrtc = Nvrtc::open()?;
        if self.emulate { Ok(Gpu::emulated(EMULATED, nvrtc)) } else { Gpu::open(self.ordinal, nvrtc) }
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
        self.device.plan().and_then(|()| self.plan_parts(facts))
    }

    /// The same where the device is known to be here: cells that share one ask for it once.
    pub fn plan_parts(&self, facts: PlanFacts) -> Result<(), Unsupported> {
        if let DeviceSpec::Cuda(_) = self.device {
            self.attention.plan_cuda()?;
            self.weights.plan_cuda()?;
            self.kv.on_cuda()?;
        }
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
