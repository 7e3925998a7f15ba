//! A wrong scenario file gives one message with file, line, field and advice, exit code 2, and never a panic.

use proptest::prelude::*;

use crate::{infermark, refused};

const GOOD: &str = r#"name = "case"
question = "Which?"
[model]
source = "embedded:draft"
[matrix]
attention = ["naive", "flash"]
weights = ["f32", { kind = "rtn", bits = 4, group = 32 }]
[reference]
weights = "f32"
[budget]
seconds = 5
[[workload]]
kind = "perplexity"
text = "embedded:evaluation"
protocols = [{ rule = "gptq", window = 128 }]
[[workload]]
kind = "decode"
tokens = 8
"#;

/// Messages of `GOOD` with `from` replaced by `to`.
fn message(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    plan(&GOOD.replacen(from, to, 1))
}

fn plan(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("case.toml"), text).expect("writable");
    let said = refused(folder.path(), &["plan", "case.toml"], 2);
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn the_good_file_is_good() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("case.toml"), GOOD).expect("writable");
    infermark(folder.path()).args(["plan", "case.toml"]).assert().success();
}

#[test]
fn each_mistake_is_named_where_it_is() {
    let cases = [
        ("\"flash\"]", "\"falsh\"]", ["case.toml:6:", "matrix.attention[1]", "did you mean `flash`"]),
        ("seconds = 5", "secnds = 5", ["case.toml:11:", "unknown field `secnds`", "did you mean `seconds`"]),
        ("tokens = 8", "tokens = \"8\"", ["case.toml:18:", "workload[1].tokens", "a whole number"]),
        ("kind = \"decode\"", "kind = \"decoed\"", ["case.toml:17:", "workload[1].kind", "did you mean `decode`"]),
        ("bits = 4", "bits = 5", ["case.toml:7:", "matrix.weights[1]", "2, 3, 4 or 8"]),
        ("bits = 4, ", "", ["case.toml:7:", "matrix.weights[1]", "bits"]),
        ("question = \"Which?\"", "question = \" \"", ["case.toml:2:", "question", "empty"]),
        ("question = \"Which?\"", "", ["case.toml:", "`question` is missing", "show quickstart"]),
        ("name = \"case\"", "name = \"other\"", ["case.toml:1:", "\"case\"", "rename the file"]),
        ("seconds = 5", "seconds = 5 5", ["case.toml:11:", "not TOML", "^"]),
        ("seconds = 5", "seconds = 0", ["case.toml:11:", "budget.seconds", "positive"]),
        ("seconds = 5", "precision = 2.0", ["case.toml:11:", "budget.precision", "between 0 and 1"]),
        ("window = 128", "window = 1", ["case.toml:15:", "protocols[0].window", "at least 2"]),
        ("window = 128", "window = 100000", ["case.toml:15:", "protocols[0].window", "positions"]),
        ("seconds = 5", "seconds = 5\n[expect]\nprompt_tokens = 9000", ["case.toml:", "expect", "positions"]),
        (
            "tokens = 8",
            "tokens = 8\n[engine]\ndecoding = { kind = \"speculative\", gamma = 99 }",
            ["case.toml:20:", "gamma = 99", "1 to 16"],
        ),
        (
            "kind = \"decode\"\ntokens = 8",
            "kind = \"kernels\"\nkernels = [{ op = \"gem\", rows = 1, n = 99999999, k = 99999999 }]",
            ["case.toml:18:", "did you mean `gemv`", "choose smaller sizes"],
        ),
        ("rule = \"gptq\"", "rule = \"gtpq\"", ["case.toml:15:", "protocols[0].rule", "did you mean `gptq`"]),
        ("tokens = 8", "tokens = 9000", ["case.toml:18:", "workload[1].tokens", "positions"]),
        ("weights = \"f32\"", "weights = \"f16\"", ["case.toml:9:", "reference.weights", "not in the matrix"]),
        ("\"naive\", \"flash\"", "\"flash\", \"flash\"", ["case.toml:6:", "matrix.attention[1]", "listed twice"]),
        ("kind = \"rtn\"", "kind = \"gptq\"", ["case.toml:7:", "matrix.weights[1]", "calibration"]),
        ("embedded:draft", "embedded:draught", ["case.toml:4:", "model.source", "did you mean `embedded:draft`"]),
        ("embedded:draft", "random:llama-9b", ["case.toml:4:", "model.source", "llama-1.1b"]),
        ("embedded:draft", "no/such/folder", ["case.toml:4:", "model.source", "neither a folder"]),
        ("embedded:evaluation", "no-such.txt", ["case.toml:14:", "workload[0].text", "embedded:evaluation"]),
        (
            "kind = \"decode\"\ntokens = 8",
            "kind = \"identity\"\ncheck = \"nonsense\"",
            ["case.toml:18:", "unknown identity", "known"],
        ),
    ];
    for (from, to, wanted) in cases {
        let said = message(from, to);
        for words in wanted {
            assert!(said.contains(words), "{from} -> {to}: no {words:?} in\n{said}");
        }
    }
}

