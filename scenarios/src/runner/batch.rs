//! Cells of one comparison live together so that their repetitions interleave; where memory cannot hold them all, they
//! are timed in batches that each contain the reference. Another engine's cell stays with ours of the same weights.

use engine::Checkpoint;
use results::summary::Role;

use super::Session;
use crate::cell::Cell;
use crate::machine;
use crate::worker::open_models;

/// Share of the available memory that workers may fill.
const SHARE: f64 = 0.6;
/// What a worker needs beside its weights.
const OVERHEAD: f64 = 64e6;
/// For what packing, alignment and the allocator add.
const SLACK: f64 = 1.2;

/// Indices of live cells, in batches.
pub fn batches(session: &Session) -> Vec<Vec<usize>> {
    let timed: Vec<usize> = (0..session.live.len()).filter(|&i| session.live[i].runs()).collect();
    let bytes: Vec<f64> = session.live.iter().map(|live| worker_bytes(session, &live.cell)).collect();
    let cell = |i: usize| &session.live[i].cell;
    let (fixed, candidates): (Vec<usize>, Vec<usize>) =
        timed.into_iter().partition(|&i| cell(i).role != Role::Candidate);
    let beside_others = candidates.iter().any(|&i| cell(i).external.is_some());
    let mut groups: Vec<Vec<usize>> = vec![];
    for i in candidates {
        let alike = |group: &Vec<usize>| beside_others && cell(group[0]).spec.weights == cell(i).spec.weights;
        match groups.iter_mut().find(|group| alike(group)) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    split(&fixed, &groups, &bytes, machine::available_memory() as f64 * SHARE)
}

/// Greedy: every batch starts with the `fixed` cells, then takes groups while they fit (one at least).
fn split(fixed: &[usize], groups: &[Vec<usize>], bytes: &[f64], room: f64) -> Vec<Vec<usize>> {
    let sum = |cells: &[usize]| cells.iter().map(|&i| bytes[i]).sum::<f64>();
    let base = sum(fixed);
    let (mut batches, mut used) = (vec![fixed.to_vec()], base);
    for group in groups {
        let last = batches.len() - 1;
        if used + sum(group) > room && batches[last].len() > fixed.len() {
            batches.push(fixed.to_vec());
            used = base;
        }
        used += sum(group);
        let last = batches.len() - 1;
        batches[last].extend(group);
    }
    batches.retain(|b| !b.is_empty());
    batches
}

/// What a worker holds at most while it builds: its weights as stored, the embedding in f32 (and the head's copy of it),
/// the matrices of a layer in f32; target and draft.
fn worker_bytes(session: &Session, cell: &Cell) -> f64 {
    let of = |c: &Checkpoint| {
        let a = &c.architecture;
        let (parameters, embedding) = (a.parameters() as f64, (a.vocab_size * a.hidden) as f64);
        parameters * cell.spec.weights.bits_per_weight() / 8.0
            + 4.0 * (2.0 * embedding + 2.0 * parameters / a.n_layers.max(1) as f64)
    };
    match open_models(&session.scenario, cell.model.as_ref()) {
        Ok(Some(models)) => OVERHEAD + SLACK * (of(&models.target) + models.draft.as_ref().map_or(0.0, of)),
        _ => OVERHEAD,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn everything_fits() {
        assert_eq!(split(&[0], &[vec![1], vec![2]], &[1.0; 3], 10.0), vec![vec![0, 1, 2]]);
    }

    #[test]
    fn every_batch_has_the_reference() {
        let groups = [vec![1], vec![2], vec![3]];
        assert_eq!(split(&[0], &groups, &[4.0; 4], 10.0), vec![vec![0, 1], vec![0, 2], vec![0, 3]]);
    }

    #[test]
    fn a_pair_stays_together_even_where_it_does_not_fit() {
        let groups = [vec![1, 3], vec![2, 4]];
        assert_eq!(split(&[0], &groups, &[4.0; 5], 10.0), vec![vec![0, 1, 3], vec![0, 2, 4]]);
    }

    #[test]
    fn nothing_to_time() {
        assert!(split(&[], &[], &[], 1.0).is_empty());
    }
}
