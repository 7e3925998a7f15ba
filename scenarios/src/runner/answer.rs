//! The answer in words, made from the measured numbers, and what a reader must not overlook.

use results::aggregate::{Aggregate, Comparison, aggregate, compare, noise_floor};
use results::observation::{Direction, Status};
use results::run::Run;
use results::summary::Role;

use super::Session;

/// Quality loss that a reader would call none: 1 % of perplexity.
const NO_LOSS: f64 = 1.01;
/// Ladders that the answer speaks of: the tables have the others.
const MOST_LADDERS: usize = 6;

struct Numbers {
    aggregates: Vec<Aggregate>,
    comparisons: Vec<Comparison>,
    noise: Vec<Comparison>,
    reference: String,
}

impl Numbers {
    fn of(session: &Session, run: &Run) -> Numbers {
        let by_role = |role: Role| {
            session.live.iter().find(|l| l.cell.role == role).map(|l| l.cell.id.clone()).unwrap_or_default()
        };
        let reference = by_role(Role::Reference);
        let control = by_role(Role::AaControl);
        Numbers {
            aggregates: aggregate(&run.observations),
            comparisons: compare(&run.observations, &reference),
            noise: if control.is_empty() { vec![] } else { noise_floor(&run.observations, &reference, &control) },
            reference,
        }
    }

    fn ratio<'a>(&'a self, cell: &'a str, metric: &'a str) -> impl Iterator<Item = &'a Comparison> {
        self.comparisons.iter().filter(move |c| c.cell == cell && c.ratio.is_some() && is_metric(&c.metric, metric))
    }

    /// Perplexity over the reference's; 1 for the reference itself.
    fn loss(&self, cell: &str) -> Option<f64> {
        if cell == self.reference {
            return Some(1.0);
        }
        self.ratio(cell, "ppl").next().and_then(|c| c.ratio.as_ref()).map(|r| r.ratio)
    }

    fn value(&self, cell: &str, metric: &str) -> Option<&Aggregate> {
        self.aggregates.iter().find(|a| a.cell == cell && is_metric(&a.metric, metric) && a.median.is_some())
    }
}

/// `ppl:gptq-512` is a `ppl`.
fn is_metric(id: &str, metric: &str) -> bool {
    id == metric || id.strip_prefix(metric).is_some_and(|rest| rest.starts_with(':'))
}

/// Sentences that answer the scenario's question as far as its measurements go.
pub fn answer(session: &Session, run: &Run) -> Vec<String> {
    let numbers = Numbers::of(session, run);
    let label =
        |cell: &str| session.live.iter().find(|l| l.cell.id == cell).map_or(cell.to_string(), |l| l.cell.label.clone());
    let candidates: Vec<&str> = session
        .live
        .iter()
        .filter(|l| l.status == Status::Ok && l.cell.role != Role::AaControl)
        .map(|l| l.cell.id.as_str())
        .collect();
    let mut sentences = vec![];
    sentences.extend(fastest(&numbers, &candidates, "decode_tok_s", "generates", &label));
    // decoding plays no part in reading a prompt: its cells would only be repeated draws of the same number
    let same_decoding = |id: &&str| {
        let decoding = |id: &str| session.live.iter().find(|l| l.cell.id == id).map(|l| l.cell.axes.decoding.clone());
        decoding(id) == decoding(&numbers.reference)
    };
    let readers: Vec<&str> = candidates.iter().copied().filter(same_decoding).collect();
    sentences.extend(fastest(&numbers, &readers, "prefill_tok_s", "reads prompts", &label));
    sentences.extend(smallest(&numbers, &candidates, &label));
    sentences.extend(quality(&numbers, &candidates, &label));
    sentences.extend(mixtures(&numbers));
    sentences.extend(ladders(&numbers, &candidates));
    sentences.extend(emulated(&numbers, &candidates));
    sentences.extend(lost(&numbers, &candidates));
    sentences.extend(noise(&numbers));
    sentences
}

/// The parts `op/rung/shape` of a metric that kernels have, with its medians.
fn kernels<'a>(numbers: &'a Numbers, cells: &[&str], metric: &str) -> Vec<([&'a str; 3], f64)> {
    let of = |a: &'a Aggregate| {
        let parts: Vec<&str> = a.metric.strip_prefix(metric)?.strip_prefix(':')?.splitn(3, '/').collect();
        Some((<[&str; 3]>::try_from(parts).ok()?, a.median?))
    };
    numbers.aggregates.iter().filter(|a| cells.contains(&a.cell.as_str())).filter_map(of).collect()
}

