//! The spec as a scenario writes it.

use decoding::table::{TableError, TableModel};
use decoding::{BeamSpec, DecodingSpec, SamplingSpec, SpecError, SpeculativeSpec};
use model::StepModel;
use serde_json::json;

fn parse(value: serde_json::Value) -> Result<DecodingSpec, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

fn table(vocab: usize) -> Box<dyn StepModel> {
    Box::new(TableModel::iid(&vec![1.0 / vocab as f64; vocab]).expect("a distribution"))
}

#[test]
fn specs_parse_with_defaults_and_have_short_tags() {
    let cases = [
        (json!({"kind": "greedy"}), "greedy"),
        (json!({"kind": "sampled"}), "sampled-t1"),
        (json!({"kind": "sampled", "temperature": 0.8, "top_p": 0.95}), "sampled-t0.8-p0.95"),
        (json!({"kind": "sampled", "top_k": 40, "min_p": 0.1, "seed": 7}), "sampled-t1-k40-m0.1-s7"),
        (json!({"kind": "beam"}), "beam-n4"),
        (json!({"kind": "beam", "n_beams": 2, "length_penalty": 0.6, "early_stopping": true}), "beam-n2-lp0.6-early"),
        (json!({"kind": "speculative"}), "speculative-g4"),
        (json!({"kind": "speculative", "gamma": 2, "sampling": {}}), "speculative-g2-t1"),
    ];
    for (value, tag) in cases {
        let spec = parse(value).expect(tag);
        assert_eq!(spec.tag(), tag);
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.needs_draft(), tag.starts_with("speculative"));
    }
    assert_eq!(parse(json!({"kind": "sampled", "seed": 7})).expect("valid").seed(), 7);
}

#[test]
fn all_specs_are_valid_distinct_and_survive_writing() {
    let tags: std::collections::BTreeSet<String> = DecodingSpec::all().iter().map(DecodingSpec::tag).collect();
    assert_eq!(tags.len(), DecodingSpec::all().len());
    for spec in DecodingSpec::all() {
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(parse(serde_json::to_value(&spec).expect("writes")), Ok(spec));
    }
}

#[test]
fn unknown_keys_and_kinds_are_refused() {
    for (value, word) in [
        (json!({"kind": "greedy", "temperature": 1}), "temperature"),
        (json!({"kind": "sampled", "gamma": 4}), "gamma"),
        (json!({"kind": "speculative", "top_p": 0.9}), "top_p"),
        (json!({"kind": "speculative", "sampling": {"topp": 0.9}}), "topp"),
        (json!({"kind": "viterbi"}), "viterbi"),
        (json!({"kind": "beam", "beams": 4}), "beams"),
        (json!({"temperature": 1}), "kind"),
    ] {
        let error = parse(value).expect_err(word);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn values_out_of_range_name_their_field() {
    let sampled = |change: fn(&mut SamplingSpec)| {
        let mut spec = SamplingSpec::default();
        change(&mut spec);
        spec
    };
    let cases = [
        ("temperature", sampled(|s| s.temperature = -1.0)),
        ("temperature", sampled(|s| s.temperature = f32::NAN)),
        ("temperature", sampled(|s| s.temperature = f32::INFINITY)),
        ("top_k", sampled(|s| s.top_k = Some(0))),
        ("top_p", sampled(|s| s.top_p = Some(0.0))),
        ("top_p", sampled(|s| s.top_p = Some(1.5))),
        ("top_p", sampled(|s| s.top_p = Some(f32::NAN))),
        ("min_p", sampled(|s| s.min_p = Some(-0.1))),
        ("min_p", sampled(|s| s.min_p = Some(f32::NAN))),
    ];
    for (field, sampling) in cases {
        let specs = [
            DecodingSpec::Sampled(sampling.clone()),
            DecodingSpec::Speculative(SpeculativeSpec { gamma: 4, sampling: Some(sampling) }),
        ];
        for spec in specs {
            let error = spec.validate().expect_err(field).to_string();
            assert!(error.starts_with(&format!("decoding.{field} = ")), "{error}");
        }
    }
    for (field, n_beams, length_penalty) in
        [("n_beams", 0, 1.0), ("n_beams", 257, 1.0), ("length_penalty", 4, f64::NAN)]
    {
        let error = DecodingSpec::Beam(BeamSpec { n_beams, length_penalty, early_stopping: false }).validate();
        let error = error.expect_err(field).to_string();
        assert!(error.starts_with(&format!("decoding.{field} = ")), "{error}");
    }
    for gamma in [0, 17] {
        let error = DecodingSpec::Speculative(SpeculativeSpec { gamma, sampling: None }).validate();
        assert!(matches!(error, Err(SpecError::OutOfRange { field: "gamma", .. })));
    }
}

#[test]
fn models_that_do_not_fit_the_spec_are_refused() {
    let speculative = DecodingSpec::Speculative(SpeculativeSpec::default());
    assert_eq!(speculative.build(table(8), None).err(), Some(SpecError::DraftMissing));
    assert_eq!(
        speculative.build(table(8), Some(table(9))).err(),
        Some(SpecError::VocabDiffers { target: 8, draft: 9 })
    );
    let unused = SpecError::DraftUnused { tag: "greedy".to_string() };
    assert_eq!(DecodingSpec::Greedy.build(table(8), Some(table(8))).err(), Some(unused));
}

#[test]
fn tables_must_hold_distributions() {
    assert!(matches!(TableModel::iid(&[0.5, 0.6]), Err(TableError::NotADistribution { row: 0, .. })));
    assert!(matches!(TableModel::iid(&[1.5, -0.5]), Err(TableError::NotADistribution { .. })));
    let ragged = TableModel::markov(&[vec![1.0, 0.0], vec![1.0]]);
    assert_eq!(ragged.err(), Some(TableError::Length { row: 1, found: 1, expected: 2 }));
}
