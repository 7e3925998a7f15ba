//! Probabilities after each filter, as an independent implementation computes them.

use decoding::SamplingSpec;
use decoding::sampling::distribution;
use serde_json::Value;

#[test]
fn filters_give_the_reference_probabilities() {
    let fixture: Value = serde_json::from_str(include_str!("../data/sampling.json")).expect("the fixture is JSON");
    let tolerance = fixture["probs_atol"].as_f64().expect("a tolerance");
    let logits = rows(&fixture["logits"]);
    let cases = fixture["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 16);
    for case in cases {
        let spec: SamplingSpec = serde_json::from_value(case["spec"].clone()).expect("the case's filters are a spec");
        spec.validate().expect("the case's filters are in range");
        let expected = rows(&case["probs"]);
        assert_eq!(expected.len(), logits.len());
        for (row, (logits, expected)) in logits.iter().zip(&expected).enumerate() {
            let name = format!("{}, row {row}", case["name"]);
            let found = distribution(logits, &spec).expect("finite logits");
            let worst = found.iter().zip(expected).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
            assert!(worst <= tolerance, "{name}: off by {worst}");
            // in f32 the reference underflows at temperature 0.1; what it removed by a filter must be exactly 0 here
            if spec.top_k.is_some() || spec.top_p.is_some() || spec.min_p.is_some() {
                let kept = |p: bool| u64::from(p);
                let n_kept: u64 = found.iter().map(|&p| kept(p > 0.0)).sum();
                assert_eq!(Some(n_kept), case["kept_tokens"][row].as_u64(), "{name}");
                assert!(found.iter().zip(expected).all(|(a, b)| (*a > 0.0) == (*b > 0.0)), "{name}: another set");
            }
        }
    }
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    let numbers =
        |row: &Value| row.as_array().expect("a row").iter().map(|x| x.as_f64().expect("a number") as f32).collect();
    value.as_array().expect("rows").iter().map(numbers).collect()
}
