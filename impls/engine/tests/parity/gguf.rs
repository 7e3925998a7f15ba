//! GGUF files that another tool wrote, against Hugging Face on the same (dequantised) weights.

use std::path::{Path, PathBuf};

use engine::Tokenizer;
use model::checkpoint::gguf::{Block, Types, Vocabulary, WriteError};

use super::*;

/// Where the files lie; `make_gguf.py` made them.
fn gguf_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf")
}

fn files() -> Vec<PathBuf> {
    let all = std::fs::read_dir(gguf_folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    assert!(files.len() > 15);
    files
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap().to_string_lossy().into_owned()
}

#[test]
fn logits_agree_with_unquantised_files() {
    for file in files().iter().filter(|file| !file.with_extension("safetensors").exists()) {
        let (expected, checkpoint) = (Expected::read(&stem(file)), open(file));
        let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(Isa::best(), 1));
        for (tokens, want, _) in expected.prompts() {
            let what = format!("{}, {} tokens", file.display(), tokens.len());
            expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
        }
    }
}

/// Checkpoints of the families that `make_gguf_families.py` made: name, the Hugging Face folder (made in `scratch`), the GGUF file.
fn families_of_llama_cpp(scratch: &Path) -> Vec<(String, PathBuf, PathBuf)> {
    let made = gguf_folder().join("families");
    let all = std::fs::read_dir(&made).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    assert!(files.len() > 20);
    let folder_of = |file: PathBuf| {
        let name = stem(&file);
        let source = scratch.join(&name);
        std::fs::create_dir(&source).unwrap();
        let own = file.with_extension("safetensors");
        let weights = if own.exists() { own } else { folder(&name).join("model.safetensors") };
        std::fs::copy(weights, source.join("model.safetensors")).unwrap();
        std::fs::copy(file.with_extension("json"), source.join("config.json")).unwrap();
        (name, source, file)
    };
    files.into_iter().map(folder_of).collect()
}

/// Largest |Δ| of the logits of `tokens`, and the largest logit.
fn apart(a: &Checkpoint, b: &Checkpoint, tokens: &[TokenId]) -> [f32; 2] {
    let of = |c: &Checkpoint| {
        let spec = spec(AttentionSpec::Naive, WeightsSpec::F32);
        logits(&build(c, &spec, &device(Isa::best(), 1)), tokens)
    };
    let (a, b) = (of(a), of(b));
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |most, v| most.max(v.abs()));
    let differences = &mut a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| a - b);
    [largest(differences), largest(&mut a.as_slice().iter().copied())]
}

#[test]
fn families_read_and_written_by_llama_cpps_names_are_those_of_hugging_face() {
    let scratch = tempfile::tempdir().unwrap();
    let tokens: Vec<TokenId> = (0..24).map(|i| TokenId((7 * i * i + 3 * i + 1) % 32)).collect();
    for (name, source, file) in families_of_llama_cpp(scratch.path()) {
        let (source, read) = (open(&source), open(&file));
        let again = scratch.path().join(format!("{name}.gguf"));
        let mut out = std::fs::File::create(&again).unwrap();
        source
            .write_gguf(&mut out, &name, Types::all(Block::F32), &mut |_, _| {})
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for (what, other) in [("read", read), ("written", open(&again))] {
            let [difference, most] = apart(&source, &other, &tokens);
            // a gain of a norm loses its last bit when one is added and taken away
            assert!(difference <= 2e-5 * most.max(1.0), "{name} {what}: {difference} of {most}");
        }
    }
}

#[test]
fn what_llama_cpp_has_no_architecture_for_is_refused_by_name() {
    for family in ["codegen", "opt"] {
        let source = open(&folder(family));
        let error = source.write_gguf(&mut vec![], family, Types::all(Block::F32), &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(family) && error.to_string().contains("no architecture"), "{error}");
    }
}

#[test]
fn logits_agree_with_dequantised_blocks() {
    let quantised: Vec<PathBuf> =
        files().into_iter().filter(|file| file.with_extension("safetensors").exists()).collect();
    assert!(quantised.len() >= 5);
    for file in quantised {
        let beside = file.with_extension("safetensors");
        let expected = SafeTensorsFile::new(&beside, Bytes::map(&beside).unwrap()).unwrap();
        let ids = expected.get("input_ids").unwrap().data.to_f32();
        let tokens: Vec<TokenId> = ids.iter().map(|id| TokenId(*id as u32)).collect();
        let want = expected.get("logits").unwrap().data.to_f32();
        let checkpoint = open(&file);
        let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(Isa::best(), 1));
        for (i, (a, e)) in logits(&engine, &tokens).as_slice().iter().zip(&want).enumerate() {
            assert!(
                (a - e).abs() <= 1e-4 + 1e-4 * e.abs(),
                "{}: logit {i} is {a}, transformers has {e}",
                file.display()
            );
        }
    }
}

