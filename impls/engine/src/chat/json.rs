//! JSON as Python's `json.dumps` writes it.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Options of `json.dumps`.
pub(super) struct Format {
    /// Characters beyond ASCII as `\u` escapes.
    pub ascii: bool,
    /// Blanks per level, each entry on a line of its own.
    pub indent: Option<usize>,
    /// What stands between entries, and between key and value.
    pub separators: Option<Vec<String>>,
    /// Keys in order.
    pub sorted: bool,
}

impl Format {
    /// `value` as JSON.
    pub(super) fn text(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(value, 0, &mut out)?;
        Ok(out)
    }

    fn between(&self) -> (&str, &str) {
        match &self.separators {
            Some(pair) if pair.len() == 2 => (&pair[0], &pair[1]),
            _ if self.indent.is_some() => (",", ": "),
            _ => (", ", ": "),
        }
    }

    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.entries(('[', ']'), items.len(), depth, out, |i, out| self.write(&items[i], depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                let colon = self.between().1.to_string();
                self.entries(('{', '}'), keys.len(), depth, out, |i, out| {
                    self.string(&keys[i].to_string(), out);
                    out.push_str(&colon);
                    self.write(&value.get_item(&keys[i])?, depth + 1, out)
                })?;
            }
            other => {
                let problem = format!("tojson: a value of kind `{other}` is not JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        }
        Ok(())
    }

    /// `n` entries between brackets, each written by `one`.
    fn entries(
        &self,
        (open, close): (char, char),
        n: usize,
        depth: usize,
        out: &mut String,
        mut one: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(blanks) = self.indent.filter(|_| n > 0) {
                out.push('\n');
                out.push_str(&" ".repeat(blanks * depth));
            }
        };
        out.push(open);
        for i in 0..n {
            if i > 0 {
                out.push_str(self.between().0);
            }
            line(depth + 1, out);
            one(i, out)?;
        }
        line(depth, out);
        out.push(close);
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ascii && !c.is_ascii()) => {
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
