//! Other engines: a scenario goes on without them and says what is missing.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;

use crate::{infermark, printed, refused};

const WITH_ENGINE: &str = r#"name = "beside"
question = "Does a run go on without the other engine?"
[[external]]
engine = "pytorch"
[budget]
threads = 1
seconds = 1
min_repetitions = 1
max_repetitions = 1
aa_control = false
measure_machine = false
[[workload]]
kind = "attention-sweep"
lengths = [8, 16]
decode = true
heads = 2
kv_heads = 2
head_dim = 8
"#;

#[test]
fn a_missing_interpreter_skips_the_cell() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("beside.toml"), WITH_ENGINE).expect("writable");
    assert!(printed(folder.path(), &["plan", "beside.toml"]).contains("pytorch+sdpa+f32+f32"));
    let words = ["run", "beside.toml", "--output", "out", "--quiet", "--no-report", "--python", "nowhere"];
    assert!(printed(folder.path(), &words).ends_with("pass\n"));
    let csv = printed(folder.path(), &["export", "out", "--csv", "-"]);
    let skipped = csv.lines().find(|line| line.contains("pytorch") && line.contains("skipped")).unwrap_or("");
    assert!(skipped.contains("--python PATH"), "{csv}");
    assert!(csv.contains("attention_decode_ms") && !folder.path().join("out/scratch").exists());
}

#[test]
fn an_adapter_that_talks_nonsense_fails_its_cell_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("beside.toml"), WITH_ENGINE).expect("writable");
    let python = folder.path().join("python");
    std::fs::write(&python, "#!/bin/sh\necho Segmentation fault\n").expect("writable");
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let words = ["run", "beside.toml", "--output", "out", "--quiet", "--no-report", "--python", "./python"];
    infermark(folder.path()).args(words).assert().code(3);
    let csv = printed(folder.path(), &["export", "out", "--csv", "-"]);
    assert!(csv.contains("not an answer: Segmentation fault") && csv.contains("attention_decode_ms"), "{csv}");
}

#[test]
fn unknown_words_of_an_engine_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = WITH_ENGINE.replace("engine = \"pytorch\"", "engine = \"pytorch\"\nattention = [\"flash\"]");
    std::fs::write(folder.path().join("beside.toml"), text).expect("writable");
    let said = refused(folder.path(), &["plan", "beside.toml"], 2);
    assert!(said.contains("has no attention called `flash`") && said.contains("sdpa"), "{said}");
}

const GPU_KERNELS: &str = r#"name = "beside"
question = "Which problems has the other engine a kernel for?"
[[external]]
engine = "triton"
[budget]
seconds = 1
min_repetitions = 2
max_repetitions = 2
aa_control = false
measure_machine = false
[[workload]]
kind = "gpu-kernels"
problems = [{ op = "quantized", n = 128, k = 128, bits = 4 }, { op = "gemm", m = 64, n = 64, k = 64 }]
"#;

/// An interpreter that times 4-bit products and has nothing else.
const TIMES_SOME: &str = r#"#!/bin/sh
echo '{"say":"hello","protocol":1,"engine":"triton","version":"3","facts":[]}'
while read line; do
    case "$line" in
    *load*) echo '{"say":"loaded","kernels":"tuned"}' ;;
    *quantized*) echo '{"say":"timed","ns":5000,"calls":5}' ;;
    *) echo '{"say":"refused","reason":"nothing for products of 16 bit"}' ;;
    esac
done
"#;

#[test]
fn what_an_engine_has_no_kernel_for_is_kept_with_its_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("beside.toml"), GPU_KERNELS).expect("writable");
    let python = folder.path().join("python");
    std::fs::write(&python, TIMES_SOME).expect("writable");
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let words = ["run", "beside.toml", "--output", "out", "--quiet", "--python", "./python"];
    assert!(printed(folder.path(), &words).ends_with("pass\n"));
    let csv = printed(folder.path(), &["export", "out", "--csv", "-"]);
    assert!(csv.contains("us_per_call:quantized/triton fused/"), "{csv}");
    let report = std::fs::read_to_string(folder.path().join("out/report.html")).expect("a report");
    assert_eq!(
        report.matches("nothing for products of 16 bit").count(),
        1,
        "the fact, once, and no matter how often it was said"
    );
}
