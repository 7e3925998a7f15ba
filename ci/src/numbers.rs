//! Numbers as a reader wants them: four digits, sensible units, intervals in brackets.

use crate::estimate::{Change, Scale, Spread};

/// `value` with its unit, four significant digits, bytes in binary multiples.
pub fn quantity(value: f64, unit: &str) -> String {
    if unit == "B" {
        return bytes(value);
    }
    let number = digits(value);
    if unit.is_empty() || unit == "1" { number } else { format!("{number} {unit}") }
}

/// Median and 95 % interval; only the value when the interval has no width.
pub fn spread(spread: &Spread, unit: &str) -> String {
    let bound = |value: f64| if unit == "B" { bytes(value) } else { digits(value) };
    interval(quantity(spread.median, unit), bound(spread.low), bound(spread.high))
}

/// A ratio as a percentage, a difference in its unit, both with their interval.
pub fn change(change: &Change, unit: &str) -> String {
    let plus = |text: String| if text.starts_with('-') { text } else { format!("+{text}") };
    let percent = |ratio: f64| format!("{:+.1}", 100.0 * (ratio - 1.0));
    match change.scale {
        Scale::Ratio => interval(format!("{} %", percent(change.value)), percent(change.low), percent(change.high)),
        Scale::Difference => {
            let bound = |value: f64| plus(if unit == "B" { bytes(value) } else { digits(value) });
            interval(plus(quantity(change.value, unit)), bound(change.low), bound(change.high))
        }
    }
}

/// A p-value with four decimals.
pub fn probability(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

fn interval(value: String, low: String, high: String) -> String {
    if low == high { value } else { format!("{value} [{low}, {high}]") }
}

fn digits(value: f64) -> String {
    let magnitude = value.abs();
    if value == value.trunc() && magnitude < 1e9 {
        return format!("{value:.0}");
    }
    if !(1e-3..1e6).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let decimals = 3 - magnitude.log10().floor() as i32;
    format!("{value:.*}", decimals.clamp(0, 6) as usize)
}

fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut scaled, mut unit) = (value, 0);
    while scaled.abs() >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(scaled), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (value, unit, expected) in [
            (0.0, "ms", "0 ms"),
            (12.0, "tok", "12 tok"),
            (1.234567, "ms", "1.235 ms"),
            (123.4567, "ms", "123.5 ms"),
            (12345.67, "tok/s", "12346 tok/s"),
            (0.000012, "nat", "1.200e-5 nat"),
            (0.5, "1", "0.5000"),
            (1536.0, "B", "1.500 KiB"),
            (4194304.0, "B", "4 MiB"),
            (-2048.0, "B", "-2 KiB"),
        ] {
            assert_eq!(quantity(value, unit), expected);
        }
    }

    #[test]
    fn changes() {
        let ratio = Change { scale: Scale::Ratio, value: 1.032, low: 1.01, high: 1.055 };
        assert_eq!(change(&ratio, "ms"), "+3.2 % [+1.0, +5.5]");
        let difference = Change { scale: Scale::Difference, value: -0.5, low: -0.5, high: -0.5 };
        assert_eq!(change(&difference, "nat"), "-0.5000 nat");
        let wide = Change { scale: Scale::Difference, value: 0.0, low: -0.25, high: 2048.0 };
        assert_eq!(change(&wide, "ms"), "+0 ms [-0.2500, +2048]");
        assert_eq!((probability(0.00001), probability(0.25)), ("< 0.0001".to_owned(), "0.2500".to_owned()));
    }
}
