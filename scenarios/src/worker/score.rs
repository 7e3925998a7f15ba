//! Perplexity by named protocols, several from one pass, with KL divergence and agreement against the reference cell
//! on identical tokens.
//!
//! Sources: `gptq` — Frantar et al. 2022, code (disjoint windows, remainder dropped, all but the first token scored);
//! `llamacpp` — llama-perplexity (disjoint windows, second half scored); `hf-stride` — Hugging Face's guide
//! (overlapping windows, only tokens new to the window scored).
//!
//! The beginning of sequence follows the sources too. The whole text is encoded once, with what the tokenizer puts around a text;
//! `gptq` and `hf-stride` cut their windows from that, so only the first begins with it. `llamacpp` puts it in the place of the
//! first token of every window, where the tokenizer has one.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use model::{Activations, SeqId, Session, Step, StepModel, TokenId};
use results::trace::Event;

use super::cell::{Held, Outcome};
use super::progress;
use crate::forecast;
use crate::scenario::Protocol;
use crate::text;

/// Tokens fed at once, and who scores which of them: target `t` is predicted by row `t - 1`.
#[derive(Debug, PartialEq)]
pub struct Window {
    /// Tokens of the text.
    pub tokens: Range<usize>,
    /// Stands in the place of the first of them.
    pub first: Option<TokenId>,
    /// (protocol id, window number, targets inside the window).
    pub scored: Vec<(String, u32, Range<usize>)>,
}

impl Window {
    /// What is fed of `all`.
    pub fn fed(&self, all: &[TokenId]) -> Vec<TokenId> {
        let mut tokens = all[self.tokens.clone()].to_vec();
        if let (Some(first), Some(place)) = (self.first, tokens.first_mut()) {
            *place = first;
        }
        tokens
    }
}

/// Printed id of a protocol: its rule and window.
pub fn protocol_id(protocol: &Protocol) -> String {
    match protocol.stride {
        Some(stride) if protocol.rule == "hf-stride" => format!("{}-{}-{stride}", protocol.rule, protocol.window),
        _ => format!("{}-{}", protocol.rule, protocol.window),
    }
}

/// Windows of one protocol over `n` tokens: (tokens, targets).
fn windows_of(protocol: &Protocol, n: usize) -> Result<Vec<(Range<usize>, Range<usize>)>> {
    let w = protocol.window;
    let disjoint = |targets: Range<usize>| (0..n / w).map(|i| (i * w..(i + 1) * w, targets.clone())).collect();
    match protocol.rule.as_str() {
        "gptq" => Ok(disjoint(1..w)),
        // rows w/2 .. w-2 predict the tokens after them
        "llamacpp" => Ok(disjoint(w / 2 + 1..w)),
        "hf-stride" => {
            let stride = protocol.stride.unwrap_or(w / 2).clamp(1, w);
            let (mut windows, mut seen) = (vec![], 1);
            for begin in (0..n).step_by(stride) {
                let end = (begin + w).min(n);
                let targets = seen.max(begin + 1) - begin..end - begin;
                // a last window of one token has nothing to score
                if !targets.is_empty() {
                    windows.push((begin..end, targets));
                }
                seen = end;
                if end == n {
                    break;
                }
            }
            Ok(windows)
        }
        other => bail!("protocol `{other}`: expected gptq, llamacpp or hf-stride"),
    }
}

/// Windows of all protocols over the text `all`, which `bos` begins where the tokenizer puts it; equal windows are fed once.
pub fn plan(protocols: &[Protocol], all: &[TokenId], bos: Option<TokenId>) -> Result<Vec<Window>> {
    let mut plan: Vec<Window> = vec![];
    for protocol in protocols {
        for (number, (tokens, targets)) in windows_of(protocol, all.len())?.into_iter().enumerate() {
            let scored = (protocol_id(protocol), number as u32, targets);
            let begins = bos.filter(|_| protocol.rule == "llamacpp");
            let first = begins.filter(|bos| all.get(tokens.start) != Some(bos));
            match plan.iter_mut().find(|w| w.tokens == tokens && w.first == first) {
                Some(window) => window.scored.push(scored),
                None => plan.push(Window { tokens, first, scored: vec![scored] }),
            }
        }
    }
    Ok(plan)
}

/// Likelihood of one target under both models.
#[derive(Debug, Clone, Copy, Default)]
pub struct Point {
    /// −ln p(target) under the cell.
    pub nll: f64,
    /// −ln p(target) under the reference.
    pub reference_nll: f64,
    /// KL(reference ‖ cell) of the next token.
    pub kl: f64,
    /// Both find the same token most likely.
    pub agree: bool,
}

