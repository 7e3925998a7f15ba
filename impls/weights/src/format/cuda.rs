//! What: a product on a GPU, made of the codes of a host format.
//! Source: none; the launchers of `cuda-kernels::linear`.
//! Shapes: x `[rows, in]` → y `[rows, out]`, both in device memory; in host memory they are copied there and back.
//! Method: 1. the host format gives its codes once; 2. each call is the launches of the kernel.
//! Exactness: that of the kernel; dequantised weights and int8 grids are the host format's.
//! Cost: the codes stay in host memory too: oracles and tables read them there.
//! Not handled: codes without a kernel, which are refused by name.

use std::sync::Arc;

use cpu_kernels::{PackedBf16, PackedCodebook, PackedF16, PackedF32, PackedGroup, PackedGroupInt8, PackedInt8};
use cuda_kernels::linear::{Bf16Weights, DeviceLinear, F16Weights, F32Weights, Group4Weights, GroupCodes, Int8Weights};
use cuda_kernels::{Gpu, GpuError};
use half::{bf16, f16};
use model::{Activations, Cuda, Device, Int8Inputs, Linear};

/// The format.
pub(crate) struct CudaLinear {
    cuda: Arc<Cuda>,
    weights: Box<dyn DeviceLinear>,
    name: &'static str,
    host: Box<dyn Linear>,
}

impl CudaLinear {
    /// `weights` on `cuda`, which are those of `host`; `name` is the kernel's.
    pub(crate) fn boxed(
        cuda: &Arc<Cuda>,
        weights: Box<dyn DeviceLinear>,
        name: &'static str,
        host: Box<dyn Linear>,
    ) -> Box<dyn Linear> {
        Box::new(CudaLinear { cuda: cuda.clone(), weights, name, host })
    }
}

impl Linear for CudaLinear {
    fn in_features(&self) -> usize {
        self.weights.k()
    }

    fn out_features(&self) -> usize {
        self.weights.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        let (rows, n) = (x.rows(), self.weights.n());
        self.cuda.run(|| {
            if x.is_on_device() {
                let y = y.reshape_on(&self.cuda, rows, n)?;
                return self.cuda.product(&*self.weights, x.buffer()?, rows, y);
            }
            let (mut from, mut to) = (Activations::default(), Activations::default());
            from.write_from(&self.cuda, x)?;
            let result = to.reshape_on(&self.cuda, rows, n)?;
            self.cuda.product(&*self.weights, from.buffer()?, rows, result)?;
            to.read_into(y)
        });
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.host.dequantised()
    }

    fn int8_inputs(&self) -> Option<Int8Inputs> {
        self.host.int8_inputs()
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        self.host.on(device)
    }

    fn kernel_name(&self) -> String {
        self.name.into()
    }
}

/// Packed kernels of the host, some of whose codes kernels on a GPU read.
pub(crate) trait OnCuda {
    /// The same codes in device memory and the name of their kernel; `None` where no kernel reads them.
    fn upload(&self, gpu: &Gpu) -> Result<Option<(Box<dyn DeviceLinear>, &'static str)>, GpuError> {
        let _ = gpu;
        Ok(None)
    }
}

impl OnCuda for PackedCodebook {}
impl OnCuda for PackedGroupInt8 {}

impl OnCuda for PackedF32 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<(Box<dyn DeviceLinear>, &'static str)>, GpuError> {
        Ok(Some((Box::new(F32Weights::upload(gpu, &self.unpack(), self.n(), self.k())?), "f32_rows")))
    }
}

impl OnCuda for PackedF16 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<(Box<dyn DeviceLinear>, &'static str)>, GpuError> {
        let bits: Vec<u16> = self.unpack().into_iter().map(|w| f16::from_f32(w).to_bits()).collect();
        Ok(Some((Box::new(F16Weights::upload(gpu, &bits, self.n(), self.k())?), "f16_tiles")))
    }
}

impl OnCuda for PackedBf16 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<(Box<dyn DeviceLinear>, &'static str)>, GpuError> {
        let bits: Vec<u16> = self.unpack().into_iter().map(|w| bf16::from_f32(w).to_bits()).collect();
        Ok(Some((Box::new(Bf16Weights::upload(gpu, &bits, self.n(), self.k())?), "bf16_tiles")))
    }
}

impl OnCuda for PackedInt8 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<(Box<dyn DeviceLinear>, &'static str)>, GpuError> {
        let (codes, scales) = self.codes();
        Ok(Some((Box::new(Int8Weights::upload(gpu, &codes, &scales, self.n(), self.k())?), "int8_tiles")))
    }
}

impl OnCuda for PackedGroup {
    fn upload(&self, gpu: &Gpu) -> Result<Option<(Box<dyn DeviceLinear>, &'static str)>, GpuError> {
        if self.bits() > 4 {
            return Ok(None);
        }
        let codes = self.codes();
        let source = GroupCodes {
            n: codes.n,
            k: codes.k,
            group: codes.group,
            codes: &codes.codes,
            scales: &codes.scales,
            zeros: &codes.zeros,
            order: codes.order.as_deref(),
        };
        Ok(Some((Box::new(Group4Weights::upload(gpu, &source)?), "group4_tiles")))
    }
}
