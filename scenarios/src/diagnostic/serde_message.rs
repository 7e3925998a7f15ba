//! From serde's words to ours: which field, what was expected, which known word is nearest.

use super::{At, Diagnostic, Document, nearest};

/// Explains a parse error at `path` of `document`; `fallback` is where the parser stood.
pub fn explain(document: &Document<'_>, path: &str, message: &str, fallback: std::ops::Range<usize>) -> Diagnostic {
    let path = plain_path(path);
    let quoted = backticked(message);
    let found = document.below(&path);
    let known: Vec<&str> = match message.split_once(", expected ") {
        Some((_, expected)) => backticked(expected),
        None => vec![],
    };
    let first = quoted.first().copied().unwrap_or("");
    let whole = |at: At| match path.is_empty() {
        true => fallback.clone(),
        false => document.span(&path, at),
    };
    if message.starts_with("unknown field") {
        let field = found.iter().find(|leaf| leaf.name == first).map(|leaf| leaf.key.clone());
        return Diagnostic {
            title: format!("{}unknown field `{first}`", prefix(parent(&path, first))),
            span: field.unwrap_or_else(|| whole(At::Key)),
            label: "no such field here".into(),
            help: meant(first, &known, "fields"),
        };
    }
    if message.starts_with("unknown variant") {
        let printed = format!("string {first:?}");
        let value = found.iter().find(|leaf| leaf.printed == printed).map(|leaf| leaf.value.clone());
        return Diagnostic {
            title: format!("{}unknown name `{first}`", prefix(&path)),
            span: value.unwrap_or_else(|| whole(At::Value)),
            label: "not a known name".into(),
            help: meant(first, &known, "names"),
        };
    }
    if message.starts_with("missing field") {
        return Diagnostic {
            title: format!("{}field `{first}` is missing", prefix(&path)),
            span: whole(At::Value),
            label: format!("`{first}` belongs here"),
            help: format!("add `{first} = …`; `infermark show quickstart` prints a complete scenario"),
        };
    }
    if let Some(rest) = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: ")) {
        let (given, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, "another type"));
        let expected = plain_type(expected);
        let value = found.iter().find(|leaf| given.starts_with(&leaf.printed));
        let name = value.map(|leaf| leaf.name.as_str()).filter(|name| !path.ends_with(name)).unwrap_or("");
        let field = if name.is_empty() || path.ends_with(']') && name == last_key(&path) {
            path.clone()
        } else {
            join(&path, name)
        };
        return Diagnostic {
            title: format!("{}expected {expected}, found {given}", prefix(&field)),
            span: value.map_or_else(|| whole(At::Value), |leaf| leaf.value.clone()),
            label: if expected.len() <= 40 { format!("expected {expected}") } else { "another type".into() },
            help: if expected.starts_with("a list") { "write the value between [ and ]".into() } else { String::new() },
        };
    }
    // a check of a part's own, e.g. "weights: `bits = 5` cannot be used: …; advice"
    let named = quoted.iter().map(|word| word.split([' ', '=']).next().unwrap_or(word));
    let field = named.into_iter().find_map(|word| found.iter().find(|leaf| leaf.name == word));
    let (what, advice) = message.split_once("; ").unwrap_or((message, ""));
    Diagnostic {
        title: format!("{}{what}", prefix(&path)),
        span: field.map_or_else(|| whole(At::Value), |leaf| leaf.value.clone()),
        label: "this value".into(),
        help: advice.into(),
    }
}

/// "did you mean …" and the whole list.
pub fn meant(given: &str, known: &[&str], what: &str) -> String {
    let all = format!("known {what}: {}", known.join(", "));
    match nearest(given, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`? {all}"),
        None if known.is_empty() => String::new(),
        None => all,
    }
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// serde's names of types in words.
fn plain_type(expected: &str) -> &str {
    match expected {
        "usize" | "u8" | "u16" | "u32" | "u64" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// The path without a last key that the message names anyway.
fn parent<'p>(path: &'p str, field: &str) -> &'p str {
    match path.strip_suffix(field) {
        Some(rest) if rest.is_empty() || rest.ends_with('.') => rest.trim_end_matches('.'),
        _ => path,
    }
}

fn last_key(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path).split('[').next().unwrap_or(path)
}

/// serde_path_to_error prints `.` for the root and `?` for what it cannot see.
fn plain_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty() && *part != "?").collect();
    parts.join(".")
}

fn backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