/// Runs the workload.
pub fn perplexity(held: &mut Held, name: &str, protocols: &[Protocol], max_tokens: Option<usize>) -> Result<Outcome> {
    let models = held.models.as_ref().context("perplexity needs a [model]")?;
    if models.target.is_random() {
        return Ok(Outcome::Refused(
            "random weights have no tokenizer and no likelihood worth reading: this cell is for speed only".into(),
        ));
    }
    if let Err(reason) = models.target.reader() {
        return Ok(Outcome::Refused(reason.to_string()));
    }
    let (mut tokens, mut ends) =
        models.target.encode_with_ends(&text::resolve(name, held.resolved.file.as_deref())?)?;
    let keep = max_tokens.unwrap_or(usize::MAX).min(tokens.len());
    tokens.truncate(keep);
    ends.truncate(keep);
    if let Some(reason) = forecast::too_short(name, tokens.len(), protocols) {
        return Ok(Outcome::Refused(reason));
    }
    let windows = plan(protocols, &tokens, models.target.begins_with()?)?;
    let engine = held.engine.as_ref().context("no engine is built")?;
    let mut session = engine.session()?;
    let mut reference = held.reference.as_ref().map(|r| r.session()).transpose()?;
    let mut events = vec![];
    for (number, window) in windows.iter().enumerate() {
        progress("perplexity", number, windows.len());
        let points = score_window(&mut session, reference.as_mut(), &window.fed(&tokens), held.threads)?;
        if let Some(broken) = first_broken(&points) {
            let at = window.tokens.start + broken + 1;
            bail!("token {at} of {name}: its likelihood is not a number, so neither is any perplexity of the text");
        }
        for (protocol, index, targets) in &window.scored {
            let at = |i: usize| window.tokens.start + i;
            let bytes = ends[at(targets.end - 1)] - ends[at(targets.start - 1)];
            events.push(score_event(protocol, *index, &points[targets.start - 1..targets.end - 1], bytes as u64));
        }
    }
    Ok(events.into())
}

/// The first point whose likelihood, or whose reference's, is no number.
fn first_broken(points: &[Point]) -> Option<usize> {
    points.iter().position(|point| !point.nll.is_finite() || !point.reference_nll.is_finite())
}

fn score_event(protocol: &str, window: u32, points: &[Point], n_bytes: u64) -> Event {
    let sum = |f: fn(&Point) -> f64| points.iter().map(f).sum();
    Event::Score {
        protocol: protocol.into(),
        window,
        n_tokens: points.len() as u64,
        n_bytes,
        nll: sum(|p| p.nll),
        reference_nll: sum(|p| p.reference_nll),
        kl: sum(|p| p.kl),
        kl_max: points.iter().map(|p| p.kl).fold(0.0, f64::max),
        top1_agree: points.iter().filter(|p| p.agree).count() as u64,
    }
}

/// Points for targets 1..tokens.len() of one window; without a reference the cell is its own.
fn score_window(
    session: &mut Session,
    reference: Option<&mut Session>,
    tokens: &[TokenId],
    threads: usize,
) -> Result<Vec<Point>> {
    let seq = SeqId(0);
    let step = Step::extend(seq, 0, tokens).with_all_logits();
    // every window starts from an empty cache
    session.truncate(seq, 0);
    let logits = session.forward(&step)?;
    let reference = match reference {
        None => None,
        Some(reference) => {
            reference.truncate(seq, 0);
            Some(reference.forward(&step)?)
        }
    };
    Ok(score_rows(logits, reference, tokens, threads))
}

/// Points for targets 1..tokens.len(), whose `logits [tokens.len(), vocab]` are given; without a reference the cell is
/// its own.
pub fn score_rows(
    logits: &Activations,
    reference: Option<&Activations>,
    tokens: &[TokenId],
    threads: usize,
) -> Vec<Point> {
    let mut points = vec![Point::default(); tokens.len() - 1];
    let chunk = points.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for (part, points) in points.chunks_mut(chunk).enumerate() {
            scope.spawn(move || {
                for (i, point) in points.iter_mut().enumerate() {
                    let row = part * chunk + i;
                    *point = score_row(logits.row(row), reference.map(|r| r.row(row)), tokens[row + 1]);
                }
            });
        }
    });
    points
}

fn score_row(logits: &[f32], reference: Option<&[f32]>, target: TokenId) -> Point {
    let target = target.0 as usize;
    let (total, best) = log_sum_exp(logits);
    let nll = total - f64::from(logits[target]);
    let Some(reference) = reference else { return Point { nll, reference_nll: nll, kl: 0.0, agree: true } };
    let (reference_total, reference_best) = log_sum_exp(reference);
    let kl = reference.iter().zip(logits).map(|(&r, &l)| {
        let log_p = f64::from(r) - reference_total;
        log_p.exp() * (log_p - (f64::from(l) - total))
    });
    // rounding can leave a sum that is zero in exact arithmetic slightly negative
    let kl = kl.sum::<f64>().max(0.0);
    Point { nll, reference_nll: reference_total - f64::from(reference[target]), kl, agree: best == reference_best }
}

