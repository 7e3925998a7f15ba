//! An encoder-decoder through the program: logits of both configs, greedy and beam translation, clear refusals.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{printed, refused};

const SOURCE: &str = "100,155,111,5,77,114,0";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../impls/engine/tests/fixtures").join(name)
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("ids").iter().filter_map(Value::as_u64).collect()
}

#[test]
fn logits_and_translations_come_from_either_config() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let marian = fixture("marian");
    for file in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(marian.join(file), place.path().join(file)).expect("copied");
    }
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(marian.join("expected.json")).expect("a file")).expect("JSON");
    let file = safetensors_bytes(&marian);
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("tensors");
    let want: Vec<f64> = tensors
        .tensor("p1.logits")
        .expect("p1")
        .data()
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    for config in ["config.json", "config.legacy.json"] {
        std::fs::copy(marian.join(config), place.path().join("config.json")).expect("copied");
        let model = ["--model", ".", "--encoder-tokens", SOURCE];
        let words = [&["logits"][..], &model, &["--tokens", "2,72,5,284,61,342,101", "--all", "--format", "json"]];
        let rows: Value = serde_json::from_str(&printed(place.path(), &words.concat())).expect("JSON");
        let rows = rows.as_array().expect("rows");
        assert_eq!(rows.len(), 7);
        let found = rows.iter().flat_map(|row| row["logits"].as_array().expect("logits"));
        for (found, want) in found.zip(&want) {
            let found = found.as_f64().expect("a number");
            assert!((found - want).abs() <= 1e-4 + 1e-4 * want.abs(), "{config}: {found} instead of {want}");
        }
        let words = [&["generate"][..], &model, &["--max-new-tokens", "24", "--json"]];
        let greedy: Value = serde_json::from_str(&printed(place.path(), &words.concat())).expect("JSON");
        assert_eq!(ids(&greedy["ids"]), ids(&expected["prompts"][1]["greedy_ids"]), "{config}");
        let words = [&words.concat()[..], &["--beams", "4"]].concat();
        let beams: Value = serde_json::from_str(&printed(place.path(), &words)).expect("JSON");
        let case = &expected["beam_search"]["cases"][0];
        for (found, want) in
            beams["hypotheses"].as_array().expect("a list").iter().zip(case["hypotheses"].as_array().expect("a list"))
        {
            assert_eq!(ids(&found["ids"]), ids(&want["ids"]), "{config}");
        }
        assert_eq!(beams["ids"], beams["hypotheses"][0]["ids"]);
    }
    let text: Value = serde_json::from_str(&printed(
        place.path(),
        &["generate", "--model", ".", "--prompt", "Hello world", "--max-new-tokens", "3", "--json"],
    ))
    .expect("JSON");
    assert_eq!(ids(&text["source_ids"]), [101, 27, 373, 8, 69, 227, 0]);
}

fn safetensors_bytes(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("expected.safetensors")).expect("a file")
}

#[test]
fn flags_of_the_other_kind_of_model_are_refused() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (marian, llama) = (fixture("marian"), fixture("llama-mha"));
    let (marian, llama) = (marian.to_str().expect("UTF-8"), llama.to_str().expect("UTF-8"));
    for (words, code, saying) in [
        (&["logits", "--model", marian, "--tokens", "2"][..], 2, "--encoder-tokens"),
        (&["logits", "--model", llama, "--tokens", "2", "--encoder-tokens", "5"], 2, "no encoder"),
        (&["logits", "--model", marian, "--tokens", "2", "--encoder-tokens", "384"], 2, "--encoder-tokens: 384"),
        (&["generate", "--model", marian, "--tokens", "2"], 2, "--encoder-tokens"),
        (&["generate", "--model", llama, "--encoder-tokens", "2"], 2, "no encoder"),
        (&["generate", "--model", marian, "--prompt", "x", "--beams", "0"], 2, "n_beams = 0"),
        (&["generate", "--model", marian, "--prompt", "x", "--decoding", "sampled", "--beams", "2"], 2, "no beams"),
        (&["generate", "--model", marian, "--prompt", "x", "--decoding", "speculative"], 2, "decoder-only"),
        (&["perplexity", "--model", marian], 3, "encoder-decoder"),
    ] {
        let said = refused(place.path(), words, code);
        assert!(said.contains(saying), "{words:?}: {said}");
    }
}
