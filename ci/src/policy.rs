//! The rules of the gate, read strictly from TOML.

use std::path::{Path, PathBuf};

use results::metric::Kind;
use serde::Deserialize;

/// The rules shipped with the program.
pub const DEFAULT_POLICY: &str = include_str!("../policy.toml");

/// Version of the policy layout that this program reads.
pub const POLICY_SCHEMA: u32 = 1;

/// The whole of a policy file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Layout version, [`POLICY_SCHEMA`].
    pub schema: u32,
    /// Counted or exact metrics.
    pub deterministic: Tolerance,
    /// Perplexity and its kin.
    pub quality: QualityRule,
    /// Wall-clock.
    pub timing: TimingRule,
    /// Bytes with an allocator's share in them.
    pub memory: Tolerance,
    /// Numbers that a scenario names itself.
    pub values: ValueRule,
    /// What the head no longer measures.
    pub coverage: CoverageRule,
    /// Claims of papers.
    pub claims: ClaimRule,
    /// What must agree between two runs.
    pub comparable: ComparableRule,
    /// Exceptions by metric id; the first match decides.
    #[serde(default, rename = "rule")]
    pub rules: Vec<MetricRule>,
}

/// A change passes when it is within either bound.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Fraction of the baseline's magnitude.
    pub relative: f64,
    /// In the unit of the metric.
    pub absolute: f64,
}

impl Tolerance {
    /// The allowed change of a metric whose baseline is `base`, in the metric's unit.
    pub fn allowance(&self, base: f64) -> f64 {
        self.absolute.max(self.relative * base.abs())
    }
}

/// `[quality]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityRule {
    /// Fraction of the baseline's magnitude.
    pub relative: f64,
    /// In the unit of the metric.
    pub absolute: f64,
    /// Pairs from which on an interval is asked for.
    pub min_pairs: usize,
}

/// `[timing]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingRule {
    /// Level that all time gates of one check share.
    pub alpha: f64,
    /// How they share it.
    pub correction: Correction,
    /// Fraction below which a slow-down does not matter.
    pub min_effect: f64,
    /// A slow-down must exceed this times the noise floor of its job.
    pub noise_multiplier: f64,
    /// Interleaved repetitions needed.
    pub min_pairs: usize,
}

/// How many tests share one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Correction {
    /// False discovery rate over all time gates of the check.
    BenjaminiHochberg,
    /// Each test by itself.
    None,
}

/// What a finding of a switchable kind does to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Exit code 1.
    Regression,
    /// Exit code 4 with `--strict`.
    Inconclusive,
    /// Printed.
    Advisory,
}

/// `[values]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueRule {
    /// Their gate, unless a rule names them.
    pub gate: GateChoice,
}

/// `[coverage]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoverageRule {
    /// A cell or metric of the baseline that the head lacks.
    pub missing: Severity,
}

/// `[claims]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// A claim that the head refutes and the baseline did not.
    pub refuted: Severity,
    /// A claim that both refute.
    pub known: Severity,
}

/// `[comparable]`: fact keys, `*` matching any text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparableRule {
    /// Facts about the machine; a difference can be waived.
    pub hardware: Vec<String>,
    /// Facts about what was computed; a difference cannot be waived.
    pub inputs: Vec<String>,
}

/// `[[rule]]`: an exception for some metrics.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricRule {
    /// Patterns of metric ids, `*` matching any text.
    pub metrics: Vec<String>,
    /// Replaces the gate of the metric's kind.
    #[serde(default)]
    pub gate: GateChoice,
    /// Replaces the kind's `relative`.
    pub relative: Option<f64>,
    /// Replaces the kind's `absolute`.
    pub absolute: Option<f64>,
    /// Replaces `timing.min_effect`.
    pub min_effect: Option<f64>,
    /// Why these metrics are an exception.
    pub reason: String,
}

/// Which gate a metric passes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateChoice {
    /// The gate of the kind that the metric registry says.
    #[default]
    Kind,
    /// The gate of `[deterministic]`, whatever the registry says.
    Deterministic,
    /// The gate of `[quality]`, whatever the registry says.
    Quality,
    /// The gate of `[timing]`, whatever the registry says.
    Timing,
    /// The gate of `[memory]`, whatever the registry says.
    Memory,
    /// Shown, never failing.
    Advisory,
    /// Left out.
    Ignore,
}

