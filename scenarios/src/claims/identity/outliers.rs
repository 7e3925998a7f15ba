//! The scan for outlier features: what enters attention and MLP, by the criterion of LLM.int8() and by plainer numbers.
//!
//! LLM.int8() (arXiv 2208.07339) §4.1 calls a feature an outlier when a value of at least 6 in magnitude occurs in it in at
//! least 25 % of the layers and at 6 % of the positions of the sequence. A layer counts here when the feature reaches 6 at any
//! position of it, a position when it does so in any layer; both shares of one feature must reach their bound.

use anyhow::Result;
use model::Activations;
use model::Step;
use model::probe::{Probe, Site};

use super::{SEQ, at, engine, prompts, session, value};
use crate::worker::{Held, Outcome, progress};

/// The paper's bounds: magnitude, share of layers, share of positions.
const MAGNITUDE: f32 = 6.0;
const LAYERS: f64 = 0.25;
const POSITIONS: f64 = 0.06;
/// Windows of text and tokens of each.
const WINDOWS: usize = 8;
const TOKENS: usize = 256;
/// Features named, largest first.
const NAMED: usize = 6;

/// What one norm's output has shown.
#[derive(Clone, Default)]
struct Seen {
    /// Largest magnitude of each feature.
    largest: Vec<f32>,
    /// Σ x², Σ x⁴, number of values, and of those of at least [`MAGNITUDE`].
    squares: f64,
    fourths: f64,
    n: u64,
    above: u64,
}

/// Everything, by norm and by position.
struct Scan {
    /// Attention's and the MLP's norm of each layer.
    sites: Vec<Seen>,
    /// For each layer, which features reached the bound.
    layers: Vec<Vec<bool>>,
    /// For each position of the text, which features reached it in any layer.
    positions: Vec<Vec<bool>>,
    window: usize,
}

impl Probe for Scan {
    fn tap(&mut self, site: Site, x: &Activations) {
        let (layer, which) = match site {
            Site::QkvIn(layer) => (layer, 0),
            Site::GateUpIn(layer) => (layer, 1),
            _ => return,
        };
        let seen = &mut self.sites[2 * layer + which];
        seen.largest.resize(x.cols(), 0.0);
        self.layers[layer].resize(x.cols(), false);
        for row in 0..x.rows() {
            let position = &mut self.positions[self.window * TOKENS + row];
            position.resize(x.cols(), false);
            for (j, &value) in x.row(row).iter().enumerate() {
                seen.largest[j] = seen.largest[j].max(value.abs());
                let square = f64::from(value).powi(2);
                seen.squares += square;
                seen.fourths += square * square;
                if value.abs() >= MAGNITUDE {
                    seen.above += 1;
                    self.layers[layer][j] = true;
                    position[j] = true;
                }
            }
        }
        seen.n += x.as_slice().len() as u64;
    }
}

/// `outlier_features`: how many meet the paper's criterion; `outlier_layers` and `outlier_positions`: the largest shares that one
/// feature reaches; `values_above_6`: share of all values; per norm (x = 2·layer, + 1 for the MLP's) `channel_peak`: largest over
/// median of the channels' largest magnitudes, and `kurtosis` of its values; `largest_feature` by rank (x).
pub fn scan(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let n_layers = engine.target.architecture().n_layers;
    let mut scan = Scan {
        sites: vec![Seen::default(); 2 * n_layers],
        layers: vec![vec![]; n_layers],
        positions: vec![vec![]; WINDOWS * TOKENS],
        window: 0,
    };
    for (number, prompt) in prompts(held, WINDOWS, TOKENS)?.into_iter().enumerate() {
        progress("scanning", number, WINDOWS);
        scan.window = number;
        session(engine, TOKENS)?.forward_probed(&Step::extend(SEQ, 0, &prompt), Some(&mut scan))?;
    }
    Ok(summarise(&scan).into())
}

