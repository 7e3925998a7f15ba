//! Text in and out of the program: what begins and ends it, what a model's files ask for, conversations.

use std::path::Path;

use serde_json::{Value, json};

use crate::{infermark, printed, refused};

/// A small Llama whose tokenizer puts `<s>` before a text, with `files` beside it.
fn model(files: &[(&str, Value)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary folder");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../impls/engine/tests/fixtures/llama-mha");
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        std::fs::copy(fixture.join(file), place.path().join(file)).expect("copied");
    }
    for (name, value) in files {
        write(place.path(), name, value);
    }
    place
}

fn write(folder: &Path, name: &str, value: &Value) {
    let text = value.as_str().map_or_else(|| value.to_string(), String::from);
    std::fs::write(folder.join(name), text).expect("writable");
}

fn generate(folder: &Path, more: &[&str]) -> Value {
    let words = [&["generate", "--model", ".", "--json"][..], more].concat();
    serde_json::from_str(&printed(folder, &words)).expect("JSON")
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id")).collect()
}

/// The logits behind `tokens`, by the command that computes nothing else.
fn logits(folder: &Path, tokens: &[u64]) -> Vec<f64> {
    let given = tokens.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let words = ["logits", "--model", ".", "--tokens", &given, "--format", "json"];
    let rows: Value = serde_json::from_str(&printed(folder, &words)).expect("JSON");
    rows[0]["logits"].as_array().expect("logits").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn a_beginning_is_put_where_the_tokenizer_says_and_flags_win() {
    let place = model(&[]);
    let of = |bos: &str| {
        let words = ["tokenize", "--model", ".", "ab", "--json", "--bos", bos];
        let found: Value = serde_json::from_str(&printed(place.path(), &words)).expect("JSON");
        ids(&found["ids"])
    };
    let plain = of("never");
    let begun = [&[1][..], &plain].concat();
    assert_eq!((of("auto"), of("always")), (begun.clone(), begun.clone()));
    let prompt = |more: &[&str]| {
        let words = [&["--prompt", "ab", "--max-new-tokens", "1"][..], more].concat();
        ids(&generate(place.path(), &words)["prompt_ids"])
    };
    assert_eq!((prompt(&[]), prompt(&["--bos", "never"])), (begun.clone(), plain.clone()));
    // a tokenizer that puts nothing there; config.json knows the token all the same
    let file = place.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
    tokenizer["post_processor"] = Value::Null;
    write(place.path(), "tokenizer.json", &tokenizer);
    assert_eq!((of("auto"), of("always")), (plain, begun));
}

#[test]
fn perplexity_says_how_the_text_begins() {
    let place = model(&[("text.txt", json!("the cat sat on the mat and looked at it".repeat(9)))]);
    let score = |more: &[&str]| -> Value {
        let words = ["perplexity", "--model", ".", "--text", "text.txt", "--window", "16", "--json"];
        serde_json::from_str(&printed(place.path(), &[&words[..], more].concat())).expect("JSON")
    };
    let (auto, never) = (score(&[]), score(&["--bos", "never"]));
    assert_eq!(auto["beginning"], "auto: <s> before a text");
    assert_eq!(never["beginning"], "never: nothing is put around a text");
    assert_ne!(auto["perplexity"], never["perplexity"]);
    // each window begins with it, so its second half is scored behind it: by hand from the logits of one window
    let tokenize = ["tokenize", "--model", ".", "--ids", "--", "-"];
    let text = std::fs::read(place.path().join("text.txt")).expect("a text");
    let said = infermark(place.path()).args(tokenize).write_stdin(text).assert().success();
    let all = String::from_utf8(said.get_output().stdout.clone()).expect("UTF-8");
    let all: Vec<u64> = all.trim().split(',').map(|id| id.parse().expect("an id")).collect();
    let llamacpp = score(&["--rule", "llamacpp", "--max-tokens", "32"]);
    let mut nll = 0.0;
    for start in [0, 16] {
        let window = [&[1][..], &all[start + 1..start + 16]].concat();
        for target in 9..16 {
            let row = logits(place.path(), &window[..target]);
            let most = row.iter().copied().fold(f64::MIN, f64::max);
            let total = row.iter().map(|v| (v - most).exp()).sum::<f64>().ln() + most;
            nll += total - row[window[target] as usize];
        }
    }
    let found = llamacpp["nll_per_token"].as_f64().expect("a number");
    assert_eq!(llamacpp["scored_tokens"], 14);
    // logits are printed as f32, so each term is right within some 1e-6
    assert!((found - nll / 14.0).abs() < 1e-5, "{found} for {}", nll / 14.0);
    // a window longer than the model's is cut to it
    let said = infermark(place.path())
        .args([
            "perplexity",
            "--model",
            ".",
            "--window",
            "9999",
            "--text",
            "embedded:evaluation",
            "--max-tokens",
            "600",
        ])
        .assert()
        .success();
    let said = said.get_output();
    assert!(String::from_utf8_lossy(&said.stderr).contains("windows of 256 tokens instead of 9999"));
    assert!(String::from_utf8_lossy(&said.stdout).contains("gptq-256: 510 tokens in 2 windows"));
}

#[test]
fn a_text_ends_where_any_file_says_and_the_end_is_not_shown() {
    let place = model(&[("generation_config.json", json!({}))]);
    let prompt = ["--prompt", "ab", "--max-new-tokens", "6"];
    let whole = generate(place.path(), &prompt);
    let tokens = ids(&whole["ids"]);
    assert_eq!((tokens.len(), whole["finish"].as_str()), (6, Some("length")));
    let at = 3;
    let first = tokens.iter().position(|id| *id == tokens[at]).expect("it is there");
    // a list in generation_config.json stands beside the end of config.json
    write(place.path(), "generation_config.json", &json!({ "eos_token_id": [tokens[at], 383] }));
    let cut = generate(place.path(), &prompt);
    assert_eq!((ids(&cut["ids"]), cut["finish"].as_str()), (tokens[..=first].to_vec(), Some("end-token")));
    let shown = cut["text"].as_str().expect("a text");
    assert!(whole["text"].as_str().is_some_and(|text| text.starts_with(shown)));
    let plain = ["generate", "--model", ".", "--prompt", "ab", "--max-new-tokens", "6"];
    assert_eq!(printed(place.path(), &plain), format!("{shown}\n"));
    assert_eq!(ids(&generate(place.path(), &[&prompt[..], &["--ignore-eos"]].concat())["ids"]), tokens);
}

#[test]
fn what_the_makers_ask_for_is_done_and_flags_win() {
    let place = model(&[]);
    let prompt = [300, 301, 302];
    let words = ["--tokens", "300,301,302", "--max-new-tokens", "8", "--ignore-eos"];
    let plain = ids(&generate(place.path(), &words)["ids"]);
    // greedy with a penalty, by hand from the logits
    let config = json!({ "repetition_penalty": 1.8, "suppress_tokens": [plain[0]], "max_length": 7 });
    write(place.path(), "generation_config.json", &config);
    let mut tokens = prompt.to_vec();
    for _ in 0..8 {
        let mut scores = logits(place.path(), &tokens);
        let mut seen = tokens.clone();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            let score = &mut scores[token as usize];
            *score = if *score < 0.0 { *score * 1.8 } else { *score / 1.8 };
        }
        scores[plain[0] as usize] = f64::MIN;
        let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        tokens.push(best as u64);
    }
    assert_eq!(ids(&generate(place.path(), &words)["ids"]), tokens[3..]);
    // prompt and continuation together are as long as the file says, unless a flag says otherwise
    assert_eq!(ids(&generate(place.path(), &words[..2])["ids"]).len(), 4);
    let aside = [&words[..], &["--ignore-generation-config"]].concat();
    assert_eq!(ids(&generate(place.path(), &aside)["ids"]), plain);
    let penalty = [&words[..], &["--repetition-penalty", "1"]].concat();
    assert_ne!(ids(&generate(place.path(), &penalty)["ids"])[0], plain[0], "what is suppressed stays so");

    // drawn tokens: the seed counts, greedy wins
    write(place.path(), "generation_config.json", &json!({ "do_sample": true, "temperature": 3.0, "top_k": 0 }));
    let drawn = |seed: &str| ids(&generate(place.path(), &[&words[..], &["--seed", seed]].concat())["ids"]);
    assert_ne!(drawn("1"), drawn("2"));
    let greedy = [&words[..], &["--decoding", "greedy"]].concat();
    assert_eq!(ids(&generate(place.path(), &greedy)["ids"]), plain);
    let inside = |seed: u64| {
        let part = format!("{{ kind = \"sampled\", temperature = 3.0, seed = {seed} }}");
        ids(&generate(place.path(), &[&words[..], &["--decoding", &part]].concat())["ids"])
    };
    assert_eq!((inside(1), inside(2)), (drawn("1"), drawn("2")));
    let both =
        ["generate", "--model", ".", "--tokens", "1", "--seed", "4", "--decoding", "{ kind = \"sampled\", seed = 5 }"];
    assert!(refused(place.path(), &both, 2).contains("contradicts"));

    // what is not written is refused by its name
    write(place.path(), "generation_config.json", &json!({ "sequence_bias": [[[5], 1.0]] }));
    let said = refused(place.path(), &["generate", "--model", ".", "--tokens", "1"], 2);
    assert!(said.contains("sequence_bias") && said.contains("--ignore-generation-config"), "{said}");
}

