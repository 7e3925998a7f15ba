//! GGUF files that another tool wrote, against Hugging Face on the same (dequantised) weights.

use std::path::{Path, PathBuf};

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
