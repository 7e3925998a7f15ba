//! Logits, greedy continuations, likelihood and token ids against Hugging Face transformers.

#[path = "parity/adapter.rs"]
mod adapter;
#[path = "parity/beam.rs"]
mod beam;
#[path = "parity/encoder_decoder.rs"]
mod encoder_decoder;
#[path = "parity/equalise.rs"]
mod equalise;
#[path = "parity/gguf.rs"]
mod gguf;
#[path = "parity/gpu.rs"]
mod gpu;
#[path = "parity/quantize.rs"]
mod quantize;
#[path = "parity/rotated.rs"]
mod rotated;
#[path = "parity/stored.rs"]
mod stored;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use attention::AttentionSpec;
use cpu_kernels::{Cpu, Isa};
use decoding::{DecodingSpec, Sequence};
use engine::{BuildOptions, Checkpoint, DeviceSpec, Engine, EngineError, EngineSpec, Hub, Library, ModelSource};
use kv_cache::KvSpec;
use model::checkpoint::{Bytes, SafeTensorsFile, Tensors};
use model::{Activations, Device, SeqId, Step, StepModel, TokenId};
use serde_json::Value;
use weights::WeightsSpec;

/// Fixtures that every combination of instruction set, attention and threads runs on; the others show a family's features.
const BASIC: &[&str] = &["llama-mha", "llama3-gqa", "mistral-swa", "qwen2"];

/// Fixtures of what is refused by name.
const REFUSED: &[(&str, &str)] = &[("falcon-sequential", "alibi")];

/// Folders of decoder-only fixtures that can be run.
fn families() -> Vec<String> {
    let all = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).unwrap();
    let mut names: Vec<String> = all
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("expected.json").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !REFUSED.iter().any(|(refused, _)| refused == name))
        .filter(|name| !std::fs::read_to_string(folder(name).join("config.json")).unwrap().contains("encoder_layers"))
        .collect();
    names.sort();
    assert!(names.len() >= BASIC.len());
    names
}

struct NoHub;

impl Hub for NoHub {
    fn fetch(&self, repo: &str, revision: &str) -> Result<PathBuf, EngineError> {
        Err(EngineError::Hub { repo: repo.into(), revision: revision.into(), problem: "not in a test".into() })
    }
}

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(family)
}

fn open(path: &Path) -> Checkpoint {
    let library = Library { embedded: &[], hub: &NoHub };
    Checkpoint::open(&ModelSource::Folder(path.into()), &library).unwrap()
}

fn spec(attention: AttentionSpec, weights: WeightsSpec) -> EngineSpec {
    EngineSpec {
        attention,
        weights,
        kv: KvSpec::default(),
        decoding: DecodingSpec::Greedy,
        device: DeviceSpec::default(),
    }
}

fn device(isa: Isa, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(Some(isa), threads).unwrap()))
}

fn build(checkpoint: &Checkpoint, spec: &EngineSpec, device: &Device) -> Engine {
    let context_tokens = checkpoint.architecture.context_limit().min(192);
    let options = BuildOptions { context_tokens, calibration: &[], progress: &mut |_, _| {} };
    Engine::build(spec, checkpoint, None, device, options).unwrap()
}

struct Expected {
    json: Value,
    tensors: SafeTensorsFile,
}

impl Expected {
    fn read(family: &str) -> Expected {
        let json =
            serde_json::from_str(&std::fs::read_to_string(folder(family).join("expected.json")).unwrap()).unwrap();
        let file = folder(family).join("expected.safetensors");
        Expected { json, tensors: SafeTensorsFile::new(&file, Bytes::map(&file).unwrap()).unwrap() }
    }

    fn prompts(&self) -> Vec<(Vec<TokenId>, Vec<f32>, Vec<TokenId>)> {
        let ids = |v: &Value| v.as_array().unwrap().iter().map(|t| TokenId(t.as_u64().unwrap() as u32)).collect();
        let prompts = self.json["prompts"].as_array().unwrap();
        prompts
            .iter()
            .map(|p| {
                (
                    ids(&p["input_ids"]),
                    self.tensors.get(p["logits"].as_str().unwrap()).unwrap().data.to_f32(),
                    ids(&p["greedy_ids"]),
                )
            })
            .collect()
    }

    fn assert_close(&self, what: &str, actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len(), "{what}");
        let tolerance = |name: &str| self.json["tolerance"][name].as_f64().unwrap() as f32;
        let (atol, rtol) = (tolerance("logits_atol"), tolerance("logits_rtol"));
        for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
            assert!((a - e).abs() <= atol + rtol * e.abs(), "{what}: logit {i} is {a}, transformers has {e}");
        }
    }
}

