//! Two pretrained models against llama.cpp: token ids, logits, greedy continuations, perplexity.
//!
//! `INFERMARK_REAL_MODELS` names the folder that `ci/real-models.sh` fills; without it these tests say `skipped:`. What llama.cpp answers
//! is recorded in `real-models/`, and asked again where llama-cpp-python is installed. Its numbers are of the same weights in f32: with
//! the file's own codes it rounds activations, which is another computation.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use attention::AttentionSpec;
use cpu_kernels::Cpu;
use decoding::{DecodingSpec, Sequence};
use engine::{BuildOptions, Checkpoint, DeviceSpec, Engine, EngineError, EngineSpec, Hub, Library, ModelSource};
use kv_cache::KvSpec;
use model::{Device, SeqId, Step, StepModel, TokenId};
use serde_json::Value;
use weights::WeightsSpec;

/// Each model's file, and the name of its recorded answers.
const MODELS: [(&str, &str); 2] =
    [("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"), ("gemma-3-270m.Q4_K_M.gguf", "gemma3")];

/// Two orders of summation in f32, layer upon layer, differ by less than this in a logit of these models.
const LOGITS: f64 = 2e-2;

/// A token that leads the next best by less may lose to it in another order of summation.
const LEAD: f64 = 2.0 * LOGITS;

struct NoHub;

impl Hub for NoHub {
    fn fetch(&self, repo: &str, revision: &str) -> Result<PathBuf, EngineError> {
        Err(EngineError::Hub { repo: repo.into(), revision: revision.into(), problem: "not in a test".into() })
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real-models")
}

fn json(name: &str) -> Value {
    let file = folder().join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap()
}

/// The models that are here, with what llama.cpp says of each.
fn models() -> Vec<(PathBuf, Value)> {
    let Some(place) = std::env::var_os("INFERMARK_REAL_MODELS").map(PathBuf::from) else {
        println!("skipped: INFERMARK_REAL_MODELS names no folder; ci/real-models.sh fills one");
        return vec![];
    };
    let here = |file: &str| {
        let path = place.join(file);
        assert!(path.exists(), "{} is not there; ci/real-models.sh fetches it", path.display());
        path
    };
    MODELS.iter().map(|(file, name)| (here(file), json(name))).collect()
}

fn open(file: &Path) -> Checkpoint {
    Checkpoint::open(&ModelSource::Folder(file.into()), &Library { embedded: &[], hub: &NoHub }).unwrap()
}

fn build(checkpoint: &Checkpoint) -> Engine {
    let spec = EngineSpec {
        attention: AttentionSpec::all().pop().unwrap(),
        weights: WeightsSpec::F32,
        kv: KvSpec::default(),
        decoding: DecodingSpec::Greedy,
        device: DeviceSpec::default(),
    };
    let device = Device::Cpu(Arc::new(Cpu::new(None, 2).unwrap()));
    let options = BuildOptions { context_tokens: 512, calibration: &[], progress: &mut |_, _| {} };
    Engine::build(&spec, checkpoint, None, &device, options).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn ids(value: &Value) -> Vec<TokenId> {
    list(value).iter().map(|id| TokenId(id.as_u64().unwrap() as u32)).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(|v| v.as_f64().unwrap()).collect()
}

/// −ln p of `token` among `logits`.
fn nll(logits: &[f32], token: TokenId) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|v| f64::from(v - most).exp()).sum();
    f64::from(most) + sum.ln() - f64::from(logits[token.0 as usize])
}

#[test]
fn texts_are_cut_as_llama_cpp_cuts_them() {
    let questions = json("questions");
    for (file, answers) in models() {
        let checkpoint = open(&file);
        let tokenizer = checkpoint.tokenizer.as_ref().unwrap();
        for (text, want) in list(&questions["texts"]).iter().zip(list(&answers["texts"])) {
            let text = text.as_str().unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), ids(&want["plain"]), "{}: {text:?}", file.display());
            assert_eq!(checkpoint.encode(text).unwrap(), ids(&want["around"]), "{}: {text:?}", file.display());
        }
    }
}

#[test]
fn numbers_are_llama_cpps() {
    let questions = json("questions");
    for (file, answers) in models() {
        let checkpoint = open(&file);
        let engine = build(&checkpoint);
        logits(&checkpoint, &engine, &questions["logits"], &answers["logits"]);
        continuations(&checkpoint, &engine, &questions["greedy"], &answers["greedy"]);
        perplexity(&checkpoint, &engine, &questions["perplexity"], &answers["perplexity"]);
    }
}

