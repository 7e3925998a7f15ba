//! The bounds inside the text of a claim's rule, for the small bar beside the measured value.

/// Where the claim holds: at least `low`, at most `high`, as far as either is stated.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds {
    /// Lower bound.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
}

const UPPER: [&str; 5] = ["<=", "≤", "<", "at most ", "below "];
const LOWER: [&str; 5] = [">=", "≥", ">", "at least ", "above "];

/// The bounds of the headline number in `rule`, e.g. 1.06 above in `ppl ratio: whole 95 % interval at most 1.06; no effect is 1`;
/// `None` when there is nothing to draw. Only the first part of a rule is about the headline number.
pub fn bounds(rule: &str) -> Option<Bounds> {
    let part = rule.split("; ").next().unwrap_or(rule);
    let part = part.rsplit(": ").next().unwrap_or(part);
    if let Some(exact) = after(part, "exactly ") {
        return Some(Bounds { low: Some(exact), high: Some(exact) });
    }
    let found = match (after(part, "between "), part.find("between ").and_then(|at| after(&part[at..], " and "))) {
        (Some(low), Some(high)) => Bounds { low: Some(low), high: Some(high) },
        _ => Bounds { low: first(part, &LOWER), high: first(part, &UPPER) },
    };
    (found.low.is_some() || found.high.is_some()).then_some(found)
}

impl Bounds {
    /// As words: `at least 0.5 and at most 0.9`.
    pub fn words(&self, number: impl Fn(f64) -> String) -> String {
        let low = self.low.map(|bound| format!("at least {}", number(bound)));
        let high = self.high.map(|bound| format!("at most {}", number(bound)));
        [low, high].into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

fn first(text: &str, signs: &[&str]) -> Option<f64> {
    signs.iter().find_map(|sign| after(text, sign))
}

/// The number right after `sign`.
fn after(text: &str, sign: &str) -> Option<f64> {
    let rest = text[text.find(sign)? + sign.len()..].trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(rest.len());
    (1..=end).rev().filter_map(|end| rest[..end].parse().ok()).find(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_rules() {
        let at = |rule| bounds(rule).map(|b| (b.low, b.high));
        assert_eq!(at("ppl ratio: whole 95 % interval at most 1.06; no effect is 1"), Some((None, Some(1.06))));
        assert_eq!(at("error ≤ 1e-5 of the largest entry."), Some((None, Some(1e-5))));
        assert_eq!(at("slope: between 1.8 and 2.2; other: at most 9"), Some((Some(1.8), Some(2.2))));
        assert_eq!(at("closure at least 0.5 and at most 0.9"), Some((Some(0.5), Some(0.9))));
        assert_eq!(at("count: exactly 12"), Some((Some(12.0), Some(12.0))));
        assert_eq!(at("at least 2."), Some((Some(2.0), None)));
        assert_eq!(at("reported, not judged"), None);
        assert_eq!(at("<script>"), None);
        assert_eq!(at(""), None);
    }
}
