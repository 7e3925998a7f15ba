//! Small inline bars: a ratio with its interval around 1, a measured value against the bounds of a rule, a share of a whole.

use std::fmt::Display;

use crate::claim_rule::Bounds;
use crate::scale::Scale;
use crate::svg::{Svg, px};

const WIDTH: f64 = 116.0;
const HEIGHT: f64 = 22.0;

fn finish(inside: Svg, width: f64, label: &str) -> String {
    let mut out = Svg::new();
    let view = format!("0 0 {} {}", px(width), px(HEIGHT));
    let attributes: [(&str, &dyn Display); 6] = [
        ("class", &"inline"),
        ("viewBox", &view),
        ("width", &px(width)),
        ("height", &px(HEIGHT)),
        ("role", &"img"),
        ("aria-label", &label),
    ];
    out.group("svg", &attributes, |out| out.append(inside));
    out.into_text()
}

/// The common scale of a column of ratios: logarithmic, symmetric enough to always include 1.
pub fn ratio_scale(ratios: impl Iterator<Item = (f64, f64)>) -> Scale {
    let (mut low, mut high) = (0.95f64, 1.0f64 / 0.95);
    for (from, to) in ratios.filter(|(from, to)| *from > 0.0 && from.is_finite() && to.is_finite()) {
        (low, high) = (low.min(from), high.max(to));
    }
    let margin = (high / low).powf(0.06);
    Scale::logarithmic(low / margin, high * margin, (4.0, WIDTH - 4.0))
}

/// A dot and whiskers on `scale`, a line at 1 and the noise band `1/e^floor ..= e^floor`.
pub fn ratio(scale: &Scale, (estimate, low, high): (f64, f64, f64), floor: f64, tone: &str, label: &str) -> String {
    let mut svg = Svg::new();
    let (from, to) = (scale.at((-floor).exp()), scale.at(floor.exp()));
    if floor > 0.0 {
        svg.leaf(
            "rect",
            &[("class", &"noise"), ("x", &px(from)), ("y", &0), ("width", &px(to - from)), ("height", &HEIGHT)],
        );
    }
    svg.line("one", (scale.at(1.0), 0.0), (scale.at(1.0), HEIGHT));
    let middle = HEIGHT / 2.0;
    svg.line(&format!("whisker {tone}"), (scale.at(low), middle), (scale.at(high), middle));
    svg.leaf(
        "circle",
        &[("class", &format!("dot {tone}")), ("cx", &px(scale.at(estimate))), ("cy", &middle), ("r", &4)],
    );
    finish(svg, WIDTH, label)
}

/// What a measured value is held against.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rule {
    /// Where the claim holds.
    pub bounds: Bounds,
    /// The value that would mean no effect, or no loss.
    pub origin: Option<f64>,
    /// What the paper prints for the same number.
    pub paper: Option<f64>,
}

/// A measured value with its interval against a rule: where the claim holds is shaded, no effect is a dashed line, the
/// paper's value a diamond.
pub fn against(rule: Rule, measured: f64, interval: Option<(f64, f64)>, tone: &str, label: &str) -> String {
    let Rule { bounds, origin, paper } = rule;
    let (low, high) = interval.unwrap_or((measured, measured));
    let width = 190.0;
    let edges = bounds.low.into_iter().chain(bounds.high);
    let shown = edges.clone().chain(origin).chain(paper).chain([measured, low, high]);
    let scale = Scale::fit_with(shown, (6.0, width - 6.0), 50.0);
    let mut svg = Svg::new();
    if bounds != Bounds::default() {
        let (from, to) =
            (bounds.low.map_or(0.0, |low| scale.at(low)), bounds.high.map_or(width, |high| scale.at(high)));
        svg.leaf(
            "rect",
            &[("class", &"claimed"), ("x", &px(from)), ("y", &0), ("width", &px(to - from)), ("height", &HEIGHT)],
        );
    }
    if let Some(origin) = origin {
        svg.line("origin", (scale.at(origin), 0.0), (scale.at(origin), HEIGHT));
    }
    for edge in edges {
        svg.line("threshold", (scale.at(edge), 0.0), (scale.at(edge), HEIGHT));
    }
    let middle = HEIGHT / 2.0;
    svg.line(&format!("whisker {tone}"), (scale.at(low), middle), (scale.at(high), middle));
    svg.leaf(
        "circle",
        &[("class", &format!("dot {tone}")), ("cx", &px(scale.at(measured))), ("cy", &middle), ("r", &4)],
    );
    if let Some(paper) = paper {
        let (x, r) = (scale.at(paper), 5.0);
        let corners = [(x - r, middle), (x, middle - r), (x + r, middle), (x, middle + r)];
        let points = corners.map(|(x, y)| format!("{},{}", px(x), px(y))).join(" ");
        svg.leaf("polygon", &[("class", &"of-paper"), ("points", &points)]);
    }
    finish(svg, width, label)
}

/// Shares beyond this are cut off.
const LARGEST_SHARE: f64 = 1.4;

/// A bar of `share` of the width up to the line at 1, whiskers at its interval; what exceeds 1 sticks out beyond the line.
pub fn share(share: f64, interval: Option<(f64, f64)>, class: &str, label: &str) -> String {
    let width = 220.0;
    let scale = Scale::linear(0.0, LARGEST_SHARE, (0.0, width - 2.0));
    let mut svg = Svg::new();
    svg.leaf("rect", &[("class", &"track"), ("x", &0), ("y", &4), ("width", &px(scale.at(1.0))), ("height", &14)]);
    let bar = format!("bar {class}");
    svg.leaf("rect", &[("class", &bar), ("x", &0), ("y", &4), ("width", &px(scale.at(share))), ("height", &14)]);
    if let Some((low, high)) = interval.filter(|(low, high)| low < high && *high < LARGEST_SHARE) {
        svg.line("whisker ink", (scale.at(low), HEIGHT / 2.0), (scale.at(high), HEIGHT / 2.0));
    }
    svg.line("one", (scale.at(1.0), 0.0), (scale.at(1.0), HEIGHT));
    if share > LARGEST_SHARE {
        svg.text("text", &[("class", &"cut"), ("x", &px(width - 14.0)), ("y", &15)], "»");
    }
    finish(svg, width, label)
}
