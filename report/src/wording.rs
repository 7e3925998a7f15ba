//! Plain words for metric ids, directions, verdicts and states. An id without an entry prints as itself, so a new metric needs none.

use results::claim::Verdict;
use results::metric::{METRICS, metric};
use results::observation::{Direction, Status};

const NAMES: &[(&str, &str)] = &[
    ("ppl", "Perplexity"),
    ("nll", "Loss per token"),
    ("nll_window", "Loss of each window"),
    ("bits_per_byte", "Bits per byte"),
    ("delta_nll", "Extra loss of each window"),
    ("ppl_ratio", "Perplexity over the reference’s"),
    ("kl_mean", "KL divergence from the reference"),
    ("kl_max", "Largest KL divergence"),
    ("top1_agreement", "Agreement on the next token"),
    ("acc", "Accuracy"),
    ("acc_norm", "Accuracy by likelihood per character"),
    ("acc_bytes", "Accuracy by likelihood per byte"),
    ("exact_match", "Hidden answers said"),
    ("target_ppl", "Perplexity of last words"),
    ("acc_at", "Accuracy by length and depth"),
    ("exact_match_at", "Hidden answers said, by length and depth"),
    ("cut_items", "Items whose context was cut"),
    ("target_nll", "Loss of the right answer of each item"),
    ("prefill_tok_s", "Prompt speed"),
    ("prefill_ms", "Prompt time"),
    ("decode_tok_s", "Generation speed"),
    ("decode_ms_per_token", "Time per generated token"),
    ("ttft_ms", "Time to first token"),
    ("tpot_ms", "Time per output token"),
    ("itl_ms", "Gap between chunks"),
    ("chunk_tokens", "Tokens per chunk"),
    ("e2e_ms", "Whole request"),
    ("weights_bytes", "Weights"),
    ("kv_logical_bytes", "Keys and values in use"),
    ("kv_resident_bytes", "Keys and values allocated"),
    ("peak_rss_bytes", "Peak memory of the process"),
    ("load_s", "Time to get ready"),
    ("acceptance_rate", "Accepted drafts"),
    ("acceptance_alpha", "Acceptance of a decided draft (α)"),
    ("draft_ms_per_run", "Drafting time per target run"),
    ("verify_ms_per_run", "Verifying time per target run"),
    ("acceptance_at", "Acceptance by draft position"),
    ("tokens_per_run", "Tokens per target run"),
    ("draft_share", "Share of time spent drafting"),
    ("drafted_tokens", "Drafted tokens"),
    ("accepted_tokens", "Accepted tokens"),
    ("target_runs", "Runs of the target model"),
    ("us_per_call", "Time per kernel call"),
    ("gflop_s", "Floating-point rate"),
    ("gop_s", "Integer rate"),
    ("gb_s", "Bytes read per second"),
    ("emulated_instructions", "Instructions, emulated"),
    ("emulated_mma_flops", "Tensor-core operations, emulated"),
    ("emulated_memory_bytes", "Device memory traffic, emulated"),
    ("emulated_bank_conflicts", "Bank conflicts per request, emulated"),
    ("roof_bandwidth_fraction", "Share of the bandwidth roof"),
    ("roof_flop_fraction", "Share of the arithmetic roof"),
    ("roof_int8_fraction", "Share of the int8 roof"),
    ("roof_fraction", "Share of the roof"),
    ("roof_excess", "Faster than the machine"),
    ("sensitivity_kl", "Sensitivity of a projection"),
    ("mixture_ppl", "Perplexity of mixtures"),
    ("mixture_kl", "KL divergence of mixtures"),
    ("mixture_predicted_kl", "Sum of the parts’ sensitivities"),
    ("check", "Distance from the oracle"),
];

/// What a metric id is about, without its part (`check:logits` is a `check`); ids that a scenario invented stand for themselves.
pub fn base(id: &str) -> &str {
    if metric(id).is_some() { id.split(':').next().unwrap_or(id) } else { id }
}

/// The part of a metric id, e.g. the protocol of `ppl:gptq-256`; empty without one.
pub fn part(id: &str) -> &str {
    id.get(base(id).len() + 1..).unwrap_or("")
}

/// A few words for a metric id.
pub fn name(id: &str) -> String {
    let base = base(id);
    let words = NAMES.iter().find(|(known, _)| *known == base).map_or(base, |(_, name)| name);
    match part(id) {
        "" => words.to_owned(),
        part => format!("{words} ({part})"),
    }
}

/// Place of a metric in the registry; unregistered ones come last.
pub fn rank(id: &str) -> usize {
    METRICS.iter().position(|metric| metric.id() == base(id)).unwrap_or(METRICS.len())
}

/// What the sweep coordinate of a metric counts.
pub fn coordinate(id: &str) -> &'static str {
    match base(id) {
        "prefill_tok_s" | "prefill_ms" => "tokens in the cache after the pass",
        "decode_tok_s" | "decode_ms_per_token" => "tokens in the cache before the first",
        "acceptance_at" => "draft position",
        "sensitivity_kl" => "layer",
        "acc_at" | "exact_match_at" | "acc_item_at" | "exact_match_item_at" => "tokens of the text",
        "mixture_ppl" | "mixture_kl" | "mixture_predicted_kl" => "bits per weight",
        id if id.contains("attention") => "sequence length N",
        _ => "x",
    }
}

/// Which way is better, in words.
pub fn better(direction: Direction) -> &'static str {
    match direction {
        Direction::Lower => "lower is better",
        Direction::Higher => "higher is better",
        Direction::None => "neither way is better",
    }
}

/// Icon and phrase of a verdict; both differ between verdicts, so that colour is never needed.
pub fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Holds => ("✔", "holds"),
        Verdict::Violated => ("✖", "violated"),
        Verdict::Reproduced => ("✔", "reproduced"),
        Verdict::DirectionOnly => ("◐", "direction only"),
        Verdict::NotReproduced => ("✖", "not reproduced"),
        Verdict::Inconclusive => ("?", "inconclusive"),
        Verdict::Reported => ("•", "reported"),
        Verdict::NotApplicableAtScale => ("∅", "not applicable at this scale"),
        Verdict::SkippedNoGpu => ("–", "skipped: no GPU"),
        Verdict::Failed => ("!", "failed to measure"),
    }
}

/// Tone of a verdict for the style sheet.
pub fn tone(verdict: Verdict) -> &'static str {
    match verdict {
        v if v.is_confirmed() => "good",
        v if v.is_refuted() => "bad",
        Verdict::DirectionOnly | Verdict::Inconclusive => "open",
        Verdict::Failed => "bad",
        _ => "quiet",
    }
}

/// Icon and word of a status.
pub fn status(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Ok => ("✔", "ok"),
        Status::Wrong => ("✖", "wrong result"),
        Status::Failed => ("!", "failed"),
        Status::Skipped => ("–", "skipped"),
    }
}

/// Band of a coefficient of variation, as AIPerf names them.
pub fn spread(cv: f64) -> &'static str {
    match cv {
        c if c < 0.05 => "excellent",
        c if c < 0.10 => "good",
        c if c <= 0.20 => "fair",
        _ => "unstable",
    }
}
