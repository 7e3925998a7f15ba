//! A file of items: JSON Lines, one object a line; labels in a second file where a layout keeps them apart.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::layout::Layout;
use super::{Item, TaskError};
use crate::diagnostic::nearest;
use crate::{library, text};

/// Longest value that a message quotes, characters.
const QUOTED: usize = 40;

/// The text of the items that `given` names.
pub fn text(given: &str, file: Option<&Path>) -> Result<String, TaskError> {
    let fail = |problem: String| TaskError { place: given.into(), problem };
    if let Some(name) = given.strip_prefix("embedded:") {
        return library::task(name).map(str::to_string).ok_or_else(|| {
            let known: Vec<&str> = library::tasks().iter().map(|(name, _)| *name).collect();
            let meant = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean embedded:{near}? There is"),
                None => "there is".to_string(),
            };
            let known: Vec<String> = known.iter().map(|name| format!("embedded:{name}")).collect();
            fail(format!("no embedded task is called `{name}`; {meant} {} (or give a JSONL file)", known.join(", ")))
        });
    }
    let path = library::beside(file, Path::new(given));
    let said = |error: text::TextError| {
        let problem = error.to_string();
        let place = path.display().to_string();
        let problem = problem.strip_prefix(&format!("{place}: ")).unwrap_or(&problem).to_string();
        let problem = match error {
            text::TextError::Io { source, .. } => format!(
                "cannot read the task: {source}; a relative path starts at the scenario file's folder, and embedded tasks need no file"
            ),
            text::TextError::Empty { .. } => "holds no items; expected one JSON object a line".into(),
            _ => problem,
        };
        TaskError { place, problem }
    };
    text::read(&path).map_err(said)
}

/// The items of `given` and how they are written: as `layout` says, else as the fields of the first line tell.
pub fn read(
    given: &str,
    layout: Option<Layout>,
    labels: Option<&str>,
    file: Option<&Path>,
) -> Result<(Layout, Vec<Item>), TaskError> {
    let whole = text(given, file)?;
    let labels = labels.map(|given| self::labels(given, file)).transpose()?;
    let mut layout = layout;
    let mut items: Vec<Item> = vec![];
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (number, line) in lines(&whole) {
        let place = format!("{given}, line {number}");
        let map = object(&place, line)?;
        let layout = match layout {
            Some(layout) => layout,
            None => *layout.insert(Layout::of(&map).ok_or_else(|| unknown(&place, &map))?),
        };
        let label = labels.as_ref().map(|labels| {
            let missing = || TaskError {
                place: labels.0.clone(),
                problem: format!(
                    "has {} labels, and {place} wants one more; expected one label a line for each item",
                    labels.1.len()
                ),
            };
            labels.1.get(items.len()).cloned().ok_or_else(missing)
        });
        let fields = Fields { place, layout, map: &map, number, label: label.transpose()? };
        let item = layout.item(&fields)?;
        if let Some(first) = seen.insert(item.id.clone(), number) {
            let problem = format!("the id `{}` is that of line {first} too; each item needs an id of its own", item.id);
            return Err(TaskError { place: fields.place, problem });
        }
        items.push(item);
    }
    if let Some((place, labels)) = labels.filter(|(_, labels)| labels.len() > items.len()) {
        let problem = format!("has {} labels for {} items of {given}; expected one each", labels.len(), items.len());
        return Err(TaskError { place, problem });
    }
    match (layout, items.is_empty()) {
        (Some(layout), false) => Ok((layout, items)),
        _ => Err(TaskError { place: given.into(), problem: "holds no items; expected one JSON object a line".into() }),
    }
}

/// Lines that hold something, counted from 1; a mark of byte order before the first is no part of it.
fn lines(whole: &str) -> impl Iterator<Item = (usize, &str)> {
    let whole = whole.strip_prefix('\u{feff}').unwrap_or(whole);
    whole.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty())
}

fn object(place: &str, line: &str) -> Result<Map<String, Value>, TaskError> {
    let fail = |problem: String| TaskError { place: place.into(), problem };
    const EXPECTED: &str = "expected one JSON object a line, not a list and not an object over several lines";
    match serde_json::from_str(line) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(fail(format!("is {}; {EXPECTED}", shown(&other)))),
        Err(error) => Err(fail(format!("not JSON ({error}); {EXPECTED}"))),
    }
}