impl GateChoice {
    /// The kind whose gate applies to a metric that the registry calls `registered`.
    pub fn kind(self, registered: Kind) -> Kind {
        match self {
            GateChoice::Deterministic => Kind::Deterministic,
            GateChoice::Quality => Kind::Quality,
            GateChoice::Timing => Kind::Timing,
            GateChoice::Memory => Kind::Memory,
            GateChoice::Kind | GateChoice::Advisory | GateChoice::Ignore => registered,
        }
    }
}

/// Why a policy file cannot be used: the file, the line, the field and what was expected there.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("{file}: {source}; expected a policy file such as ci/policy.toml")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not the TOML that a policy is.
    #[error("{file}:{line}: field `{field}`: {message}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Line from 1.
        line: usize,
        /// Dotted path of the field, `.` for the whole document.
        field: String,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A value is outside its range.
    #[error("{file}: field `{field}` is {found}, expected {expected}")]
    OutOfRange {
        /// The file.
        file: PathBuf,
        /// Dotted path of the field.
        field: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
}

impl Policy {
    /// The policy in `path`, or the shipped one.
    pub fn load(path: Option<&Path>) -> Result<Self, PolicyError> {
        let Some(path) = path else { return Self::shipped() };
        let text = std::fs::read_to_string(path)
            .map_err(|source| PolicyError::Unreadable { file: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// The policy compiled into the program.
    pub fn shipped() -> Result<Self, PolicyError> {
        Self::parse(DEFAULT_POLICY, Path::new("ci/policy.toml"))
    }

    /// Parses `text`; `file` is named in errors.
    pub fn parse(text: &str, file: &Path) -> Result<Self, PolicyError> {
        let malformed = |error: &toml::de::Error, field: String| PolicyError::Malformed {
            file: file.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            field,
            message: error.message().to_owned(),
        };
        let document = toml::Deserializer::parse(text).map_err(|error| malformed(&error, ".".to_owned()))?;
        let policy: Policy = serde_path_to_error::deserialize(document)
            .map_err(|error| malformed(error.inner(), error.path().to_string()))?;
        policy.validate(file)?;
        Ok(policy)
    }

    /// The first exception that names `metric`.
    pub fn rule(&self, metric: &str) -> Option<&MetricRule> {
        self.rules.iter().find(|rule| rule.metrics.iter().any(|pattern| matches(pattern, metric)))
    }

    /// The gate that `metric` passes through.
    pub fn gate(&self, metric: &str) -> GateChoice {
        match self.rule(metric) {
            Some(rule) => rule.gate,
            None if results::metric::metric(metric).is_none() => self.values.gate,
            None => GateChoice::Kind,
        }
    }

    /// The tolerance of `metric`, exceptions applied. Timing has none of its own: [`Policy::min_effect`] stands there.
    pub fn tolerance(&self, metric: &str, kind: Kind) -> Tolerance {
        let mut tolerance = match kind {
            Kind::Deterministic => self.deterministic,
            Kind::Memory => self.memory,
            Kind::Quality => Tolerance { relative: self.quality.relative, absolute: self.quality.absolute },
            Kind::Timing => Tolerance { relative: self.timing.min_effect, absolute: 0.0 },
        };
        if let Some(rule) = self.rule(metric) {
            tolerance.relative = rule.relative.unwrap_or(tolerance.relative);
            tolerance.absolute = rule.absolute.unwrap_or(tolerance.absolute);
        }
        tolerance
    }

    /// The smallest slow-down of `metric` that matters, as a fraction.
    pub fn min_effect(&self, metric: &str) -> f64 {
        self.rule(metric).and_then(|rule| rule.min_effect).unwrap_or(self.timing.min_effect)
    }

    fn validate(&self, file: &Path) -> Result<(), PolicyError> {
        let fail = |field: &str, found: String, expected: &'static str| {
            Err(PolicyError::OutOfRange { file: file.to_owned(), field: field.to_owned(), found, expected })
        };
        if self.schema != POLICY_SCHEMA {
            return fail("schema", self.schema.to_string(), "1, the only layout this program reads");
        }
        let timing = &self.timing;
        if !(timing.alpha > 0.0 && timing.alpha < 1.0) {
            return fail("timing.alpha", timing.alpha.to_string(), "a number between 0 and 1, both excluded");
        }
        if timing.min_pairs < 2 {
            return fail("timing.min_pairs", timing.min_pairs.to_string(), "2 or more");
        }
        let mut bounds = vec![
            ("deterministic.relative".to_owned(), self.deterministic.relative),
            ("deterministic.absolute".to_owned(), self.deterministic.absolute),
            ("quality.relative".to_owned(), self.quality.relative),
            ("quality.absolute".to_owned(), self.quality.absolute),
            ("memory.relative".to_owned(), self.memory.relative),
            ("memory.absolute".to_owned(), self.memory.absolute),
            ("timing.min_effect".to_owned(), timing.min_effect),
            ("timing.noise_multiplier".to_owned(), timing.noise_multiplier),
        ];
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.metrics.is_empty() {
                return fail(&format!("rule[{index}].metrics"), "[]".to_owned(), "at least one pattern");
            }
            if rule.reason.trim().is_empty() {
                return fail(&format!("rule[{index}].reason"), "empty".to_owned(), "why the exception exists");
            }
            for (name, value) in
                [("relative", rule.relative), ("absolute", rule.absolute), ("min_effect", rule.min_effect)]
            {
                bounds.extend(value.map(|value| (format!("rule[{index}].{name}"), value)));
            }
        }
        match bounds.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            Some((field, value)) => fail(&field, value.to_string(), "a finite number, 0 or more"),
            None => Ok(()),
        }
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for piece in pieces {
        if let Some(middle) = last.replace(piece) {
            let Some(at) = rest.find(middle) else { return false };
            rest = &rest[at + middle.len()..];
        }
    }
    last.map_or(rest.is_empty(), |tail| rest.ends_with(tail))
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        Policy::parse(text, Path::new("mine.toml")).unwrap_err().to_string()
    }

