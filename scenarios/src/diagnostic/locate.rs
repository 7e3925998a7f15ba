//! Where in the file a field is.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The key of a field or its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The name on the left.
    Key,
    /// The value on the right.
    Value,
}

/// A parsed file that knows the place of each key and value.
pub struct Document<'a> {
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses `source`.
    pub fn parse(source: &'a str) -> Result<Document<'a>, toml::de::Error> {
        DeTable::parse(source).map(|root| Document { root })
    }

    /// Bytes of the field at `path` (`workload[2].protocols[0].window`), or of the nearest enclosing one that the
    /// file spells out.
    pub fn span(&self, path: &str, at: At) -> Range<usize> {
        let mut place = Place { value: None, key: None, span: 0..0, table: Some(self.root.get_ref()) };
        for step in steps(path) {
            match place.enter(&step) {
                Some(inner) => place = inner,
                None => break,
            }
        }
        match (at, place.key) {
            (At::Key, Some(key)) => key,
            _ => place.span,
        }
    }

    /// Every key and every leaf value below `path`, in reading order.
    pub fn below(&self, path: &str) -> Vec<Leaf> {
        let mut place = Place { value: None, key: None, span: 0..0, table: Some(self.root.get_ref()) };
        for step in steps(path) {
            match place.enter(&step) {
                Some(inner) => place = inner,
                None => break,
            }
        }
        let mut found = vec![];
        match (place.table, place.value) {
            (Some(table), _) => leaves_of_table(table, &mut found),
            (None, Some(value)) => leaves("", place.span.clone(), value, place.span, &mut found),
            (None, None) => {}
        }
        found.sort_by_key(|leaf| leaf.value.start);
        found
    }
}

/// A key with a value that is not a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The key, or that of the list around the value.
    pub name: String,
    /// Bytes of the key.
    pub key: Range<usize>,
    /// Bytes of the value.
    pub value: Range<usize>,
    /// The value as serde prints it: `string "x"`, `integer `5``.
    pub printed: String,
}

struct Place<'t, 'a> {
    table: Option<&'t DeTable<'a>>,
    value: Option<&'t DeValue<'a>>,
    key: Option<Range<usize>>,
    span: Range<usize>,
}

impl<'t, 'a> Place<'t, 'a> {
    fn enter(&self, step: &Step) -> Option<Place<'t, 'a>> {
        let (key, found) = match step {
            Step::Key(name) => {
                let (key, value) = self.table?.iter().find(|(key, _)| key.get_ref() == name.as_str())?;
                (Some(key.span()), value)
            }
            Step::Index(index) => match self.value? {
                DeValue::Array(items) => (self.key.clone(), items.get(*index)?),
                _ => return None,
            },
        };
        let value = found.get_ref();
        let table = if let DeValue::Table(table) = value { Some(table) } else { None };
        // a list item has no key of its own: its value is the place to point at
        let key = if let Step::Index(_) = step { None } else { key };
        Some(Place { table, value: Some(value), key, span: found.span() })
    }
}

enum Step {
    Key(String),
    Index(usize),
}

/// `a[1].b` as steps; parts that are neither names nor numbers are left out.
fn steps(path: &str) -> Vec<Step> {
    let parts = path.split(['.', '[', ']']).filter(|part| !part.is_empty() && *part != "?");
    parts.map(|part| part.parse().map_or_else(|_| Step::Key(part.into()), Step::Index)).collect()
}

fn leaves_of_table(table: &DeTable<'_>, found: &mut Vec<Leaf>) {
    for (key, value) in table {
        leaves(key.get_ref(), key.span(), value.get_ref(), value.span(), found);
    }
}

fn leaves(name: &str, key: Range<usize>, value: &DeValue<'_>, span: Range<usize>, found: &mut Vec<Leaf>) {
    let printed = match value {
        DeValue::Table(table) => {
            found.push(Leaf { name: name.into(), key, value: span, printed: "map".into() });
            return leaves_of_table(table, found);
        }
        DeValue::Array(items) => {
            found.push(Leaf { name: name.into(), key: key.clone(), value: span, printed: "sequence".into() });
            items.iter().for_each(|item| leaves(name, key.clone(), item.get_ref(), item.span(), found));
            return;
        }
        DeValue::String(text) => format!("string {text:?}"),
        DeValue::Integer(number) => format!("integer `{number}`"),
        DeValue::Float(number) => format!("floating point `{number}`"),
        DeValue::Boolean(yes) => format!("boolean `{yes}`"),
        DeValue::Datetime(time) => format!("string {:?}", time.to_string()),
    };
    found.push(Leaf { name: name.into(), key, value: span, printed });
}
