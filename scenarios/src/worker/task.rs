//! Scores the items of a task: the likelihood of every answer, each context read once.
//!
//! Answers of one item share most of what is fed. The rows that all of them have in common are one Step; the cache is then forked, and what
//! is left of each answer is a span of a second Step. Several items go together, because a Step of a few rows reads as many weights as one
//! of hundreds. Every number is the same as if each answer were fed alone, because a row does not depend on its neighbours; where it does
//! (activations that share a scale), each answer is fed alone.

use anyhow::{Context, Result, bail};
use engine::chat::{self, Chat};
use engine::{Checkpoint, EngineError};
use model::architecture::RopeScaling;
use model::{Activations, Linear, SeqId, Session, Step, StepModel};
use results::trace::{Answer, Event};
use serde_json::Value;

use super::cell::{Held, Outcome};
use super::progress;
use super::score::log_sum_exp;
use crate::scenario::{PasskeyPart, TaskPart};
use crate::task::{self, Item, Request, Task};

/// Rows that a Step has at most, where one item does not need more.
const MOST_ROWS: usize = 512;
/// Logits that are held at once, where one item does not need more.
const MOST_LOGITS: usize = 1 << 25;
/// The time that templates which write a date are told, so that a prompt is the same on every day.
const NOW: &str = "2024-07-26T12:00:00Z";

/// Why `model` cannot be asked as `part` says.
pub fn refusal(model: &Checkpoint, part: &TaskPart) -> Option<String> {
    if part.chat && chat::choose(&model.facts.chat_templates, false).is_none() {
        let places =
            "chat_template.jinja, `chat_template` of tokenizer_config.json, or the key `tokenizer.chat_template`";
        return Some(format!("{} has no chat template ({places}); remove chat = true", model.source));
    }
    let limit = model.architecture.context_limit();
    let asked = part.window.filter(|window| *window > limit)?;
    Some(format!("a window of {asked} tokens is longer than the {limit} positions of {}", model.source))
}

/// Runs the items of a file.
pub fn run(held: &Held, part: &TaskPart) -> Result<Outcome> {
    let models = held.models.as_ref().context("a task needs a [model]")?;
    if let Some(reason) = unreadable(&models.target).or_else(|| refusal(&models.target, part)) {
        return Ok(Outcome::Refused(reason));
    }
    let task = Task::read(part, held.resolved.file.as_deref())?;
    let architecture = &models.target.architecture;
    let own = match architecture.context_limit() {
        // it grows with the sequence: what it was trained on is what a protocol means
        usize::MAX => architecture.max_positions,
        limit => limit,
    };
    ask(held, &models.target, &task, part.window.unwrap_or(own), part.chat)
}

/// Runs texts with a hidden key.
pub fn passkey(held: &Held, part: &PasskeyPart) -> Result<Outcome> {
    let models = held.models.as_ref().context("a passkey needs a [model]")?;
    if let Some(reason) = unreadable(&models.target) {
        return Ok(Outcome::Refused(reason));
    }
    let tokens = |text: &str| models.target.encode(text).map(|tokens| tokens.len()).map_err(|e| e.to_string());
    let task = match task::hidden_keys(part, held.scenario().seed, &tokens) {
        Ok(task) => task,
        Err(reason) => return Ok(Outcome::Refused(reason)),
    };
    let longest = part.lengths.iter().copied().max().unwrap_or(0);
    ask(held, &models.target, &task, longest, false)
}

fn unreadable(model: &Checkpoint) -> Option<String> {
    if model.is_random() {
        return Some("random weights have no tokenizer and know no answers: this cell is for speed only".into());
    }
    model.reader().err().map(|error: EngineError| error.to_string())
}

/// The requests of every item, and a hash of all that is fed.
fn requests(
    held: &Held,
    model: &Checkpoint,
    task: &Task,
    window: usize,
    is_chat: bool,
) -> Result<Vec<Vec<Request>>, String> {
    let template = chat::choose(&model.facts.chat_templates, false);
    let render = |messages: &[Value]| {
        let template = template.ok_or("the model has no chat template")?;
        chat::render(template, &Chat { messages, tools: None, names: &model.facts.names, now: NOW })
            .map_err(|problem| format!("the chat template of {} says: {problem}", model.source))
    };
    let of = |index: usize| {
        let named = |problem: String| format!("item {}: {problem}", task.items[index].id);
        let chat: Option<task::Render<'_>> = if is_chat { Some(&render) } else { None };
        let pairs = task.pairs(index, held.scenario().seed, chat).map_err(named)?;
        pairs.iter().map(|pair| task::encode(model, pair, window).map_err(named)).collect()
    };
    (0..task.items.len()).map(of).collect()
}