/// The fastest rung of each ladder, and what it gained on the slowest.
fn ladders(numbers: &Numbers, cells: &[&str]) -> Vec<String> {
    let all = kernels(numbers, cells, "us_per_call");
    let mut ladders: Vec<(&str, &str)> = vec![];
    for ([op, _, shape], _) in &all {
        if !ladders.contains(&(*op, *shape)) {
            ladders.push((op, shape));
        }
    }
    let sentence = |&(op, shape): &(&str, &str)| {
        let mut rungs: Vec<(&str, f64)> =
            all.iter().filter(|(part, _)| (part[0], part[2]) == (op, shape)).map(|(part, us)| (part[1], *us)).collect();
        rungs.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, slowest) = (rungs.first()?, rungs.last()?);
        (rungs.len() > 1).then(|| {
            let gain = slowest.1 / best.1;
            format!("{op} {shape}: {} is fastest with {:.1} µs, {gain:.1}× {}.", best.0, best.1, slowest.0)
        })
    };
    ladders.iter().filter_map(sentence).take(MOST_LADDERS).collect()
}

/// What an emulated device has shown, and what it cannot.
fn emulated(numbers: &Numbers, cells: &[&str]) -> Option<String> {
    let kernels = kernels(numbers, cells, "emulated_instructions");
    let mut ops: Vec<&str> = kernels.iter().map(|(part, _)| part[0]).collect();
    ops.dedup();
    (!kernels.is_empty()).then(|| {
        format!(
            "On the emulated device {} kernels ({}) gave what their oracles say; nothing is timed there.",
            kernels.len(),
            ops.join(", ")
        )
    })
}

/// Rungs that gave no time on a real device.
fn lost(numbers: &Numbers, cells: &[&str]) -> Option<String> {
    let most = cells.iter().filter_map(|cell| numbers.value(cell, "rungs_lost")?.median).fold(0.0, f64::max);
    (most > 0.0).then(|| {
        format!("{most} kernels failed or disagreed with their oracles: they have no times here, and the provenance says why.")
    })
}

