//! Beam search on a real transformer against Hugging Face transformers: hypotheses, order, scores.

use decoding::BeamSpec;

use super::*;

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|t| TokenId(t.as_u64().unwrap() as u32)).collect()
}

#[test]
fn hypotheses_agree() {
    let (folder, device) = (folder("llama-mha"), device(Isa::best(), 2));
    let checkpoint = open(&folder);
    let fixture: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("beam-search.json")).unwrap()).unwrap();
    let tolerance = fixture["score_atol"].as_f64().unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let beam = BeamSpec {
            n_beams: case["num_beams"].as_u64().unwrap() as usize,
            length_penalty: case["length_penalty"].as_f64().unwrap(),
            early_stopping: case["early_stopping"].as_bool().unwrap(),
        };
        let what = format!("{}, {}, eos {}", case["prompt"], beam.tag(), case["eos_token_id"]);
        let parts = spec(AttentionSpec::all().pop().unwrap(), WeightsSpec::F32);
        let engine = build(&checkpoint, &EngineSpec { decoding: DecodingSpec::Beam(beam), ..parts }, &device);
        let mut decoder = engine.decoder().unwrap();
        let prompt = ids(&fixture["prompts"][case["prompt"].as_str().unwrap()]);
        let limit = case["max_new_tokens"].as_u64().unwrap() as usize;
        let stop = vec![TokenId(case["eos_token_id"].as_u64().unwrap() as u32)];
        let mut sequence = Sequence::new(SeqId(0), prompt, limit, stop, 0).unwrap();
        while sequence.finished().is_none() {
            decoder.advance(std::slice::from_mut(&mut sequence)).unwrap();
        }
        let found = decoder.hypotheses(SeqId(0));
        let expected = case["hypotheses"].as_array().unwrap();
        // every case says that noise of the logits does not change the order
        assert_eq!(case["robust"], Value::Bool(true));
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.tokens, ids(&expected["ids"]), "{what}");
            assert!((found.score - expected["score"].as_f64().unwrap()).abs() <= tolerance, "{what}: {found:?}");
            assert_eq!(found.stopped, expected["ends_with_eos"].as_bool().unwrap(), "{what}");
        }
        assert_eq!(sequence.generated(), found[0].tokens);
    }
}