/// A claim about a ratio of perplexities with `rule`.
fn ratio_claim(tier: &str, rule: &str) -> String {
    format!(
        "[[claim]]\nid = \"a\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"s\"\ntier = \"{tier}\"\npublished = \"p\"\n\
         counterpart = \"c\"\n[[claim.part]]\nlabel = \"l\"\nmeasure = {{ kind = \"ratio\", metric = \"ppl\", \
         over = {{ weights = \"rtn-4bit-g32\" }}, under = {{ weights = \"f32\" }} }}\nrule = {{ {rule} }}\n"
    )
}

#[test]
fn a_rule_says_what_its_number_is_compared_with() {
    for (rule, field, what, help) in [
        (
            "at_most = 1.0",
            "rule",
            "does not say what the number is compared with",
            "no_effect = 1.0 and smallest_effect",
        ),
        ("at_most = 1.0, no_effect = 1.0", "rule", "would confirm any effect, however small", "smallest_effect = 0.98"),
        (
            "at_least = 1.0, no_effect = 1.0",
            "rule",
            "would confirm any effect, however small",
            "smallest_effect = 1.02",
        ),
        ("at_most = 1.1, no_effect = 1.0", "rule.at_most", "on the wrong side of no_effect = 1", "state parity"),
        (
            "at_most = 1.0, no_effect = 1.0, smallest_effect = 1.02",
            "rule.smallest_effect",
            "at_most claims an effect below 1",
            "turn the bound round",
        ),
        (
            "at_most = 0.9, no_effect = 1.0, paper = 1.5",
            "rule.paper",
            "at_most claims an effect below 1",
            "below no_effect",
        ),
        (
            "at_most = 0.9, no_effect = 1.0, paper = 1.0",
            "rule.paper",
            "no effect of which a share could be found",
            "leave",
        ),
        ("at_most = 0.9, no_effect = 1.0, paper = nan", "rule.paper", "no number to compare with", "a finite number"),
        (
            "at_most = 1.02, smallest_effect = 0.98, parity = 1.0",
            "rule.smallest_effect",
            "nothing without no_effect",
            "add",
        ),
        (
            "report_only = true, no_effect = 1.0, smallest_effect = 0.98",
            "rule.smallest_effect",
            "without a bound",
            "add",
        ),
        ("at_most = 1.02, no_effect = 1.4, parity = 1.0", "rule.parity", "not both", "keep one of the two"),
        (
            "at_most = 0.98, parity = 1.0",
            "rule.parity",
            "parity = 1 itself would not confirm",
            "state no_effect instead",
        ),
        (
            "at_most = 1.02, parity = 1.0, denied = 1.01",
            "rule.denied",
            "would confirm the claim",
            "at the bound or beyond",
        ),
        (
            "at_least = 0.5, at_most = 0.9, no_effect = 0.0, smallest_effect = 0.95",
            "rule",
            "no number is at least 0.95 and at most 0.9",
            "leave a range",
        ),
        (
            "at_most = 1.0, no_effect = 1.0, smalest_effect = 0.98",
            "rule",
            "unknown field `smalest_effect`",
            "smallest_effect",
        ),
    ] {
        let said = plan(&format!("{GOOD}{}", ratio_claim("ratio", rule)));
        let place = format!("claim[0].part[0].{field}");
        let seen = said.contains("case.toml:") && said.contains(&place) || said.contains("unknown field");
        assert!(seen && said.contains(what) && said.contains(help), "{rule}: {said}");
    }
    let said = plan(&format!("{GOOD}{}", ratio_claim("identity", "at_most = 1.0, paper = 1.0")));
    assert!(said.contains("an identity has no `paper`"), "{said}");
    for rule in [
        "at_most = 1.0, no_effect = 1.0, smallest_effect = 0.98, paper = 0.48",
        "at_most = 0.8, no_effect = 1.0",
        "at_most = 1.02, parity = 1.0, denied = 1.4, paper = 1.007",
        "at_least = 2.0, no_effect = 1.0, denied = 2.0",
        "at_least = 0.9, at_most = 1.1, parity = 1.0",
        "report_only = true, no_effect = 1.0, paper = 2.3",
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = format!("{GOOD}{}", ratio_claim("ratio", rule));
        std::fs::write(folder.path().join("case.toml"), text).expect("writable");
        infermark(folder.path()).args(["plan", "case.toml"]).assert().success();
    }
}

