//! Different weights for different layers and projections: what a byte budget is spent on.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{SpecError, WeightsSpec};

/// The projections of a layer, as a rule names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Projection {
    /// Queries, keys and values (of latent attention: all four projections).
    Qkv,
    /// Attention output.
    Out,
    /// Gate and up, of every expert where there are experts.
    GateUp,
    /// Down, of every expert where there are experts.
    Down,
}

impl Projection {
    /// In the order of a layer.
    pub const ALL: [Projection; 4] = [Projection::Qkv, Projection::Out, Projection::GateUp, Projection::Down];

    /// As written in a scenario.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Qkv => "qkv",
            Projection::Out => "out",
            Projection::GateUp => "gate-up",
            Projection::Down => "down",
        }
    }
}

/// A default and its exceptions; the last rule that fits decides.
///
/// In TOML: `{ kind = "mixed", name = "edges-f16", default = { kind = "rtn", bits = 4 }, rules = [{ layers = [0],
/// weights = { kind = "f16" } }] }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixedSpec {
    /// What tells this mixture from others, in tags.
    pub name: String,
    /// Where no rule fits.
    pub default: Box<WeightsSpec>,
    /// Exceptions.
    pub rules: Vec<MixedRule>,
}

/// An exception for some layers and projections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixedRule {
    /// Numbers of layers; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// Projections; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projections: Option<Vec<Projection>>,
    /// What they get.
    pub weights: WeightsSpec,
}

impl MixedSpec {
    const NAME: RangeInclusive<usize> = 1..=40;

    pub(crate) fn tag(&self) -> String {
        format!("mixed-{}", self.name)
    }

    /// Every spec inside.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &WeightsSpec> {
        std::iter::once(&*self.default).chain(self.rules.iter().map(|rule| &rule.weights))
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !MixedSpec::NAME.contains(&self.name.len()) || !plain(&self.name) {
            return Err(SpecError {
                field: "name",
                found: format!("{:?}", self.name),
                expected: "1 to 40 letters, digits, `-`, `_` or `.`",
                advice: "it tells this mixture from others in tables, e.g. name = \"down-8bit\"",
            });
        }
        if let Some(inner) = self.parts().find(|part| matches!(part, WeightsSpec::Mixed(_))) {
            return Err(SpecError {
                field: "weights",
                found: inner.tag(),
                expected: "a kind that stores one matrix",
                advice: "write the rules of the inner mixture into the outer one",
            });
        }
        self.parts().try_for_each(WeightsSpec::validate)
    }
}

impl MixedRule {
    fn fits(&self, layer: usize, projection: Projection) -> bool {
        let has = |list: &Option<Vec<usize>>| list.as_ref().is_none_or(|l| l.contains(&layer));
        has(&self.layers) && self.projections.as_ref().is_none_or(|p| p.contains(&projection))
    }
}

impl WeightsSpec {
    /// What `projection` of `layer` gets.
    pub fn at(&self, layer: usize, projection: Projection) -> &WeightsSpec {
        let WeightsSpec::Mixed(mixed) = self else { return self };
        let rule = mixed.rules.iter().rev().find(|rule| rule.fits(layer, projection));
        rule.map_or(&*mixed.default, |rule| &rule.weights)
    }
}