fn unknown(place: &str, map: &Map<String, Value>) -> TaskError {
    let fields: Vec<&str> = map.keys().map(String::as_str).collect();
    let known: Vec<String> = Layout::ALL.iter().map(|l| format!("{} ({})", l.name(), l.fields().join(", "))).collect();
    let problem = format!(
        "no layout has the fields {}; expected those of {}; or name one with `layout`",
        fields.join(", "),
        known.join("; ")
    );
    TaskError { place: place.into(), problem }
}

fn labels(given: &str, file: Option<&Path>) -> Result<(String, Vec<String>), TaskError> {
    let whole = text(given, file)?;
    Ok((given.to_string(), lines(&whole).map(|(_, line)| line.to_string()).collect()))
}

/// A value as a message shows it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.chars().count() > QUOTED {
        true => format!("{}…", text.chars().take(QUOTED).collect::<String>()),
        false => text,
    }
}

/// The fields of one line.
pub struct Fields<'a> {
    /// File and line.
    pub place: String,
    layout: Layout,
    map: &'a Map<String, Value>,
    /// Number of the line.
    pub number: usize,
    /// The line's label in the second file, where there is one.
    pub label: Option<String>,
}

impl<'a> Fields<'a> {
    /// The error that `name` is not what was `expected`.
    pub fn wrong(&self, name: &str, expected: &str) -> TaskError {
        let found = match self.map.get(name) {
            None | Some(Value::Null) => "is missing".to_string(),
            Some(value) => format!("is {}", shown(value)),
        };
        let problem = format!("`{name}` {found}; layout {} expects {expected}", self.layout.name());
        TaskError { place: self.place.clone(), problem }
    }

    /// The fields inside `name`.
    pub fn inside(&self, name: &str, expected: &str) -> Result<Fields<'a>, TaskError> {
        let map = self.map.get(name).and_then(Value::as_object).ok_or_else(|| self.wrong(name, expected))?;
        Ok(Fields {
            place: format!("{}, `{name}`", self.place),
            layout: self.layout,
            map,
            number: self.number,
            label: None,
        })
    }

    /// Whether there is a field `name`.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text, which may be empty.
    pub fn text(&self, name: &str) -> Result<&'a str, TaskError> {
        self.get(name).and_then(Value::as_str).ok_or_else(|| self.wrong(name, "a text"))
    }

    /// A text that is not empty.
    pub fn words(&self, name: &str) -> Result<&'a str, TaskError> {
        let text = self.text(name)?;
        if text.trim().is_empty() { Err(self.wrong(name, "a text that is not empty")) } else { Ok(text) }
    }

    /// At least two texts, none of them empty.
    pub fn answers(&self, name: &str) -> Result<Vec<String>, TaskError> {
        let expected = || self.wrong(name, "a list of two texts or more, none of them empty");
        let list = self.get(name).and_then(Value::as_array).ok_or_else(expected)?;
        let texts: Option<Vec<String>> = list.iter().map(|value| value.as_str().map(str::to_string)).collect();
        texts.filter(|texts| texts.len() >= 2 && texts.iter().all(|text| !text.trim().is_empty())).ok_or_else(expected)
    }

    /// A label as text, whether the file writes it as a number or as text.
    pub fn said(&self, name: &str) -> Result<String, TaskError> {
        let said = match self.get(name) {
            Some(Value::String(text)) => text.trim().to_string(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(self.wrong(name, "a label")),
            None => String::new(),
        };
        if said.is_empty() || said == "-1" {
            return Err(self.wrong(name, "the right answer; a published test split without answers cannot be judged"));
        }
        Ok(said)
    }

    /// An index below `n`, counted from `from`.
    pub fn index(&self, name: &str, n: usize, from: usize) -> Result<usize, TaskError> {
        let index = self.said(name)?.parse::<usize>().ok().and_then(|i| i.checked_sub(from)).filter(|i| *i < n);
        index.ok_or_else(|| self.wrong(name, &format!("the number of the right answer, {from} to {}", n - 1 + from)))
    }

    /// The id in `name`, or the line where there is none.
    pub fn id(&self, name: &str) -> Result<String, TaskError> {
        match self.get(name) {
            None => Ok(format!("line {}", self.number)),
            Some(Value::String(id)) if !id.is_empty() => Ok(id.clone()),
            Some(Value::Number(id)) => Ok(id.to_string()),
            Some(_) => Err(self.wrong(name, "a name or a number")),
        }
    }

    /// Fails where a label comes from a second file, which this layout does not have.
    pub fn no_second_file(&self) -> Result<(), TaskError> {
        match &self.label {
            None => Ok(()),
            Some(_) => Err(TaskError {
                place: self.place.clone(),
                problem: format!("layout {} has its answers in its own lines; remove `labels`", self.layout.name()),
            }),
        }
    }
}
