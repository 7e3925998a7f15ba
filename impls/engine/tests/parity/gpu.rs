//! The decoder on a GPU against Hugging Face's logits and the CPU: on a real one where there is one, else on the emulated one,
//! which executes the PTX of its kernels thread by thread.

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
            let nvrtc = nvrtc.with_cache(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
            let host = Arc::new(Cpu::new(None, 1).unwrap());
            let gpu = Gpu::open(0, nvrtc.clone()).unwrap_or_else(|_| Gpu::emulated(Arch::Sm90a, nvrtc));
            eprintln!("on {}", gpu.name());
            Some(Device::Cuda(Arc::new(Cuda::new(gpu, host))))
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

fn on(device: &Device, family: &str, spec: &EngineSpec) -> (Expected, Checkpoint, Engine) {
    let (expected, checkpoint) = (Expected::read(family), open(&folder(family)));
    let engine = build(&checkpoint, spec, device);
    (expected, checkpoint, engine)
}

/// What kernels see of a family: heads in groups, biases, layer norms, learned positions, windows.
const FAMILIES: &[&str] = &["llama-mha", "llama3-gqa", "qwen2", "gpt2", "mistral-swa"];

#[test]
fn logits_of_a_prefill_agree() {
    let Some((_turn, device)) = gpu() else { return };
    for family in FAMILIES {
        let (expected, _, engine) = on(&device, family, &spec(flash(), WeightsSpec::F32));
        for (tokens, want, _) in expected.prompts().into_iter().filter(|(tokens, ..)| tokens.len() <= 33) {
            let what = format!("{family}, {} tokens on {}", tokens.len(), device.name());
            expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
        }
    }
    // beyond the rows whose attention is split, and with one warp per row and head
    for (attention, tokens_at_least) in [(flash(), 100), (AttentionSpec::Naive, 33)] {
        let (expected, _, engine) = on(&device, "mistral-swa", &spec(attention, WeightsSpec::F32));
        let (tokens, want, _) =
            expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() >= tokens_at_least).unwrap();
        expected.assert_close(&engine.kernel_path(), logits(&engine, &tokens).as_slice(), &want);
    }
}

/// Every other family: partial and interleaved rotation, norms of queries, caps, scales, parallel residuals, odd widths. What
/// has no kernel is refused by name, before anything runs.
#[test]
fn logits_agree_in_every_family_or_it_is_refused() {
    let Some((_turn, device)) = gpu() else { return };
    let mut refused = vec![];
    for family in families().iter().filter(|family| !FAMILIES.contains(&&***family)) {
        let (expected, checkpoint) = (Expected::read(family), open(&folder(family)));
        let context_tokens = checkpoint.architecture.context_limit().min(64);
        let options = BuildOptions { context_tokens, calibration: &[], progress: &mut |_, _| {} };
        let engine = match Engine::build(&spec(flash(), WeightsSpec::F32), &checkpoint, None, &device, options) {
            Ok(engine) => engine,
            Err(e) => {
                assert!(matches!(e, EngineError::Unsupported(_)), "{family}: {e}");
                assert!(e.to_string().contains("no kernel on a GPU"), "{family}: {e}");
                refused.push(family.clone());
                continue;
            }
        };
        let (tokens, want, _) = expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() == 7).unwrap();
        expected.assert_close(family, logits(&engine, &tokens).as_slice(), &want);
    }
    let known = ["deepseek", "mixtral", "moe", "opt-post-norm"];
    let named = ["bloom", "mpt", "nemotron", "olmo"];
    refused.retain(|family| !known.iter().any(|part| family.contains(part)) && !named.contains(&&**family));
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn chunks_and_recorded_decoding_agree() {
    let Some((_turn, device)) = gpu() else { return };
    for (family, encoding) in [("llama3-gqa", "f32"), ("gpt2", "f32"), ("mistral-swa", "f16")] {
        let kv: KvSpec =
            serde_json::from_value(serde_json::json!({ "kind": "contiguous", "encoding": encoding })).unwrap();
        let (expected, _, engine) = on(&device, family, &EngineSpec { kv, ..spec(flash(), WeightsSpec::F32) });
        let (tokens, want, _) = expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() == 33).unwrap();
        let vocab = want.len() / tokens.len();
        for chunks in [vec![33], vec![7, 20, 6], [vec![9], vec![1; 24]].concat()] {
            let mut session = engine.session().unwrap();
            let (mut all, mut start) = (vec![], 0);
            for &chunk in &chunks {
                let step = Step::extend(SeqId(3), start, &tokens[start..start + chunk]).with_all_logits();
                all.extend_from_slice(session.forward(&step).unwrap().as_slice());
                start += chunk;
            }
            let what = format!("{family} in chunks of {chunks:?}");
            if encoding == "f32" {
                expected.assert_close(&what, &all, &want);
            } else {
                let (worst, largest) = worst_of(&all, &want);
                assert!(worst <= 2e-3 * largest, "{what}: {worst} of {largest}");
            }
            // of one-row passes the first runs, the second is recorded, and the others replay it
            let single = chunks.iter().filter(|&&chunk| chunk == 1).count() as u64;
            assert_eq!(session.graph_replays(), single.saturating_sub(2), "{what}");
            assert_eq!(all.len(), tokens.len() * vocab);
            // a suffix taken back and computed again is the same, bit for bit
            session.truncate(SeqId(3), 30);
            let step = Step::extend(SeqId(3), 30, &tokens[30..31]).with_all_logits();
            let again = session.forward(&step).unwrap().as_slice().to_vec();
            let (worst, largest) = worst_of(&again, &want[30 * vocab..31 * vocab]);
            assert!(worst <= 2e-3 * largest, "{what}: {worst} of {largest}");
        }
    }
}

