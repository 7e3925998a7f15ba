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
    let median = quantity(spread.median, unit);
    let (low, high) = (quantity(spread.low, unit), quantity(spread.high, unit));
    if low == high { median } else { format!("{median} [{low}, {high}]") }
}

/// A ratio as a percentage, a difference in its unit, both with their interval.
pub fn change(change: &Change, unit: &str) -> String {
    let one = |value: f64| match change.scale {
        Scale::Ratio => format!("{:+.1} %", 100.0 * (value - 1.0)),
        Scale::Difference => {
            let sign = if value >= 0.0 { "+" } else { "" };
            format!("{sign}{}", quantity(value, unit))
        }
    };
    let (value, low, high) = (one(change.value), one(change.low), one(change.high));
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
        assert_eq!(change(&ratio, "ms"), "+3.2 % [+1.0 %, +5.5 %]");
        let difference = Change { scale: Scale::Difference, value: -0.5, low: -0.5, high: -0.5 };
        assert_eq!(change(&difference, "nat"), "-0.5000 nat");
    }
}
