//! How published files write their items, and how each becomes a question.
//!
//! Sources: the task definitions of lm-evaluation-harness 0.4 for HellaSwag (Zellers et al. 2019), ARC (Clark et al. 2018), MMLU (Hendrycks
//! et al. 2020), PIQA (Bisk et al. 2019), WinoGrande (Sakaguchi et al. 2019) and LAMBADA (Paperno et al. 2016). Files of ARC are read both
//! as its authors published them and as the Hugging Face hub has them.

use results::trace::Judged;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::Fields;
use super::{Ask, Item, TaskError};

/// How the lines of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `ctx_a`, `ctx_b`, `activity_label`, `endings`, `label`.
    Hellaswag,
    /// `question`, `choices`, `answerKey`.
    Arc,
    /// `question`, `choices`, `answer`, `subject`.
    Mmlu,
    /// `goal`, `sol1`, `sol2`, `label` or a second file.
    Piqa,
    /// `sentence`, `option1`, `option2`, `answer`.
    Winogrande,
    /// `text`.
    Lambada,
    /// Ours: `context`, and `choices` with `answer` or `target`.
    Plain,
}

impl Layout {
    /// Every layout, in the order in which they are looked for.
    pub const ALL: [Layout; 7] = [
        Layout::Hellaswag,
        Layout::Arc,
        Layout::Piqa,
        Layout::Winogrande,
        Layout::Plain,
        Layout::Mmlu,
        Layout::Lambada,
    ];

    /// Its name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Hellaswag => "hellaswag",
            Layout::Arc => "arc",
            Layout::Mmlu => "mmlu",
            Layout::Piqa => "piqa",
            Layout::Winogrande => "winogrande",
            Layout::Lambada => "lambada",
            Layout::Plain => "plain",
        }
    }

    /// The fields by which it is known.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Layout::Hellaswag => &["ctx_a", "ctx_b", "endings"],
            Layout::Arc => &["question", "answerKey"],
            Layout::Mmlu => &["question", "choices", "answer"],
            Layout::Piqa => &["goal", "sol1", "sol2"],
            Layout::Winogrande => &["sentence", "option1", "option2"],
            Layout::Lambada => &["text"],
            Layout::Plain => &["context"],
        }
    }

    /// The layout whose fields `map` has.
    pub fn of(map: &Map<String, Value>) -> Option<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.fields().iter().all(|field| map.contains_key(*field)))
    }

    /// The item of one line.
    pub fn item(self, fields: &Fields<'_>) -> Result<Item, TaskError> {
        if self != Layout::Piqa {
            fields.no_second_file()?;
        }
        match self {
            Layout::Hellaswag => hellaswag(fields),
            Layout::Arc => arc(fields),
            Layout::Mmlu => mmlu(fields),
            Layout::Piqa => piqa(fields),
            Layout::Winogrande => winogrande(fields),
            Layout::Lambada => lambada(fields),
            Layout::Plain => plain(fields),
        }
    }
}

fn item(id: String, ask: Ask, gold: usize) -> Item {
    Item { id, subject: None, ask, gold, hidden: None }
}

fn choose(context: String, answers: Vec<String>) -> Ask {
    Ask::Choose { context, answers, judged: Judged::Choice }
}

fn hellaswag(fields: &Fields<'_>) -> Result<Item, TaskError> {
    let context = format!("{} {}", fields.text("ctx_a")?, capitalized(fields.text("ctx_b")?));
    let context = tidied(&format!("{}: {context}", fields.text("activity_label")?));
    let endings: Vec<String> = fields.answers("endings")?.iter().map(|ending| tidied(ending)).collect();
    if endings.iter().any(String::is_empty) {
        return Err(fields.wrong("endings", "texts that are more than marks in brackets"));
    }
    let gold = fields.index("label", endings.len(), 0)?;
    // `ind` counts the lines of two source files and can come twice
    Ok(item(format!("line {}", fields.number), choose(context, endings), gold))
}

/// `preprocess` of the harness: brackets are artifacts of the part that comes from WikiHow.
fn tidied(text: &str) -> String {
    let text = stripped(text).replace(" [title]", ". ");
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        kept.push_str(&rest[..open]);
        rest = &rest[open..];
        // as `\[.*?\]`, which does not cross a line
        match rest.find([']', '\n']).filter(|at| rest.as_bytes()[*at] == b']') {
            Some(close) => rest = &rest[close + 1..],
            None => {
                kept.push('[');
                rest = &rest[1..];
            }
        }
    }
    (kept + rest).replace("  ", " ")
}

/// Python's `str.strip`, which also takes separators of records away.
pub fn stripped(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// What Python calls a space.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.capitalize`: the first letter large, every other one small.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let mut large = first.to_uppercase();
    let head: String = large.next().into_iter().chain(large.flat_map(char::to_lowercase)).collect();
    head + &letters.as_str().to_lowercase()
}