#[test]
fn token_ids_are_those_of_the_tokenizer_it_came_from() {
    let mut compared = 0;
    for file in files() {
        let checkpoint = open(&file);
        let Some(tokenizer) = checkpoint.tokenizer else { continue };
        let expected = Expected::read(&stem(&file));
        for case in expected.json["tokenizer"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = |name: &str| -> Vec<TokenId> {
                case[name].as_array().unwrap().iter().map(|t| TokenId(t.as_u64().unwrap() as u32)).collect()
            };
            assert_eq!(tokenizer.encode(text).unwrap(), ids("ids"), "{}: {text:?}", file.display());
            assert_eq!(tokenizer.encode_with_special(text).unwrap(), ids("ids_with_special"), "{text:?}");
            compared += 1;
        }
    }
    assert!(compared > 20, "only {compared} texts");
}

/// Products with int8 activations are those of both dequantised operands, one row and many, on every instruction set.
#[test]
fn blocks_meet_int8_activations() {
    let mut forms = std::collections::BTreeSet::new();
    for name in ["llama3-gqa", "qwen2", "k-blocks"] {
        let checkpoint = open(&gguf_folder().join(format!("{name}.gguf")));
        for isa in Isa::available() {
            let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::StoredInt8), &device(isa, 2));
            for linear in engine.target.linears().filter(|linear| linear.is_int8()) {
                forms.insert(linear.kernel_name().split('_').take(2).collect::<Vec<_>>().join("_"));
                model::conformance::linear::check(linear, 2.0);
            }
        }
    }
    assert!(forms.len() >= 3, "{forms:?}");
}

#[test]
fn blocks_run_on_their_codes() {
    for (name, kernel) in [("llama3-gqa", "q4_0"), ("qwen2", "q8_0")] {
        let checkpoint = open(&gguf_folder().join(format!("{name}.gguf")));
        let of = |weights| build(&checkpoint, &spec(AttentionSpec::Naive, weights), &device(Isa::best(), 1));
        let (stored, wide) = (of(WeightsSpec::Stored), of(WeightsSpec::F32));
        assert!(stored.kernel_path().contains(kernel), "{name}: {}", stored.kernel_path());
        assert!(4 * stored.weight_bytes() < 2 * wide.weight_bytes(), "{name}");
        for (codes, values) in stored.target.linears().zip(wide.target.linears()) {
            assert_eq!(codes.dequantised(), values.dequantised(), "{name}");
        }
        let tokens: Vec<TokenId> = (3..30).map(TokenId).collect();
        for (a, e) in logits(&stored, &tokens).as_slice().iter().zip(logits(&wide, &tokens).as_slice()) {
            assert!((a - e).abs() <= 1e-4 + 1e-4 * e.abs(), "{name}: {a}, {e}");
        }
    }
}

#[test]
fn a_file_we_write_is_the_same_model() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut compared, mut inexpressible) = (0, vec![]);
    for family in families() {
        let (expected, source) = (Expected::read(&family), open(&folder(&family)));
        let file = scratch.path().join(format!("{family}.gguf"));
        let mut out = std::fs::File::create(&file).unwrap();
        match source.write_gguf(&mut out, &family, Types::all(Block::F32), &mut |_, _| {}) {
            Ok(()) => {}
            Err(EngineError::Gguf(WriteError::Inexpressible(_))) => {
                inexpressible.push(family);
                continue;
            }
            Err(error) => panic!("{family}: {error}"),
        }
        let written = open(&file);
        let spec = spec(AttentionSpec::Naive, WeightsSpec::F32);
        let engine = build(&written, &spec, &device(Isa::best(), 1));
        for (tokens, want, _) in expected.prompts() {
            let what = format!("{family} written, {} tokens", tokens.len());
            expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
        }
        compared += 1;
        for case in expected.json["tokenizer"].as_array().into_iter().flatten() {
            let text = case["text"].as_str().unwrap();
            let ids = |c: &Checkpoint| {
                let tokenizer = c.tokenizer.as_ref().unwrap();
                (tokenizer.encode(text).unwrap(), tokenizer.encode_with_special(text).unwrap())
            };
            assert_eq!(ids(&written), ids(&source), "{family}: {text:?}");
        }
    }
    assert!(compared >= 20, "only {compared}; {inexpressible:?}");
}

#[test]
fn every_cut_is_llama_cpps() {
    let file = gguf_folder().join("cuts.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let texts = |name: &str| -> Vec<String> {
        json[name].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_string()).collect()
    };
    let from = model::checkpoint::gguf::open_gguf(&gguf_folder().join("gpt2.gguf")).unwrap().vocabulary.unwrap();
    let (tokens, merges) = (texts("tokens"), texts("merges"));
    let plain = Vocabulary { tokens, merges, kinds: vec![], bos: Some(0), eos: Some(0), ..from };
    for (pre, ids) in json["ids"].as_object().unwrap() {
        let vocabulary = Vocabulary { pre: Some(pre.clone()), ..plain.clone() };
        let tokenizer = Tokenizer::from_gguf(&file, &vocabulary, plain.tokens.len()).unwrap();
        // llama.cpp takes every letter beyond a-z for a capital here; the tokenizers that the names stand for do not
        let loose = ["tekken", "gpt-4o"].contains(&pre.as_str());
        for (text, want) in texts("texts").iter().zip(ids.as_array().unwrap()) {
            if loose && text.contains('é') {
                continue;
            }
            let got: Vec<u32> = tokenizer.encode(text).unwrap().iter().map(|id| id.0).collect();
            let want: Vec<u32> = want.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(got, want, "{pre}: {text:?}");
        }
    }
}
