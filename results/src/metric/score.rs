//! How well a cell predicts a text, by a named protocol, and how far it strays from the reference cell on identical tokens.
//!
//! A protocol whose id starts with `gptq` weighs every window alike (mean of window means, as the GPTQ code does); every other
//! protocol divides the total by the total. A window without a reference carries `reference_nll <= 0` and yields no comparison.
//!
//! Version 2 of the formulas: the text is encoded with what its tokenizer puts around it (`gptq` and `hf-stride` once, before
//! windows are cut; `llamacpp` also in the place of each window's first token). Version 1 put nothing there.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace};

const ROUNDING: &str = "rounding of the kernels only; the text's own variance shows in the interval over windows";

/// Perplexity.
pub const PPL: Definition = Definition {
    id: "ppl",
    formula_id: "ppl@2",
    formula: "exp(nll) of the protocol named in the formula id; per token of this tokenizer, so only ratios within one tokenizer mean anything",
    unit: "1",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| per_protocol(trace, |windows| windows.mean(|w| w.nll).map(f64::exp)),
};

/// Negative log-likelihood per token.
pub const NLL: Definition = Definition {
    id: "nll",
    formula_id: "nll@2",
    formula: "sum of -ln p(token) / scored tokens; for gptq protocols the mean over windows of each window's mean",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| per_protocol(trace, |windows| windows.mean(|w| w.nll)),
};

/// Negative log-likelihood per token of each window.
pub const NLL_WINDOW: Definition = Definition {
    id: "nll_window",
    formula_id: "nll_window@2",
    formula: "sum of -ln p(token) / scored tokens of one window; item = window",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| per_window(trace, |window| Some(window.nll / window.tokens)),
};

/// Bits per byte of text.
pub const BITS_PER_BYTE: Definition = Definition {
    id: "bits_per_byte",
    formula_id: "bits_per_byte@2",
    formula: "sum of -log2 p(token) / bytes of the scored text; comparable across tokenizers",
    unit: "bit",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| {
        per_protocol(trace, |windows| {
            let bytes = windows.total(|w| w.bytes);
            (bytes > 0.0).then(|| windows.total(|w| w.nll) / std::f64::consts::LN_2 / bytes)
        })
    },
};

/// Loss against the reference cell per window.
pub const DELTA_NLL: Definition = Definition {
    id: "delta_nll",
    formula_id: "delta_nll@2",
    formula: "(nll of the cell - nll of the reference) / scored tokens of one window, identical tokens; item = window",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| per_window(trace, |window| Some((window.nll - window.reference()?) / window.tokens)),
};

/// Perplexity over the reference's.
pub const PPL_RATIO: Definition = Definition {
    id: "ppl_ratio",
    formula_id: "ppl_ratio@2",
    formula: "exp(nll of the cell - nll of the reference), by the protocol's own mean",
    unit: "1",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| {
        per_protocol(trace, |windows| {
            windows.referenced()?;
            windows.mean(|w| w.nll - w.reference_nll).map(f64::exp)
        })
    },
};

/// Mean divergence from the reference's next-token distribution.
pub const KL_MEAN: Definition = Definition {
    id: "kl_mean",
    formula_id: "kl_mean@2",
    formula: "sum over scored tokens of KL(reference || cell) / scored tokens",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| per_protocol(trace, |windows| windows.referenced().map(|tokens| windows.total(|w| w.kl) / tokens)),
};

/// Worst divergence from the reference's next-token distribution.
pub const KL_MAX: Definition = Definition {
    id: "kl_max",
    formula_id: "kl_max@2",
    formula: "largest KL(reference || cell) of any scored token",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: "one extreme token decides it",
    pooled: false,
    derive: |trace| {
        per_protocol(trace, |windows| {
            windows.referenced()?;
            windows.0.iter().map(|w| w.kl_max).reduce(|a, b| if a.is_nan() || a > b { a } else { b })
        })
    },
};

/// Agreement on the most likely next token.
pub const TOP1_AGREEMENT: Definition = Definition {
    id: "top1_agreement",
    formula_id: "top1_agreement@2",
    formula: "scored tokens whose most likely successor is the reference's / scored tokens",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| {
        per_protocol(trace, |windows| windows.referenced().map(|tokens| windows.total(|w| w.agree) / tokens))
    },
};

struct Window<'a> {
    protocol: &'a str,
    index: u32,
    tokens: f64,
    bytes: f64,
    nll: f64,
    reference_nll: f64,
    kl: f64,
    kl_max: f64,
    agree: f64,
}

impl Window<'_> {
    fn reference(&self) -> Option<f64> {
        // a cell that yields NaN still has a reference; a reference that is NaN is no reference
        (self.reference_nll > 0.0).then_some(self.reference_nll)
    }
}

/// The windows of one protocol, at least one.
struct Windows<'a>(Vec<Window<'a>>);

impl Windows<'_> {
    fn total(&self, figure: impl Fn(&Window) -> f64) -> f64 {
        self.0.iter().map(figure).sum()
    }

    /// Per-token mean of a summed figure, by the protocol's rule.
    fn mean(&self, figure: impl Fn(&Window) -> f64) -> Option<f64> {
        if self.0[0].protocol.starts_with("gptq") {
            Some(self.total(|w| figure(w) / w.tokens) / self.0.len() as f64)
        } else {
            Some(self.total(&figure) / self.total(|w| w.tokens))
        }
    }

    /// Scored tokens, when every window has a reference.
    fn referenced(&self) -> Option<f64> {
        self.0.iter().all(|w| w.reference().is_some()).then(|| self.total(|w| w.tokens))
    }
}

fn windows(trace: &Trace) -> Vec<Window<'_>> {
    let scored = trace.events.iter().filter_map(|event| match event {
        Event::Score { protocol, window, n_tokens, n_bytes, nll, reference_nll, kl, kl_max, top1_agree } => {
            Some(Window {
                protocol,
                index: *window,
                tokens: *n_tokens as f64,
                bytes: *n_bytes as f64,
                nll: *nll,
                reference_nll: *reference_nll,
                kl: *kl,
                kl_max: *kl_max,
                agree: *top1_agree as f64,
            })
        }
        _ => None,
    });
    scored.filter(|window| window.tokens > 0.0).collect()
}

fn per_window(trace: &Trace, figure: fn(&Window) -> Option<f64>) -> Vec<Value> {
    let figures = windows(trace).into_iter().filter_map(|window| {
        let value = figure(&window)?;
        let protocol = Some(window.protocol.to_owned());
        Some(Value { item: window.index, value, part: window.protocol.to_owned(), protocol, ..Value::default() })
    });
    figures.collect()
}

fn per_protocol(trace: &Trace, figure: fn(&Windows) -> Option<f64>) -> Vec<Value> {
    let mut groups: Vec<Windows> = Vec::new();
    for window in windows(trace) {
        match groups.iter_mut().find(|group| group.0[0].protocol == window.protocol) {
            Some(group) => group.0.push(window),
            None => groups.push(Windows(vec![window])),
        }
    }
    let figures = groups.iter().filter_map(|group| {
        let protocol = group.0[0].protocol;
        Some(Value { protocol: Some(protocol.to_owned()), ..Value::new(0, figure(group)?).of(protocol) })
    });
    figures.collect()
}
