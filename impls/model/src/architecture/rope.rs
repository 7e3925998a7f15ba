//! The rotary part of `config.json`: `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (4.x).

use serde_json::Value;

use super::fields::{ConfigError, Fields};
use super::{Rope, RopeScaling};

/// What a family says about rotation when its config does not.
#[derive(Clone, Copy)]
pub(super) struct RopeDefaults {
    pub theta: f32,
    /// Share of a head that is rotated; none where the family always rotates all of it.
    pub share: Option<f32>,
    pub interleaved: bool,
    /// The family has a rotation for each kind of layer and reads them itself.
    pub by_kind: bool,
}

impl RopeDefaults {
    pub(super) fn by_kind() -> RopeDefaults {
        RopeDefaults { by_kind: true, ..RopeDefaults::default() }
    }
}

impl Default for RopeDefaults {
    fn default() -> RopeDefaults {
        RopeDefaults { theta: 10000.0, share: None, interleaved: false, by_kind: false }
    }
}

/// Every pair of `dim` features, nothing rescaled.
pub(super) fn plain(dim: usize, theta: f32) -> Rope {
    Rope { theta, dim, interleaved: false, attention_factor: 1.0, scaling: RopeScaling::None }
}

/// Refuses two descriptions that differ: which of them holds depends on the version of transformers.
pub(super) fn refuse_two(f: &Fields) -> Result<(), ConfigError> {
    let described = |name: &str| f.value(name).filter(|table| table.as_object().is_some_and(|t| !t.is_empty()));
    match (described("rope_parameters"), described("rope_scaling")) {
        (Some(new), Some(old)) if new != old => {
            Err(f.unsupported("rope_scaling", "another rotation than rope_parameters", "one of the two"))
        }
        _ => Ok(()),
    }
}

/// Where the rotation is described.
pub(super) fn table(f: &Fields) -> &'static str {
    if f.value("rope_parameters").is_some_and(Value::is_object) { "rope_parameters" } else { "rope_scaling" }
}

pub(super) fn read(
    f: &Fields,
    head_dim: usize,
    max_positions: usize,
    defaults: RopeDefaults,
) -> Result<Rope, ConfigError> {
    if defaults.by_kind {
        return Ok(plain(head_dim, defaults.theta));
    }
    refuse_two(f)?;
    let table = table(f);
    if f.value(table).and_then(Value::as_object).is_some_and(|t| t.values().any(Value::is_object)) {
        return Err(f.unsupported(table, "different rotations by kind of layer", "one rotation for all layers"));
    }
    read_table(f, table, head_dim, max_positions, defaults)
}

/// The rotation that `table` describes, with what stands outside of it in configurations of transformers 4.
pub(super) fn read_table(
    f: &Fields,
    table: &str,
    head_dim: usize,
    max_positions: usize,
    defaults: RopeDefaults,
) -> Result<Rope, ConfigError> {
    if f.value(table).is_some_and(|value| !value.is_object()) {
        return Err(f.wrong(table, "an object or null"));
    }
    let named = |name: &str| format!("{table}.{name}");
    let theta_name = named("rope_theta");
    let theta = f.positive(f.first(&[&theta_name, "rope_theta", "rotary_emb_base"]))?.unwrap_or(defaults.theta);
    let share_name = named("partial_rotary_factor");
    let share_field = f.first(&[&share_name, "partial_rotary_factor", "rotary_pct"]);
    let given = f.positive(share_field)?;
    if let (None, Some(given)) = (defaults.share, given.filter(|share| *share != 1.0)) {
        return Err(f.unsupported(share_field, &format!("rotation of {given} of each head"), "1.0 in this family"));
    }
    let share = given.or(defaults.share).unwrap_or(1.0);
    let dim = (head_dim as f32 * share) as usize;
    if share > 1.0 || dim < 2 || !dim.is_multiple_of(2) {
        let expected = format!("a share of head_dim {head_dim} that is an even number of features");
        return Err(f.wrong(f.first(&[&share_name, "partial_rotary_factor", "rotary_pct", "head_dim"]), &expected));
    }
    let (scaling, attention_factor) = scaling(f, &named, dim, max_positions)?;
    Ok(Rope { theta, dim, interleaved: defaults.interleaved, attention_factor, scaling })
}