fn logits(engine: &Engine, tokens: &[TokenId]) -> Activations {
    engine.session().unwrap().forward(&Step::extend(SeqId(0), 0, tokens).with_all_logits()).unwrap().clone()
}

#[test]
fn logits_agree_on_every_isa_and_attention() {
    for family in BASIC {
        let (expected, checkpoint) = (Expected::read(family), open(&folder(family)));
        for attention in AttentionSpec::all() {
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let engine = build(&checkpoint, &spec(attention.clone(), WeightsSpec::F32), &device(isa, threads));
                    for (tokens, want, _) in expected.prompts() {
                        let what = format!(
                            "{family}, {}, {}, {threads} threads, {} tokens",
                            attention.tag(),
                            isa.name(),
                            tokens.len()
                        );
                        expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
                    }
                }
            }
        }
    }
}

#[test]
fn logits_agree_in_every_family() {
    for family in families() {
        let (expected, checkpoint) = (Expected::read(&family), open(&folder(&family)));
        for (attention, isa) in [(AttentionSpec::Naive, Isa::Scalar), (AttentionSpec::all().remove(1), Isa::best())] {
            let engine = build(&checkpoint, &spec(attention.clone(), WeightsSpec::F32), &device(isa, 2));
            for (tokens, want, _) in expected.prompts() {
                let what = format!("{family}, {}, {}, {} tokens", attention.tag(), isa.name(), tokens.len());
                expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
            }
        }
    }
}

#[test]
fn latent_attention_absorbed_is_the_expanded_one() {
    for family in ["deepseek-v2", "deepseek-v2-q-lora", "deepseek-v3"] {
        let (expected, checkpoint) = (Expected::read(family), open(&folder(family)));
        let latent = checkpoint.architecture.latent.unwrap();
        for attention in AttentionSpec::all() {
            let kv = KvSpec::Latent(kv_cache::ContiguousSpec::default());
            let absorbed = EngineSpec { kv, ..spec(attention.clone(), WeightsSpec::F32) };
            let engine = build(&checkpoint, &absorbed, &device(Isa::best(), 2));
            assert_eq!(engine.target.kv_shape().entry_elements(), latent.kv_rank + latent.rope_dim);
            for (tokens, want, _) in expected.prompts() {
                let what = format!("{family} absorbed, {}, {} tokens", attention.tag(), tokens.len());
                expected.assert_close(&what, logits(&engine, &tokens).as_slice(), &want);
            }
        }
    }
    let refused = EngineSpec {
        kv: KvSpec::Latent(kv_cache::ContiguousSpec::default()),
        ..spec(AttentionSpec::Naive, WeightsSpec::F32)
    };
    let options = BuildOptions { context_tokens: 8, calibration: &[], progress: &mut |_, _| {} };
    let error = Engine::build(&refused, &open(&folder("qwen2")), None, &device(Isa::best(), 1), options).err().unwrap();
    assert!(error.to_string().contains("no latent attention"), "{error}");
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (family, field) in REFUSED {
        let file = folder(family).join("config.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let error = model::Architecture::from_json(&file, &text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")) && error.contains("not supported"), "{error}");
    }
}

#[test]
fn cached_and_chunked_passes_agree() {
    for family in families() {
        let (expected, checkpoint) = (Expected::read(&family), open(&folder(&family)));
        let engine =
            build(&checkpoint, &spec(AttentionSpec::all().pop().unwrap(), WeightsSpec::F32), &device(Isa::best(), 2));
        let (tokens, want, _) = expected.prompts().pop().unwrap();
        for chunk in [1, 7, 32, 100] {
            let mut session = engine.session().unwrap();
            let mut all = vec![];
            for (i, part) in tokens.chunks(chunk).enumerate() {
                let step = Step::extend(SeqId(3), i * chunk, part).with_all_logits();
                all.extend_from_slice(session.forward(&step).unwrap().as_slice());
            }
            // where the rotation follows the length, earlier rows were right for a shorter sequence
            let rope = checkpoint.architecture.rope().map(model::RopeTable::new);
            let by_length =
                rope.and_then(|rope| rope.length_matters_beyond()).is_some_and(|limit| tokens.len() > limit);
            let from = if by_length { all.len() - checkpoint.architecture.vocab_size } else { 0 };
            expected.assert_close(&format!("{family} in chunks of {chunk}"), &all[from..], &want[from..]);
        }
    }
}

