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

/// Hypotheses and scores of Hugging Face's `generate` (transformers 5.23, f32, one thread) on the fixture under other
/// generation configs; the start token is left out.
#[test]
fn generation_config_is_obeyed() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let marian = fixture("marian");
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(marian.join(file), place.path().join(file)).expect("copied");
    }
    let generate = |config: &str, more: &[&str]| {
        std::fs::write(place.path().join("generation_config.json"), config).expect("writable");
        let words = ["generate", "--model", ".", "--encoder-tokens", SOURCE, "--json"];
        serde_json::from_str::<Value>(&printed(place.path(), &[&words[..], more].concat())).expect("JSON")
    };
    let found = generate(
        r#"{"eos_token_id": 0, "num_beams": 4, "bad_words_ids": [[2], [72]], "forced_bos_token_id": 5, "forced_eos_token_id": 0,
            "max_length": 12, "length_penalty": 0.6, "early_stopping": true, "decoder_start_token_id": 2}"#,
        &[],
    );
    let hypotheses = found["hypotheses"].as_array().expect("a list");
    assert_eq!(ids(&hypotheses[0]["ids"]), [5, 27, 341, 89, 275, 341, 161, 164, 341, 161, 0]);
    assert_eq!(ids(&hypotheses[1]["ids"]), [5, 27, 341, 89, 275, 341, 161, 164, 231, 150, 0]);
    for (found, want) in hypotheses.iter().zip([-4.978_703, -5.006_557, -5.085_043, -5.098_010]) {
        assert!((found["score"].as_f64().expect("a number") - want).abs() < 1e-4, "{found} for {want}");
    }
    let banned = r#"{"eos_token_id": 0, "bad_words_ids": [[2], [72], [0]], "forced_bos_token_id": 5,
        "forced_eos_token_id": 0, "max_length": 12}"#;
    assert_eq!(ids(&generate(banned, &[])["ids"]), [5, 341, 275, 341, 169, 164, 231, 150, 341, 169, 0]);
    let two_ends = r#"{"eos_token_id": [0, 169], "num_beams": 3, "suppress_tokens": [341, 275], "max_new_tokens": 10}"#;
    let found = generate(two_ends, &[]);
    let hypotheses = found["hypotheses"].as_array().expect("a list");
    let want = [
        ([27, 276, 199, 246, 17, 72, 72, 72, 60, 72], -2.776_064),
        ([27, 276, 199, 246, 17, 72, 72, 60, 72, 60], -2.786_180),
        ([27, 276, 199, 246, 17, 72, 72, 60, 72, 169], -2.794_212),
    ];
    for (found, (tokens, score)) in hypotheses.iter().zip(want) {
        assert_eq!(ids(&found["ids"]), tokens);
        assert!((found["score"].as_f64().expect("a number") - score).abs() < 1e-4, "{found}");
    }
    // flags come first
    assert!(generate(two_ends, &["--beams", "1"])["hypotheses"].is_null());
    assert_eq!(ids(&generate(two_ends, &["--decoding", "greedy", "--max-new-tokens", "2"])["ids"]).len(), 2);
    std::fs::write(place.path().join("generation_config.json"), r#"{"diversity_penalty": 0.5}"#).expect("writable");
    let words = ["generate", "--model", ".", "--encoder-tokens", SOURCE];
    let said = refused(place.path(), &words, 2);
    assert!(said.contains("diversity_penalty") && said.contains("generation_config.json"), "{said}");
    // drawn tokens obey as well
    let drawn = ids(&generate(banned, &["--decoding", "sampled"])["ids"]);
    assert!(drawn[0] == 5 && drawn[1..].iter().all(|id| ![2, 72].contains(id)), "{drawn:?}");
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

#[test]
fn embedded_translators_translate_ids_and_have_no_text() {
    let place = tempfile::tempdir().expect("a temporary folder");
    for name in ["cipher-post-norm", "cipher-pre-norm"] {
        let model = format!("embedded:{name}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).join("held-out.json");
        let held_out: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("a file")).expect("JSON");
        let (source, target) = (ids(&held_out["pairs"][0]["source"]), ids(&held_out["pairs"][0]["target"]));
        let given = source.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let words = ["generate", "--model", &model, "--encoder-tokens", &given, "--json"];
        let found: Value = serde_json::from_str(&printed(place.path(), &words)).expect("JSON");
        assert_eq!((ids(&found["ids"]), &found["text"]), (target, &Value::Null), "{name}");
        let said = refused(place.path(), &["generate", "--model", &model, "--prompt", "x"], 2);
        assert!(said.contains("give token ids"), "{said}");
    }
}

#[test]
fn identities_run_on_encoder_decoders_and_timed_workloads_refuse_them() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let run = ["run", "translation", "--set", "budget.threads=1", "--output", "out", "--quiet"];
    assert!(printed(place.path(), &run).contains("transformer-translation: not-applicable-at-scale: 1.0"));
    let csv = printed(place.path(), &["export", "out", "--csv", "-"]);
    for metric in ["greedy_score", "beam_steps", "max_logit_difference", "batched_logit_difference"] {
        assert!(csv.contains(metric), "{metric}");
    }
    let timed = "name = \"timed\"\nquestion = \"q\"\n[model]\nsource = \"embedded:cipher-pre-norm\"\n\
                 [budget]\nmeasure_machine = false\n[[workload]]\nkind = \"decode\"\ntokens = 4\n";
    std::fs::write(place.path().join("timed.toml"), timed).expect("writable");
    let said = infermark_output(place.path(), &["run", "timed.toml", "--no-report"]);
    assert!(said.contains("encoder-decoder"), "{said}");
}

/// Everything that a command line prints, however it ends.
fn infermark_output(folder: &Path, words: &[&str]) -> String {
    let output = crate::infermark(folder).args(words).output().expect("it runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
