//! DeepSeek-V2 and V3: latent attention, and experts in groups beside one that every token visits.

use super::{Defaults, base};
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::rope::{self, RopeDefaults};
use crate::architecture::{Architecture, Biases, Experts, Groups, Latent, Positions, Rope, RopeScaling, Scoring};
use crate::names;

pub(super) fn deepseek_v2(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = latent(f, RopeDefaults { interleaved: true, ..RopeDefaults::default() })?;
    let biases = Biases { mlp: f.flag("mlp_bias", false)?, ..a.biases };
    if f.flag("norm_topk_prob", false)? {
        return Err(f.unsupported(
            "norm_topk_prob",
            "normalised weights of experts, which this family ignores",
            "false",
        ));
    }
    let grouped = match f.text("topk_method")?.as_deref() {
        None | Some("greedy") => false,
        Some("group_limited_greedy") => true,
        Some(other) => return Err(f.unsupported("topk_method", other, "greedy, group_limited_greedy")),
    };
    let experts = experts(f, &a, [64, 2], 0, grouped.then_some([1, 1]))?;
    if biases.mlp && experts.is_some() {
        return Err(f.unsupported("mlp_bias", "experts with biases", "false"));
    }
    Ok(Architecture { biases, experts, ..a })
}

pub(super) fn deepseek_v3(f: &Fields) -> Result<Architecture, ConfigError> {
    let interleaved = f.flag("rope_interleave", true)?;
    let a = latent(f, RopeDefaults { interleaved, ..RopeDefaults::default() })?;
    let renormalise = f.flag("norm_topk_prob", true)?;
    let scale = f.positive("routed_scaling_factor")?.unwrap_or(2.5);
    let routed = experts(f, &a, [256, 1], 3, Some([8, 4]))?;
    let experts = routed.map(|e| Experts { renormalise, scale, scoring: Scoring::BiasedSigmoid, ..e });
    if let Some(Experts { n, groups: Some(groups), .. }) = &experts
        && n / groups.n < 2
    {
        return Err(f.wrong("n_group", "groups of at least two experts"));
    }
    Ok(Architecture { experts, names: &names::DEEPSEEK_V3, ..a })
}

/// The experts behind `first_k_dense_replace` dense layers, if there are layers behind them.
fn experts(
    f: &Fields,
    a: &Architecture,
    [n, shared]: [usize; 2],
    first: usize,
    groups: Option<[usize; 2]>,
) -> Result<Option<Experts>, ConfigError> {
    let count = |field: &str, default: usize| Ok::<_, ConfigError>(f.optional_size(field, 1 << 16)?.unwrap_or(default));
    let zero = |field: &str| f.value(field).is_some_and(|value| value.as_u64() == Some(0));
    let first = if zero("first_k_dense_replace") { 0 } else { count("first_k_dense_replace", first)? };
    if first >= a.n_layers || zero("n_routed_experts") {
        // what describes experts that no layer has changes nothing
        for field in ["n_routed_experts", "num_experts_per_tok", "n_group", "topk_group"] {
            f.value(field);
        }
        return Ok(None);
    }
    let n = count("n_routed_experts", n)?;
    let top_k = f.size("num_experts_per_tok", n)?;
    let groups = match groups {
        None => None,
        Some([default, top]) => {
            let groups = Groups { n: count("n_group", default)?, top: count("topk_group", top)? };
            if n % groups.n != 0 || groups.top > groups.n {
                return Err(
                    f.wrong("n_group", &format!("a divisor of the {n} experts, of which topk_group are visited"))
                );
            }
            if top_k > groups.top * (n / groups.n) {
                return Err(f.wrong("num_experts_per_tok", "at most the experts of topk_group groups"));
            }
            Some(groups)
        }
    };
    let ffn = f.size("moe_intermediate_size", 1 << 20)?;
    let shared_ffn = if zero("n_shared_experts") { None } else { Some(ffn * count("n_shared_experts", shared)?) };
    let scale = f.positive("routed_scaling_factor")?.unwrap_or(1.0);
    let layers = (0..a.n_layers).map(|layer| layer >= first).collect();
    Ok(Some(Experts { groups, shared_ffn, scale, ..Experts::new(n, top_k, ffn, layers) }))
}

fn latent(f: &Fields, rope: RopeDefaults) -> Result<Architecture, ConfigError> {
    let rank = |field: &str, default: usize| Ok::<_, ConfigError>(f.optional_size(field, 1 << 16)?.unwrap_or(default));
    let rope_dim = rank("qk_rope_head_dim", 64)?;
    let nope_dim = rank("qk_nope_head_dim", 128)?;
    let mut a = base(f, Defaults { rope, ..Defaults::default() })?;
    a.positions = Positions::Rope(rope::read(f, rope_dim, a.max_positions, rope)?);
    let mut scale = 1.0 / ((nope_dim + rope_dim) as f32).sqrt();
    if let Some(Rope { scaling: RopeScaling::Yarn { factor, .. }, .. }) = a.rope() {
        let table = rope::table(f);
        if let Some(weight) = f.number(&format!("{table}.mscale_all_dim"))?.filter(|m| *m != 0.0 && *factor > 1.0) {
            scale *= (0.1 * weight * factor.ln() + 1.0).powi(2);
        }
    }
    let q_rank = if f.has("q_lora_rank") { f.optional_size("q_lora_rank", 1 << 16)? } else { Some(1536) };
    let latent =
        Latent { q_rank, kv_rank: rank("kv_lora_rank", 512)?, nope_dim, rope_dim, value_dim: rank("v_head_dim", 128)? };
    if a.n_kv_heads != a.n_heads {
        return Err(f.unsupported("num_key_value_heads", "fewer key heads than query heads", "num_attention_heads"));
    }
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        attention_scale: scale,
        latent: Some(latent),
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        names: &names::DEEPSEEK_V2,
        ..a
    })
}
