//! The frame that all plots share: plot area, grid, ticks, axis titles.

pub mod forest;
pub mod lines;
pub mod roofline;
pub mod scatter;

use crate::scale::Scale;
use crate::svg::{Svg, px};

/// Room around the plot area: top, right, bottom, left.
pub const MARGIN: (f64, f64, f64, f64) = (14.0, 16.0, 46.0, 66.0);

/// Pixels that the plot area of a drawing of `size` spans: `(left, right)` and `(bottom, top)`.
pub fn area(size: (f64, f64)) -> ((f64, f64), (f64, f64)) {
    let (top, right, bottom, left) = MARGIN;
    ((left, size.0 - right), (size.1 - bottom, top))
}

/// Grid, ticks and titles; a title ends with its unit and says when the axis is logarithmic.
pub fn frame(svg: &mut Svg, size: (f64, f64), x: (&Scale, &str), y: (&Scale, &str)) {
    let ((left, right), (bottom, top)) = area(size);
    for (value, text) in x.0.ticks(((right - left) / 80.0) as usize) {
        let at = x.0.at(value);
        svg.line("grid", (at, top), (at, bottom));
        svg.text(
            "text",
            &[("class", &"tick"), ("x", &px(at)), ("y", &px(bottom + 17.0)), ("text-anchor", &"middle")],
            &text,
        );
    }
    for (value, text) in y.0.ticks(((bottom - top) / 48.0) as usize) {
        let at = y.0.at(value);
        svg.line("grid", (left, at), (right, at));
        svg.text(
            "text",
            &[("class", &"tick"), ("x", &px(left - 7.0)), ("y", &px(at + 4.0)), ("text-anchor", &"end")],
            &text,
        );
    }
    svg.line("axis", (left, bottom), (right, bottom));
    let titled =
        |scale: &Scale, title: &str| if scale.is_log() { format!("{title}, log scale") } else { title.to_owned() };
    let middle = (left + right) / 2.0;
    let place = [px(middle), px(size.1 - 8.0)];
    svg.text(
        "text",
        &[("class", &"axis-title"), ("x", &place[0]), ("y", &place[1]), ("text-anchor", &"middle")],
        &titled(x.0, x.1),
    );
    let turned = format!("translate(13 {}) rotate(-90)", px((top + bottom) / 2.0));
    svg.text(
        "text",
        &[("class", &"axis-title"), ("transform", &turned), ("text-anchor", &"middle")],
        &titled(y.0, y.1),
    );
}
