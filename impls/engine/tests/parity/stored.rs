//! Already quantized checkpoints run on their stored codes, and say what they cannot be.

use super::*;

/// Fixtures whose matrices are codes, and the kernel that the codes run on where one holds them.
const QUANTIZED: &[(&str, &str)] = &[
    ("llama-gptq-4bit-g32", "group4"),
    ("llama-awq-gemm-g32", "group4"),
    ("gptq-actorder-v2", "group4"),
    ("gptq-3bit", "group3"),
    ("gptq-2bit-short-group", "group2"),
    ("gptq-8bit-head", "group8"),
    ("gptq-gpt2", "group4"),
    ("awq-qwen2-skipped", "group4"),
    ("nf4", "codebook"),
    ("nf4-double", "codebook"),
    ("fp4-crossing", ""),
    ("int8", ""),
];

#[test]
fn stored_codes_give_the_logits_of_their_values() {
    for (family, kernel) in QUANTIZED {
        let (expected, checkpoint) = (Expected::read(family), open(&folder(family)));
        for isa in Isa::available() {
            let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::Stored), &device(isa, 2));
            assert!(engine.kernel_path().contains(kernel), "{family}: {}", engine.kernel_path());
            for (tokens, want, _) in expected.prompts() {
                let what = format!("{family} stored, {}, {} tokens", isa.name(), tokens.len());
                expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
            }
        }
        let wide = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(Isa::best(), 1));
        let narrow = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::Stored), &device(Isa::best(), 1));
        assert!(narrow.weight_bytes() <= wide.weight_bytes(), "{family}");
        // the codes stand for the values that every other kind sees
        for (stored, values) in narrow.target.linears().zip(wide.target.linears()) {
            assert_eq!(stored.dequantised(), values.dequantised(), "{family}");
        }
        let mut decoder = narrow.decoder().unwrap();
        let (prompt, _, greedy) = expected.prompts().swap_remove(1);
        let mut sequences = vec![Sequence::new(SeqId(0), prompt, greedy.len(), vec![], 0).unwrap()];
        while sequences[0].finished().is_none() {
            decoder.advance(&mut sequences).unwrap();
        }
        assert_eq!(sequences[0].generated(), greedy, "{family}");
    }
}

#[test]
fn shards_and_older_files_are_the_same_checkpoint() {
    for family in ["gptq-actorder-v2", "awq-qwen2-skipped", "nf4-double"] {
        let (expected, spec) = (Expected::read(family), spec(AttentionSpec::Naive, WeightsSpec::Stored));
        let (tokens, _, _) = expected.prompts().swap_remove(1);
        let of = |path: &Path| logits(&build(&open(path), &spec, &device(Isa::best(), 1)), &tokens);
        let whole = of(&folder(family));
        let shards = sharded(&folder(family));
        assert_eq!(of(shards.path()).as_slice(), whole.as_slice(), "{family}");
    }
    // as AutoGPTQ and AutoAWQ once wrote: own configuration files and names
    let older = tempfile::tempdir().unwrap();
    let cases = [
        (
            "llama-gptq-4bit-g32",
            "gptq_model-4bit-32g.safetensors",
            "quantize_config.json",
            r#"{"bits":4,"group_size":32,"damp_percent":0.01,"desc_act":false,"sym":true,"true_sequential":true,"model_name_or_path":null}"#,
        ),
        (
            "llama-awq-gemm-g32",
            "awq_model_w4_g32.safetensors",
            "quant_config.json",
            r#"{"zero_point":true,"q_group_size":32,"w_bit":4,"version":"GEMM"}"#,
        ),
    ];
    for (family, weights, file, text) in cases {
        let older = older.path().join(family);
        std::fs::create_dir(&older).unwrap();
        std::fs::copy(folder(family).join("model.safetensors"), older.join(weights)).unwrap();
        std::fs::write(older.join(file), text).unwrap();
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(folder(family).join("config.legacy.json")).unwrap()).unwrap();
        config.as_object_mut().unwrap().remove("quantization_config");
        std::fs::write(older.join("config.json"), config.to_string()).unwrap();
        let expected = Expected::read(family);
        let (tokens, want, _) = expected.prompts().swap_remove(2);
        let engine = build(&open(&older), &spec(AttentionSpec::Naive, WeightsSpec::Stored), &device(Isa::best(), 1));
        expected.assert_close(family, logits(&engine, &tokens).as_slice(), &want);
    }
}

/// What opening says after `change` of the configuration of `family`, its weights beside it.
fn refusal(family: &str, change: impl Fn(&mut Value)) -> String {
    let copy = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(folder(family).join("config.json")).unwrap()).unwrap();
    change(&mut config["quantization_config"]);
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(folder(family).join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    let library = Library { embedded: &[], hub: &NoHub };
    let checkpoint = match Checkpoint::open(&ModelSource::Folder(copy.path().into()), &library) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return error.to_string(),
    };
    let options = BuildOptions { context_tokens: 8, calibration: &[], progress: &mut |_, _| {} };
    let stored = spec(AttentionSpec::Naive, WeightsSpec::Stored);
    Engine::build(&stored, &checkpoint, None, &device(Isa::best(), 1), options).err().unwrap().to_string()
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    let gptq = "llama-gptq-4bit-g32";
    let cases: &[(&str, &str, Value, &[&str])] = &[
        (gptq, "quant_method", "hqq".into(), &["config.json", "quant_method", "hqq", "awq"]),
        (gptq, "bits", 5.into(), &["quantization_config.bits", "2, 3, 4, 8", "5"]),
        (gptq, "group_size", 0.into(), &["group_size", "-1"]),
        (gptq, "checkpoint_format", "marlin".into(), &["checkpoint_format", "marlin", "gptq_v2"]),
        (gptq, "dynamic", serde_json::json!({"+:.*up_proj": {"bits": 8}}), &["dynamic"]),
        (gptq, "pack_dtype", "int16".into(), &["pack_dtype", "int32"]),
        // the weights disagree
        (gptq, "bits", 8.into(), &["q_proj"]),
        (gptq, "bits", 3.into(), &["q_proj.qweight", "3 bits"]),
        (gptq, "group_size", 64.into(), &["q_proj.scales", "[2, 64]"]),
        ("llama-awq-gemm-g32", "version", "gemv".into(), &["version", "gemv", "gemm"]),
        ("llama-awq-gemm-g32", "bits", 3.into(), &["bits", "4"]),
        ("nf4", "llm_int8_has_fp16_weight", true.into(), &["llm_int8_has_fp16_weight"]),
    ];
    for (family, field, value, words) in cases {
        let error = refusal(family, |config| config[*field] = value.clone());
        assert!(words.iter().all(|word| error.contains(word)), "{family}, {field} = {value}: {error}");
    }
    let error = refusal("llama-awq-gemm-g32", |config| {
        *config = serde_json::json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true});
    });
    assert!(error.contains("qweight") || error.contains("scales"), "{error}");
}
