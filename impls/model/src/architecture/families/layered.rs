//! Families whose layers differ in window and rotation: Gemma 3, OLMo 3, SmolLM3, Cohere 2, EXAONE 4.

use serde_json::Value;

use super::variants::{cohere_like, gemma_like, olmo2};
use super::{Defaults, base, llama_biases, sliding, windows};
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::rope::{self, RopeDefaults};
use crate::architecture::{Architecture, NormKind, NormPlace, Positions, QkNorm, QkNormScope, Rope, RopeScaling};
use crate::names;

/// Rotation of the layers without and with a window: a table each, or what configurations of transformers 4 say.
fn two_ropes(
    f: &Fields,
    a: &Architecture,
    [theta, window_theta]: [f32; 2],
    window_field: Option<&str>,
) -> Result<[Rope; 2], ConfigError> {
    let defaults = |theta| RopeDefaults { theta, ..RopeDefaults::default() };
    let table = |name: &str, theta: f32| rope::read_table(f, name, a.head_dim, a.max_positions, defaults(theta));
    rope::refuse_two(f)?;
    let ropes = if f.value("rope_parameters").is_some() {
        if f.value("rope_parameters.full_attention").or(f.value("rope_parameters.sliding_attention")).is_none() {
            return Err(f.wrong("rope_parameters", "a table for full_attention and one for sliding_attention"));
        }
        [table("rope_parameters.full_attention", theta)?, table("rope_parameters.sliding_attention", window_theta)?]
    } else {
        let mut window = rope::plain(a.head_dim, window_theta);
        if let Some(field) = window_field {
            window.theta = f.positive(field)?.unwrap_or(window_theta);
        } else if f.positive("rope_theta")?.is_some_and(|given| given != theta) {
            let supported = "rope_parameters with a table for each kind of layer";
            return Err(f.unsupported(
                "rope_theta",
                "one base, which versions of transformers read differently",
                supported,
            ));
        }
        [table("rope_scaling", theta)?, window]
    };
    if matches!(ropes[1].scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. }) {
        let asked = "rotation by the length of the sequence in layers with a window";
        return Err(f.unsupported("rope_parameters", asked, "default, linear, llama3, yarn"));
    }
    Ok(ropes)
}

/// Every `pattern`-th layer sees everything, unless `layer_types` lists them.
fn every(
    f: &Fields,
    field: &str,
    n_layers: usize,
    pattern: usize,
    window: Option<usize>,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let pattern = f.optional_size(field, 1 << 12)?.unwrap_or(pattern);
    windows(f, n_layers, window, |layer| !(layer + 1).is_multiple_of(pattern))
}

pub(super) fn gemma3(f: &Fields) -> Result<Architecture, ConfigError> {
    let head_dim = if f.has("head_dim") { None } else { Some(256) };
    let defaults = Defaults {
        kv_heads: Some(4),
        head_dim,
        max_positions: 131_072,
        activation: "gelu_pytorch_tanh",
        tied: true,
        rope: RopeDefaults::by_kind(),
        ..Defaults::default()
    };
    let a = gemma_like(f, base(f, defaults)?)?;
    let window = if f.has("sliding_window") { sliding(f)? } else { Some(4096) };
    let [rope, window_rope] = two_ropes(f, &a, [1e6, 1e4], Some("rope_local_base_freq"))?;
    Ok(Architecture {
        norm_place: NormPlace::Sandwich,
        qk_norm: Some(QkNorm { kind: NormKind::RmsUnitOffset, scope: QkNormScope::Head }),
        attention_scale: 1.0 / f.positive("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt(),
        logit_softcap: f.positive("final_logit_softcapping")?,
        windows: every(f, "sliding_window_pattern", a.n_layers, 6, window)?,
        positions: Positions::Rope(rope),
        window_rope: Some(window_rope),
        names: &names::GEMMA2,
        ..a
    })
}

pub(super) fn olmo3(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = olmo2(f, RopeDefaults::by_kind())?;
    let window = if f.has("sliding_window") { sliding(f)? } else { Some(4096) };
    let [rope, window_rope] = two_ropes(f, &a, [5e5; 2], None)?;
    Ok(Architecture {
        windows: windows(f, a.n_layers, window, |layer| !(layer + 1).is_multiple_of(4))?,
        positions: Positions::Rope(rope),
        window_rope: Some(window_rope),
        ..a
    })
}

/// Some layers do not rotate; those may have a window.
pub(super) fn smollm3(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { theta: 2e6, ..RopeDefaults::default() };
    let a = base(f, Defaults { kv_heads: Some(4), max_positions: 32_768, tied: true, rope, ..Defaults::default() })?;
    let interval = f.optional_size("no_rope_layer_interval", 1 << 12)?.unwrap_or(4);
    let rotated: Vec<bool> = match f.numbers("no_rope_layers")? {
        Some(layers) if layers.len() >= a.n_layers => layers[..a.n_layers].iter().map(|layer| *layer != 0.0).collect(),
        Some(_) => return Err(f.wrong("no_rope_layers", &format!("at least {} of 0 and 1", a.n_layers))),
        None => (0..a.n_layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect(),
    };
    let window = sliding(f)?.filter(|_| f.value("use_sliding_window").and_then(Value::as_bool) == Some(true));
    let windows = windows(f, a.n_layers, window, |layer| !rotated[layer])?;
    Ok(Architecture { biases: llama_biases(f)?, windows, rotated, ..a })
}

/// Layers that see everything do not rotate.
pub(super) fn cohere2(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = cohere_like(f, 10_000.0)?;
    let window = if f.has("sliding_window") { sliding(f)? } else { Some(4096) };
    let windows = every(f, "sliding_window_pattern", a.n_layers, 4, window)?;
    Ok(Architecture { rotated: windows.iter().map(Option::is_some).collect(), windows, ..a })
}

pub(super) fn exaone4(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(32), eps: 1e-5, ..Defaults::default() })?;
    let window = if f.has("sliding_window") { sliding(f)? } else { Some(4096) };
    let windows = match (window, f.value("layer_types")) {
        (None, None) => vec![None; a.n_layers],
        // a pattern in letters comes with the list it stands for
        (_, Some(_)) => windows(f, a.n_layers, window, |_| true)?,
        _ => every(f, "sliding_window_pattern", a.n_layers, 4, window)?,
    };
    Ok(Architecture {
        norm_place: NormPlace::Output,
        qk_norm: Some(QkNorm { kind: NormKind::Rms, scope: QkNormScope::Head }),
        rotated: windows.iter().map(|own| window.is_none() || own.is_some()).collect(),
        windows,
        names: &names::OLMO2,
        ..a
    })
}
