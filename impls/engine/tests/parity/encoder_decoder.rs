//! Encoder–decoders: post-norm against Hugging Face's Marian, pre-norm against plain torch in float64.

use decoding::{BeamSpec, Sequence};
use engine::{EncoderDecoderCheckpoint, EncoderDecoderEngine, EncoderDecoderParts};
use kv_cache::KvSpec;
use model::encoder_decoder::reference;
use model::{EncoderDecoderShape, StepModel};

use super::*;

/// Marian's `p3` keeps its last rows only.
const TAIL: &str = "p3.logits.tail";

struct Prompt {
    source: Vec<TokenId>,
    target: Vec<TokenId>,
    /// Of the last rows of the target, row-major.
    logits: Vec<f32>,
    greedy: Vec<TokenId>,
}

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|t| TokenId(t.as_u64().unwrap() as u32)).collect()
}

fn prompts(expected: &Expected) -> Vec<Prompt> {
    let read = |p: &Value| {
        let name = p["logits"].as_str().unwrap();
        let name = if expected.tensors.contains(name) { name } else { TAIL };
        Prompt {
            source: ids(&p["encoder_input_ids"]),
            target: ids(&p["decoder_input_ids"]),
            logits: expected.tensors.get(name).unwrap().data.to_f32(),
            greedy: ids(&p["greedy_ids"]),
        }
    };
    expected.json["prompts"].as_array().unwrap().iter().map(read).collect()
}

fn open_pair(path: &Path) -> Result<EncoderDecoderCheckpoint, EngineError> {
    let library = Library { embedded: &[], hub: &NoHub };
    EncoderDecoderCheckpoint::open(&ModelSource::Folder(path.into()), &library).map(Option::unwrap)
}

fn pair(family: &str, spec: &EngineSpec, device: &Device) -> EncoderDecoderEngine {
    let parts = EncoderDecoderParts { spec, device, source_tokens: 128, target_tokens: 64 };
    let parts = if family == "pre-norm" { EncoderDecoderParts { source_tokens: 64, ..parts } } else { parts };
    EncoderDecoderEngine::build(open_pair(&folder(family)).unwrap(), parts).unwrap()
}

fn with(decoding: DecodingSpec) -> EngineSpec {
    EngineSpec { decoding, ..spec(AttentionSpec::all().pop().unwrap(), WeightsSpec::F32) }
}

const PAIRS: [&str; 2] = ["marian", "pre-norm"];

#[test]
fn logits_agree_on_every_isa_attention_and_cache() {
    for family in PAIRS {
        let expected = Expected::read(family);
        for attention in AttentionSpec::all() {
            for isa in Isa::available() {
                let engine = pair(family, &spec(attention.clone(), WeightsSpec::F32), &device(isa, 2));
                for prompt in prompts(&expected) {
                    let what = format!("{family}, {}, {}", attention.tag(), isa.name());
                    let mut session = engine.session().unwrap();
                    session.encode(SeqId(4), &prompt.source, None).unwrap();
                    let step = Step::extend(SeqId(4), 0, &prompt.target).with_all_logits();
                    let logits = session.forward(&step).unwrap();
                    let from = logits.as_slice().len() - prompt.logits.len();
                    expected.assert_close(&what, &logits.as_slice()[from..], &prompt.logits);
                }
            }
        }
    }
}

#[test]
fn the_f64_reference_agrees() {
    for family in PAIRS {
        let (expected, checkpoint) = (Expected::read(family), open_pair(&folder(family)).unwrap());
        for prompt in prompts(&expected) {
            let rows =
                reference::logits(&checkpoint.shape, &*checkpoint.tensors, &prompt.source, &prompt.target).unwrap();
            let all: Vec<f32> = rows.concat().into_iter().map(|v| v as f32).collect();
            let from = all.len() - prompt.logits.len();
            expected.assert_close(&format!("f64 reference, {family}"), &all[from..], &prompt.logits);
        }
    }
}

