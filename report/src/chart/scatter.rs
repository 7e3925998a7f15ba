//! Points with error bars in two directions, the frontier of the best estimates, and labels that do not collide.
//!
//! `templates/script/pareto.js` draws the same picture for metrics that the reader picks.

use std::fmt::Display;

use results::observation::Direction;

use super::{area, frame};
use crate::mark::Mark;
use crate::scale::Scale;
use crate::svg::{Svg, polyline, px};

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The value.
    pub at: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// One cell.
#[derive(Debug, Clone)]
pub struct Point {
    /// Cell id.
    pub cell: String,
    /// Label beside the point when it matters.
    pub label: String,
    /// Tooltip.
    pub tip: String,
    /// Its look.
    pub mark: Mark,
    /// Horizontal value.
    pub x: Range,
    /// Vertical value.
    pub y: Range,
    /// Radius in pixels.
    pub radius: f64,
    /// The cell that others are compared with.
    pub reference: bool,
    /// Second copy of the reference: shown, never on the frontier.
    pub control: bool,
    /// Some point of the frontier is better beyond noise: drawn pale.
    pub beaten: bool,
}

/// An axis: its title and which way is better.
#[derive(Debug, Clone)]
pub struct AxisTitle {
    /// Metric, unit and better direction in words.
    pub title: String,
    /// Better direction.
    pub direction: Direction,
}

/// Which points are on the frontier: no other is at least as good in both and better in one. Sorted from best x.
pub fn frontier(points: &[Point], x: Direction, y: Direction) -> Vec<usize> {
    let gain = |direction, value: f64| if direction == Direction::Lower { -value } else { value };
    let place = |p: &Point| (gain(x, p.x.at), gain(y, p.y.at));
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 >= b.0 && a.1 >= b.1 && (a.0 > b.0 || a.1 > b.1);
    let open: Vec<usize> = (0..points.len()).filter(|i| !points[*i].control).collect();
    let unbeaten = |i: &usize| !open.iter().any(|j| beats(place(&points[*j]), place(&points[*i])));
    let mut best: Vec<usize> = open.iter().copied().filter(unbeaten).collect();
    best.sort_by(|a, b| place(&points[*b]).0.total_cmp(&place(&points[*a]).0));
    best
}

/// The drawing.
pub fn draw(
    id: &str,
    title: &str,
    description: &str,
    size: (f64, f64),
    points: &[Point],
    axes: (&AxisTitle, &AxisTitle),
) -> String {
    let (x_pixels, y_pixels) = area(size);
    let x = Scale::fit(points.iter().flat_map(|p| [p.x.at, p.x.low, p.x.high]), x_pixels);
    let y = Scale::fit(points.iter().flat_map(|p| [p.y.at, p.y.low, p.y.high]), y_pixels);
    let best = frontier(points, axes.0.direction, axes.1.direction);
    let mut svg = Svg::new();
    frame(&mut svg, size, (&x, &axes.0.title), (&y, &axes.1.title));
    better_corner(&mut svg, size, axes.0.direction, axes.1.direction);
    svg.leaf("path", &[("class", &"frontier"), ("d", &staircase(points, &best, &x, &y))]);
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|i| best.contains(i));
    for index in order {
        point(&mut svg, &points[index], (&x, &y));
    }
    let wanted: Vec<usize> = (0..points.len()).filter(|i| best.contains(i) || points[*i].reference).collect();
    labels(&mut svg, points, &wanted, (&x, &y), size);
    svg.finish(id, size, title, description)
}

fn better_corner(svg: &mut Svg, size: (f64, f64), x: Direction, y: Direction) {
    let ((left, right), (bottom, top)) = area(size);
    let arrow = match (x, y) {
        (Direction::Higher, Direction::Higher) => "better ↗",
        (Direction::Higher, Direction::Lower) => "better ↘",
        (Direction::Lower, Direction::Higher) => "↖ better",
        (Direction::Lower, Direction::Lower) => "↙ better",
        _ => return,
    };
    let at_left = x == Direction::Lower;
    let (at_x, anchor) = if at_left { (left + 8.0, "start") } else { (right - 6.0, "end") };
    let at_y = if y == Direction::Lower { bottom - 9.0 } else { top + 14.0 };
    svg.text("text", &[("class", &"better"), ("x", &px(at_x)), ("y", &px(at_y)), ("text-anchor", &anchor)], arrow);
}

/// Border of what the frontier beats: from each point towards worse x, then towards better y.
fn staircase(points: &[Point], best: &[usize], x: &Scale, y: &Scale) -> String {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for index in best {
        let at = (x.at(points[*index].x.at), y.at(points[*index].y.at));
        if let Some(last) = corners.last() {
            corners.push((at.0, last.1));
        }
        corners.push(at);
    }
    polyline(corners)
}