fn arc(fields: &Fields<'_>) -> Result<Item, TaskError> {
    const EXPECTED: &str = "an object with the lists `text` and `label`";
    let (question, answers, labels) = match fields.get("question") {
        // as the authors published it
        Some(Value::Object(_)) => {
            let inside = fields.inside("question", "an object")?;
            let list = inside.get("choices").and_then(Value::as_array).filter(|list| list.len() >= 2);
            let list = list.ok_or_else(|| inside.wrong("choices", "a list of two objects or more"))?;
            let part = |name: &str| -> Option<Vec<String>> {
                list.iter().map(|choice| choice.get(name)?.as_str().map(str::to_string)).collect()
            };
            let wrong = || inside.wrong("choices", "objects with a `text` and a `label` each");
            let answers = part("text").filter(|texts| texts.iter().all(|text| !text.trim().is_empty()));
            (inside.words("stem")?, answers.ok_or_else(wrong)?, part("label").ok_or_else(wrong)?)
        }
        _ => {
            let choices = fields.inside("choices", EXPECTED)?;
            (fields.words("question")?, choices.answers("text")?, choices.answers("label")?)
        }
    };
    let key = fields.said("answerKey")?;
    let gold = labels.iter().position(|label| *label == key).filter(|gold| *gold < answers.len());
    let gold = gold.ok_or_else(|| fields.wrong("answerKey", &format!("one of its labels: {}", labels.join(", "))))?;
    Ok(item(fields.id("id")?, choose(format!("Question: {question}\nAnswer:"), answers), gold))
}

fn mmlu(fields: &Fields<'_>) -> Result<Item, TaskError> {
    let answers = fields.answers("choices")?;
    if answers.len() > 26 {
        return Err(fields.wrong("choices", "26 answers at most, one for each letter"));
    }
    let gold = fields.index("answer", answers.len(), 0)?;
    let letters: Vec<String> = ('A'..='Z').take(answers.len()).map(String::from).collect();
    let listed: Vec<String> = letters.iter().zip(&answers).map(|(letter, text)| format!("{letter}. {text}")).collect();
    let context = format!("{}\n{}\nAnswer:", stripped(fields.words("question")?), listed.join("\n"));
    let ask = Ask::Choose { context, answers: letters, judged: Judged::PlainChoice };
    let subject = if fields.has("subject") { Some(fields.words("subject")?.to_string()) } else { None };
    Ok(Item { subject, ..item(format!("line {}", fields.number), ask, gold) })
}

fn piqa(fields: &Fields<'_>) -> Result<Item, TaskError> {
    let answers = vec![fields.words("sol1")?.to_string(), fields.words("sol2")?.to_string()];
    let gold = match &fields.label {
        None if !fields.has("label") => {
            return Err(fields.wrong("label", "0 or 1, or a second file with one label a line: labels = \"FILE\""));
        }
        None => fields.index("label", 2, 0)?,
        Some(_) if fields.has("label") => {
            return Err(fields.wrong("label", "either a label in the line or a second file, not both: remove `labels`"));
        }
        Some(label) => match label.as_str() {
            "0" => 0,
            "1" => 1,
            other => {
                let problem = format!("its label in the second file is `{other}`; expected 0 or 1");
                return Err(TaskError { place: fields.place.clone(), problem });
            }
        },
    };
    let context = format!("Question: {}\nAnswer:", fields.words("goal")?);
    Ok(item(format!("line {}", fields.number), choose(context, answers), gold))
}

fn winogrande(fields: &Fields<'_>) -> Result<Item, TaskError> {
    let sentence = fields.words("sentence")?;
    let (before, after) =
        sentence.split_once('_').ok_or_else(|| fields.wrong("sentence", "a text with `_` where an option goes"))?;
    let rest = stripped(after).to_string();
    if rest.is_empty() {
        return Err(fields.wrong("sentence", "text behind `_`, which is what is judged"));
    }
    let contexts =
        vec![format!("{before}{}", fields.words("option1")?), format!("{before}{}", fields.words("option2")?)];
    let gold = fields.index("answer", 2, 1)?;
    Ok(item(fields.id("qID")?, Ask::Fill { contexts, rest }, gold))
}

fn lambada(fields: &Fields<'_>) -> Result<Item, TaskError> {
    let text = fields.words("text")?;
    let (context, word) = text.rsplit_once(' ').unwrap_or(("", text));
    if word.trim().is_empty() {
        return Err(fields.wrong("text", "a text that ends with a word"));
    }
    let ask = Ask::Complete { context: context.into(), target: format!(" {word}") };
    Ok(item(format!("line {}", fields.number), ask, 0))
}

fn plain(fields: &Fields<'_>) -> Result<Item, TaskError> {
    let (context, id) = (fields.text("context")?.to_string(), fields.id("id")?);
    match (fields.has("target"), fields.has("choices")) {
        (true, false) => {
            let ask = Ask::Complete { context, target: format!(" {}", fields.words("target")?) };
            Ok(item(id, ask, 0))
        }
        (false, true) => {
            let answers = fields.answers("choices")?;
            let gold = fields.index("answer", answers.len(), 0)?;
            Ok(item(id, choose(context, answers), gold))
        }
        (true, true) => Err(fields.wrong("target", "either a `target` or `choices`, not both")),
        (false, false) => Err(fields.wrong("choices", "a list of answers with the index `answer`, or a `target`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: `preprocess` of the harness's HellaSwag task and `str.capitalize`, run by Python 3.11.
    #[test]
    fn texts_of_hellaswag_are_tidied_as_python_does_it() {
        for (given, expected) in [
            (" How to [title] do it [step] now  here ", "How to. do it now here"),
            ("a [b\nc] d [e] f", "a [b\nc] d f"),
            ("[x] [y [z] w]", " w]"),
            ("a    b", "a  b"),
            ("open [", "open ["),
        ] {
            assert_eq!(tidied(given), expected, "{given:?}");
        }
        for (given, expected) in [("the SOIL", "The soil"), ("", ""), ("ß", "Ss"), ("éTÉ", "Été"), ("1A", "1a")] {
            assert_eq!(capitalized(given), expected, "{given:?}");
        }
    }
}