fn ask(held: &Held, model: &Checkpoint, task: &Task, window: usize, is_chat: bool) -> Result<Outcome> {
    let requests = match requests(held, model, task, window, is_chat) {
        Ok(requests) => requests,
        Err(reason) => return Ok(Outcome::Refused(reason)),
    };
    let engine = held.engine.as_ref().context("no engine is built")?;
    let longest = requests.iter().flatten().map(|request| request.input.len()).max().unwrap_or(0);
    let mut session = engine.session_with_room(longest)?;
    let shares = engine.target.linears().all(Linear::rows_are_independent) && !turns_with_length(model, longest);
    let mut events = vec![];
    let mut done = 0;
    while done < requests.len() {
        progress("items", done, requests.len());
        let n = batch(&requests[done..], session.vocab(), shares);
        for (item, answers) in score(&mut session, &requests[done..done + n], shares, held.threads)?.iter().enumerate()
        {
            let index = done + item;
            events.push(event(&task.items[index], index, &requests[index], answers)?);
        }
        done += n;
    }
    let fed = requests.iter().flatten().flat_map(|r| r.input.iter().chain(&r.targets)).flat_map(|t| t.0.to_le_bytes());
    let hash = blake3::hash(&fed.collect::<Vec<u8>>()).to_hex().to_string();
    let facts = vec![("task_tokens_blake3".to_string(), hash), ("task_window".into(), window.to_string())];
    Ok(Outcome::Ran { events, facts })
}

/// Whether rows are rotated by the length of their whole sequence, so that a beginning cannot be shared by longer and shorter ones.
fn turns_with_length(model: &Checkpoint, longest: usize) -> bool {
    let scaling = model.architecture.rope().map(|rope| &rope.scaling);
    longest > 1 && matches!(scaling, Some(RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. }))
}

/// How many items go together.
fn batch(requests: &[Vec<Request>], vocab: usize, shares: bool) -> usize {
    let (mut rows, mut logits) = (0, 0);
    let fits = |item: &&Vec<Request>| {
        rows += item.iter().map(|request| request.input.len()).max().unwrap_or(0);
        logits += item.iter().map(|request| request.targets.len() * vocab).sum::<usize>();
        rows <= MOST_ROWS && logits <= MOST_LOGITS
    };
    if shares { requests.iter().take_while(fits).count().max(1) } else { 1 }
}

fn event(item: &Item, index: usize, requests: &[Request], answers: &[Said]) -> Result<Event> {
    let lengths = item.answers();
    let mut scored = vec![];
    for (k, (said, request)) in answers.iter().zip(requests).enumerate() {
        if !said.log_likelihood.is_finite() {
            bail!("item {}: the likelihood of answer {k} is not a number, so neither is any accuracy", item.id);
        }
        // an item with a gap has one answer text per context, and is not judged by lengths
        let text = lengths.get(k).copied().unwrap_or_default();
        scored.push(Answer {
            log_likelihood: said.log_likelihood,
            n_tokens: request.targets.len() as u64,
            n_chars: text.chars().count() as u64,
            n_bytes: text.len() as u64,
            greedy: said.greedy,
        });
    }
    Ok(Event::Item {
        item: index as u32,
        id: item.id.clone(),
        judged: item.judged(),
        gold: item.gold as u32,
        answers: scored,
        cut_tokens: requests.iter().map(|request| request.cut).max().unwrap_or(0) as u64,
        hidden: item.hidden.clone(),
    })
}

/// What one answer came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// Sum of ln p(token).
    pub log_likelihood: f64,
    /// Every token of it is the most likely one.
    pub greedy: bool,
}

impl Said {
    const NOTHING: Said = Said { log_likelihood: 0.0, greedy: true };

    fn hears(&mut self, (total, best): (f64, usize), row: &[f32], target: usize) {
        self.log_likelihood += f64::from(row[target]) - total;
        self.greedy &= best == target;
    }
}