fn point(svg: &mut Svg, p: &Point, (x, y): (&Scale, &Scale)) {
    let class = format!(
        "pt {}{}{}{}",
        p.mark.colour_class(),
        if p.beaten && !p.reference { " beaten" } else { "" },
        if p.reference { " reference" } else { "" },
        if p.control { " control" } else { "" }
    );
    let attributes: [(&str, &dyn Display); 2] = [("class", &class), ("data-cell", &p.cell)];
    svg.group("g", &attributes, |svg| {
        svg.text("title", &[], &p.tip);
        let at = (x.at(p.x.at), y.at(p.y.at));
        if p.x.low < p.x.high {
            svg.line("error", (x.at(p.x.low), at.1), (x.at(p.x.high), at.1));
        }
        if p.y.low < p.y.high {
            svg.line("error", (at.0, y.at(p.y.low)), (at.0, y.at(p.y.high)));
        }
        if p.reference {
            svg.leaf("circle", &[("class", &"ring"), ("cx", &px(at.0)), ("cy", &px(at.1)), ("r", &px(p.radius + 5.0))]);
        }
        p.mark.draw(svg, at, p.radius);
    });
}

/// Greedy placement: right, left, above, below; a label without a free place is left out (hover and table still have it).
fn labels(svg: &mut Svg, points: &[Point], wanted: &[usize], (x, y): (&Scale, &Scale), size: (f64, f64)) {
    let ((left, right), (bottom, top)) = area(size);
    let boxed = |p: &Point| {
        let (at, r) = ((x.at(p.x.at), y.at(p.y.at)), p.radius + 2.0);
        let (up, down) = (if p.mark.tick == 1 { 2.0 * r } else { r }, if p.mark.tick == 2 { 2.0 * r } else { r });
        [at.0 - r, at.1 - up, at.0 + r, at.1 + down]
    };
    let mut taken: Vec<[f64; 4]> = points.iter().map(boxed).collect();
    for index in wanted {
        let p = &points[*index];
        let text = if p.reference { format!("{} (reference)", p.label) } else { p.label.clone() };
        let (width, gap) = (text.chars().count() as f64 * 6.6, p.radius + if p.reference { 9.0 } else { 5.0 });
        let at = (x.at(p.x.at), y.at(p.y.at));
        let places = [
            (at.0 + gap, at.1 + 4.0, "start", at.0 + gap),
            (at.0 - gap, at.1 + 4.0, "end", at.0 - gap - width),
            (at.0, at.1 - gap - if p.mark.tick == 1 { p.radius + 3.0 } else { 3.0 }, "middle", at.0 - width / 2.0),
            (at.0, at.1 + gap + 11.0, "middle", at.0 - width / 2.0),
        ];
        let free = places.into_iter().find_map(|(tx, ty, anchor, from)| {
            let own = [from, ty - 11.0, from + width, ty + 3.0];
            let inside = own[0] >= left && own[2] <= right + 12.0 && own[1] >= top - 8.0 && own[3] <= bottom;
            let clear = taken.iter().all(|t| own[2] <= t[0] || own[0] >= t[2] || own[3] <= t[1] || own[1] >= t[3]);
            (inside && clear).then_some((tx, ty, anchor, own))
        });
        if let Some((tx, ty, anchor, own)) = free {
            taken.push(own);
            let attributes: [(&str, &dyn Display); 5] =
                [("class", &"label"), ("data-cell", &p.cell), ("x", &px(tx)), ("y", &px(ty)), ("text-anchor", &anchor)];
            svg.text("text", &attributes, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        let range = |at| Range { at, low: at, high: at };
        let (cell, label, tip) = (String::new(), String::new(), String::new());
        Point {
            cell,
            label,
            tip,
            mark: Mark::default(),
            x: range(x),
            y: range(y),
            radius: 5.0,
            reference: false,
            control: false,
            beaten: false,
        }
    }

    #[test]
    fn frontier_is_what_nobody_beats() {
        let points =
            [point(1.0, 10.0), point(2.0, 20.0), point(2.0, 30.0), point(3.0, 30.0), point(1.0, 10.0), point(0.5, 9.0)];
        assert_eq!(frontier(&points, Direction::Higher, Direction::Lower), [3, 1, 0, 4, 5]);
        assert_eq!(frontier(&points, Direction::Lower, Direction::Lower), [5]);
        let mut control = points.to_vec();
        control[3].control = true;
        assert_eq!(frontier(&control, Direction::Higher, Direction::Lower), [1, 0, 4, 5]);
        assert!(frontier(&[], Direction::Higher, Direction::Lower).is_empty());
    }
}