#[test]
fn a_claim_names_its_workload_where_several_have_the_metric() {
    let again = "[[workload]]\nkind = \"decode\"\ntokens = 4\n";
    let of = |metric: &str, more: &str| {
        ratio_claim("ratio", "report_only = true").replace("metric = \"ppl\"", &format!("metric = \"{metric}\"{more}"))
    };
    let said = plan(&format!("{GOOD}{again}{}", of("decode_tok_s", "")));
    assert!(said.contains("claim[0].part[0].measure") && said.contains("may come from tg8 and tg4"), "{said}");
    assert!(said.contains("workload = \"tg8\""), "{said}");
    let said = plan(&format!("{GOOD}{}", of("weights_bytes", "")));
    assert!(said.contains("may come from tg8 and load"), "{said}");
    let several = GOOD.replace("window = 128 }", "window = 128 }, { rule = \"llamacpp\", window = 128 }");
    let closure = ratio_claim("ratio", "report_only = true")
        .replace("kind = \"ratio\", metric = \"ppl\", over", "kind = \"closure\", method")
        .replace("under =", "baseline =");
    let said = plan(&format!("{several}{closure}"));
    assert!(said.contains("several protocols") && said.contains("protocol = \"gptq-128\""), "{said}");
    for text in [
        format!("{GOOD}{again}{}", of("decode_tok_s", ", workload = \"tg4\"")),
        format!("{GOOD}{}", of("decode_tok_s", "")),
        format!("{GOOD}{closure}"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("case.toml"), text).expect("writable");
        infermark(folder.path()).args(["plan", "case.toml"]).assert().success();
    }
}

