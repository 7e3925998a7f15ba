//! Numbers as a reader wants them: few digits, grouped thousands, one prefix per table.

use results::statistics::Ratio;

/// How the values of one metric are printed: multiply by `factor`, append `suffix`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    /// From the stored unit to the printed one.
    pub factor: f64,
    /// The printed unit, empty for plain numbers.
    pub suffix: &'static str,
}

impl Unit {
    /// The unit for values of `metric` (stored in `unit`) up to `largest`.
    pub fn of(metric: &str, unit: &str, largest: f64) -> Unit {
        let plain = |suffix| Unit { factor: 1.0, suffix };
        let base = metric.split(':').next().unwrap_or(metric);
        match unit {
            "B" => bytes(largest),
            "1" if is_share(base) => Unit { factor: 100.0, suffix: "%" },
            "1" | "" if base.ends_with("_bytes") => bytes(largest),
            "" if base.ends_with("_ms") => plain("ms"),
            "us" => plain("µs"),
            "ms" | "s" | "tok/s" | "tok" | "nat" | "bit" | "GB/s" | "GFLOP/s" | "GOP/s" => plain(known(unit)),
            _ => plain(""),
        }
    }

    /// The number without its unit.
    pub fn number(&self, value: f64) -> String {
        significant(value * self.factor, 4)
    }

    /// As a sentence has it: three digits, no zeros at the end.
    pub fn short(&self, value: f64) -> String {
        format!("{}\u{202f}{}", trimmed(value * self.factor, 3), self.suffix)
    }

    /// The number with its unit, joined by a narrow no-break space.
    pub fn text(&self, value: f64) -> String {
        match self.suffix {
            "" => self.number(value),
            suffix => format!("{}\u{202f}{suffix}", self.number(value)),
        }
    }
}

fn known(unit: &str) -> &'static str {
    ["ms", "s", "tok/s", "tok", "nat", "bit", "GB/s", "GFLOP/s", "GOP/s"].into_iter().find(|k| *k == unit).unwrap_or("")
}

fn is_share(base: &str) -> bool {
    ["agreement", "rate", "fraction", "share", "acceptance_at"].iter().any(|end| base.ends_with(end))
}

/// Sizes are in powers of 1024 everywhere in infermark, as caches and pages are; rates stay decimal, as memory is sold.
fn bytes(largest: f64) -> Unit {
    let steps = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |(power, _): &(i32, &str)| largest.abs() >= 2f64.powi(*power);
    let (power, suffix) = steps.into_iter().find(fits).unwrap_or((0, "B"));
    Unit { factor: 2f64.powi(-power), suffix }
}

/// `value` to at most `digits` significant digits; thousands grouped, tiny values as powers of ten, whole numbers without a point.
pub fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..12).contains(&magnitude) {
        return scientific(value, magnitude, digits);
    }
    let decimals = if value.fract() == 0.0 { 0 } else { (digits - 1 - magnitude).max(0) };
    let text = format!("{value:.*}", decimals as usize);
    grouped(&text.replace('-', "−"))
}

/// Like [`significant`] without zeros at the end.
pub fn trimmed(value: f64, digits: i32) -> String {
    let text = significant(value, digits);
    if text.contains('.') && !text.contains('×') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn scientific(value: f64, magnitude: i32, digits: i32) -> String {
    let mantissa = value / 10f64.powi(magnitude);
    let mantissa = format!("{mantissa:.*}", (digits - 2).max(0) as usize);
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.').replace('-', "−");
    format!("{mantissa}×10{}", superscript(magnitude))
}

fn superscript(number: i32) -> String {
    let raise = |c: char| match c {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or(0) as usize],
    };
    number.to_string().chars().map(raise).collect()
}

/// Narrow no-break spaces between thousands from 10 000 up.
fn grouped(text: &str) -> String {
    let (whole, rest) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let n_digits = whole.chars().filter(char::is_ascii_digit).count();
    let mut out = String::new();
    for (index, c) in whole.chars().enumerate() {
        let left = whole.chars().count() - index;
        if n_digits > 4 && index > 0 && left % 3 == 0 && c.is_ascii_digit() && !out.ends_with('−') {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    match rest {
        Some(rest) => format!("{out}.{rest}"),
        None => out,
    }
}

/// A ratio, e.g. `1.84×`; more digits near 1, where they matter.
pub fn times(ratio: f64) -> String {
    if (0.9..1.1).contains(&ratio) { format!("{ratio:.3}×") } else { format!("{}×", significant(ratio, 3)) }
}

/// A ratio with its 95 % interval, `2.04× [1.98, 2.11]`: as many decimals as the width of the interval carries.
pub fn ratio_text(ratio: &Ratio) -> String {
    let Ratio { ratio, low, high, .. } = *ratio;
    let decimals = match (high.abs(), high - low) {
        (h, _) if h >= 100.0 => 0,
        (h, _) if h >= 10.0 => 1,
        (_, width) if width >= 0.03 => 2,
        // next to 1 a thousandth more matters
        (_, width) if width < 0.003 && (ratio - 1.0).abs() < 0.02 => 4,
        _ => 3,
    };
    let [middle, low, high] = [ratio, low, high].map(|v| format!("{v:.decimals$}"));
    if low == high { format!("{}×", trimmed(ratio, 4)) } else { format!("{middle}× [{low}, {high}]") }
}

/// A duration in words, e.g. `2 min 5 s`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_matters() {
        let cases = [
            (0.0, "0"),
            (20.123456, "20.12"),
            (1843.5678, "1844"),
            (12345.6, "12\u{202f}346"),
            (1234567.0, "1\u{202f}234\u{202f}567"),
            (0.00123456, "0.001235"),
            (1.5e-7, "1.5×10⁻⁷"),
            (-3.25e-9, "−3.25×10⁻⁹"),
            (-12.5, "−12.50"),
            (f64::NAN, "–"),
        ];
        for (value, expected) in cases {
            assert_eq!(significant(value, 4), expected, "{value}");
        }
        assert_eq!(times(1.003), "1.003×");
        assert_eq!(times(1.8449), "1.84×");
        assert_eq!(duration(125.2), "2 min 5 s");
    }

    #[test]
    fn ratios_have_the_digits_that_their_interval_carries() {
        let text = |ratio, low, high| ratio_text(&Ratio { ratio, low, high, n: 9 });
        assert_eq!(text(2.0371, 1.981, 2.112), "2.04× [1.98, 2.11]");
        assert_eq!(text(1.00694, 1.0012, 1.0121), "1.007× [1.001, 1.012]");
        assert_eq!(text(14.23, 13.9, 14.5), "14.2× [13.9, 14.5]");
        assert_eq!(text(0.25, 0.25, 0.25), "0.25×");
    }

    #[test]
    fn units_follow_the_metric() {
        let size = |bytes: f64| Unit::of("weights_bytes", "B", bytes).text(bytes);
        assert_eq!(size(7.5 * 1024.0 * 1024.0), "7.500\u{202f}MiB");
        assert_eq!(size(1023.0), "1023\u{202f}B");
        assert_eq!(size(1536.0), "1.500\u{202f}KiB");
        assert_eq!(size(3.0 * 1024f64.powi(3)), "3\u{202f}GiB");
        assert_eq!(Unit::of("top1_agreement:gptq-256", "1", 1.0).text(0.987), "98.70\u{202f}%");
        assert_eq!(Unit::of("ppl", "1", 30.0).text(20.25), "20.25");
        assert_eq!(Unit::of("us_per_call:gemv", "us", 30.0).suffix, "µs");
    }
}