#[test]
fn every_activation_and_unscaled_embeddings_agree_with_the_reference() {
    use cpu_kernels::Activation;
    for (activation, scale_embedding) in
        [(Activation::Gelu, true), (Activation::GeluTanh, false), (Activation::Silu, true), (Activation::Relu, false)]
    {
        for pre_norm in [false, true] {
            let mut checkpoint = open_pair(&folder("pre-norm")).unwrap();
            checkpoint.shape = EncoderDecoderShape { activation, scale_embedding, pre_norm, ..checkpoint.shape };
            let (source, target) = (ids(&serde_json::json!([5, 6, 40, 0])), ids(&serde_json::json!([2, 9, 30])));
            let exact = reference::logits(&checkpoint.shape, &*checkpoint.tensors, &source, &target).unwrap().concat();
            let (spec, device) = (with(DecodingSpec::Greedy), device(Isa::best(), 1));
            let parts = EncoderDecoderParts { spec: &spec, device: &device, source_tokens: 8, target_tokens: 8 };
            let mut session = EncoderDecoderEngine::build(checkpoint, parts).unwrap().session().unwrap();
            session.encode(SeqId(0), &source, None).unwrap();
            let logits = session.forward(&Step::extend(SeqId(0), 0, &target).with_all_logits()).unwrap();
            for (found, exact) in logits.as_slice().iter().zip(exact) {
                let close = (f64::from(*found) - exact).abs() <= 1e-4 + 1e-5 * exact.abs();
                assert!(close, "{activation:?}, pre-norm {pre_norm}: {found} instead of {exact}");
            }
        }
    }
}

#[test]
fn padding_is_left_out() {
    let expected = Expected::read("marian");
    let padded = &expected.json["padded"];
    let mask: Vec<bool> = padded["attention_mask"].as_array().unwrap().iter().map(|m| m == 1).collect();
    let mut session = pair("marian", &with(DecodingSpec::Greedy), &device(Isa::best(), 1)).session().unwrap();
    session.encode(SeqId(0), &ids(&padded["encoder_input_ids"]), Some(&mask)).unwrap();
    let step = Step::extend(SeqId(0), 0, &ids(&padded["decoder_input_ids"])).with_all_logits();
    let want = expected.tensors.get("padded.logits").unwrap().data.to_f32();
    expected.assert_close("padded", session.forward(&step).unwrap().as_slice(), &want);
    assert!(session.encode(SeqId(0), &[TokenId(5)], Some(&[false])).unwrap_err().to_string().contains("no unmasked"));
    assert!(session.encode(SeqId(0), &[TokenId(5)], Some(&[])).unwrap_err().to_string().contains("mask of 0"));
}

#[test]
fn greedy_translations_through_the_cache_agree_alone_and_in_a_batch() {
    for family in PAIRS {
        let prompts = prompts(&Expected::read(family));
        for kv in KvSpec::all() {
            if kv.relative_error() > 0.0 {
                continue;
            }
            let engine = pair(family, &EngineSpec { kv, ..with(DecodingSpec::Greedy) }, &device(Isa::best(), 2));
            let start = engine.model.shape().decoder_start;
            let mut session = engine.session().unwrap();
            let mut sequences = vec![];
            for (id, prompt) in (0..).map(SeqId).zip(&prompts) {
                session.encode(id, &prompt.source, None).unwrap();
                sequences.push(Sequence::new(id, vec![start], prompt.greedy.len(), vec![], 0).unwrap());
            }
            let mut decoder = engine.decoder(session).unwrap();
            while sequences.iter().any(|s| s.finished().is_none()) {
                decoder.advance(&mut sequences).unwrap();
            }
            for (sequence, prompt) in sequences.iter().zip(&prompts) {
                assert_eq!(sequence.generated(), prompt.greedy, "{family}, {}", engine.spec.kv.tag());
            }
        }
    }
}

