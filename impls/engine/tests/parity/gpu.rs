//! The decoder on an emulated GPU: the PTX of its kernels, executed thread by thread, against Hugging Face's logits and the CPU.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cuda_kernels::{Arch, Gpu, Nvrtc};
use model::Cuda;

use super::*;

/// One device for all tests here, so that a kernel is compiled once; one test at a time, because a recording takes what
/// anybody launches.
fn gpu() -> Option<(MutexGuard<'static, ()>, Device)> {
    static TURN: Mutex<()> = Mutex::new(());
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = || match Nvrtc::open() {
        Ok(nvrtc) => {
            let host = Arc::new(Cpu::new(None, 1).unwrap());
            Some(Device::Cuda(Arc::new(Cuda::new(Gpu::emulated(Arch::Sm90a, nvrtc), host))))
        }
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    };
    DEVICE.get_or_init(open).clone().map(|device| (turn, device))
}

fn flash() -> AttentionSpec {
    AttentionSpec::Flash(attention::FlashSpec::default())
}

/// Prompts of one row, of a few, and of more than a tile.
fn short_prompts(expected: &Expected) -> Vec<(Vec<TokenId>, Vec<f32>, Vec<TokenId>)> {
    expected.prompts().into_iter().filter(|(tokens, ..)| tokens.len() <= 33).collect()
}

/// Families that differ in what kernels see: groups of heads, biases, layer norms, learned positions, windows, partial and
/// interleaved rotation, norms of queries, caps, scales, parallel residuals.
const FAMILIES: &[&str] = &["llama-mha", "llama3-gqa", "qwen2", "gpt2", "mistral-swa"];

#[test]
fn logits_of_a_prefill_agree() {
    let Some((_turn, device)) = gpu() else { return };
    for family in FAMILIES {
        let (expected, checkpoint) = (Expected::read(family), open(&folder(family)));
        let engine = build(&checkpoint, &spec(flash(), WeightsSpec::F32), &device);
        for (tokens, want, _) in short_prompts(&expected) {
            let what = format!("{family}, {} tokens on {}", tokens.len(), device.name());
            expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
        }
    }
}
