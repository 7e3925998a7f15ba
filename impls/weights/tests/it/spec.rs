//! Specs as a scenario writes them.

use std::collections::HashSet;

use weights::{GptqSpec, GroupSpec, WeightsSpec};

fn parse(text: &str) -> Result<WeightsSpec, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_the_papers() {
    let gptq = GptqSpec {
        bits: 4,
        group: Some(128),
        symmetric: false,
        act_order: false,
        static_groups: false,
        damping: 0.01,
        block: 128,
        activation_bits: None,
    };
    assert_eq!(parse("kind = \"gptq\"\nbits = 4"), Ok(WeightsSpec::Gptq(gptq)));
    let rtn = GroupSpec { symmetric: true, ..GroupSpec::new(3, None) };
    assert_eq!(parse("kind = \"rtn\"\nbits = 3\ngroup = \"row\"\nsymmetric = true"), Ok(WeightsSpec::Rtn(rtn)));
    assert_eq!(parse("kind = \"bf16\""), Ok(WeightsSpec::Bf16));
}

#[test]
fn tags_name_specs() {
    let tag = |text| parse(text).expect("parses").tag();
    assert_eq!(tag("kind = \"f32\""), "f32");
    assert_eq!(tag("kind = \"rtn\"\nbits = 4"), "rtn-4bit-g128");
    assert_eq!(tag("kind = \"gptq\"\nbits = 3\ngroup = \"row\"\nact_order = true"), "gptq-3bit-row-actorder");
    assert_eq!(
        tag("kind = \"gptq\"\nbits = 2\ngroup = 32\nblock = 1\ndamping = 0.1"),
        "gptq-2bit-g32-damping0.1-block1"
    );
    assert_eq!(tag("kind = \"nf4\""), "nf4");
    assert_eq!(tag("kind = \"nf4\"\nblock = 128\ndouble_quant = true"), "nf4-b128-dq");
    assert_eq!(tag("kind = \"fp4\"\nvalues = \"e3m0\"\ndouble_quant = \"fp8\""), "fp4-e3m0-dqfp8");
    assert_eq!(tag("kind = \"int4\"\ndouble_quant = false"), "int4");
    assert_eq!(tag("kind = \"mxfp4\""), "mxfp4");
    let all = WeightsSpec::all();
    assert_eq!(all.iter().map(WeightsSpec::tag).collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn every_spec_survives_toml() {
    for spec in WeightsSpec::all() {
        let text = toml::to_string(&spec).expect("serialises");
        assert_eq!(parse(&text), Ok(spec), "{text}");
    }
}

#[test]
fn wrong_specs_name_the_field_and_the_remedy() {
    for (text, words) in [
        ("kind = \"gptq\"\nbits = 5", ["`bits = 5`", "2, 3, 4 or 8"]),
        ("kind = \"gptq\"", ["missing field `bits`", "bits"]),
        ("kind = \"rtn\"\nbits = 4\ngroup = 0", ["`group = 0`", "\"row\""]),
        ("kind = \"rtn\"\nbits = 4\ngroup = \"col\"", ["group", "\"row\""]),
        ("kind = \"rtn\"\nbits = 4\ngroup = -1", ["-1", "\"row\""]),
        ("kind = \"gptq\"\nbits = 4\ndamping = 0.0", ["`damping = 0`", "0.01"]),
        ("kind = \"gptq\"\nbits = 4\ndamping = nan", ["`damping = NaN`", "0.01"]),
        ("kind = \"gptq\"\nbits = 4\nblock = 0", ["`block = 0`", "128"]),
        ("kind = \"f32\"\nbits = 4", ["unknown field `bits`", "bits"]),
        ("kind = \"rtn\"\nbits = 4\nact_order = true", ["unknown field `act_order`", "`symmetric`"]),
        ("kind = \"nf4\"\nblock = 12", ["`block = 12`", "64"]),
        ("kind = \"nf4\"\ndouble_quant = \"int8\"", ["int8", "\"fp8\""]),
        ("kind = \"nvfp4\"\nblock = 16", ["block", "unknown field"]),
        ("kind = \"int8\"\ncolour = 1", ["colour", "unknown field"]),
        ("kind = \"int9\"", ["int9", "int8"]),
    ] {
        let message = parse(text).expect_err(text);
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
}