/// The rescaling and the factor on cos and sin that comes with it.
fn scaling(
    f: &Fields,
    named: &dyn Fn(&str) -> String,
    dim: usize,
    max_positions: usize,
) -> Result<(RopeScaling, f32), ConfigError> {
    let (new, old) = (named("rope_type"), named("type"));
    let kind = f.text(f.first(&[&new, &old]))?.unwrap_or("default".into());
    let original_name = named("original_max_position_embeddings");
    let original = f.positive(f.first(&["original_max_position_embeddings", &original_name]))?;
    let original_max_positions = original.unwrap_or(max_positions as f32);
    let factor = || f.need(&named("factor"));
    Ok(match kind.as_str() {
        "default" => (RopeScaling::None, 1.0),
        "linear" => (RopeScaling::Linear { factor: factor()? }, 1.0),
        "dynamic" => {
            if dim <= 2 {
                return Err(f.wrong("head_dim", "more than two rotated features for dynamic scaling"));
            }
            (RopeScaling::Dynamic { factor: factor()?, original_max_positions: max_positions as f32 }, 1.0)
        }
        "llama3" => {
            let need = |name: &str| f.need(&named(name));
            let scaling = RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_positions,
            };
            (scaling, 1.0)
        }
        "yarn" => {
            let get = |name: &str| f.number(&named(name));
            let factor = match get("factor")? {
                Some(_) => factor()?,
                None => max_positions as f32 / original_max_positions,
            };
            let scaling = RopeScaling::Yarn {
                factor,
                beta_fast: get("beta_fast")?.filter(|b| *b != 0.0).unwrap_or(32.0),
                beta_slow: get("beta_slow")?.filter(|b| *b != 0.0).unwrap_or(1.0),
                truncate: f.flag(&named("truncate"), true)?,
                original_max_positions,
            };
            let magnitude = |weight: f32| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
            let present = |v: Option<f32>| v.filter(|m| *m != 0.0);
            let attention = match (get("attention_factor")?, present(get("mscale")?), present(get("mscale_all_dim")?)) {
                (Some(given), ..) => given,
                (None, Some(mscale), Some(all_dim)) => magnitude(mscale) / magnitude(all_dim),
                _ => magnitude(1.0),
            };
            (scaling, attention)
        }
        // "su" is what early Phi-3 configs call LongRoPE
        "longrope" | "su" => longrope(f, named, dim, max_positions, original_max_positions)?,
        other => {
            let supported = "default, linear, dynamic, llama3, yarn, longrope";
            return Err(f.unsupported(f.first(&[&new, &old]), &format!("\"{other}\""), supported));
        }
    })
}

fn longrope(
    f: &Fields,
    named: &dyn Fn(&str) -> String,
    dim: usize,
    max_positions: usize,
    original_max_positions: f32,
) -> Result<(RopeScaling, f32), ConfigError> {
    let list = |name: &str| -> Result<Vec<f32>, ConfigError> {
        let field = named(name);
        match f.numbers(&field)? {
            Some(list) if list.len() == dim / 2 && list.iter().all(|v| *v > 0.0) => Ok(list),
            _ => Err(f.wrong(&field, &format!("{} positive numbers, one per rotary pair", dim / 2))),
        }
    };
    let (short, long) = (list("short_factor")?, list("long_factor")?);
    let factor = f.positive(&named("factor"))?.unwrap_or(max_positions as f32 / original_max_positions);
    let attention = match f.positive(&named("attention_factor"))? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original_max_positions.ln()).sqrt(),
    };
    Ok((RopeScaling::LongRope { short, long, original_max_positions }, attention))
}
