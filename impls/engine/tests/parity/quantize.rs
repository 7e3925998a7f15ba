//! A folder that was quantized and written reads back as the model that was quantized in memory, bit for bit.

use engine::quantize::{
    CheckpointFormat, FolderWriter, QuantizeOptions, QuantizeOutcome, WrittenFolder, quantize_layers,
};
use weights::{GptqSpec, GroupSpec};

use super::*;

const GPTQ: CheckpointFormat = CheckpointFormat::Gptq { v2: false };

fn halved(path: &Path) -> Checkpoint {
    open(path).with_half_tables()
}

fn windows(checkpoint: &Checkpoint) -> Vec<Vec<TokenId>> {
    let vocab = checkpoint.architecture.vocab_size as u32;
    (0..6u32).map(|w| (0..40).map(|i| TokenId((w * 97 + i * i * 31 + i * 7) % vocab)).collect()).collect()
}

fn write(
    checkpoint: &Checkpoint,
    weights: &WeightsSpec,
    format: CheckpointFormat,
    target: &Path,
    shard_bytes: u64,
) -> Result<(WrittenFolder, QuantizeOutcome), EngineError> {
    let windows = windows(checkpoint);
    let mut writer = FolderWriter::new(checkpoint, weights, format, target, shard_bytes)?;
    let options = QuantizeOptions { weights, calibration: &windows, scored: &windows[..2], progress: &mut |_, _| {} };
    let outcome = quantize_layers(checkpoint, &device(Isa::best(), 2), options, &mut |layer| writer.layer(layer))?;
    writer.finish(&checkpoint.side_files(&Library { embedded: &[], hub: &NoHub })?)?;
    assert!(!target.exists(), "no folder before it is whole");
    let sealed = writer.seal()?;
    Ok((sealed.publish()?, outcome))
}

fn nll(engine: &Engine, windows: &[Vec<TokenId>]) -> f64 {
    let surprise = |row: &[f32], target: TokenId| {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = row.iter().map(|&v| f64::from(v - most).exp()).sum();
        total.ln() + f64::from(most) - f64::from(row[target.0 as usize])
    };
    let one = |window: &Vec<TokenId>| {
        let logits = logits(engine, window);
        (1..window.len()).map(|i| surprise(logits.row(i - 1), window[i])).sum::<f64>()
    };
    windows.iter().map(one).sum()
}

