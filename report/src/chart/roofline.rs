//! The roofline model (Williams, Waterman and Patterson 2009): rate of arithmetic against operations per byte, under the roofs
//! that memory and arithmetic units set.

use std::fmt::Display;

use super::{area, frame};
use crate::mark::Mark;
use crate::scale::Scale;
use crate::svg::{Svg, px};

/// One kernel.
#[derive(Debug, Clone)]
pub struct Point {
    /// Cell id.
    pub cell: String,
    /// Label, for points that have one.
    pub label: Option<String>,
    /// Tooltip.
    pub tip: String,
    /// Look of its operation.
    pub mark: Mark,
    /// Operations per byte.
    pub intensity: f64,
    /// Billions of operations a second.
    pub rate: f64,
}

/// What no kernel can pass.
#[derive(Debug, Clone)]
pub struct Roofs {
    /// Name and GB/s of each level of memory.
    pub bandwidths: Vec<(&'static str, f64)>,
    /// Name and billions of operations a second of each kind of arithmetic.
    pub peaks: Vec<(&'static str, f64)>,
}

impl Roofs {
    fn highest(&self) -> f64 {
        self.peaks.iter().map(|(_, peak)| *peak).fold(0.0, f64::max)
    }
}

/// The drawing.
pub fn draw(id: &str, title: &str, description: &str, size: (f64, f64), points: &[Point], roofs: &Roofs) -> String {
    let (x_pixels, y_pixels) = area(size);
    // every bend is in sight: that is where memory stops being the limit
    let slowest = roofs.bandwidths.iter().map(|(_, b)| *b).fold(f64::INFINITY, f64::min);
    let fastest = roofs.bandwidths.iter().map(|(_, b)| *b).fold(0.0, f64::max);
    let (first_bend, last_bend) = (roofs.highest() / fastest, roofs.highest() / slowest);
    let lowest = points.iter().map(|p| p.intensity).fold(first_bend, f64::min) / 4.0;
    let most = points.iter().map(|p| p.intensity).fold(last_bend, f64::max) * 2.0;
    let x = Scale::logarithmic(lowest, most, x_pixels);
    let floor = points.iter().map(|p| p.rate).fold(lowest * slowest, f64::min) / 1.5;
    let y = Scale::logarithmic(floor, roofs.highest() * 1.6, y_pixels);
    let mut svg = Svg::new();
    frame(&mut svg, size, (&x, "operations per byte of memory"), (&y, "billion operations per second"));
    roof_lines(&mut svg, roofs, (&x, &y));
    for p in points {
        let class = format!("pt {}", p.mark.colour_class());
        let attributes: [(&str, &dyn Display); 2] = [("class", &class), ("data-cell", &p.cell)];
        svg.group("g", &attributes, |svg| {
            svg.text("title", &[], &p.tip);
            p.mark.draw(svg, (x.at(p.intensity), y.at(p.rate)), 5.0);
        });
    }
    let ((_, right), _) = area(size);
    for p in points {
        let Some(label) = &p.label else { continue };
        let (at, width) = ((x.at(p.intensity), y.at(p.rate)), label.chars().count() as f64 * 6.6);
        let (at_x, anchor) = if at.0 + 9.0 + width > right { (at.0 - 9.0, "end") } else { (at.0 + 9.0, "start") };
        svg.text(
            "text",
            &[("class", &"label"), ("x", &px(at_x)), ("y", &px(at.1 + 4.0)), ("text-anchor", &anchor)],
            label,
        );
    }
    svg.finish(id, size, title, description)
}

fn roof_lines(svg: &mut Svg, roofs: &Roofs, (x, y): (&Scale, &Scale)) {
    let (low, high) = x.domain;
    let top = roofs.highest();
    for (name, peak) in &roofs.peaks {
        svg.line("frontier", (x.at(low), y.at(*peak)), (x.at(high), y.at(*peak)));
        let place = (px(x.at(high) - 4.0), px(y.at(*peak) - 6.0));
        svg.text("text", &[("class", &"tick"), ("x", &place.0), ("y", &place.1), ("text-anchor", &"end")], name);
    }
    for (name, bandwidth) in &roofs.bandwidths {
        // from where the line enters the plot to where it meets the highest peak
        let start = low.max(y.domain.0 / bandwidth);
        let end = (top / bandwidth).min(high);
        if start >= end {
            continue;
        }
        let at = |intensity: f64| (x.at(intensity), y.at(intensity * bandwidth));
        svg.line("frontier", at(start), at(end));
        let (from, to) = (at(start), at(end));
        let slope = (to.1 - from.1).atan2(to.0 - from.0).to_degrees();
        let middle = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
        let turned = format!("translate({} {}) rotate({})", px(middle.0), px(middle.1), px(slope));
        svg.group("g", &[("transform", &turned)], |svg| {
            svg.text("text", &[("class", &"tick"), ("y", &-6), ("text-anchor", &"middle")], name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_and_roof_is_drawn() {
        let point = |intensity, rate, label: Option<&str>| Point {
            cell: "c".into(),
            label: label.map(str::to_owned),
            tip: "tip".into(),
            mark: Mark::default(),
            intensity,
            rate,
        };
        let points = [point(0.25, 2.0, Some("gemv")), point(64.0, 90.0, None)];
        let roofs = Roofs { bandwidths: vec![("memory", 10.0), ("cache", 40.0)], peaks: vec![("f32", 100.0)] };
        let svg = draw("id", "title", "words", (600.0, 400.0), &points, &roofs);
        assert_eq!(svg.matches("class=\"pt c1\"").count(), 2);
        assert_eq!(svg.matches("class=\"frontier\"").count(), 3);
        assert!(svg.contains(">gemv<") && svg.contains(">cache<") && !svg.contains("NaN"));
    }
}