fn logits(checkpoint: &Checkpoint, engine: &Engine, ask: &Value, answers: &Value) {
    for (prompt, want) in list(&ask["prompts"]).iter().zip(list(answers)) {
        let tokens = checkpoint.encode(prompt.as_str().unwrap()).unwrap();
        let mut session = engine.session().unwrap();
        let found = session.forward(&Step::extend(SeqId(0), 0, &tokens)).unwrap();
        for (id, want) in ids(&want["ids"]).into_iter().zip(numbers(&want["values"])) {
            let found = f64::from(found.row(0)[id.0 as usize]);
            assert!((found - want).abs() <= LOGITS, "{prompt}: the logit of {} is {found}, not {want}", id.0);
        }
    }
}

/// Every continuation is equal, up to a token that could as well be another one.
fn continuations(checkpoint: &Checkpoint, engine: &Engine, ask: &Value, answers: &Value) {
    let prompts = list(&ask["prompts"]);
    let mut decoder = engine.decoder().unwrap();
    let most = ask["tokens"].as_u64().unwrap() as usize;
    let mut equal = 0;
    for (i, (prompt, want)) in prompts.iter().zip(list(answers)).enumerate() {
        let tokens = checkpoint.encode(prompt.as_str().unwrap()).unwrap();
        let ends = checkpoint.facts.ends.clone();
        let mut sequence = vec![Sequence::new(SeqId(i as u32), tokens, most, ends, 0).unwrap()];
        while sequence[0].finished().is_none() {
            decoder.advance(&mut sequence).unwrap();
        }
        let (found, want, leads) = (sequence[0].generated(), ids(&want["tokens"]), numbers(&want["leads"]));
        match found.iter().zip(&want).position(|(found, want)| found != want) {
            None => {
                assert_eq!(found.len(), want.len(), "{prompt}");
                equal += 1;
            }
            Some(at) => {
                let say = || format!("{prompt}: token {at} is {}, not {}", found[at].0, want[at].0);
                assert!(leads[at] <= LEAD, "{}, which leads by {}", say(), leads[at]);
                println!("{}, which leads by {} only", say(), leads[at]);
            }
        }
    }
    println!("{}: {equal} of {} continuations are equal to the last token", checkpoint.source, prompts.len());
    assert!(equal + 2 >= prompts.len(), "only {equal} of {} continuations are equal", prompts.len());
}

/// The rule of llama-perplexity: windows that begin as a text does, their second halves scored.
fn perplexity(checkpoint: &Checkpoint, engine: &Engine, ask: &Value, answer: &Value) {
    let text: String = list(&ask["files"])
        .iter()
        .map(|file| std::fs::read_to_string(folder().join(file.as_str().unwrap())).unwrap())
        .collect();
    let (tokens, window) = (checkpoint.encode(&text).unwrap(), ask["window"].as_u64().unwrap() as usize);
    let (mut sum, mut n) = (0.0, 0);
    for piece in tokens.chunks_exact(window) {
        let mut piece = piece.to_vec();
        if let Some(bos) = checkpoint.begins_with().unwrap() {
            piece[0] = bos;
        }
        let mut session = engine.session().unwrap();
        let logits = session.forward(&Step::extend(SeqId(0), 0, &piece).with_all_logits()).unwrap();
        for i in window / 2..window - 1 {
            sum += nll(logits.row(i), piece[i + 1]);
            n += 1;
        }
    }
    let (found, want) = ((sum / f64::from(n)).exp(), answer["perplexity"].as_f64().unwrap());
    println!("{}: perplexity {found:.4}, llama.cpp says {want:.4}", checkpoint.source);
    assert_eq!(n, answer["scored"].as_i64().unwrap() as i32);
    assert!((found / want - 1.0).abs() <= 1e-3, "{}: {found}, llama.cpp says {want}", checkpoint.source);
}

/// The recorded answers are llama.cpp's, where it is here to be asked: of the files as they come, how a text is cut.
#[test]
fn llama_cpp_still_answers_so() {
    for (file, answers) in models() {
        let place = tempfile::tempdir().unwrap();
        let ask = place.path().join("questions.json");
        std::fs::write(&ask, serde_json::json!({ "texts": json("questions")["texts"] }).to_string()).unwrap();
        let script = folder().with_file_name("ask_llama_cpp.py");
        let asked = Command::new("python3").arg(script).arg(&file).arg(&ask).output();
        match asked {
            Ok(output) if output.status.success() => {
                let found: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(found["texts"], answers["texts"], "{}", file.display());
            }
            Ok(output) if output.status.code() == Some(77) => {
                return println!("skipped: llama-cpp-python is not installed for python3");
            }
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => return println!("skipped: no python3"),
        }
    }
}
