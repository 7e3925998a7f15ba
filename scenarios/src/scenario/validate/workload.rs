//! Workloads that can be run.

use std::collections::BTreeMap;

use weights::WeightsSpec;

use super::{Faults, task};
use crate::diagnostic::meant;
use crate::matrix::{self, AXES};
use crate::scenario::{GpuProblem, Kernel, ModelPart, Protocol, Scenario, Workload};
use crate::text;
use crate::worker::counted::steps;

/// Most values of one kernel operand or one score matrix: above any real layer, below what fills a machine's memory.
const MOST_VALUES: usize = 1 << 28;
/// The same for arrays in a GPU's memory.
const MOST_GPU_VALUES: u128 = 1 << 33;
/// Most sequences of a decode workload.
const MOST_SEQUENCES: usize = 256;
/// Most prompts of one workload.
const MOST_PROMPTS: usize = 1 << 16;
/// Longest sequence of an attention sweep.
const MOST_POSITIONS: usize = 1 << 17;

/// Fewest and most steps of a counted loop.
const MOST_UNITS: (u64, u64) = (1_000, 10_000_000_000);

/// Checks every workload and that their names differ.
pub(super) fn check_all(scenario: &Scenario, faults: &mut Faults<'_>) {
    let models = scenario.models();
    let random = !models.is_empty() && models.iter().all(ModelPart::is_random);
    let mut names = BTreeMap::new();
    for (i, workload) in scenario.workloads.iter().enumerate() {
        let path = format!("workload[{i}]");
        if let Some(first) = names.insert(workload.name(), i) {
            let title = format!("`{}` is the name of workload number {} too", workload.name(), first + 1);
            faults.add(path.as_str(), title, "join the two into one: their results could not be told apart");
        }
        if random && workload.reads_text() {
            let help = "use prefill and decode for speed, or a trained checkpoint";
            faults.add(path.as_str(), "random weights cannot read text", help);
        }
        check(&path, workload, faults);
    }
    check_programmed(scenario, faults);
}

fn check_sequences(path: &str, sequences: usize, faults: &mut Faults<'_>) {
    let some = (1..=MOST_SEQUENCES).contains(&sequences);
    let title = format!("must be at least 1 and at most {MOST_SEQUENCES}");
    faults.need(some, path, &title, "e.g. sequences = 8");
}