/// log Σ exp and the index of the largest (the first on ties).
pub(super) fn log_sum_exp(row: &[f32]) -> (f64, usize) {
    let best = row.iter().enumerate().fold(0, |best, (i, &v)| if v > row[best] { i } else { best });
    let max = f64::from(row[best]);
    (max + row.iter().map(|&v| (f64::from(v) - max).exp()).sum::<f64>().ln(), best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(rule: &str, window: usize, stride: Option<usize>) -> Protocol {
        Protocol { rule: rule.into(), window, stride }
    }

    /// Tokens 0, 1, 2, …
    fn text(n: u32) -> Vec<TokenId> {
        (0..n).map(TokenId).collect()
    }

    #[test]
    fn a_beginning_stands_where_the_sources_put_it() {
        // the text begins with token 0, as a tokenizer with a beginning gives it
        let all = text(12);
        let protocols = [protocol("gptq", 4, None), protocol("llamacpp", 4, None), protocol("hf-stride", 4, Some(4))];
        let plan = plan(&protocols, &all, Some(TokenId(0))).unwrap();
        let fed = |rule: &str| -> Vec<Vec<u32>> {
            let mine = plan.iter().filter(|w| w.scored.iter().any(|(id, ..)| id.starts_with(rule)));
            mine.map(|w| w.fed(&all).iter().map(|t| t.0).collect()).collect()
        };
        assert_eq!(fed("gptq"), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]);
        assert_eq!(fed("hf-stride"), fed("gptq"));
        assert_eq!(fed("llamacpp"), [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]);
        // the first window is the same for all and is fed once
        assert_eq!(plan.len(), 5);
    }

    #[test]
    fn equal_windows_are_fed_once() {
        let plan = plan(&[protocol("gptq", 8, None), protocol("llamacpp", 8, None)], &text(20), None).unwrap();
        assert_eq!(plan.len(), 2);
        assert_eq!(plan[1].tokens, 8..16);
        assert_eq!(plan[1].scored, vec![("gptq-8".into(), 1, 1..8), ("llamacpp-8".into(), 1, 5..8)]);
    }

    #[test]
    fn stride_scores_every_token_but_the_first_once() {
        let plan = plan(&[protocol("hf-stride", 8, Some(4))], &text(21), None).unwrap();
        let mut seen: Vec<usize> = vec![];
        for window in &plan {
            for (_, _, targets) in &window.scored {
                assert!(targets.start >= 1);
                seen.extend(targets.clone().map(|t| t + window.tokens.start));
            }
        }
        assert_eq!(seen, (1..21).collect::<Vec<_>>());
    }

    #[test]
    fn no_window_is_without_a_target() {
        for n in 2..40 {
            for stride in 1..=8 {
                let windows = plan(&[protocol("hf-stride", 8, Some(stride))], &text(n), None).unwrap();
                let targets = windows.iter().flat_map(|w| &w.scored).map(|(_, _, targets)| targets.len());
                assert!(targets.clone().all(|len| len > 0), "{n} tokens, stride {stride}");
                // windows that do not overlap leave out the first token of each
                let unscored = if stride < 8 { 1 } else { n.div_ceil(8) };
                assert_eq!(targets.sum::<usize>(), (n - unscored) as usize, "{n} tokens, stride {stride}");
            }
        }
    }

    #[test]
    fn a_likelihood_that_is_no_number_is_found() {
        let rows = [[0.0f32, 1.0], [f32::NAN, 1.0], [f32::NEG_INFINITY, 1.0]];
        let points = rows.map(|row| score_row(&row, Some(&[0.0, 1.0]), TokenId(0)));
        assert_eq!((first_broken(&points), first_broken(&points[2..])), (Some(1), Some(0)));
        assert_eq!(first_broken(&points[..1]), None);
        let beside = score_row(&rows[0], Some(&[f32::NAN, 1.0]), TokenId(0));
        assert_eq!(first_broken(&[beside]), Some(0), "the reference counts too");
    }

    #[test]
    fn kl_of_known_distributions() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL(p‖q) = ln 2 − ½ ln 3 − ... = ½ ln(4/3)
        let (p, q) = ([0.0f32, 0.0], [0.25f32.ln(), 0.75f32.ln()]);
        let point = score_row(&q, Some(&p), TokenId(1));
        assert!((point.kl - 0.5 * (4.0f64 / 3.0).ln()).abs() < 1e-6);
        assert!((point.nll + 0.75f64.ln()).abs() < 1e-6);
        assert!((point.reference_nll - 2.0f64.ln()).abs() < 1e-6);
    }
}