/// Rows of one sequence in a Step.
struct Part {
    seq: SeqId,
    start: usize,
    /// First row whose logits are wanted.
    wanted: usize,
    /// Item, and the answers that read these rows.
    item: usize,
    answers: Vec<usize>,
    tokens: Vec<model::TokenId>,
}

/// Scores of every answer of every item; `shares` says whether rows that answers have in common are fed once.
pub fn score(session: &mut Session, items: &[Vec<Request>], shares: bool, threads: usize) -> Result<Vec<Vec<Said>>> {
    let mut said: Vec<Vec<Said>> = items.iter().map(|item| vec![Said::NOTHING; item.len()]).collect();
    if !shares {
        for (item, requests) in items.iter().enumerate() {
            for k in 0..requests.len() {
                let part = alone(item, requests, vec![k], SeqId(0));
                forward(session, &[part], items, &mut said, threads)?;
                session.truncate(SeqId(0), 0);
            }
        }
        return Ok(said);
    }
    let (mut first, mut second, mut next) = (vec![], vec![], 0u32);
    let mut forks: Vec<(SeqId, SeqId, usize)> = vec![];
    for (item, requests) in items.iter().enumerate() {
        let different = different(requests);
        let everyone: Vec<usize> = (0..requests.len()).collect();
        let trunk = SeqId(next);
        next += 1;
        if different.len() == 1 {
            first.push(alone(item, requests, everyone, trunk));
            continue;
        }
        let common = common(&different.iter().map(|(k, _)| &requests[*k]).collect::<Vec<_>>());
        if common > 0 {
            let wanted = requests.iter().map(Request::first_row).min().unwrap_or(common).min(common);
            let tokens = requests[0].input[..common].to_vec();
            first.push(Part { seq: trunk, start: 0, wanted, item, answers: everyone, tokens });
        }
        let last = different.len() - 1;
        for (place, (k, answers)) in different.into_iter().enumerate() {
            // the last one goes on where the trunk is
            let seq = if place == last { trunk } else { SeqId(next) };
            next += 1;
            let wanted = answers.iter().map(|k| requests[*k].first_row()).min().unwrap_or(common).max(common);
            second.push(Part {
                seq,
                start: common,
                wanted,
                item,
                answers,
                tokens: requests[k].input[common..].to_vec(),
            });
            if seq != trunk && common > 0 {
                forks.push((trunk, seq, second.len() - 1));
            }
        }
    }
    forward(session, &first, items, &mut said, threads)?;
    for (from, to, part) in forks {
        if !session.fork(from, to) {
            // a cache that cannot be copied reads the beginning again
            let part = &mut second[part];
            part.tokens = items[part.item][part.answers[0]].input.clone();
            part.start = 0;
        }
    }
    forward(session, &second, items, &mut said, threads)?;
    (0..next).for_each(|seq| session.truncate(SeqId(seq), 0));
    Ok(said)
}

/// The whole input of `answers`, which is the same for all of them.
fn alone(item: usize, requests: &[Request], answers: Vec<usize>, seq: SeqId) -> Part {
    let request = &requests[answers[0]];
    let wanted = answers.iter().map(|k| requests[*k].first_row()).min().unwrap_or(0);
    Part { seq, start: 0, wanted, item, answers, tokens: request.input.clone() }
}

/// Inputs that differ, by one request of each, with all requests that have it: answers of one token differ in what is scored only.
fn different(requests: &[Request]) -> Vec<(usize, Vec<usize>)> {
    let mut found: Vec<(usize, Vec<usize>)> = vec![];
    for (k, request) in requests.iter().enumerate() {
        match found.iter_mut().find(|(first, _)| requests[*first].input == request.input) {
            Some((_, answers)) => answers.push(k),
            None => found.push((k, vec![k])),
        }
    }
    found
}

/// Rows that all inputs begin with, one less than the shortest at most: each must have a row of its own.
fn common(requests: &[&Request]) -> usize {
    let (first, rest) = (&requests[0].input, &requests[1..]);
    let shared = |other: &&Request| first.iter().zip(&other.input).take_while(|(a, b)| a == b).count();
    let shortest = requests.iter().map(|request| request.input.len()).min().unwrap_or(1);
    rest.iter().map(shared).min().unwrap_or(0).min(shortest - 1)
}

