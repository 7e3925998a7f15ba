//! Where a cell stands: on the frontier, beaten by a cell on it, or not told apart from one.

use results::aggregate::compare;
use results::observation::Observation;

use super::choice::Choice;
use crate::digest::Digest;
use crate::reading::read;

/// Row i, column j: cell i is better than cell j beyond noise.
pub type Told = Vec<Vec<bool>>;

/// A point among the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// No other estimate is at least as good in both directions.
    Frontier,
    /// A cell of the frontier is better beyond noise in one direction and not told worse in the other.
    Beaten(usize),
    /// Cells of the frontier have better estimates, and noise could have made them.
    NotToldApart(Vec<usize>),
}

/// The standing of each of `n` points, given the frontier of their estimates.
pub fn standings(n: usize, frontier: &[usize], x: &Told, y: &Told) -> Vec<Standing> {
    let beats = |f: usize, p: usize| (x[f][p] && !y[p][f]) || (y[f][p] && !x[p][f]);
    let apart = |f: usize, p: usize| x[f][p] || x[p][f] || y[f][p] || y[p][f];
    let of = |p: usize| {
        if frontier.contains(&p) {
            return Standing::Frontier;
        }
        match frontier.iter().find(|f| beats(**f, p)) {
            Some(f) => Standing::Beaten(*f),
            None => Standing::NotToldApart(frontier.iter().copied().filter(|f| !apart(*f, p)).collect()),
        }
    };
    (0..n).map(of).collect()
}

/// Which cells are told apart in `choice`: by their paired comparison where they have one, else by intervals that do not meet.
pub fn told(digest: &Digest, choice: &Choice) -> Told {
    let n = digest.cells.len();
    let mut told: Told = (0..n).map(|i| (0..n).map(|j| apart(choice, i, j)).collect()).collect();
    let (metric, workload, x) = &choice.place;
    let Some(like) = digest.aggregates.iter().find(|a| (&a.metric, &a.workload, &a.x) == (metric, workload, x)) else {
        return told;
    };
    // the interval of a perplexity comes from the windows behind it
    let behind = |id: &str| id.starts_with("nll_window") || id.starts_with("delta_nll");
    let concerns = |row: &&Observation| row.workload == *workload && (row.metric == *metric || behind(&row.metric));
    let mut rows: Vec<Observation> = digest.run.observations.iter().filter(concerns).cloned().collect();
    for (j, cell) in digest.cells.iter().enumerate() {
        for c in compare(&rows, &cell.id).iter().filter(|c| c.metric == *metric && c.x == *x) {
            let Some(i) = digest.index(&c.cell) else { continue };
            let tone = read(like, c, choice.floor).tone;
            (told[i][j], told[j][i]) = (tone == "good", tone == "bad");
        }
        // each pair once
        rows.retain(|row| row.cell != cell.id);
    }
    told
}

/// Whether cell i is better than cell j and their intervals do not meet.
fn apart(choice: &Choice, i: usize, j: usize) -> bool {
    use results::observation::Direction;
    let (Some(a), Some(b)) = (choice.values[i], choice.values[j]) else { return false };
    let better = if choice.direction == Direction::Lower { a.0 < b.0 } else { a.0 > b.0 };
    let disjoint = a.1 > b.2 || b.1 > a.2;
    let known = !choice.clocked || (a.3 > 1 && b.3 > 1);
    let beyond = !(a.0 > 0.0 && b.0 > 0.0) || (a.0 / b.0).ln().abs() > choice.floor;
    better && disjoint && known && beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n: usize, better: &[(usize, usize)]) -> Told {
        (0..n).map(|i| (0..n).map(|j| better.contains(&(i, j))).collect()).collect()
    }

    /// Points 0 and 1 are the frontier, 0 fast and 1 good; each case by hand from the definition.
    #[test]
    fn only_what_is_told_apart_is_beaten() {
        let of =
            |x: &[(usize, usize)], y: &[(usize, usize)]| standings(3, &[0, 1], &matrix(3, x), &matrix(3, y))[2].clone();
        assert_eq!(of(&[], &[]), Standing::NotToldApart(vec![0, 1]));
        assert_eq!(of(&[(0, 2)], &[]), Standing::Beaten(0));
        assert_eq!(of(&[], &[(1, 2)]), Standing::Beaten(1));
        // faster, and told worse: a trade, not a defeat; and from the other frontier cell it is not told apart
        assert_eq!(of(&[(0, 2)], &[(2, 0)]), Standing::NotToldApart(vec![1]));
        assert_eq!(of(&[(0, 2), (2, 1)], &[(2, 0), (1, 2)]), Standing::NotToldApart(vec![]));
        assert_eq!(standings(2, &[0, 1], &matrix(2, &[]), &matrix(2, &[])), [Standing::Frontier, Standing::Frontier]);
    }
}