#[test]
fn claims_are_checked_against_the_cells() {
    let claim = |id: &str, weights: &str, rule: &str| {
        format!(
            "[[claim]]\nid = \"{id}\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"s\"\ntier = \"ratio\"\npublished = \"p\"\n\
             counterpart = \"c\"\n[[claim.part]]\nlabel = \"l\"\nmeasure = {{ kind = \"value\", metric = \"ppl\", cell = {{ weights = \"{weights}\" }} }}\n\
             rule = {{ {rule} }}\n"
        )
    };
    let said = plan(&format!("{GOOD}{}", claim("a", "rtn-4bit-g23", "at_most = 1.0")));
    assert!(
        said.contains("claim[0].part[0].measure.cell.weights") && said.contains("did you mean `rtn-4bit-g32`"),
        "{said}"
    );
    let elsewhere =
        claim("a", "f32", "at_most = 1.0").replace("metric = \"ppl\"", "metric = \"ppl\", workload = \"tg9\"");
    let said = plan(&format!("{GOOD}{elsewhere}"));
    assert!(said.contains("no workload is called `tg9`") && said.contains("did you mean `tg8`"), "{said}");
    // an array is no table, although it would fit the fields in their order
    let listed = claim("a", "f32", "at_most = 1.0").replace("rule = { at_most = 1.0 }", "rule = [1.0]");
    let said = plan(&format!("{GOOD}{listed}"));
    assert!(said.contains("claim[0].part[0].rule") && said.contains("a table"), "{said}");
    // neither are the file's own sections
    for list in
        ["budget = [1]", "expect = [1.0]", "engine = [\"flash\"]", "model = [\"embedded:draft\", \"embedded:draft\"]"]
    {
        let said = plan(&format!("name = \"case\"\nquestion = \"Which?\"\n{list}\n"));
        assert!(said.contains("case.toml:3") && said.contains("a table of fields"), "{list}: {said}");
    }
    let twice = claim("a", "f32", "at_most = 1.0") + &claim("a", "f32", "point = true");
    let said = plan(&format!("{GOOD}{twice}"));
    assert!(said.contains("claim `a` is already number 1") && said.contains("judges nothing"), "{said}");
}

#[test]
fn unreadable_files_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("case.toml"), b"name = \"\xff\"").expect("writable");
    assert!(refused(folder.path(), &["plan", "case.toml"], 2).contains("not UTF-8 at byte 8"));
    assert!(refused(folder.path(), &["plan", "absent.toml"], 2).contains("absent.toml"));
    assert!(refused(folder.path(), &["run", "./"], 2).contains("cannot read"));
    std::fs::write(folder.path().join("case.toml"), "#".repeat(2 << 20)).expect("writable");
    assert!(refused(folder.path(), &["plan", "case.toml"], 2).contains("longer"));
}

/// A file with one place changed: a byte, a line, or two places swapped.
fn mutated() -> impl Strategy<Value = String> {
    let byte = (0..GOOD.len(), any::<char>()).prop_map(|(at, c)| {
        let mut chars: Vec<char> = GOOD.chars().collect();
        chars[at] = c;
        chars.into_iter().collect()
    });
    let cut = (0..GOOD.len(), 0..GOOD.len()).prop_map(|(a, b)| GOOD[..a.min(b)].to_string() + &GOOD[a.max(b)..]);
    let lines: Vec<&str> = GOOD.lines().collect();
    let line = (0..lines.len(), 0..lines.len(), any::<bool>()).prop_map(move |(a, b, replace)| {
        let mut lines = lines.clone();
        let moved = lines[a];
        if replace {
            lines[b] = moved
        } else {
            lines.insert(b, moved)
        }
        lines.join("\n")
    });
    let words = [
        "\"\"",
        "-1",
        "1e999",
        "nan",
        "[]",
        "{}",
        "[[]]",
        "1979-05-27",
        "\"é💥\"",
        "true",
        "\"\"\"\nx\n\"\"\"",
        "18446744073709551616",
    ];
    let value = (0..GOOD.lines().count(), proptest::sample::select(words.to_vec())).prop_map(|(at, word)| {
        let change = |(i, line): (usize, &str)| match line.split_once(" = ") {
            Some((key, _)) if i == at => format!("{key} = {word}"),
            _ => line.to_string(),
        };
        GOOD.lines().enumerate().map(change).collect::<Vec<_>>().join("\n")
    });
    prop_oneof![byte, cut, line, value]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic(text in mutated()) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("case.toml"), &text).expect("writable");
        let output = infermark(folder.path()).args(["plan", "case.toml"]).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        prop_assert!(matches!(output.status.code(), Some(0 | 2)), "{:?}\n{text}\n{said}", output.status);
        prop_assert!(!said.contains("panicked"), "{text}\n{said}");
    }
}

#[test]
fn hostile_nesting_is_refused() {
    for text in [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}1{}", "{ b = ".repeat(5_000), " }".repeat(5_000)),
        "a.".repeat(50_000),
    ] {
        plan(&text);
    }
}