#[test]
fn a_context_that_ends_keeps_its_text() {
    let place = model(&[]);
    let words = ["generate", "--model", ".", "--tokens", "300", "--max-new-tokens", "999", "--ignore-eos", "--json"];
    let said = infermark(place.path()).args(words).assert().success();
    let found: Value = serde_json::from_slice(&said.get_output().stdout).expect("JSON");
    // 256 positions: the prompt and 255 more are run, and the last gives one token more
    assert_eq!((ids(&found["ids"]).len(), found["finish"].as_str()), (256, Some("context")));
    let note = String::from_utf8_lossy(&said.get_output().stderr);
    assert!(note.contains("context of 256 positions is full") && note.contains("tok/s"), "{note}");
}

#[test]
fn a_conversation_is_written_by_the_models_template() {
    let template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let place =
        model(&[("tokenizer_config.json", json!({ "bos_token": "<s>" })), ("chat_template.jinja", json!(template))]);
    let ask = |more: &[&str]| {
        ids(&generate(place.path(), &[&["--chat", "--max-new-tokens", "1"][..], more].concat())["prompt_ids"])
    };
    let tokens = |text: &str| {
        let words = ["tokenize", "--model", ".", "--bos", "never", "--json", text];
        ids(&serde_json::from_str::<Value>(&printed(place.path(), &words)).expect("JSON")["ids"])
    };
    let expected = tokens("<s>[system]S[user]a[assistant]b[user]-c[assistant]");
    assert_eq!(expected[0], 1, "the template writes the beginning, and nobody else does");
    assert_eq!(ask(&["--system", "S", "--user", "a", "--assistant", "b", "--prompt", "-c"]), expected);
    write(
        place.path(),
        "m.json",
        &json!([
            { "role": "system", "content": "S" }, { "role": "user", "content": "a" },
            { "role": "assistant", "content": "b" }, { "role": "user", "content": "-c" }
        ]),
    );
    assert_eq!(ask(&["--messages", "m.json"]), expected);
    assert_eq!(
        ask(&["--user", "a", "--assistant", "b"]),
        tokens("<s>[user]a[assistant]b"),
        "the last answer is continued"
    );
    std::fs::remove_file(place.path().join("chat_template.jinja")).expect("it was there");
    let said = refused(place.path(), &["generate", "--model", ".", "--chat", "--prompt", "x"], 2);
    assert!(said.contains("chat template"), "{said}");
}