#[test]
fn written_folders_read_back_bit_for_bit() {
    let gptq = |bits, group| GptqSpec::new(bits, group);
    let act_order = GptqSpec { act_order: true, ..gptq(4, Some(32)) };
    let rtn = GroupSpec::new(4, Some(32));
    let cases = [
        ("llama-mha", WeightsSpec::Gptq(gptq(4, Some(32))), GPTQ, 1 << 30),
        ("llama-mha", WeightsSpec::Gptq(act_order), GPTQ, 30_000),
        (
            "llama-mha",
            WeightsSpec::Gptq(GptqSpec { static_groups: true, group: Some(16), ..act_order }),
            CheckpointFormat::Awq,
            1 << 30,
        ),
        ("llama-gptq-4bit-g32", WeightsSpec::Gptq(gptq(3, None)), GPTQ, 1 << 30),
        ("llama-mha", WeightsSpec::Rtn(GroupSpec { symmetric: true, ..GroupSpec::new(8, Some(16)) }), GPTQ, 1 << 30),
        ("mistral-swa", WeightsSpec::Gptq(gptq(2, Some(16))), CheckpointFormat::Gptq { v2: true }, 50_000),
        ("mixtral", WeightsSpec::Rtn(GroupSpec::new(4, Some(16))), CheckpointFormat::Awq, 1 << 30),
        ("gpt2", WeightsSpec::Gptq(gptq(4, Some(16))), GPTQ, 1 << 30),
        ("gpt-neox", WeightsSpec::Rtn(rtn), GPTQ, 1 << 30),
        ("opt", WeightsSpec::Rtn(GroupSpec::new(4, None)), CheckpointFormat::Awq, 1 << 30),
    ];
    let folders = tempfile::tempdir().unwrap();
    let attention = AttentionSpec::all().into_iter().find(|a| a.tag() == "flash").unwrap();
    for (i, (family, weights, format, shard_bytes)) in cases.into_iter().enumerate() {
        let what = format!("{family}, {}, {format:?}", weights.tag());
        let checkpoint = halved(&folder(family));
        let target = folders.path().join(i.to_string());
        let (written, outcome) =
            write(&checkpoint, &weights, format, &target, shard_bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(written.files.len() > 1, shard_bytes < 1 << 20, "{what}: {:?}", written.files);
        let device = device(Isa::best(), 2);
        let calibration = windows(&checkpoint);
        let options = BuildOptions { context_tokens: 64, calibration: &calibration, progress: &mut |_, _| {} };
        let memory =
            Engine::build(&spec(attention.clone(), weights.clone()), &checkpoint, None, &device, options).unwrap();
        let stored = build(&open(&target), &spec(attention.clone(), WeightsSpec::Stored), &device);
        let [read, made] = [&stored, &memory].map(|engine| logits(engine, &calibration[3]));
        assert!(read.as_slice() == made.as_slice(), "{what}: other bits than in memory");
        let likelihood = outcome.likelihood.unwrap();
        assert!((likelihood.nll_after - nll(&memory, &calibration[..2])).abs() < 1e-6, "{what}");
        let before = build(&checkpoint, &spec(attention.clone(), WeightsSpec::F32), &device);
        assert!((likelihood.nll_before - nll(&before, &calibration[..2])).abs() < 1e-2, "{what}");
        for error in &outcome.errors {
            let nearest = error.round_to_nearest.unwrap_or(error.error);
            assert!(error.error > 0.0 && error.error <= 1.2 * nearest, "{what}: {error:?}");
        }
        let bits = written.quantized_bytes as f64 * 8.0 / written.quantized_weights as f64;
        assert!(bits < weights.bits_per_weight() + 5.0, "{what}: {bits} bits per weight");
        assert_eq!(open(&target).tokenizer.is_some(), checkpoint.tokenizer.is_some(), "{what}");
    }
}

#[test]
fn f16_folders_hold_the_rounded_values_of_any_method() {
    let folders = tempfile::tempdir().unwrap();
    let (checkpoint, target) = (halved(&folder("gpt2")), folders.path().join("new"));
    let int8: WeightsSpec = serde_json::from_value(serde_json::json!({ "kind": "int8" })).unwrap();
    write(&checkpoint, &int8, CheckpointFormat::F16, &target, 1 << 30).unwrap();
    let device = device(Isa::best(), 1);
    let int8 = build(&checkpoint, &spec(AttentionSpec::Naive, int8), &device);
    let plain = build(&open(&target), &spec(AttentionSpec::Naive, WeightsSpec::F32), &device);
    for (int8, plain) in int8.target.linears().zip(plain.target.linears()) {
        for (a, b) in int8.dequantised().iter().zip(plain.dequantised()) {
            assert!((a - b).abs() <= 5e-4 * a.abs() + 1e-7, "{a} against {b}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_any_work() {
    let folders = tempfile::tempdir().unwrap();
    let target = folders.path().join("new");
    let checkpoint = halved(&folder("llama-mha"));
    let refusal = |weights: &WeightsSpec, format, target: &Path| {
        let error = FolderWriter::new(&checkpoint, weights, format, target, 1 << 30).err().unwrap().to_string();
        assert!(!folders.path().join("new").exists());
        error
    };
    let gptq = |bits| WeightsSpec::Gptq(GptqSpec::new(bits, Some(32)));
    assert!(refusal(&gptq(3), CheckpointFormat::Awq, &target).contains("--bits 4"));
    assert!(refusal(&WeightsSpec::Mxfp4, GPTQ, &target).contains("--format safetensors"));
    assert!(refusal(&gptq(4), GPTQ, folders.path()).contains("exists already"));
    let act_order = WeightsSpec::Gptq(GptqSpec { act_order: true, ..GptqSpec::new(4, Some(32)) });
    assert!(refusal(&act_order, CheckpointFormat::Awq, &target).contains("--act-order"));
    // a folder of another's under the preliminary name is left alone; one of ours is replaced
    let partial = folders.path().join("new.unfinished");
    std::fs::create_dir(&partial).unwrap();
    assert!(refusal(&gptq(4), GPTQ, &target).contains("not ours"));
    std::fs::remove_dir(&partial).unwrap();
    let spec = gptq(4);
    let writer = || FolderWriter::new(&checkpoint, &spec, GPTQ, &target, 1 << 30).unwrap_or_else(|e| panic!("{e}"));
    drop(writer());
    assert!(partial.exists() && !target.exists(), "a run that was stopped leaves no finished folder");
    writer().abandon();
    assert!(!partial.exists());
}