fn check(path: &str, workload: &Workload, faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    match workload {
        Workload::Perplexity { text, protocols, max_tokens } => {
            check_perplexity(path, text, protocols, *max_tokens, faults)
        }
        Workload::Task(_) | Workload::Passkey(_) => task::check(path, workload, faults),
        Workload::Prefill { tokens } => {
            let lengths = !tokens.is_empty() && tokens.iter().all(|&n| n >= 1);
            faults.need(lengths, &field("tokens"), "must be prompt lengths of at least 1", "e.g. tokens = [512]");
        }
        Workload::Decode { tokens, context, sequences } => {
            check_sequences(&field("sequences"), *sequences, faults);
            faults.need(*tokens >= 1, &field("tokens"), "must be at least 1", "e.g. tokens = 128");
            let why = "a decoder needs a token to start from; 16 is the default";
            faults.need(*context >= 1, &field("context"), "must be at least 1", why);
        }
        Workload::Generate { text, prompts, prompt_tokens, new_tokens } => {
            check_text(&field("text"), text, faults);
            let example = "e.g. prompts = 8, prompt_tokens = 64, new_tokens = 64";
            for (name, n) in [("prompts", prompts), ("prompt_tokens", prompt_tokens), ("new_tokens", new_tokens)] {
                faults.need(*n >= 1, &field(name), "must be at least 1", example);
            }
            faults.need(
                *prompts <= MOST_PROMPTS,
                &field("prompts"),
                &format!("must be at most {MOST_PROMPTS}"),
                example,
            );
        }
        Workload::Kernels { kernels } => {
            let example = "e.g. kernels = [{ op = \"gemm\", rows = 512, n = 512, k = 512 }]";
            faults.need(!kernels.is_empty(), &field("kernels"), "no kernel", example);
            for (i, kernel) in kernels.iter().enumerate() {
                check_kernel(&format!("{path}.kernels[{i}]"), kernel, faults);
            }
        }
        Workload::GpuKernels { problems, .. } => {
            let example = "e.g. problems = [{ op = \"gemm\", m = 4096, n = 4096, k = 4096 }]";
            faults.need(!problems.is_empty(), &field("problems"), "no problem", example);
            for (i, problem) in problems.iter().enumerate() {
                check_gpu_problem(&format!("{path}.problems[{i}]"), problem, faults);
            }
        }
        Workload::AttentionSweep { lengths, heads, kv_heads, head_dim, full, decode, batch, threads, .. } => {
            check_sweep(path, lengths, [*heads, *kv_heads, *head_dim], faults);
            faults.need((1..=256).contains(batch), &field("batch"), "must be 1 to 256", "1 is the default");
            let sensible = threads.iter().all(|n| (1..=1024).contains(n));
            faults.need(sensible, &field("threads"), "must be 1 to 1024 each", "e.g. threads = [1, 2]");
            let why = "a whole prompt is one sequence: add decode = true, or leave `batch` out";
            faults.need(*batch == 1 || *decode, &field("batch"), "is for decode passes", why);
            let why = "a decode pass sees every entry anyway: leave `full` out";
            faults.need(!(*full && *decode), &field("full"), "cannot go with `decode`", why);
            let longest = lengths.iter().copied().max().unwrap_or(0);
            let values = longest.saturating_mul(*batch).saturating_mul(kv_heads.saturating_mul(*head_dim));
            let title = format!("the keys of a pass have more than {MOST_VALUES} values");
            faults.need(values <= MOST_VALUES, &field("lengths"), &title, "fewer sequences or shorter lengths");
        }
        Workload::Sensitivity { .. } => check_sensitivity(path, workload, faults),
        Workload::KnownAnswer { units, slowdowns } => check_known_answer(path, *units, slowdowns, faults),
        Workload::Identity { check } => {
            let known: Vec<&str> = crate::claims::identities().iter().map(|(name, _)| *name).collect();
            if !known.contains(&check.as_str()) {
                faults.add(field("check"), format!("unknown identity `{check}`"), meant(check, &known, "identities"));
            }
        }
    }
}

/// At least one window of one protocol fits the text that is read.
fn check_perplexity(
    path: &str,
    text: &str,
    protocols: &[Protocol],
    max_tokens: Option<usize>,
    faults: &mut Faults<'_>,
) {
    let field = |name: &str| format!("{path}.{name}");
    check_text(&field("text"), text, faults);
    let example = "e.g. protocols = [{ rule = \"gptq\", window = 512 }]";
    faults.need(!protocols.is_empty(), &field("protocols"), "no protocol", example);
    for (i, protocol) in protocols.iter().enumerate() {
        check_protocol(&format!("{path}.protocols[{i}]"), protocol, faults);
    }
    let enough = max_tokens.is_none_or(|n| n >= 2);
    faults.need(enough, &field("max_tokens"), "must be at least 2", "leave it out to read the whole text");
    for (i, protocol) in protocols.iter().enumerate().filter(|_| enough) {
        let Some(limit) = max_tokens.filter(|&limit| limit < protocol.least_tokens()) else { continue };
        let title = format!("a window of {} tokens is longer than max_tokens = {limit}", protocol.window);
        let help = "nothing would be scored: shorten the window or raise max_tokens";
        faults.add(field(&format!("protocols[{i}].window")), title, help);
    }
}