/// One Step over all `parts`; what their rows predict is added to `said`.
fn forward(
    session: &mut Session,
    parts: &[Part],
    items: &[Vec<Request>],
    said: &mut [Vec<Said>],
    threads: usize,
) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let steps: Vec<Step> = parts.iter().map(step).collect();
    let logits = session.forward(&Step::batch(&steps))?;
    let totals = totals(logits, threads);
    let mut at = 0;
    for (part, step) in parts.iter().zip(&steps) {
        for &logit_row in &step.logit_rows {
            let row = part.start + logit_row;
            for &k in &part.answers {
                let request = &items[part.item][k];
                // rows of the trunk belong to answers that begin later too
                let target = row.checked_sub(request.first_row()).and_then(|place| request.targets.get(place));
                if let Some(target) = target.filter(|_| row >= part.wanted) {
                    said[part.item][k].hears(totals[at], logits.row(at), target.0 as usize);
                }
            }
            at += 1;
        }
    }
    Ok(())
}

fn step(part: &Part) -> Step {
    let mut step = Step::extend(part.seq, part.start, &part.tokens);
    let wanted = part.wanted.saturating_sub(part.start);
    // a Step always has its last row's logits
    step.logit_rows = (wanted.min(step.rows() - 1)..step.rows()).collect();
    step
}

/// log Σ exp and the most likely token of every row.
fn totals(logits: &Activations, threads: usize) -> Vec<(f64, usize)> {
    let mut totals = vec![(0.0, 0); logits.rows()];
    let chunk = totals.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for (part, totals) in totals.chunks_mut(chunk).enumerate() {
            scope.spawn(move || {
                for (i, total) in totals.iter_mut().enumerate() {
                    *total = log_sum_exp(logits.row(part * chunk + i));
                }
            });
        }
    });
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Build;

    fn held(kv: &str) -> Held {
        let scenario = format!(
            "name = \"t\"\nquestion = \"q\"\nseed = 3\n[model]\nsource = \"embedded:draft\"\n[engine]\nkv = {kv}\n\
             [[workload]]\nkind = \"task\"\ntask = \"embedded:scenes\"\n"
        );
        let cell =
            crate::cell::ResolvedScenario::parse(&scenario, None).unwrap_or_else(|e| panic!("{e}")).cells[0].id.clone();
        let build = Build {
            scenario,
            file: None,
            cells: vec![cell],
            threads: 2,
            with_reference: false,
            roof: None,
            python: None,
            scratch: None,
        };
        Held::build(build).expect("an engine").0
    }

    /// What is shared is an economy and no other number: each answer fed alone gives the same bits, over a rounded cache too.
    #[test]
    fn shared_rows_give_the_bits_of_answers_fed_alone() {
        for kv in ["\"contiguous\"", "{ kind = \"contiguous\", encoding = \"int8\" }"] {
            let held = held(kv);
            let model = &held.models.as_ref().expect("a model").target;
            let mut all = vec![];
            for (task, window) in [("scenes", 512), ("last-words", 512), ("handiness", 24)] {
                let part: TaskPart = toml::from_str(&format!("task = 'embedded:{task}'\nlimit = 6\n")).expect("a task");
                let task = Task::read(&part, None).expect("embedded");
                all.extend(requests(&held, model, &task, window, false).expect("tokens"));
            }
            // answers of one token have equal inputs, and one answer may continue another
            let first = all[0][0].clone();
            let other = Request { targets: vec![model::TokenId(7); first.targets.len()], ..first.clone() };
            let shorter = Request {
                input: first.input[..first.input.len() - 1].to_vec(),
                targets: first.targets[..1].to_vec(),
                cut: 0,
            };
            all.push(vec![first.clone(), other, shorter]);
            let engine = held.engine.as_ref().expect("an engine");
            let mut session = engine.session_with_room(512).expect("room");
            let shared = score(&mut session, &all, true, 2).expect("scores");
            let alone = score(&mut session, &all, false, 1).expect("scores");
            assert_eq!(shared, alone, "{kv}");
            assert!(shared.iter().flatten().all(|said| said.log_likelihood < 0.0), "{shared:?}");
        }
    }
}
