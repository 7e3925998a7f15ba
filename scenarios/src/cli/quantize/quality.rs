//! What quantizing cost: the report beside the weights.

use engine::quantize::{Likelihood, MatrixError, QuantizeOutcome};
use model::TokenId;
use serde::Serialize;

use crate::cli::table::{bytes, table};

/// The whole report, as `quality.json` holds it.
#[derive(Debug, Serialize)]
pub struct Quality {
    /// Where the weights came from.
    pub model: String,
    /// Tag of the kind of weights.
    pub weights: String,
    /// Layout.
    pub format: String,
    /// What codes were chosen on.
    pub calibration: Calibrated,
    /// Before and after; absent where no text was scored.
    pub perplexity: Option<Scored>,
    /// Of the matrices that were quantized, constants and orders included.
    pub bits_per_weight: f64,
    /// Weights in them.
    pub quantized_weights: u64,
    /// Bytes of every tensor.
    pub bytes: u64,
    /// Weight files.
    pub files: Vec<String>,
    /// Zeros of 0, which the first version of the GPTQ layout can only store wrapped.
    pub wrapped_zeros: u64,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Peak resident memory, mapped weights included.
    pub peak_memory_bytes: u64,
    /// Per matrix.
    pub errors: Vec<MatrixQuality>,
}

/// The calibration set.
#[derive(Debug, Serialize)]
pub struct Calibrated {
    /// Which text.
    pub text: String,
    /// How many windows.
    pub windows: usize,
    /// Tokens in each.
    pub window_tokens: usize,
    /// What placed them.
    pub seed: u64,
}

/// Perplexity of a text: disjoint windows, all but the first token of each scored.
#[derive(Debug, Serialize)]
pub struct Scored {
    /// Which text.
    pub text: String,
    /// How many windows.
    pub windows: usize,
    /// Tokens in each.
    pub window_tokens: usize,
    /// With the weights as they were.
    pub before: f64,
    /// With the quantized weights.
    pub after: f64,
}

/// How far a product of a layer moved on the calibration text.
#[derive(Debug, Serialize)]
pub struct MatrixQuality {
    layer: usize,
    matrix: &'static str,
    rows: usize,
    columns: usize,
    error: f64,
    round_to_nearest: Option<f64>,
}

impl From<&MatrixError> for MatrixQuality {
    fn from(e: &MatrixError) -> MatrixQuality {
        let ([rows, columns], round_to_nearest) = (e.shape, e.round_to_nearest);
        MatrixQuality { layer: e.layer, matrix: e.name, rows, columns, error: e.error, round_to_nearest }
    }
}

impl Scored {
    /// Of `windows`, given their likelihood.
    pub fn new(text: &str, windows: &[Vec<TokenId>], likelihood: Likelihood) -> Scored {
        let mean = |nll: f64| (nll / likelihood.tokens.max(1) as f64).exp();
        Scored {
            text: text.into(),
            windows: windows.len(),
            window_tokens: windows.first().map_or(0, Vec::len),
            before: mean(likelihood.nll_before),
            after: mean(likelihood.nll_after),
        }
    }
}

/// What is no number among the results: weights that would be written are then worth nothing.
pub fn broken(outcome: &QuantizeOutcome) -> Option<String> {
    if let Some(e) =
        outcome.errors.iter().find(|e| !e.error.is_finite() || e.round_to_nearest.is_some_and(|x| !x.is_finite()))
    {
        let cause = "its weights or its inputs on the calibration text hold values that are not numbers";
        return Some(format!("the output error of {} in layer {} is not a number: {cause}", e.name, e.layer));
    }
    let Likelihood { nll_before, nll_after, .. } = outcome.likelihood?;
    match (nll_before.is_finite(), nll_after.is_finite()) {
        (true, true) => None,
        (false, _) => Some("its perplexity is not a number before anything is quantized".into()),
        (true, false) => Some("its perplexity is not a number once it is quantized".into()),
    }
}

impl Quality {
    /// For people.
    pub fn table(&self) -> String {
        let c = &self.calibration;
        let mut text = format!("{} of {}, written as {}\n", self.weights, self.model, self.format);
        text +=
            &format!("calibration  {}: {} windows of {} tokens, seed {}\n", c.text, c.windows, c.window_tokens, c.seed);
        if let Some(p) = &self.perplexity {
            let more = (p.after / p.before - 1.0) * 100.0;
            text += &format!(
                "perplexity   {:.4} before, {:.4} after ({more:+.2} %), on {}: {} windows of {} tokens\n",
                p.before, p.after, p.text, p.windows, p.window_tokens
            );
        }
        text += &format!("size         {}, {:.3} bits per quantized weight\n", bytes(self.bytes), self.bits_per_weight);
        text += &format!("cost         {:.1} s, peak memory {}\n", self.seconds, bytes(self.peak_memory_bytes));
        if self.wrapped_zeros > 0 {
            text += &format!(
                "note         {} zeros of 0 are stored wrapped, which some readers of this layout take for 2^bits; \
                 gptq-v2 stores them as they are\n",
                self.wrapped_zeros
            );
        }
        if self.errors.is_empty() {
            return text;
        }
        let percent = |x: f64| format!("{:.4} %", x * 100.0);
        let rows = self.errors.iter().map(|e| {
            let nearest = e.round_to_nearest;
            vec![
                e.layer.to_string(),
                e.matrix.into(),
                format!("{} x {}", e.rows, e.columns),
                percent(e.error),
                nearest.map_or(String::new(), percent),
                nearest.map_or(String::new(), |nearest| format!("{:.3}", e.error / nearest)),
            ]
        });
        text + "\noutput error on the calibration text, relative to the output\n"
            + &table(&["layer", "matrix", "shape", &self.weights, "round to nearest", "ratio"], rows)
    }

    /// Per matrix, for programs.
    pub fn csv(&self) -> String {
        let row = |e: &MatrixQuality| {
            let nearest = e.round_to_nearest.map_or(String::new(), |x| x.to_string());
            format!("{},\"{}\",{},{},{},{nearest}\n", e.layer, e.matrix, e.rows, e.columns, e.error)
        };
        let rows: String = self.errors.iter().map(row).collect();
        format!("layer,matrix,rows,columns,error,round_to_nearest\n{rows}")
    }
}