/// Costs that are told apart by their number of steps; the least that a clock of nanoseconds sees as a time is a thousand steps.
fn check_known_answer(path: &str, units: u64, slowdowns: &[f64], faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    let sensible = (MOST_UNITS.0..=MOST_UNITS.1).contains(&units);
    let title = format!("must be {} to {} steps", MOST_UNITS.0, MOST_UNITS.1);
    faults.need(sensible, &field("units"), &title, "5000000 is the default, about ten milliseconds");
    let example = "e.g. slowdowns = [1.0, 1.03]: the reference, and a cell that does 3 % more";
    faults.need(!slowdowns.is_empty(), &field("slowdowns"), "must list at least the reference's cost, 1", example);
    for (i, slowdown) in slowdowns.iter().enumerate() {
        let here = field(&format!("slowdowns[{i}]"));
        if !(0.1..=10.0).contains(slowdown) {
            faults.add(here, "must lie between 0.1 and 10", example);
        } else if i == 0 {
            faults.need(*slowdown == 1.0, &here, "must be 1: the first cell is the reference", example);
        } else if slowdowns[..i].iter().any(|other| steps(units, *other) == steps(units, *slowdown)) {
            faults.add(here, "is the same number of steps as one before it", "remove it, or raise `units`");
        }
    }
}

/// Cells of a scenario of known answer differ in nothing but their programmed cost.
fn check_programmed(scenario: &Scenario, faults: &mut Faults<'_>) {
    if scenario.slowdowns().is_empty() {
        return;
    }
    let why = "the cells of a scenario of known answer differ in only its costs: leave this out, or ask it in a scenario of its own";
    for (axis, list) in AXES.iter().zip(matrix::lists(scenario)).skip(1) {
        faults.need(list.len() <= 1, &format!("matrix.{axis}"), "cannot vary beside a known answer", why);
    }
    let help = "a counted loop runs no model: remove [model]";
    faults.need(scenario.models().is_empty(), "model", "is not used by a known answer", help);
    faults.need(scenario.externals.is_empty(), "external", "other engines have no counted loop", why);
    let alone = scenario.workloads.len() == 1;
    faults.need(alone, "workload", "a known answer stands alone: its costs are the cells", why);
}

/// Whether the text called `given` is there.
pub(super) fn check_text(path: &str, given: &str, faults: &mut Faults<'_>) {
    if let Err(error) = text::exists(given, faults.file) {
        let problem = error.to_string();
        let (title, help) = problem.split_once("; ").unwrap_or((&problem, ""));
        faults.add(path, title, help);
    }
}

fn check_sensitivity(path: &str, workload: &Workload, faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    let Workload::Sensitivity { text, measured_on, windows, window_tokens, candidates, budgets } = workload else {
        return;
    };
    check_text(&field("text"), text, faults);
    check_text(&field("measured_on"), measured_on, faults);
    let why = "a choice looks good on the text it was made on";
    faults.need(text != measured_on, &field("measured_on"), "must be another text than `text`", why);
    faults.need(*windows >= 1, &field("windows"), "must be at least 1", "8 is the default");
    faults.need(*window_tokens >= 2, &field("window_tokens"), "must be at least 2", "256 is the default");
    let example = "e.g. candidates = [{ kind = \"rtn\", bits = 3 }, { kind = \"rtn\", bits = 4 }]";
    faults.need(!candidates.is_empty(), &field("candidates"), "no candidate", example);
    for (i, candidate) in candidates.iter().enumerate() {
        let alone = !matches!(candidate, WeightsSpec::Mixed(_)) && candidate.equaliser().is_none();
        let title = format!("`{}` changes more than one matrix", candidate.tag());
        let why = "a sensitivity is of one matrix: name kinds that store a matrix as it is";
        faults.need(alone, &field(&format!("candidates[{i}]")), &title, why);
    }
    let sensible = !budgets.is_empty() && budgets.iter().all(|b| (0.5..=32.0).contains(b));
    faults.need(sensible, &field("budgets"), "must be bits per weight, 0.5 to 32", "e.g. budgets = [3.5, 4.25]");
}