#[test]
fn a_stop_text_ends_and_is_left_out() {
    let place = model(&[]);
    let words = ["--tokens", "300,301", "--max-new-tokens", "24", "--ignore-eos"];
    let whole = generate(place.path(), &words);
    let text = whole["text"].as_str().expect("a text");
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    // three characters from the middle: tokens here are shorter or longer than that
    let (from, to) = (chars[chars.len() / 2].0, chars[chars.len() / 2 + 3].0);
    let stop = &text[from..to];
    let at = text.find(stop).expect("it is there");
    let cut = generate(place.path(), &[&words[..], &["--stop", "no such text", "--stop", stop]].concat());
    assert_eq!((cut["text"].as_str(), cut["finish"].as_str()), (Some(&text[..at]), Some("stop-text")));
    assert!(ids(&cut["ids"]).len() < 24);
}

#[test]
fn prompts_come_from_anywhere() {
    let place = model(&[]);
    let prompt = |text: &str| ids(&generate(place.path(), &["--prompt", text, "--max-new-tokens", "0"])["prompt_ids"]);
    let said = infermark(place.path())
        .args(["generate", "--model", ".", "--prompt", "-", "--max-new-tokens", "0", "--json"])
        .write_stdin("-- a dash\n")
        .assert()
        .success();
    let found: Value = serde_json::from_slice(&said.get_output().stdout).expect("JSON");
    assert_eq!(ids(&found["prompt_ids"]), prompt("-- a dash"));
    let words = prompt("-- a dash").iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let detokenize = ["detokenize", "--model", ".", &words];
    assert_eq!(printed(place.path(), &detokenize), "<s> -- a dash\n");
    assert_eq!(printed(place.path(), &[&detokenize[..], &["--skip-special"]].concat()), "-- a dash\n");
}