fn worst_of(found: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(found.iter().all(|value| value.is_finite()));
    (worst, expected.iter().map(|value| value.abs()).fold(0.0, f32::max))
}

#[test]
fn greedy_continuations_of_a_batch_agree() {
    let Some((_turn, device)) = gpu() else { return };
    for family in ["llama-mha", "qwen2"] {
        let (expected, _, engine) = on(&device, family, &spec(flash(), WeightsSpec::F32));
        let mut decoder = engine.decoder().unwrap();
        let prompts: Vec<_> = expected.prompts().into_iter().filter(|(tokens, ..)| tokens.len() <= 33).collect();
        let sequence = |(i, p): (usize, &(Vec<TokenId>, _, Vec<TokenId>))| {
            Sequence::new(SeqId(i as u32), p.0.clone(), 12, vec![], 0)
        };
        let mut sequences: Vec<Sequence> = prompts.iter().enumerate().map(|p| sequence(p).unwrap()).collect();
        while sequences.iter().any(|s| s.finished().is_none()) {
            decoder.advance(&mut sequences).unwrap();
        }
        for (sequence, (_, _, greedy)) in sequences.iter().zip(&prompts) {
            assert_eq!(sequence.generated(), &greedy[..12], "{family}");
        }
    }
}

/// Few rows of any number, and a fork, give a row the bits that it has alone: verification is decoding.
#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let Some((_turn, device)) = gpu() else { return };
    for (weights, encoding) in [(WeightsSpec::F32, "f32"), (WeightsSpec::F16, "f32"), (WeightsSpec::F16, "f16")] {
        let kv: KvSpec =
            serde_json::from_value(serde_json::json!({ "kind": "contiguous", "encoding": encoding })).unwrap();
        let (expected, _, engine) = on(&device, "llama3-gqa", &EngineSpec { kv, ..spec(flash(), weights) });
        let (tokens, ..) = expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() == 33).unwrap();
        let mut session = engine.session().unwrap();
        session.forward(&Step::extend(SeqId(0), 0, &tokens[..20])).unwrap();
        assert!(session.fork(SeqId(0), SeqId(1)));
        let step = Step::extend(SeqId(0), 20, &tokens[20..25]).with_all_logits();
        let together = session.forward(&step).unwrap().as_slice().to_vec();
        let mut alone = vec![];
        for at in 20..25 {
            let step = Step::extend(SeqId(1), at, &tokens[at..at + 1]).with_all_logits();
            alone.extend_from_slice(session.forward(&step).unwrap().as_slice());
        }
        assert_eq!(together, alone);
        let both = [Step::extend(SeqId(0), 25, &tokens[25..26]), Step::extend(SeqId(1), 25, &tokens[25..26])];
        let both = session.forward(&Step::batch(&both)).unwrap();
        assert_eq!(both.row(0), both.row(1));
    }
}

