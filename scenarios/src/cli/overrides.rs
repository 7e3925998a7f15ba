//! `--set KEY=VALUE`: another value for one field, without another file.

use anyhow::anyhow;
use toml::{Table, Value};

use super::{Blame, Failure};
use crate::matrix::AXES;
use crate::output;

/// What may be set anew when a run is continued: how long and how often to measure, which changes no row's meaning.
const RESUMABLE: [&str; 4] = ["budget.seconds", "budget.min_repetitions", "budget.max_repetitions", "budget.precision"];

/// Refuses overrides of a run that is continued that would change what its rows mean.
pub fn check_resumable(sets: &[String]) -> Result<(), Failure> {
    let key = |set: &String| set.split('=').next().unwrap_or(set).trim().to_string();
    match sets.iter().map(key).find(|key| !RESUMABLE.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(anyhow!(
            "--set {key} with --resume: the rows of a run that is continued must mean the same, so only {} can be set; start a new run for another {key}",
            RESUMABLE.join(", ")
        ))
        .usage(),
    }
}

/// `text` with every `KEY=VALUE` of `sets` put in. A key that is an axis means its list in the matrix.
pub fn apply(text: &str, sets: &[String]) -> Result<String, Failure> {
    // a file that does not parse is explained by the parser that shows carets
    let Ok(mut table) = text.parse::<Table>() else { return Ok(text.into()) };
    if sets.is_empty() {
        return Ok(text.into());
    }
    for set in sets {
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| anyhow!("--set {set}: expected KEY=VALUE, e.g. --set weights=f32,int8"))
            .usage()?;
        let (key, value) = (key.trim(), parse_value(value.trim()));
        match AXES.contains(&key) {
            true => set_axis(&mut table, key, value),
            false => set_field(&mut table, key, value).usage()?,
        }
    }
    toml::to_string(&table).failed()
}

/// TOML where it is TOML (`5`, `true`, `["f32"]`, `{ kind = "gptq", bits = 3 }`), else words between commas.
pub(super) fn parse_value(text: &str) -> Value {
    if let Ok(mut table) = format!("value = {text}").parse::<Table>()
        && let Some(value) = table.remove("value").filter(|_| table.is_empty())
    {
        return value;
    }
    let words: Vec<Value> = text.split(',').map(|word| Value::String(word.trim().into())).collect();
    match <[Value; 1]>::try_from(words) {
        Ok([word]) => word,
        Err(words) => Value::Array(words),
    }
}

fn set_axis(table: &mut Table, axis: &str, value: Value) {
    let list = if let Value::Array(list) = value { list } else { vec![value] };
    let part = |name: &str, table: &mut Table| {
        if let Some(Value::Table(inner)) = table.get_mut(name) {
            inner.remove(axis);
        }
    };
    // the reference follows the new list; claims speak of cells that may be gone
    part("reference", table);
    part("engine", table);
    if table.remove("claim").is_some() {
        output::note(&format!("note: --set {axis} changes the cells, so the scenario's claims are left out"));
    }
    if table.remove("cell").is_some() {
        output::note(&format!(
            "note: --set {axis} gives every combination, so cells that are listed one by one are left out"
        ));
    }
    let matrix = table.entry("matrix").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(matrix) = matrix {
        matrix.insert(axis.into(), Value::Array(list));
    }
}

/// Sets `a.b.c`; a number goes into a list, `workload.0.text`; tables on the way are made.
fn set_field(table: &mut Table, key: &str, value: Value) -> anyhow::Result<()> {
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| anyhow!("--set: the key is empty"))?;
    let mut place = Place::Table(table);
    for part in parts {
        place = place.enter(part).map_err(|problem| anyhow!("--set {key}: {problem}"))?;
    }
    match place {
        Place::Table(table) => _ = table.insert(last.into(), value),
        Place::List(list) => *item(list, last).map_err(|problem| anyhow!("--set {key}: {problem}"))? = value,
    }
    Ok(())
}

/// Where the next part of a key leads from.
enum Place<'a> {
    Table(&'a mut Table),
    List(&'a mut Vec<Value>),
}

impl<'a> Place<'a> {
    fn enter(self, part: &str) -> Result<Place<'a>, String> {
        let inner = match self {
            Place::Table(table) => table.entry(part).or_insert_with(|| Value::Table(Table::new())),
            Place::List(list) => item(list, part)?,
        };
        match inner {
            Value::Table(table) => Ok(Place::Table(table)),
            Value::Array(list) => Ok(Place::List(list)),
            _ => Err(format!(
                "`{part}` is neither a table nor a list; axes ({}) and fields like budget.seconds or workload.0.text can be set",
                AXES.join(", ")
            )),
        }
    }
}

fn item<'a>(list: &'a mut [Value], part: &str) -> Result<&'a mut Value, String> {
    let n = list.len();
    let wanted = part
        .parse::<usize>()
        .map_err(|_| format!("`{part}` should be the number of an item, 0 to {}", n.max(1) - 1))?;
    list.get_mut(wanted).ok_or_else(|| format!("there is no item {wanted}: the list has {n}, counted from 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, sets: &[&str]) -> Table {
        let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
        let Ok(text) = apply(text, &sets) else { panic!("refused {sets:?}") };
        text.parse().expect("TOML")
    }

    #[test]
    fn axes_and_fields() {
        let text = "name = \"a\"\n[matrix]\nweights = [\"f16\"]\n[reference]\nweights = \"f16\"\n";
        let table = set(text, &["weights=f32,int8", "budget.seconds=5", "attention={ kind = \"flash\" }"]);
        assert_eq!(table["matrix"]["weights"], Value::Array(vec!["f32".into(), "int8".into()]));
        assert_eq!(table["matrix"]["attention"][0]["kind"], Value::String("flash".into()));
        assert_eq!(table["budget"]["seconds"], Value::Integer(5));
        assert!(table["reference"].as_table().is_some_and(Table::is_empty));
        let listed = "[[workload]]\nkind = \"decode\"\n[[workload]]\ntext = \"a\"\n";
        assert_eq!(set(listed, &["workload.1.text=b"])["workload"][1]["text"], Value::String("b".into()));
        for wrong in ["workload.2.text=b", "workload.text=b", "workload.0.kind.x=1"] {
            assert!(apply(listed, &[wrong.into()]).is_err(), "{wrong}");
        }
        assert!(apply(text, &["weights".into()]).is_err() && apply(text, &["name.x=1".into()]).is_err());
    }
}
