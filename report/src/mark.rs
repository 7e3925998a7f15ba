//! How a cell looks in every plot: colour, shape, fill and tick follow its place on the axes that vary.
//!
//! Colours are Okabe and Ito's, which people with colour-blindness can tell apart; no plot relies on them alone.

use serde::Serialize;

use crate::svg::{Svg, px};

/// Number of colours `--c1` to `--c7` in the style sheet.
pub const N_COLOURS: usize = 7;

/// Outlines around the origin, radius about 1: circle, square, triangle, diamond, pentagon, inverted triangle, plus.
pub const SHAPES: [&str; 7] = [
    "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
    "M-.9-.9H.9V.9H-.9Z",
    "M0-1.25L1.12.75H-1.12Z",
    "M0-1.3L1.15 0 0 1.3-1.15 0Z",
    "M0-1.2L1.14-.37.7.97H-.7L-1.14-.37Z",
    "M0 1.25L1.12-.75H-1.12Z",
    "M-.4-1.15H.4V-.4H1.15V.4H.4V1.15H-.4V.4H-1.15V-.4H-.4Z",
];

/// Look of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// 0-based colour.
    pub colour: usize,
    /// Index into [`SHAPES`].
    pub shape: usize,
    /// 0 solid, 1 hollow, 2 hollow with a dot.
    pub fill: usize,
    /// 0 none, 1 bar above, 2 bar below.
    pub tick: usize,
}

/// Which visual channel an axis uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Colour and shape together.
    ColourAndShape,
    /// Colour alone.
    Colour,
    /// Shape alone.
    Shape,
    /// Solid, hollow, dotted.
    Fill,
    /// Bar above or below.
    Tick,
    /// Not drawn; hover or read the table.
    None,
}

/// Channels for axes with these numbers of values. The axis with most values gets colour, and shape too while shape is not needed.
pub fn channels(n_values: &[usize]) -> Vec<Channel> {
    let mut order: Vec<usize> = (0..n_values.len()).collect();
    order.sort_by_key(|axis| std::cmp::Reverse(n_values[*axis]));
    let second_fits_fill = order.get(1).is_none_or(|axis| n_values[*axis] <= 3);
    let plan = if second_fits_fill {
        [Channel::ColourAndShape, Channel::Fill, Channel::Tick]
    } else {
        [Channel::Colour, Channel::Shape, Channel::Fill]
    };
    let mut channels = vec![Channel::None; n_values.len()];
    for (axis, channel) in order.into_iter().zip(plan) {
        channels[axis] = channel;
    }
    channels
}

impl Mark {
    /// The look of a cell with value index `places[i]` on axis `i`.
    pub fn at(places: &[usize], channels: &[Channel]) -> Mark {
        let mut mark = Mark::default();
        for (place, channel) in places.iter().zip(channels) {
            match channel {
                Channel::ColourAndShape => (mark.colour, mark.shape) = (place % N_COLOURS, place % SHAPES.len()),
                Channel::Colour => mark.colour = place % N_COLOURS,
                Channel::Shape => mark.shape = place % SHAPES.len(),
                Channel::Fill => mark.fill = place % 3,
                Channel::Tick => mark.tick = place % 3,
                Channel::None => {}
            }
        }
        mark
    }

    /// Class that sets the series colour.
    pub fn colour_class(&self) -> String {
        format!("c{}", self.colour + 1)
    }

    /// Dash pattern of a line of this look.
    pub fn dash(&self) -> &'static str {
        const DASHES: [[&str; 3]; 3] =
            [["none", "7 4", "2 3"], ["11 3 2 3", "4 2", "1 4"], ["11 3 2 3 2 3", "5 2 1 2", "1 2"]];
        DASHES[self.tick.min(2)][self.fill.min(2)]
    }

    /// Draws it at `(x, y)` with radius `r`.
    pub fn draw(&self, svg: &mut Svg, (x, y): (f64, f64), r: f64) {
        let place = format!("translate({} {}) scale({})", px(x), px(y), px(r));
        let class = ["mark solid", "mark hollow", "mark hollow"][self.fill.min(2)];
        svg.leaf("path", &[("class", &class), ("d", &SHAPES[self.shape % SHAPES.len()]), ("transform", &place)]);
        if self.fill == 2 {
            svg.leaf("circle", &[("class", &"dot"), ("cx", &px(x)), ("cy", &px(y)), ("r", &px(r * 0.35))]);
        }
        if self.tick > 0 {
            let at = if self.tick == 1 { y - r * 1.7 } else { y + r * 1.7 };
            svg.line("tick-bar", (x - r, at), (x + r, at));
        }
    }

    /// A 16 px picture of it for legends and tables.
    pub fn icon(&self) -> String {
        let mut svg = Svg::new();
        self.draw(&mut svg, (8.0, 8.0), 5.2);
        let mut out = Svg::new();
        let class = format!("icon {}", self.colour_class());
        let attributes: [(&str, &dyn std::fmt::Display); 5] =
            [("class", &class), ("viewBox", &"0 0 16 16"), ("width", &16), ("height", &16), ("aria-hidden", &"true")];
        out.group("svg", &attributes, |out| out.append(svg));
        out.into_text()
    }
}