/// A prompt beyond the rows whose attention is split, a chunk and single rows of other sequences in one pass are what each is alone.
#[test]
fn a_mixed_pass_is_its_parts() {
    let Some((_turn, device)) = gpu() else { return };
    for encoding in ["f16", "f32"] {
        let kv: KvSpec =
            serde_json::from_value(serde_json::json!({ "kind": "contiguous", "encoding": encoding })).unwrap();
        let (expected, _, engine) = on(&device, "mistral-swa", &EngineSpec { kv, ..spec(flash(), WeightsSpec::F32) });
        let (tokens, want, _) =
            expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() >= 100).expect("a long prompt");
        let vocab = want.len() / tokens.len();
        let mut session = engine.session().unwrap();
        // (cached tokens, rows) of each sequence
        let parts = [(0, 70), (9, 1), (30, 1), (12, 5)];
        for (sequence, &(cached, _)) in (0..).zip(&parts).filter(|(_, part)| part.0 > 0) {
            session.forward(&Step::extend(SeqId(sequence), 0, &tokens[..cached])).unwrap();
        }
        let steps: Vec<Step> = (0..)
            .zip(&parts)
            .map(|(seq, &(at, n))| Step::extend(SeqId(seq), at, &tokens[at..at + n]).with_all_logits())
            .collect();
        let found = session.forward(&Step::batch(&steps)).unwrap().as_slice().to_vec();
        let rows = parts.iter().flat_map(|&(at, n)| at..at + n);
        let want: Vec<f32> = rows.flat_map(|row| want[row * vocab..(row + 1) * vocab].to_vec()).collect();
        let (worst, largest) = worst_of(&found, &want);
        assert!(worst <= 2e-3 * largest, "{encoding}: {worst} of {largest}");
    }
}

/// Products of the model below: four per layer, and the head.
const PRODUCTS: f32 = 9.0;
/// Half a step of f16 and bf16 numbers, relative, and of int8 codes, of a row's largest value.
const HALF: f32 = 1.0 / 2048.0;
const BRAIN: f32 = 1.0 / 256.0;
const CODE: f32 = 1.0 / 254.0;

/// The same codes on the processor: what differs is the rounding of inputs, once per product, and the order of sums.
#[test]
fn weight_formats_agree_with_the_same_codes_on_the_processor() {
    let Some((_turn, device)) = gpu() else { return };
    let of = |text: serde_json::Value| serde_json::from_value::<WeightsSpec>(text).unwrap();
    let formats = [
        (WeightsSpec::F16, HALF),
        (WeightsSpec::Bf16, BRAIN),
        (of(serde_json::json!({ "kind": "int8" })), CODE),
        (of(serde_json::json!({ "kind": "rtn", "bits": 4, "group": 32 })), HALF),
        (of(serde_json::json!({ "kind": "rtn", "bits": 3, "group": 32, "symmetric": true })), HALF),
    ];
    for (weights, unit) in formats {
        let spec = spec(flash(), weights);
        let (expected, checkpoint, engine) = on(&device, "llama-mha", &spec);
        let on_host = build(&checkpoint, &spec, &device.host());
        let (tokens, ..) = expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() == 33).unwrap();
        let (found, want) = (logits(&engine, &tokens), logits(&on_host, &tokens));
        let (worst, largest) = worst_of(found.as_slice(), want.as_slice());
        let path = engine.kernel_path();
        assert!(worst <= PRODUCTS * unit * largest, "{path}: {worst} of {largest}");
        // the matrices are those of the processor, and a product takes rows of host memory too
        let (ours, theirs) = (engine.target.linears().next().unwrap(), on_host.target.linears().next().unwrap());
        assert_eq!(ours.dequantised(), theirs.dequantised(), "{path}");
        let k = ours.in_features();
        let x = Activations::from_vec(3, k, (0..3 * k).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect());
        let (mut a, mut b) = (Activations::default(), Activations::default());
        ours.forward(&x, &mut a);
        theirs.forward(&x, &mut b);
        let (worst, largest) = worst_of(a.as_slice(), b.as_slice());
        assert!(worst <= unit * largest, "{path}: {worst} of {largest}");
        // and it is exactly what it says: int8 sums to the bit, inputs rounded to 16 bits to the order of sums
        ours.on(&device.host()).unwrap().forward(&x, &mut b);
        let (worst, largest) = worst_of(a.as_slice(), b.as_slice());
        let allowed = if ours.is_int8() { 0.0 } else { 1e-5 * largest };
        assert!(worst <= allowed, "{path}: {worst} of {largest} from its own statement");
        model::conformance::linear::check(ours, 3.0);
    }
}

