//! The threshold inside the text of a claim's rule, for the small bar beside the measured value.

/// A one-sided threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The number.
    pub value: f64,
    /// Whether the claim needs the measured value to be at most the number (else at least).
    pub at_most: bool,
}

const SIGNS: [(&str, bool); 10] = [
    ("<=", true),
    (">=", false),
    ("≤", true),
    ("≥", false),
    ("<", true),
    (">", false),
    ("at most ", true),
    ("at least ", false),
    ("below ", true),
    ("above ", false),
];

/// The first comparison with a number in `rule`, e.g. 1.06 in `ratio <= 1.06`; `None` when there is none to draw.
pub fn threshold(rule: &str) -> Option<Threshold> {
    let candidates = SIGNS.iter().filter_map(|(sign, at_most)| {
        let at = rule.find(sign)?;
        let value = leading_number(rule[at + sign.len()..].trim_start())?;
        Some((at, sign.len(), Threshold { value, at_most: *at_most }))
    });
    candidates.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length))).map(|(_, _, threshold)| threshold)
}

fn leading_number(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(text.len());
    let candidates = (1..=end).rev().filter(|end| text.is_char_boundary(*end));
    candidates.filter_map(|end| text[..end].parse().ok()).find(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_in_rules() {
        let at = |rule| threshold(rule).map(|t| (t.value, t.at_most));
        assert_eq!(at("ppl ratio <= 1.06, interval on that side"), Some((1.06, true)));
        assert_eq!(at("error ≤ 1e-5 of the largest entry."), Some((1e-5, true)));
        assert_eq!(at("slope > 1.8 and < 2.2"), Some((1.8, false)));
        assert_eq!(at("at least 2."), Some((2.0, false)));
        assert_eq!(at("both agree"), None);
        assert_eq!(at("<script>"), None);
        assert_eq!(at(""), None);
    }
}
