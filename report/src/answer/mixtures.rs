//! Where spending bits unevenly buys most over the best uniform choice of as many bits or fewer.

use results::aggregate::Aggregate;

use super::material::Material;

/// The budget at which a mixture gains most.
pub fn sentence(material: &Material<'_>) -> Option<String> {
    let all = material.aggregates("mixture_kl");
    let points = |series: &'static str| {
        let of = move |a: &&Aggregate| a.metric.strip_prefix("mixture_kl:") == Some(series);
        all.iter().filter(of).filter_map(|a| Some((a.x?, a.median?)))
    };
    let gains = points("recommended").filter_map(|(bits, kl)| {
        let uniform = points("uniform").filter(|(b, _)| *b <= bits).min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((bits, kl, uniform))
    });
    let (bits, kl, uniform) = gains.min_by(|a, b| (a.1 / a.2.1).total_cmp(&(b.1 / b.2.1)))?;
    Some(match kl < uniform.1 {
        true => format!(
            "Spending bits unevenly pays most at {bits:.2} bits per weight: there the recommended mixture diverges from full precision by \
             {kl:.4} nat per token, the best uniform choice of no more bits ({:.2}) by {:.4}.",
            uniform.0, uniform.1
        ),
        false => "No recommended mixture beats the best uniform choice of as many bits or fewer: on this model bits may be spent evenly.".into(),
    })
}