#[test]
fn cached_and_chunked_targets_equal_one_pass() {
    for family in PAIRS {
        let engine = pair(family, &with(DecodingSpec::Greedy), &device(Isa::best(), 2));
        let prompt = prompts(&Expected::read(family)).pop().unwrap();
        let mut session = engine.session().unwrap();
        session.encode(SeqId(0), &prompt.source, None).unwrap();
        let step = Step::extend(SeqId(0), 0, &prompt.target).with_all_logits();
        let whole = session.forward(&step).unwrap().as_slice().to_vec();
        for chunk in [1, 5, 16] {
            session.truncate(SeqId(0), 0);
            let mut all = vec![];
            for (i, part) in prompt.target.chunks(chunk).enumerate() {
                let step = Step::extend(SeqId(0), i * chunk, part).with_all_logits();
                all.extend_from_slice(session.forward(&step).unwrap().as_slice());
            }
            let worst = all.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-4, "{family}, chunks of {chunk}: {worst}");
        }
    }
}

#[test]
fn beams_agree() {
    let expected = Expected::read("marian");
    let search = &expected.json["beam_search"];
    let cases = search["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let beam = BeamSpec {
            n_beams: case["num_beams"].as_u64().unwrap() as usize,
            length_penalty: case["length_penalty"].as_f64().unwrap(),
            early_stopping: case["early_stopping"].as_bool().unwrap(),
        };
        let what = format!("{}, {}, eos {}", case["prompt"], beam.tag(), case["eos_token_id"]);
        let engine = pair("marian", &with(DecodingSpec::Beam(beam)), &device(Isa::best(), 2));
        let number: usize = case["prompt"].as_str().unwrap()[1..].parse().unwrap();
        let source = &prompts(&expected)[number].source;
        let mut session = engine.session().unwrap();
        session.encode(SeqId(0), source, None).unwrap();
        let mut decoder = engine.decoder(session).unwrap();
        let stop = vec![TokenId(case["eos_token_id"].as_u64().unwrap() as u32)];
        let limit = case["max_new_tokens"].as_u64().unwrap() as usize;
        let start = engine.model.shape().decoder_start;
        let mut sequence = Sequence::new(SeqId(0), vec![start], limit, stop, 0).unwrap();
        while sequence.finished().is_none() {
            decoder.advance(std::slice::from_mut(&mut sequence)).unwrap();
        }
        let hypotheses = case["hypotheses"].as_array().unwrap();
        assert_eq!(decoder.hypotheses(SeqId(0)).len(), hypotheses.len());
        for (found, hypothesis) in decoder.hypotheses(SeqId(0)).iter().zip(hypotheses) {
            assert_eq!(found.tokens, ids(&hypothesis["ids"]), "{what}");
            assert!((found.score - hypothesis["score"].as_f64().unwrap()).abs() <= 1e-4, "{what}: {found:?}");
        }
    }
}

#[test]
fn weight_formats_and_encoded_caches_stay_close() {
    let prompt = prompts(&Expected::read("marian")).remove(2);
    let run = |spec: &EngineSpec| {
        let mut session = pair("marian", spec, &device(Isa::best(), 2)).session().unwrap();
        session.encode(SeqId(0), &prompt.source, None).unwrap();
        session.forward(&Step::extend(SeqId(0), 0, &prompt.target).with_all_logits()).unwrap().as_slice().to_vec()
    };
    let exact = run(&with(DecodingSpec::Greedy));
    let half = EngineSpec { weights: WeightsSpec::F16, ..with(DecodingSpec::Greedy) };
    let cells = KvSpec::all().into_iter().map(|kv| EngineSpec { kv, ..with(DecodingSpec::Greedy) }).chain([half]);
    for spec in cells {
        let loss: f32 = run(&spec).iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(loss < 0.1, "{}, {}: {loss}", spec.weights.tag(), spec.kv.tag());
    }
}