#[test]
fn greedy_continuations_agree() {
    for family in families() {
        let (expected, checkpoint) = (Expected::read(&family), open(&folder(&family)));
        let engine =
            build(&checkpoint, &spec(AttentionSpec::all().pop().unwrap(), WeightsSpec::F32), &device(Isa::best(), 2));
        let mut decoder = engine.decoder().unwrap();
        let prompts = expected.prompts();
        let mut sequences: Vec<Sequence> = prompts
            .iter()
            .enumerate()
            .map(|(i, p)| Sequence::new(SeqId(i as u32), p.0.clone(), p.2.len(), vec![], 0).unwrap())
            .collect();
        while sequences.iter().any(|s| s.finished().is_none()) {
            decoder.advance(&mut sequences).unwrap();
        }
        for (sequence, (_, _, greedy)) in sequences.iter().zip(&prompts) {
            assert_eq!(sequence.generated(), greedy, "{family}");
        }
    }
}

#[test]
fn likelihood_agrees() {
    for family in families() {
        let (expected, checkpoint) = (Expected::read(&family), open(&folder(&family)));
        let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(Isa::best(), 1));
        let (tokens, _, _) = expected.prompts().pop().unwrap();
        let logits = logits(&engine, &tokens);
        let nll: f64 = (1..tokens.len())
            .map(|t| {
                let row: Vec<f64> = logits.row(t - 1).iter().map(|&v| f64::from(v)).collect();
                let max = row.iter().copied().fold(f64::MIN, f64::max);
                max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln() - row[tokens[t].0 as usize]
            })
            .sum();
        let want = expected.json["nll"]["sum"].as_f64().unwrap();
        assert!(
            (nll - want).abs() <= expected.json["tolerance"]["nll_sum_atol"].as_f64().unwrap(),
            "{family}: {nll}, transformers has {want}"
        );
    }
}

#[test]
fn f64_reference_agrees() {
    for family in families() {
        let (expected, checkpoint) = (Expected::read(&family), open(&folder(&family)));
        for (tokens, want, _) in expected.prompts() {
            let rows = model::reference::logits(&checkpoint.architecture, &*checkpoint.tensors, &tokens).unwrap();
            let all: Vec<f32> = rows.concat().into_iter().map(|v| v as f32).collect();
            expected.assert_close(&format!("f64 reference, {family}"), &all, &want);
        }
    }
}

#[test]
fn legacy_config_means_the_same() {
    for family in families() {
        let current = open(&folder(&family)).architecture;
        let file = folder(&family).join("config.legacy.json");
        if !file.exists() {
            continue;
        }
        let legacy = model::Architecture::from_json(&file, &std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(current, legacy, "{family}");
    }
}

#[test]
fn token_ids_agree() {
    for family in families() {
        let (expected, checkpoint) = (Expected::read(&family), open(&folder(&family)));
        let Some(tokenizer) = checkpoint.tokenizer.as_ref() else { continue };
        for case in expected.json["tokenizer"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = |name: &str| -> Vec<TokenId> {
                case[name].as_array().unwrap().iter().map(|t| TokenId(t.as_u64().unwrap() as u32)).collect()
            };
            assert_eq!(tokenizer.encode(text).unwrap(), ids("ids"), "{family}: {text:?}");
            assert_eq!(tokenizer.encode_with_special(text).unwrap(), ids("ids_with_special"), "{family}: {text:?}");
        }
    }
}

/// The weights of the fixture `source` in three files.
fn sharded(source: &Path) -> tempfile::TempDir {
    let shards = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    let names: Vec<String> = all.names().into_iter().map(String::from).collect();
    for (i, part) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", i + 1);
        let tensors: Vec<_> = part.iter().map(|n| (n.clone(), all.tensor(n).unwrap())).collect();
        safetensors::serialize_to_file(tensors, None, &shards.path().join(&file)).unwrap();
        map.extend(part.iter().map(|n| (n.clone(), Value::String(file.clone()))));
    }
    std::fs::write(
        shards.path().join("model.safetensors.index.json"),
        serde_json::json!({ "weight_map": map }).to_string(),
    )
    .unwrap();
    std::fs::copy(source.join("config.json"), shards.path().join("config.json")).unwrap();
    shards
}

#[test]
fn a_sharded_checkpoint_is_the_same_model() {
    let source = folder("llama-mha");
    let shards = sharded(&source);
    let spec = spec(AttentionSpec::Naive, WeightsSpec::F32);
    let device = device(Isa::Scalar, 1);
    let tokens: Vec<TokenId> = (0..20).map(|i| TokenId(i * 11 % 384)).collect();
    let whole = logits(&build(&open(&source), &spec, &device), &tokens);
    let sharded = logits(&build(&open(shards.path()), &spec, &device), &tokens);
    assert_eq!(whole.as_slice(), sharded.as_slice());
}
