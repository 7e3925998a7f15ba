//! Tasks that can be run: their files are read here, so that a wrong line is told before anything is built.

use super::Faults;
use crate::scenario::{PasskeyPart, TaskPart, Workload};
use crate::task::Task;

/// Longest text with a hidden key.
const MOST_TOKENS: usize = 1 << 20;
/// Most texts of one workload.
const MOST_TEXTS: usize = 100_000;

/// Checks a workload of items.
pub(super) fn check(path: &str, workload: &Workload, faults: &mut Faults<'_>) {
    match workload {
        Workload::Task(part) => check_task(path, part, faults),
        Workload::Passkey(part) => check_passkey(path, part, faults),
        _ => {}
    }
}

/// Checks a task's fields, then its files.
fn check_task(path: &str, part: &TaskPart, faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    let before = faults.list.len();
    let help = "leave it out to ask every item";
    faults.need(part.limit.is_none_or(|limit| limit >= 1), &field("limit"), "must be at least 1", help);
    let help = "leave it out to use the model's own window";
    faults.need(part.window.is_none_or(|window| window >= 2), &field("window"), "must be at least 2 tokens", help);
    if let Some(shots) = &part.few_shot {
        let sensible = (1..=1000).contains(&shots.n);
        faults.need(sensible, &field("few_shot.n"), "must be 1 to 1000", "leave out few_shot to ask without examples");
    }
    if faults.list.len() > before {
        return;
    }
    if let Err(error) = Task::read(part, faults.file) {
        let of_shots = part.few_shot.as_ref().filter(|shots| {
            let own = |name: &str| error.place.starts_with(name) || error.place.ends_with(name);
            shots.from != part.task && (own(&shots.from) || shots.labels.as_deref().is_some_and(own))
        });
        let of_labels = part.labels.as_ref().is_some_and(|labels| error.place.ends_with(labels.as_str()));
        let name = match (of_shots, of_labels) {
            (Some(_), _) => "few_shot",
            (None, true) => "labels",
            (None, false) => "task",
        };
        let problem = error.to_string();
        let (title, help) = problem.split_once("; ").unwrap_or((&problem, ""));
        faults.add(field(name), title, help);
    }
}

/// Checks what hides a key.
fn check_passkey(path: &str, part: &PasskeyPart, faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    let lengths = !part.lengths.is_empty() && part.lengths.iter().all(|n| (64..=MOST_TOKENS).contains(n));
    let title = format!("must be lengths of 64 to {MOST_TOKENS} tokens");
    faults.need(lengths, &field("lengths"), &title, "e.g. lengths = [512, 1024]");
    let depths = !part.depths.is_empty() && part.depths.iter().all(|depth| (0.0..=1.0).contains(depth));
    faults.need(depths, &field("depths"), "must be depths of 0 to 1", "0 is the beginning of the text, 1 its end");
    for (name, twice) in [("lengths", repeats(&part.lengths)), ("depths", repeats(&part.depths))] {
        faults.need(!twice, &field(name), "lists one twice", "remove one: the two would be the same texts");
    }
    let texts = part.lengths.len().saturating_mul(part.depths.len()).saturating_mul(part.items);
    let title = format!("must be at least 1, and {MOST_TEXTS} texts in all at most");
    faults.need((1..=MOST_TEXTS).contains(&texts), &field("items"), &title, "5 is the default, per length and depth");
    let title = "must be 2 to 100 keys to choose from";
    faults.need(
        (2..=100).contains(&part.choices),
        &field("choices"),
        title,
        "4 is the default, the right key included",
    );
}

fn repeats<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().any(|(i, one)| list[..i].contains(one))
}