#[test]
fn the_legacy_config_means_the_same_and_odd_ones_are_refused_by_name() {
    let file = folder("marian").join("config.legacy.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let legacy = EncoderDecoderShape::from_json(&file, &text).unwrap();
    assert_eq!(legacy, open_pair(&folder("marian")).unwrap().shape);
    let plain: Value = serde_json::from_str(&text).unwrap();
    for (field, value) in [
        ("model_type", serde_json::json!("t5")),
        ("d_model", serde_json::json!(0)),
        ("d_model", serde_json::json!("48")),
        ("encoder_attention_heads", serde_json::json!(5)),
        ("decoder_layers", serde_json::json!(-1)),
        ("activation_function", serde_json::json!("tanh")),
        ("tie_word_embeddings", serde_json::json!(false)),
        ("share_encoder_decoder_embeddings", serde_json::json!(false)),
        ("normalize_embedding", serde_json::json!(true)),
        ("static_position_embeddings", serde_json::json!(false)),
        ("add_final_layer_norm", serde_json::json!(true)),
        ("decoder_vocab_size", serde_json::json!(100)),
        ("decoder_start_token_id", serde_json::json!(384)),
        ("is_encoder_decoder", serde_json::json!(false)),
        ("quantization_config", serde_json::json!({})),
        ("scale_embedding", serde_json::json!("yes")),
    ] {
        let mut odd = plain.clone();
        odd[field] = value;
        let error = EncoderDecoderShape::from_json(&file, &odd.to_string()).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    assert!(EncoderDecoderShape::from_json(&file, "[]").unwrap_err().to_string().contains("not an object"));
}

/// What becomes of a tensor: name, shape and bytes to another shape and other bytes, or to nothing.
type Change<'a> = &'a dyn Fn(&str, Vec<usize>, Vec<u8>) -> Option<(Vec<usize>, Vec<u8>)>;

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let bytes = std::fs::read(folder("marian").join("model.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let build = |change: Change<'_>| {
        let place = tempfile::tempdir().unwrap();
        let tensors: Vec<_> = all
            .names()
            .into_iter()
            .filter_map(|name| {
                let tensor = all.tensor(name).unwrap();
                change(name, tensor.shape().to_vec(), tensor.data().to_vec()).map(|(shape, data)| (name, shape, data))
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, data)| {
            (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &place.path().join("model.safetensors")).unwrap();
        std::fs::copy(folder("marian").join("config.json"), place.path().join("config.json")).unwrap();
        let (spec, device) = (with(DecodingSpec::Greedy), device(Isa::best(), 1));
        let parts = EncoderDecoderParts { spec: &spec, device: &device, source_tokens: 8, target_tokens: 8 };
        EncoderDecoderEngine::build(open_pair(place.path()).unwrap(), parts).err().map(|e| e.to_string())
    };
    const NAME: &str = "model.decoder.layers.1.encoder_attn.k_proj.weight";
    assert_eq!(build(&|_, shape, data| Some((shape, data))), None);
    let missing = build(&|name, shape, data| (name != NAME).then_some((shape, data))).unwrap();
    assert!(missing.contains(NAME) && missing.contains("missing"), "{missing}");
    let odd = |name: &str, shape: Vec<usize>, data| {
        if name == NAME { Some((vec![shape[0] * 2, shape[1] / 2], data)) } else { Some((shape, data)) }
    };
    let odd = build(&odd).unwrap();
    assert!(odd.contains(NAME) && odd.contains("[48, 48]") && odd.contains("[96, 24]"), "{odd}");
    let nan = build(&|name, shape, mut data: Vec<u8>| {
        if name == NAME {
            data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some((shape, data))
    });
    assert!(nan.unwrap().contains("not finite"));
    assert_eq!(build(&|name, shape, data| (name != "final_logits_bias").then_some((shape, data))), None);
}

#[test]
fn source_text_gives_the_tokens_of_transformers() {
    let (expected, checkpoint) = (Expected::read("marian"), open_pair(&folder("marian")).unwrap());
    for case in expected.json["tokenizer"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(checkpoint.encode(text).unwrap(), ids(&case["ids_with_special"]), "{text:?}");
    }
}

#[test]
fn each_way_of_opening_refuses_or_leaves_the_other_kind() {
    let library = Library { embedded: &[], hub: &NoHub };
    let decoder_only = ModelSource::Folder(folder("llama-mha"));
    assert!(EncoderDecoderCheckpoint::open(&decoder_only, &library).unwrap().is_none());
    let error = Checkpoint::open(&ModelSource::Folder(folder("marian")), &library).err().unwrap().to_string();
    assert!(error.contains("encoder-decoder") && error.contains("--encoder-tokens"), "{error}");
}
