//! Who wins, as far as paired comparisons tell: the winner by the ratio to the reference, and everyone who cannot be told from it.

use results::aggregate::{Comparison, compare};
use results::observation::{Direction, Observation};
use results::statistics::Ratio;

/// Pairs below which no difference of a clock is told: n pairs on one side of 1 happen by chance once in 2ⁿ⁻¹, which is one in
/// sixteen for five and one in four for three, whatever interval is drawn around them.
pub const FEWEST_PAIRS: usize = 5;

/// What a comparison lets one say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The cell is better than the other.
    Better,
    /// The cell is worse.
    Worse,
    /// Neither can be said.
    Open,
}

/// What `ratio` from `n` pairs tells, where two copies of one cell reach |ln ratio| = `floor`.
pub fn told(ratio: Option<Ratio>, n: usize, direction: Direction, floor: f64) -> Told {
    let Some(ratio) = ratio.filter(|r| n >= FEWEST_PAIRS && (r.low > 1.0 || r.high < 1.0)) else { return Told::Open };
    if ratio.ratio.ln().abs() <= floor {
        return Told::Open;
    }
    match (direction, ratio.ratio > 1.0) {
        (Direction::None, _) => Told::Open,
        (Direction::Higher, true) | (Direction::Lower, false) => Told::Better,
        (Direction::Higher, false) | (Direction::Lower, true) => Told::Worse,
    }
}

/// How many times as fast: a time's ratio is turned over.
pub fn speed_up(ratio: Ratio, direction: Direction) -> Ratio {
    match direction {
        Direction::Lower => {
            Ratio { ratio: 1.0 / ratio.ratio, low: 1.0 / ratio.high, high: 1.0 / ratio.low, n: ratio.n }
        }
        _ => ratio,
    }
}

/// Contestants with rows of one quantity; the rows' cells are the contestants.
pub struct Contest<'a> {
    /// Rows of that quantity alone.
    pub rows: &'a [Observation],
    /// Who may win.
    pub contestants: &'a [&'a str],
    /// Who everyone is compared with first.
    pub reference: &'a str,
    /// Which way is better.
    pub direction: Direction,
    /// Largest |ln ratio| between two copies of one cell.
    pub floor: f64,
}

/// How a contest ended.
#[derive(Debug, Clone)]
pub struct Outcome<'a> {
    /// The winner, or the reference where nobody is told to beat it.
    pub best: &'a str,
    /// How many times as fast as the reference the winner is; none for the reference itself.
    pub gain: Option<Ratio>,
    /// Everyone who cannot be told from the winner, the winner included, in order.
    pub level: Vec<&'a str>,
    /// Contestants told to be worse than the reference.
    pub n_worse: usize,
    /// Largest number of pairs of any comparison with the reference.
    pub most_pairs: usize,
}

impl<'a> Contest<'a> {
    /// The outcome; none with fewer than two contestants or when nobody shares a repetition with the reference.
    pub fn outcome(&self) -> Option<Outcome<'a>> {
        let others: Vec<&str> = self.contestants.iter().copied().filter(|c| *c != self.reference).collect();
        let against = |reference: &str| compare(self.rows, reference);
        let to_reference = against(self.reference);
        let of = |list: &[Comparison], cell: &str| list.iter().find(|c| c.cell == cell).cloned();
        let known: Vec<(&str, Comparison)> =
            others.iter().filter_map(|cell| Some((*cell, of(&to_reference, cell)?))).collect();
        let most_pairs = known.iter().map(|(_, c)| c.n_pairs).max()?;
        let tell = |c: &Comparison| told(c.ratio, c.n_pairs, self.direction, self.floor);
        let gain = |c: &Comparison| c.ratio.map_or(1.0, |r| speed_up(r, self.direction).ratio);
        let better = known.iter().filter(|(_, c)| tell(c) == Told::Better);
        let winner = better.max_by(|a, b| gain(&a.1).total_cmp(&gain(&b.1)));
        let best = winner.map_or(self.reference, |(cell, _)| cell);
        let to_best = if best == self.reference { to_reference.clone() } else { against(best) };
        // who shares no repetition with the winner cannot be told from it either
        let is_level = |cell: &str| match cell {
            cell if cell == best => true,
            cell if winner.is_some() && cell == self.reference => false,
            cell => of(&to_best, cell).is_none_or(|c| tell(&c) == Told::Open),
        };
        Some(Outcome {
            best: self.contestants.iter().copied().find(|c| *c == best).unwrap_or(self.reference),
            gain: winner.and_then(|(_, c)| c.ratio).map(|r| speed_up(r, self.direction)),
            level: self.contestants.iter().copied().filter(|cell| is_level(cell)).collect(),
            n_worse: known.iter().filter(|(_, c)| tell(c) == Told::Worse).count(),
            most_pairs,
        })
    }
}
