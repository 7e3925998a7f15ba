//! Lines with interval bands, one series per cell or part.

use std::fmt::Display;

use super::{area, frame};
use crate::mark::Mark;
use crate::scale::Scale;
use crate::svg::{Svg, escape, polyline};

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// Cell id, for filters.
    pub cell: String,
    /// Name in tooltips and the legend.
    pub name: String,
    /// Its look.
    pub mark: Mark,
    /// `(x, y)` in order.
    pub points: Vec<(f64, f64)>,
    /// `(low, high)` of each point, empty without a band.
    pub band: Vec<(f64, f64)>,
    /// Points from this index on are drawn grey and dashed: too few events behind them.
    pub trusted: usize,
    /// Whether points get marks and tooltips of their own.
    pub marked: bool,
    /// Drawn pale: the second copy of the reference.
    pub faint: bool,
}

/// What the drawing needs besides its lines.
#[derive(Debug)]
pub struct Plot<'a> {
    /// Unique id in the page.
    pub id: &'a str,
    /// Accessible name.
    pub title: &'a str,
    /// Accessible description.
    pub description: &'a str,
    /// Title and scale of the x axis.
    pub x: (&'a str, Scale),
    /// Title and scale of the y axis.
    pub y: (&'a str, Scale),
    /// Width and height.
    pub size: (f64, f64),
}

impl Plot<'_> {
    /// The drawing of `series`; `text` words a point for its tooltip.
    pub fn draw(&self, series: &[Series], text: &dyn Fn(&Series, usize) -> String) -> String {
        let mut svg = Svg::new();
        frame(&mut svg, self.size, (&self.x.1, self.x.0), (&self.y.1, self.y.0));
        svg.group("g", &[("class", &"lines")], |svg| {
            for line in series {
                let class = format!("series {}{}", line.mark.colour_class(), if line.faint { " faint" } else { "" });
                let attributes: [(&str, &dyn Display); 2] = [("class", &class), ("data-cell", &line.cell)];
                svg.group("g", &attributes, |svg| self.line(svg, line, text));
            }
        });
        svg.finish(self.id, self.size, self.title, self.description)
    }

    fn line(&self, svg: &mut Svg, line: &Series, text: &dyn Fn(&Series, usize) -> String) {
        let at = |(x, y): (f64, f64)| (self.x.1.at(x), self.y.1.at(y));
        if line.band.len() == line.points.len() && line.points.len() > 1 {
            let upper = line.points.iter().zip(&line.band).map(|(point, band)| at((point.0, band.1)));
            let lower = line.points.iter().zip(&line.band).rev().map(|(point, band)| at((point.0, band.0)));
            svg.leaf("path", &[("class", &"band"), ("d", &format!("{}Z", polyline(upper.chain(lower))))]);
        }
        let whole = polyline(line.points.iter().map(|p| at(*p)));
        let trusted = line.trusted.min(line.points.len());
        let solid = polyline(line.points[..trusted].iter().map(|p| at(*p)));
        svg.leaf("path", &[("class", &"line"), ("d", &solid), ("stroke-dasharray", &line.mark.dash())]);
        if trusted < line.points.len() {
            let tail = polyline(line.points[trusted.saturating_sub(1)..].iter().map(|p| at(*p)));
            svg.leaf("path", &[("class", &"line untrusted"), ("d", &tail)]);
        }
        svg.group("path", &[("class", &"hit"), ("d", &whole)], |svg| svg.text("title", &[], &line.name));
        if line.marked {
            for (index, point) in line.points.iter().enumerate() {
                svg.group("g", &[("class", &"point")], |svg| {
                    svg.text("title", &[], &text(line, index));
                    line.mark.draw(svg, at(*point), 4.0);
                });
            }
        }
    }
}

/// Drawing size of small multiples.
pub const SMALL: (f64, f64) = (440.0, 300.0);

/// Scales that show all points and bands of `series`; x is logarithmic from a factor of 8 up, as sweeps double.
pub fn scales(series: &[Series], size: (f64, f64)) -> (Scale, Scale) {
    let (x_pixels, y_pixels) = area(size);
    let xs = series.iter().flat_map(|line| line.points.iter().map(|p| p.0));
    let ys =
        series.iter().flat_map(|line| line.points.iter().map(|p| p.1).chain(line.band.iter().flat_map(|b| [b.0, b.1])));
    (Scale::fit_with(xs, x_pixels, 7.9), Scale::fit(ys, y_pixels))
}

/// A 28 px sample of a line for legends.
pub fn sample(mark: &Mark, marked: bool, faint: bool) -> String {
    let mut svg = Svg::new();
    svg.leaf("path", &[("class", &"line"), ("d", &"M1 8L27 8"), ("stroke-dasharray", &mark.dash())]);
    if marked {
        mark.draw(&mut svg, (14.0, 8.0), 4.0);
    }
    format!(
        "<svg class=\"icon {}{}\" viewBox=\"0 0 28 16\" width=\"28\" height=\"16\" aria-hidden=\"true\">{}</svg>",
        escape(&mark.colour_class()),
        if faint { " faint" } else { "" },
        svg.into_text()
    )
}
