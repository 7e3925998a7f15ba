//! SVG text, escaped by construction.

use std::fmt::{Display, Write};

/// A growing piece of SVG.
#[derive(Debug, Clone, Default)]
pub struct Svg(String);

impl Svg {
    /// An empty piece.
    pub fn new() -> Svg {
        Svg::default()
    }

    /// An empty element with attributes.
    pub fn leaf(&mut self, name: &str, attributes: &[(&str, &dyn Display)]) {
        self.open(name, attributes);
        self.0.truncate(self.0.len() - 1);
        self.0.push_str("/>");
    }

    /// An element around what `inside` draws.
    pub fn group(&mut self, name: &str, attributes: &[(&str, &dyn Display)], inside: impl FnOnce(&mut Svg)) {
        self.open(name, attributes);
        inside(self);
        self.close(name);
    }

    /// An element with text.
    pub fn text(&mut self, name: &str, attributes: &[(&str, &dyn Display)], text: &str) {
        self.open(name, attributes);
        self.0.push_str(&escape(text));
        self.close(name);
    }

    /// Adds another piece at the end.
    pub fn append(&mut self, other: Svg) {
        self.0.push_str(&other.0);
    }

    /// The text so far.
    pub fn into_text(self) -> String {
        self.0
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.leaf(
            "line",
            &[("class", &class), ("x1", &px(from.0)), ("y1", &px(from.1)), ("x2", &px(to.0)), ("y2", &px(to.1))],
        );
    }

    /// The finished drawing of `size` with a name and a longer description for those who cannot see it.
    pub fn finish(self, id: &str, size: (f64, f64), title: &str, description: &str) -> String {
        let mut out = Svg::new();
        let view = format!("0 0 {} {}", px(size.0), px(size.1));
        let labels = format!("{id}-title {id}-desc");
        let attributes: [(&str, &dyn Display); 6] = [
            ("viewBox", &view),
            ("width", &px(size.0)),
            ("height", &px(size.1)),
            ("role", &"img"),
            ("aria-labelledby", &labels),
            ("class", &"drawing"),
        ];
        out.group("svg", &attributes, |svg| {
            svg.text("title", &[("id", &format!("{id}-title"))], title);
            svg.text("desc", &[("id", &format!("{id}-desc"))], description);
            svg.0.push_str(&self.0);
        });
        out.0
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &dyn Display)]) {
        write!(self.0, "<{name}").expect("writing to a String");
        for (key, value) in attributes {
            write!(self.0, " {key}=\"{}\"", escape(&value.to_string())).expect("writing to a String");
        }
        self.0.push('>');
    }

    fn close(&mut self, name: &str) {
        write!(self.0, "</{name}>").expect("writing to a String");
    }
}

/// A pixel with at most two decimals.
pub fn px(value: f64) -> f64 {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded.is_finite() { rounded + 0.0 } else { 0.0 }
}

/// Path through points, `M` then `L`.
pub fn polyline(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        write!(path, "{}{} {}", if path.is_empty() { 'M' } else { 'L' }, px(x), px(y)).expect("writing to a String");
    }
    path
}

/// Text safe inside elements and double-quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
