//! A GGUF file works wherever a folder works, and is written by two commands.

use crate::{infermark, printed, refused};

#[test]
fn a_file_is_written_and_used_as_a_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    printed(at, &["convert", "--model", "embedded:draft", "--type", "f32", "--output", "same.gguf"]);
    let logits = |model: &str| {
        printed(at, &["logits", "--model", model, "--tokens", "1,2,3", "--threads", "1", "--format", "json"])
    };
    let rows = |text: String| -> serde_json::Value { serde_json::from_str(&text).expect("JSON") };
    let (file, source) = (rows(logits("same.gguf")), rows(logits("embedded:draft")));
    assert_eq!(file, source, "f32 is the same model");
    printed(
        at,
        &["quantize", "--model", "same.gguf", "--method", "q4_0", "--format", "gguf", "--output", "small.gguf"],
    );
    let size = |name: &str| std::fs::metadata(at.join(name)).expect("written").len();
    assert!(3 * size("small.gguf") < size("same.gguf"));
    let text =
        ["generate", "--model", "small.gguf", "--weights", "stored", "--prompt", "It was", "--max-new-tokens", "4"];
    printed(at, &text);
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let wrong = refused(at, &["convert", "--model", "embedded:draft", "--type", "q9_9", "--output", "x.gguf"], 2);
    assert!(wrong.contains("q9_9") && wrong.contains("q4_0"), "{wrong}");
    let absent = refused(at, &["logits", "--model", "gone.gguf", "--tokens", "1"], 2);
    assert!(absent.contains("gone.gguf") && absent.contains("GGUF file"), "{absent}");
    std::fs::write(at.join("bad.gguf"), b"GGUF\x03\0\0\0").expect("written");
    let damaged = refused(at, &["logits", "--model", "bad.gguf", "--tokens", "1"], 3);
    assert!(damaged.contains("bad.gguf") && damaged.contains("beyond the end"), "{damaged}");
    infermark(at).args(["convert", "--model", "embedded:cipher-pre-norm", "--output", "m.gguf"]).assert().failure();
    assert!(!at.join("m.gguf").exists(), "an encoder-decoder has no name in llama.cpp");
}
