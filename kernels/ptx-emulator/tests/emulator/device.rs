//! A device with values in and out.

use ptx_emulator::{Counts, Fault, Launch, Memory, Module, launch};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Memory and a module.
pub struct Device {
    pub memory: Memory,
    pub module: Module,
}

impl Device {
    pub fn new(ptx: &str) -> Device {
        Device { memory: Memory::new(), module: Module::parse(ptx).unwrap_or_else(|error| panic!("{error}")) }
    }

    pub fn floats(&mut self, values: &[f32]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    pub fn halves(&mut self, values: &[u16]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let at = self.memory.alloc(bytes.len());
        self.memory.write(at, bytes).expect("it was just allocated");
        at
    }

    pub fn read_floats(&self, at: u64, count: usize) -> Vec<f32> {
        self.read_words(at, count).into_iter().map(f32::from_bits).collect()
    }

    pub fn read_words(&self, at: u64, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; count * 4];
        self.memory.read(at, &mut bytes).unwrap_or_else(|fault| panic!("{fault}"));
        bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes"))).collect()
    }

    pub fn run(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        args: &[Vec<u8>],
    ) -> Result<Counts, Fault> {
        launch(&self.module, &mut self.memory, &Launch { kernel, grid, block, shared_bytes, args })
    }
}

/// Parameter bytes.
pub fn pointer(address: u64) -> Vec<u8> {
    address.to_le_bytes().to_vec()
}

pub fn int(value: i32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Values in −1..1.
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// bfloat16 bits by truncation, and the value they stand for.
pub fn bf16(value: f32) -> (u16, f32) {
    let bits = (value.to_bits() >> 16) as u16;
    (bits, f32::from_bits((bits as u32) << 16))
}
