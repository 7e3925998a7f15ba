//! What: a product on a GPU, made of the codes of a host format.
//! Source: none; the launchers of `cuda-kernels::linear`.
//! Shapes: x `[rows, in]` → y `[rows, out]`, both in device memory; in host memory they are copied there and back.
//! Method: 1. the host format gives its codes once; 2. each call is the launches of the kernel.
//! Exactness: that of the kernel; dequantised weights and int8 grids are the host format's. Kernels of 16 and 4 bits round
//! their inputs to 16 bits, and say so: `on` gives the processor's statement of the same product.
//! Cost: the codes stay in host memory too: oracles and tables read them there.
//! Not handled: codes without a kernel, which are refused by name.

use std::sync::Arc;

use cpu_kernels::{PackedBf16, PackedCodebook, PackedF16, PackedF32, PackedGroup, PackedGroupInt8, PackedInt8};
use cuda_kernels::linear::{Bf16Weights, DeviceLinear, F16Weights, F32Weights, Group4Weights, GroupCodes, Int8Weights};
use cuda_kernels::{Gpu, GpuError};
use half::{bf16, f16};
use model::{Activations, Cuda, Device, Int8Inputs, Linear};

use super::half_input::{HalfInput, Sixteen};

/// The format.
pub(crate) struct CudaLinear {
    cuda: Arc<Cuda>,
    weights: Box<dyn DeviceLinear>,
    kernel: Kernel,
    host: Box<dyn Linear>,
}

/// What a kernel does beside its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    /// Its name in frames.
    name: &'static str,
    /// What it rounds inputs to, where that is a float.
    inputs: Option<Sixteen>,
}

impl CudaLinear {
    /// `weights` on `cuda`, which are those of `host`.
    pub(crate) fn boxed(
        cuda: &Arc<Cuda>,
        weights: Box<dyn DeviceLinear>,
        kernel: Kernel,
        host: Box<dyn Linear>,
    ) -> Box<dyn Linear> {
        Box::new(CudaLinear { cuda: cuda.clone(), weights, kernel, host })
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
        if x.is_on_device() {
            return self.cuda.run(|| {
                let y = y.reshape_on(&self.cuda, rows, n)?;
                self.cuda.product(&*self.weights, x.buffer()?, rows, y)
            });
        }
        // a device that fails must not leave numbers that look like a result
        y.reshape(rows, n);
        y.as_mut_slice().fill(f32::NAN);
        self.cuda.run(|| {
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
        match self.kernel.inputs {
            Some(inputs) => Some(Box::new(HalfInput::of(&*self.host, inputs, device))),
            None => self.host.on(device),
        }
    }

    fn rounded_inputs(&self, x: &Activations) -> Option<Activations> {
        match self.kernel.inputs {
            Some(inputs) => Some(inputs.rounded(x)),
            None => self.host.rounded_inputs(x),
        }
    }

    fn kernel_name(&self) -> String {
        self.kernel.name.into()
    }
}

/// Weights in device memory, and the kernel that reads them.
pub(crate) type Placed = (Box<dyn DeviceLinear>, Kernel);

/// Packed kernels of the host, some of whose codes kernels on a GPU read.
pub(crate) trait OnCuda {
    /// The same codes in device memory and their kernel; `None` where no kernel reads them.
    fn upload(&self, gpu: &Gpu) -> Result<Option<Placed>, GpuError> {
        let _ = gpu;
        Ok(None)
    }
}

impl OnCuda for PackedCodebook {}
impl OnCuda for PackedGroupInt8 {}

impl OnCuda for PackedF32 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<Placed>, GpuError> {
        Ok(Some((
            Box::new(F32Weights::upload(gpu, &self.unpack(), self.n(), self.k())?),
            Kernel { name: "f32_rows", inputs: None },
        )))
    }
}

impl OnCuda for PackedF16 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<Placed>, GpuError> {
        let bits: Vec<u16> = self.unpack().into_iter().map(|w| f16::from_f32(w).to_bits()).collect();
        Ok(Some((
            Box::new(F16Weights::upload(gpu, &bits, self.n(), self.k())?),
            Kernel { name: "f16_tiles", inputs: Some(Sixteen::F16) },
        )))
    }
}

impl OnCuda for PackedBf16 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<Placed>, GpuError> {
        let bits: Vec<u16> = self.unpack().into_iter().map(|w| bf16::from_f32(w).to_bits()).collect();
        Ok(Some((
            Box::new(Bf16Weights::upload(gpu, &bits, self.n(), self.k())?),
            Kernel { name: "bf16_tiles", inputs: Some(Sixteen::Bf16) },
        )))
    }
}

impl OnCuda for PackedInt8 {
    fn upload(&self, gpu: &Gpu) -> Result<Option<Placed>, GpuError> {
        let (codes, scales) = self.codes();
        Ok(Some((
            Box::new(Int8Weights::upload(gpu, &codes, &scales, self.n(), self.k())?),
            Kernel { name: "int8_tiles", inputs: None },
        )))
    }
}

impl OnCuda for PackedGroup {
    fn upload(&self, gpu: &Gpu) -> Result<Option<Placed>, GpuError> {
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
        Ok(Some((
            Box::new(Group4Weights::upload(gpu, &source)?),
            Kernel { name: "group4_tiles", inputs: Some(Sixteen::F16) },
        )))
    }
}
