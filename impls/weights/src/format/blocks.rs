//! What: blocks of ggml (Q4_0 … Q6_K) as they are stored; activations f32, or coded to int8 in blocks of 32 columns.
//! Source: the products of ggml's block formats; its K formats code activations 256 at a time, here it is 32.
//! Shapes: x `[rows, in]` → y `[rows, out]`; parts of different formats lie one below the other.
//! Method: f32: blocks are decoded in registers. int8: 1. per row and 32 columns: absmax/127 and codes of x, once for all parts.
//!   2. int32 dots of codes, scaled and summed in f32.
//! Exactness: f32: the weights are bit for bit ggml's. int8: equal bits on every instruction set; y is the product of both
//!   dequantised operands up to f32 rounding per block.
//! Cost: the nominal bits of each format; one pass over x to code it.
//! Not handled: formats of table codes (IQ…); on a GPU Q4_0 runs as groups, others as the f32 values that they stand for.

use std::sync::Arc;

use cpu_kernels::{BlockForm, BlockRow, Cpu, GroupCodes, PackedBlocks, PackedF32, PackedGroup};
use half::f16;
use model::checkpoint::gguf::BlockCodes;
use model::{Activations, Cuda, Device, Linear, PlacementError};

use super::{F32Linear, GroupLinear};

/// The format.
pub struct BlocksLinear {
    cpu: Arc<Cpu>,
    weight: Arc<PackedBlocks>,
    /// Where the codes came from, for devices that want them otherwise.
    source: Arc<[BlockCodes]>,
    int8: bool,
}

impl BlocksLinear {
    /// Multiplies with `weight`, packed from `source`, on `cpu`, with inputs coded to int8 where `int8`.
    pub fn new(cpu: Arc<Cpu>, weight: PackedBlocks, source: Vec<BlockCodes>, int8: bool) -> BlocksLinear {
        BlocksLinear { cpu, weight: Arc::new(weight), source: source.into(), int8 }
    }

    /// The codes as groups of 32, where all parts are Q4_0: scale·(code − 8).
    fn groups(&self) -> Option<GroupCodes> {
        const GROUP: usize = 32;
        if self.source.iter().any(|part| part.form() != BlockForm::Q4_0) {
            return None;
        }
        let (n, k) = (self.weight.n(), self.weight.k());
        let mut row = BlockRow::new(BlockForm::Q4_0, k);
        let (mut codes, mut scales) = (Vec::with_capacity(n * k), Vec::with_capacity(n * k / GROUP));
        for part in &*self.source {
            for i in 0..part.n() {
                part.fill(i, &mut row);
                codes.extend_from_slice(&row.codes);
                scales.extend(row.scales.iter().map(|&bits| f16::from_bits(bits).to_f32()));
            }
        }
        let zeros = vec![8.0; scales.len()];
        Some(GroupCodes { n, k, bits: 4, group: GROUP, codes, scales, zeros, order: None })
    }
}

impl Linear for BlocksLinear {
    fn in_features(&self) -> usize {
        self.weight.k()
    }

    fn out_features(&self) -> usize {
        self.weight.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        y.reshape(x.rows(), self.weight.n());
        let product = if self.int8 { PackedBlocks::forward_int8 } else { PackedBlocks::forward };
        product(&self.weight, &self.cpu, x.as_slice(), x.rows(), y.as_mut_slice());
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.weight.unpack()
    }

    fn is_int8(&self) -> bool {
        self.int8
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        let (weight, source) = (self.weight.clone(), self.source.clone());
        let same = || BlocksLinear { cpu: device.cpu().clone(), weight, source, int8: true };
        self.int8.then(|| Box::new(same()) as Box<dyn Linear>)
    }

    fn on_cuda(self: Box<Self>, cuda: &Arc<Cuda>) -> Result<Box<dyn Linear>, PlacementError> {
        if self.int8 {
            return Err(PlacementError::NoKernel(self.kernel_name()));
        }
        if let Some(codes) = self.groups() {
            return Box::new(GroupLinear::new(self.cpu.clone(), PackedGroup::from_codes(codes))).on_cuda(cuda);
        }
        let (n, k) = (self.weight.n(), self.weight.k());
        let plain = F32Linear::new(self.cpu.clone(), PackedF32::pack(&self.weight.unpack(), n, k));
        Box::new(plain).on_cuda(cuda)
    }

    fn rounded_inputs(&self, x: &Activations) -> Option<Activations> {
        let seen = || self.weight.coded_inputs(&self.cpu, x.as_slice(), x.rows());
        self.int8.then(|| Activations::from_vec(x.rows(), x.cols(), seen()))
    }

    fn kernel_name(&self) -> String {
        self.weight.kernel_name(&self.cpu, !self.int8)
    }
}