fn summarise(scan: &Scan) -> Vec<results::trace::Event> {
    let d = scan.sites.iter().map(|seen| seen.largest.len()).max().unwrap_or(0);
    let share = |flags: &[Vec<bool>], j: usize| {
        flags.iter().filter(|f| f.get(j) == Some(&true)).count() as f64 / flags.len().max(1) as f64
    };
    let shares: Vec<(f64, f64)> = (0..d).map(|j| (share(&scan.layers, j), share(&scan.positions, j))).collect();
    let outliers = shares.iter().filter(|(layers, positions)| *layers >= LAYERS && *positions >= POSITIONS).count();
    let most = |pick: fn(&(f64, f64)) -> f64| shares.iter().map(pick).fold(0.0, f64::max);
    let (above, n) = scan.sites.iter().fold((0, 0), |(above, n), seen| (above + seen.above, n + seen.n));
    let mut events = vec![
        value("outlier_features", 0.0, at(outliers)),
        value("outlier_layers", 0.0, most(|s| s.0)),
        value("outlier_positions", 0.0, most(|s| s.1)),
        value("values_above_6", 0.0, above as f64 / n.max(1) as f64),
    ];
    let mut largest = vec![0.0f32; d];
    for (site, seen) in scan.sites.iter().enumerate().filter(|(_, seen)| seen.n > 0) {
        largest.iter_mut().zip(&seen.largest).for_each(|(a, b)| *a = a.max(*b));
        let mut sorted = seen.largest.clone();
        sorted.sort_by(f32::total_cmp);
        let median = f64::from(sorted[sorted.len() / 2]).max(f64::MIN_POSITIVE);
        events.push(value("channel_peak", at(site), f64::from(sorted[sorted.len() - 1]) / median));
        let mean_square = seen.squares / seen.n as f64;
        events.push(value("kurtosis", at(site), seen.fourths / seen.n as f64 / mean_square.powi(2)));
    }
    let mut ranked: Vec<usize> = (0..d).collect();
    ranked.sort_by(|&i, &j| largest[j].total_cmp(&largest[i]));
    events.extend(ranked.iter().take(NAMED).enumerate().map(|(rank, &j)| value("largest_feature", at(rank), at(j))));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use results::trace::Event;

    fn number(events: &[Event], wanted: &str) -> f64 {
        let found = events.iter().find_map(|e| match e {
            Event::Value { name, value, .. } if name == wanted => Some(*value),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no {wanted}"))
    }

    fn scanned(fill: impl Fn(usize, usize, usize) -> f32) -> Vec<Event> {
        let mut scan = Scan {
            sites: vec![Seen::default(); 8],
            layers: vec![vec![]; 4],
            positions: vec![vec![]; TOKENS],
            window: 0,
        };
        for layer in 0..4 {
            let values = (0..TOKENS * 3).map(|at| fill(layer, at / 3, at % 3)).collect();
            scan.tap(Site::QkvIn(layer), &Activations::from_vec(TOKENS, 3, values));
        }
        summarise(&scan)
    }

    #[test]
    fn both_shares_must_hold_for_one_feature() {
        // feature 0 in one layer of four at every position; feature 1 in every layer at one position; feature 2 is quiet
        let events = scanned(|layer, row, j| match j {
            0 if layer == 2 => -6.0,
            1 if row == 5 => 40.0,
            _ => 1.0,
        });
        assert_eq!(number(&events, "outlier_features"), 1.0);
        assert_eq!((number(&events, "outlier_layers"), number(&events, "outlier_positions")), (1.0, 1.0));
        assert_eq!(number(&events, "values_above_6"), (256.0 + 4.0) / (4.0 * 3.0 * 256.0));
        assert_eq!((number(&events, "channel_peak"), number(&events, "largest_feature")), (40.0, 1.0));
    }

    #[test]
    fn kurtosis_of_two_values_is_one() {
        let events = scanned(|_, row, _| if row % 2 == 0 { 1.0 } else { -1.0 });
        assert_eq!((number(&events, "kurtosis"), number(&events, "outlier_features")), (1.0, 0.0));
    }
}