/// Codes chosen on calibration windows are those of the processor, because calibration runs there.
#[test]
fn calibrated_codes_are_those_of_the_processor() {
    let Some((_turn, device)) = gpu() else { return };
    let weights: WeightsSpec =
        serde_json::from_value(serde_json::json!({ "kind": "gptq", "bits": 4, "group": 32, "act_order": true }))
            .unwrap();
    let checkpoint = open(&folder("llama-mha"));
    let window: Vec<TokenId> = (0..48).map(|i| TokenId(i * 7 % 384)).collect();
    let built = |device: &Device| {
        let calibration = [window.clone()];
        let options = BuildOptions { context_tokens: 64, calibration: &calibration, progress: &mut |_, _| {} };
        Engine::build(&spec(flash(), weights.clone()), &checkpoint, None, device, options).unwrap()
    };
    let (ours, theirs) = (built(&device), built(&device.host()));
    for (a, b) in ours.target.linears().zip(theirs.target.linears()) {
        assert_eq!(a.dequantised(), b.dequantised());
    }
    let (worst, largest) = worst_of(logits(&ours, &window[..9]).as_slice(), logits(&theirs, &window[..9]).as_slice());
    assert!(worst <= PRODUCTS * HALF * largest, "{worst} of {largest}");
}

#[test]
fn what_has_no_kernel_is_refused_when_planned() {
    let facts = engine::PlanFacts { has_draft: false, random_weights: false };
    let cell = |change: &dyn Fn(&mut EngineSpec)| {
        let device = serde_json::from_value(serde_json::json!({ "kind": "cuda", "emulate": true })).unwrap();
        let mut spec = EngineSpec { device, ..spec(flash(), WeightsSpec::F32) };
        change(&mut spec);
        spec.plan(facts)
    };
    if let Err(e) = cell(&|_| {}) {
        assert!(e.reason.contains("NVRTC"), "{e}");
        eprintln!("skipped: {e}");
        return;
    }
    let flash_q16: AttentionSpec =
        serde_json::from_value(serde_json::json!({ "kind": "flash", "query_tile": 16 })).unwrap();
    let nf4: WeightsSpec = serde_json::from_value(serde_json::json!({ "kind": "nf4" })).unwrap();
    let int8_kv: KvSpec =
        serde_json::from_value(serde_json::json!({ "kind": "contiguous", "encoding": "int8" })).unwrap();
    for (axis, error) in [
        ("attention", cell(&|spec| spec.attention = flash_q16.clone())),
        ("weights", cell(&|spec| spec.weights = nf4.clone())),
        ("kv", cell(&|spec| spec.kv = int8_kv.clone())),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.axis, axis, "{error}");
        assert!(error.reason.contains("GPU"), "{error}");
    }
    // a device that is not there: its words, and no panic
    let missing: DeviceSpec = serde_json::from_value(serde_json::json!({ "kind": "cuda", "ordinal": 77 })).unwrap();
    assert_eq!(missing.tag(), "cuda-77");
    let error = EngineSpec { device: missing, ..spec(flash(), WeightsSpec::F32) }.plan(facts).unwrap_err();
    assert!(error.axis == "device" && error.reason.contains("no CUDA device"), "{error}");
}

/// A tree, or a Step that does not follow what is cached, gives an error and not numbers; the next sequence is well.
#[test]
fn steps_that_no_kernel_takes_are_errors() {
    let Some((_turn, device)) = gpu() else { return };
    let (expected, _, engine) = on(&device, "llama-mha", &spec(flash(), WeightsSpec::F32));
    let mut session = engine.session().unwrap();
    let (tokens, want, _) = expected.prompts().into_iter().find(|(tokens, ..)| tokens.len() == 7).unwrap();
    let tree = Step::tree(SeqId(0), 0, &tokens[..3], &[None, Some(0), Some(0)]).unwrap();
    let error = session.forward(&tree).unwrap_err();
    assert!(error.to_string().contains("trees have no kernel on a GPU"), "{error}");
    session.truncate(SeqId(0), 0);
    let error = session.forward(&Step::extend(SeqId(0), 4, &tokens[4..])).unwrap_err();
    assert!(error.to_string().contains("follow the cached entries"), "{error}");
    session.truncate(SeqId(0), 0);
    let step = Step::extend(SeqId(0), 0, &tokens).with_all_logits();
    expected.assert_close("after errors", session.forward(&step).unwrap().as_slice(), &want);
}
