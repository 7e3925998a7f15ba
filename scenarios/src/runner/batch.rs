//! Cells of one comparison live together so that their repetitions interleave; where memory cannot hold them all, they
//! are timed in batches that each contain the reference.

use engine::Checkpoint;
use results::observation::Status;
use results::summary::Role;

use super::Session;
use crate::cell::Cell;
use crate::machine;
use crate::worker::open_models;

/// Share of the available memory that workers may fill.
const SHARE: f64 = 0.6;
/// What a worker needs beside its weights.
const OVERHEAD: f64 = 64e6;

/// Indices of live cells, in batches.
pub fn batches(session: &Session) -> Vec<Vec<usize>> {
    let timed: Vec<usize> = (0..session.live.len()).filter(|&i| session.live[i].status == Status::Ok).collect();
    let bytes: Vec<f64> = session.live.iter().map(|live| worker_bytes(session, &live.cell)).collect();
    split(&timed, &bytes, |i| session.live[i].cell.role != Role::Candidate, machine::available_memory() as f64 * SHARE)
}

/// Greedy: every batch starts with the `always` cells, then takes candidates while they fit (one at least).
fn split(cells: &[usize], bytes: &[f64], always: impl Fn(usize) -> bool, room: f64) -> Vec<Vec<usize>> {
    let fixed: Vec<usize> = cells.iter().copied().filter(|&i| always(i)).collect();
    let base: f64 = fixed.iter().map(|&i| bytes[i]).sum();
    let (mut batches, mut used) = (vec![fixed.clone()], base);
    for index in cells.iter().copied().filter(|&i| !always(i)) {
        let last = batches.len() - 1;
        if used + bytes[index] > room && batches[last].len() > fixed.len() {
            batches.push(fixed.clone());
            used = base;
        }
        used += bytes[index];
        let last = batches.len() - 1;
        batches[last].push(index);
    }
    batches.retain(|b| !b.is_empty());
    batches
}

/// An upper bound: f32 weights twice (embedding and a tied head are both kept), target and draft.
fn worker_bytes(session: &Session, cell: &Cell) -> f64 {
    let of = |c: &Checkpoint| 1.3 * 4.0 * c.architecture.parameters() as f64;
    match open_models(&session.scenario, cell.model.as_ref()) {
        Ok(Some(models)) => OVERHEAD + of(&models.target) + models.draft.as_ref().map_or(0.0, of),
        _ => OVERHEAD,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn everything_fits() {
        assert_eq!(split(&[0, 1, 2], &[1.0; 3], |i| i == 0, 10.0), vec![vec![0, 1, 2]]);
    }

    #[test]
    fn every_batch_has_the_reference() {
        assert_eq!(split(&[0, 1, 2, 3], &[4.0; 4], |i| i == 0, 10.0), vec![vec![0, 1], vec![0, 2], vec![0, 3]]);
    }

    #[test]
    fn nothing_to_time() {
        assert!(split(&[], &[], |_| false, 1.0).is_empty());
    }
}