    #[test]
    fn shipped_policy_parses() {
        let policy = Policy::shipped().unwrap();
        assert_eq!(policy.tolerance("weights_bytes", Kind::Deterministic).relative, 0.0);
        assert_eq!(policy.tolerance("check:logits", Kind::Deterministic).absolute, 1e-5);
        assert_eq!(policy.min_effect("tpot_ms"), 0.03);
        assert_eq!(policy.gate("tpot_ms"), GateChoice::Kind);
        assert_eq!(policy.gate("load_s"), GateChoice::Advisory);
        assert_eq!(policy.gate("a-name-of-some-scenario"), GateChoice::Advisory);
        assert!(policy.rules.iter().all(|rule| !rule.reason.is_empty()));
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("ppl", "ppl", true),
            ("ppl", "ppl_x", false),
            ("*", "", true),
            ("load_*", "load_ms", true),
            ("*_error", "layer_error", true),
            ("*_error", "layer_errors", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn errors_name_file_line_field_and_expectation() {
        let unknown = error_of(&DEFAULT_POLICY.replace("min_effect = 0.03", "min_efect = 0.03"));
        assert!(unknown.starts_with("mine.toml:"), "{unknown}");
        let line = 1 + DEFAULT_POLICY.lines().position(|line| line.starts_with("min_effect")).unwrap();
        assert!(unknown.contains(&format!(":{line}:")), "{unknown}, expected line {line}");
        assert!(unknown.contains("min_efect") && unknown.contains("expected one of"), "{unknown}");

        let wrong_type = error_of(&DEFAULT_POLICY.replace("alpha = 0.01", "alpha = \"five\""));
        assert!(wrong_type.contains("`timing.alpha`"), "{wrong_type}");

        let wrong_word = error_of(&DEFAULT_POLICY.replace("\"benjamini-hochberg\"", "\"bonferroni\""));
        assert!(wrong_word.contains("`timing.correction`") && wrong_word.contains("none"), "{wrong_word}");

        let broken = error_of("schema = \n");
        assert!(broken.starts_with("mine.toml:1:"), "{broken}");

        let range = error_of(&DEFAULT_POLICY.replace("alpha = 0.01", "alpha = 1.5"));
        assert!(range.contains("timing.alpha") && range.contains("between 0 and 1"), "{range}");

        let negative = error_of(&DEFAULT_POLICY.replacen("relative = 0.0", "relative = -1.0", 1));
        assert!(negative.contains("deterministic.relative") && negative.contains("0 or more"), "{negative}");
    }
}