fn fastest(
    numbers: &Numbers,
    cells: &[&str],
    metric: &str,
    what: &str,
    label: &dyn Fn(&str) -> String,
) -> Option<String> {
    let keeps = |cell: &&str| numbers.loss(cell).is_none_or(|l| l <= NO_LOSS);
    let speed = |cell: &str| numbers.value(cell, metric).and_then(|a| a.median);
    let best = cells
        .iter()
        .copied()
        .filter(|c| keeps(c))
        .filter_map(|c| Some((c, speed(c)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let all = cells.iter().copied().filter_map(|c| Some((c, speed(c)?))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    let against = |cell: &str| match numbers.ratio(cell, metric).next().and_then(|c| c.ratio.as_ref()) {
        Some(r) => format!(", {:.2}× the reference [{:.2}, {:.2}]", r.ratio, r.low, r.high),
        None => " (the reference itself)".into(),
    };
    let quality = if numbers.loss(best.0).is_some() { " without losing 1 % of perplexity" } else { "" };
    let mut sentence = format!("{} {what} fastest{quality}: {:.0} tok/s{}.", label(best.0), best.1, against(best.0));
    if all.0 != best.0 {
        let loss =
            numbers.loss(all.0).map_or(String::new(), |l| format!(", at {:.1} % more perplexity", 100.0 * (l - 1.0)));
        sentence.push_str(&format!(" Faster still, {} reaches {:.0} tok/s{loss}.", label(all.0), all.1));
    }
    Some(sentence)
}

fn smallest(numbers: &Numbers, cells: &[&str], label: &dyn Fn(&str) -> String) -> Option<String> {
    let bytes = |cell: &str| numbers.value(cell, "weights_bytes").and_then(|a| a.median);
    let loss = |cell: &str| numbers.loss(cell);
    let best = cells
        .iter()
        .copied()
        .filter(|c| loss(c).is_some_and(|l| l <= NO_LOSS))
        .filter_map(|c| Some((c, bytes(c)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    let reference = bytes(&numbers.reference)?;
    (best.1 < reference).then(|| {
        format!("The smallest weights within 1 % of the reference's perplexity are those of {}: {:.1} MB instead of {:.1} MB.", label(best.0), best.1 / 1e6, reference / 1e6)
    })
}

fn quality(numbers: &Numbers, cells: &[&str], label: &dyn Fn(&str) -> String) -> Option<String> {
    let worst = cells.iter().copied().filter_map(|c| Some((c, numbers.loss(c)?))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    let ppl = numbers.value(&numbers.reference, "ppl")?.median?;
    if worst.1 <= 1.0 {
        return Some(format!("No cell loses quality against the reference's perplexity of {ppl:.2}."));
    }
    let agreement = numbers.value(worst.0, "top1_agreement").and_then(|a| a.median);
    let agreement = agreement.map_or(String::new(), |a| {
        format!(", and its most likely token agrees with the reference's {:.1} % of the time", 100.0 * a)
    });
    Some(format!(
        "The reference has perplexity {ppl:.2}; the largest loss is {:.2} % ({}){agreement}.",
        100.0 * (worst.1 - 1.0),
        label(worst.0)
    ))
}

/// Where spending bits unevenly buys most over the best uniform choice of as many bits or fewer.
fn mixtures(numbers: &Numbers) -> Option<String> {
    let points = |series: &'static str| {
        let of = move |a: &&Aggregate| a.metric.strip_prefix("mixture_kl:") == Some(series);
        numbers.aggregates.iter().filter(of).filter_map(|a| Some((a.x?, a.median?)))
    };
    let gains = points("recommended").filter_map(|(bits, kl)| {
        let uniform = points("uniform").filter(|(b, _)| *b <= bits).min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((bits, kl, uniform))
    });
    let (bits, kl, uniform) = gains.min_by(|a, b| (a.1 / a.2.1).total_cmp(&(b.1 / b.2.1)))?;
    Some(match kl < uniform.1 {
        true => format!(
            "Spending bits unevenly pays most at {bits:.2} bits per weight: the recommended mixture diverges from full precision by {kl:.4} nat per token, the best uniform choice of no more bits ({:.2}) by {:.4}.",
            uniform.0, uniform.1
        ),
        false => "No recommended mixture beats the best uniform choice of as many bits or fewer: on this model bits may be spent evenly.".into(),
    })
}

fn noise(numbers: &Numbers) -> Option<String> {
    let timed = numbers
        .noise
        .iter()
        .filter(|c| c.direction != Direction::None && c.metric.contains("tok_s"))
        .filter_map(|c| c.ratio.as_ref());
    let widest = timed.map(|r| (r.high - 1.0).abs().max((1.0 - r.low).abs())).fold(0.0, f64::max);
    (widest > 0.0).then(|| format!("Two copies of the reference differed by up to {:.1} %: smaller differences of speed are noise on this machine.", 100.0 * widest))
}

/// Caveats that the numbers themselves raise.
pub fn caveats(session: &Session, run: &Run) -> Vec<String> {
    let mut caveats = vec![];
    let cards = super::facts::model_cards(&session.scenario);
    if let (Some(roof), Some(card)) = (&session.roof, cards.first())
        && roof.llc_bytes > 0
        && card.f32_bytes < 4 * roof.llc_bytes
    {
        caveats.push(format!(
            "{} holds {:.1} MB in f32 and the last-level cache {:.1} MB: weights below four times the cache stay in it, so these speeds say nothing about memory bandwidth and little about larger models.",
            card.source,
            card.f32_bytes as f64 / 1e6,
            roof.llc_bytes as f64 / 1e6
        ));
    }
    if cards.iter().any(|c| c.source.starts_with("random:")) {
        caveats
            .push("The weights are random: speed and memory are meaningful, likelihood and acceptance are not.".into());
    }
    let excess =
        run.observations.iter().filter(|o| o.metric == "roof_excess" && o.value.is_some_and(|v| v > 0.0)).count();
    if excess > 0 {
        caveats.push(format!("{excess} rows lie above the measured roof: either the roof was measured under load or the counted work is not all done; treat these speeds with suspicion."));
    }
    let loads = run.values("machine", "load_average").into_iter();
    let loads = loads.filter_map(|load| load.split_whitespace().next()?.parse::<f64>().ok());
    let load = loads.reduce(f64::max);
    if load.is_some_and(|l| l > 0.5) {
        caveats.push(format!("Other work was running when the run began (load average {:.2}); intervals are wider for it, and medians may be slower.", load.unwrap_or_default()));
    }
    caveats
}
