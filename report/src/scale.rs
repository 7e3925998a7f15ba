//! From values to pixels: linear or logarithmic, with ticks at round numbers.

use crate::quantity::trimmed;

/// A range wider than this factor gets a logarithmic axis.
const LOG_FACTOR: f64 = 20.0;

/// One axis of a plot.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    log: bool,
    /// Values at the two ends.
    pub domain: (f64, f64),
    /// Pixels at the two ends.
    range: (f64, f64),
}

impl Scale {
    /// A scale that shows all `values` with a margin; logarithmic when all are positive and they span more than a factor of 20.
    pub fn fit(values: impl IntoIterator<Item = f64>, range: (f64, f64)) -> Scale {
        Scale::fit_with(values, range, LOG_FACTOR)
    }

    /// Like [`Scale::fit`], logarithmic from `log_factor` up.
    pub fn fit_with(values: impl IntoIterator<Item = f64>, range: (f64, f64), log_factor: f64) -> Scale {
        let finite = values.into_iter().filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Scale { log: false, domain: (0.0, 1.0), range };
        }
        if low > 0.0 && high / low > log_factor {
            let margin = (high / low).powf(0.05);
            return Scale { log: true, domain: (low / margin, high * margin), range };
        }
        let margin = if high > low { (high - low) * 0.08 } else { high.abs().max(1e-12) * 0.1 };
        let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        Scale { log: false, domain: ((low - margin).max(floor), high + margin), range }
    }

    /// A linear scale from `low` to `high`.
    pub fn linear(low: f64, high: f64, range: (f64, f64)) -> Scale {
        Scale { log: false, domain: (low, high), range }
    }

    /// A logarithmic scale from `low` to `high`, both positive.
    pub fn logarithmic(low: f64, high: f64, range: (f64, f64)) -> Scale {
        Scale { log: true, domain: (low, high), range }
    }

    /// Whether equal distances are equal factors.
    pub fn is_log(&self) -> bool {
        self.log
    }

    /// Pixel of a value; values outside the domain are held at its ends.
    pub fn at(&self, value: f64) -> f64 {
        let (low, high) = self.domain;
        let value = value.clamp(low, high);
        let share = if self.log { (value / low).ln() / (high / low).ln() } else { (value - low) / (high - low) };
        let pixel = self.range.0 + share * (self.range.1 - self.range.0);
        if pixel.is_finite() { pixel } else { self.range.0 }
    }

    /// Round values inside the domain, at most about `most` of them, with their text.
    pub fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let ticks = if self.log { self.log_ticks(most) } else { self.linear_ticks(most) };
        ticks.into_iter().map(|value| (value, tick_text(value))).collect()
    }

    fn linear_ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = self.domain;
        let rough = (high - low) / most.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
        let first = (low / step).ceil() as i64;
        let last = (high / step).floor() as i64;
        (first..=last).take(50).map(|k| k as f64 * step).collect()
    }

    fn log_ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = self.domain;
        let decades = (high / low).log10();
        let digits: &[f64] = match decades {
            d if d <= 0.7 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            d if d <= 1.5 => &[1.0, 2.0, 3.0, 5.0],
            d if d <= 3.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let all = (first..=last).flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        let inside: Vec<f64> = all.filter(|v| (low..=high).contains(v)).collect();
        let stride = inside.len().div_ceil(most.max(1)).max(1);
        inside.into_iter().step_by(stride).collect()
    }
}

fn tick_text(value: f64) -> String {
    let rounded = (value * 1e10 / value.abs().max(1e-300)).round() / 1e10 * value.abs();
    trimmed(if value == 0.0 { 0.0 } else { rounded }, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_ranges_are_logarithmic() {
        let scale = Scale::fit([1.0, 100.0], (0.0, 100.0));
        assert!(scale.is_log());
        assert!((scale.at(10.0) - 50.0).abs() < 1e-9);
        assert!(!Scale::fit([1.0, 15.0], (0.0, 1.0)).is_log());
        assert!(!Scale::fit([0.0, 1e6], (0.0, 1.0)).is_log());
    }

    #[test]
    fn ticks_are_round_and_inside() {
        for (low, high) in [(0.0, 1.0), (17.3, 18.9), (0.003, 4000.0), (1e-9, 2e-9), (-5.0, 5.0)] {
            let scale = Scale::fit([low, high], (0.0, 300.0));
            let ticks = scale.ticks(6);
            assert!((2..=9).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|(v, _)| *v >= scale.domain.0 && *v <= scale.domain.1));
        }
        let texts: Vec<String> =
            Scale::linear(0.0, 1.0, (0.0, 1.0)).ticks(5).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn nothing_to_show_is_no_accident() {
        for values in [vec![], vec![f64::NAN], vec![3.0], vec![0.0, 0.0]] {
            let scale = Scale::fit(values, (0.0, 10.0));
            assert!(scale.at(3.0).is_finite());
            assert!(!scale.ticks(5).is_empty() || scale.domain.0 == scale.domain.1);
        }
    }
}