fn check_kernel(path: &str, kernel: &Kernel, faults: &mut Faults<'_>) {
    let known = cpu_kernels::OPS;
    if !known.contains(&kernel.op.as_str()) {
        let help = meant(&kernel.op, known, "operations");
        faults.add(format!("{path}.op"), format!("unknown operation `{}`", kernel.op), help);
    }
    let rungs: Vec<&str> = cpu_kernels::ladder(&kernel.op).iter().map(|rung| rung.name).collect();
    for (i, name) in kernel.rungs.iter().enumerate().filter(|(_, name)| !rungs.contains(&name.as_str())) {
        let title = format!("`{}` has no rung `{name}`", kernel.op);
        faults.add(format!("{path}.rungs[{i}]"), title, meant(name, &rungs, "rungs"));
    }
    for (name, n) in [("rows", kernel.rows), ("n", kernel.n), ("k", kernel.k)] {
        faults.need(n >= 1, &format!("{path}.{name}"), "must be at least 1", "it is a matrix size");
    }
    let pairs = [(kernel.rows, kernel.k), (kernel.n, kernel.k), (kernel.rows, kernel.n)];
    let fits = pairs.iter().all(|(a, b)| a.checked_mul(*b).is_some_and(|values| values <= MOST_VALUES));
    let title = format!("a matrix of this kernel has more than {MOST_VALUES} values");
    faults.need(fits, path, &title, "choose smaller sizes");
}

fn check_gpu_problem(path: &str, problem: &GpuProblem, faults: &mut Faults<'_>) {
    for (name, n) in problem.sizes() {
        let sensible = (1..=1 << 24).contains(&n);
        faults.need(sensible, &format!("{path}.{name}"), "must be 1 to 16777216", "it is a size");
    }
    let title = format!("an array of this problem has more than {MOST_GPU_VALUES} values");
    faults.need(problem.largest() <= MOST_GPU_VALUES, path, &title, "choose smaller sizes");
    match *problem {
        GpuProblem::Attention { heads, kv_heads, .. } | GpuProblem::AttentionDecode { heads, kv_heads, .. } => {
            let divides = kv_heads >= 1 && heads.is_multiple_of(kv_heads.max(1));
            let why = "every KV head serves the same number of query heads";
            faults.need(divides, &format!("{path}.kv_heads"), "must divide `heads`", why);
        }
        GpuProblem::Quantized { bits, .. } => {
            let known = [4, 8].contains(&bits);
            faults.need(known, &format!("{path}.bits"), "must be 4 or 8", "there are kernels for these");
        }
        _ => {}
    }
}

fn check_sweep(path: &str, lengths: &[usize], [heads, kv_heads, head_dim]: [usize; 3], faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    let sensible = !lengths.is_empty() && lengths.iter().all(|n| (1..=MOST_POSITIONS).contains(n));
    let title = format!("must be sequence lengths of 1 to {MOST_POSITIONS}");
    faults.need(sensible, &field("lengths"), &title, "e.g. lengths = [256, 512, 1024]");
    faults.need((1..=1024).contains(&heads), &field("heads"), "must be 1 to 1024", "8 is usual for a small model");
    let divides = kv_heads >= 1 && heads.is_multiple_of(kv_heads.max(1));
    let why = "every KV head serves the same number of query heads";
    faults.need(divides, &field("kv_heads"), "must divide `heads`", why);
    faults.need((1..=1024).contains(&head_dim), &field("head_dim"), "must be 1 to 1024", "64 is usual");
}

fn check_protocol(path: &str, protocol: &Protocol, faults: &mut Faults<'_>) {
    let known = Protocol::RULES;
    if !known.contains(&protocol.rule.as_str()) {
        let help = meant(&protocol.rule, &known, "rules");
        faults.add(format!("{path}.rule"), format!("unknown rule `{}`", protocol.rule), help);
    }
    faults.need(
        protocol.window >= protocol.least_window(),
        &format!("{path}.window"),
        &format!("must be at least {} tokens", protocol.least_window()),
        "the first token of a window has nothing before it, so it is never scored; llamacpp scores the second half alone",
    );
    match (protocol.rule.as_str(), protocol.stride) {
        ("hf-stride", Some(stride)) => {
            faults.need(
                (1..=protocol.window).contains(&stride),
                &format!("{path}.stride"),
                &format!("must be 1 to the window, {}", protocol.window),
                "half the window is usual",
            );
        }
        ("hf-stride", None) => {
            faults.add(path, "hf-stride needs a `stride`", format!("e.g. stride = {}", protocol.window / 2))
        }
        (_, Some(_)) => faults.add(
            format!("{path}.stride"),
            "only hf-stride has a stride",
            "remove it: the windows of this rule do not overlap",
        ),
        (_, None) => {}
    }
}
