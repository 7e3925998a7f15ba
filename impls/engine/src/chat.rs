//! A model's own chat template, rendered as Hugging Face's library renders it.
//!
//! Templates are Jinja with the settings of `apply_chat_template`: blocks take their line end and indentation with them, `tojson`
//! writes as Python's `json.dumps` with `ensure_ascii=False`, strings have Python's methods, loops know `break`. What a template
//! refuses with `raise_exception` is an error with its words.

mod date;
mod json;

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

/// Steps after which a template is taken for one that does not end.
const FUEL: u64 = 50_000_000;
/// Stands behind the text that the model shall continue.
const CONTINUED: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// What a conversation needs to become a prompt.
pub struct Chat<'a> {
    /// Messages: objects with `role` and `content`, mostly.
    pub messages: &'a [serde_json::Value],
    /// Tools that the model may call, as JSON schemas.
    pub tools: Option<&'a serde_json::Value>,
    /// `bos_token` and its kin.
    pub names: &'a BTreeMap<String, String>,
    /// The time in UTC, as `2026-11-30T17:04:05Z`, for templates that write a date.
    pub now: &'a str,
}

/// The template for `has_tools`: `tool_use` where there is one, else `default`, else the only one.
pub fn choose(templates: &[(String, String)], has_tools: bool) -> Option<&str> {
    let named = |wanted: &str| templates.iter().find(|(name, _)| name == wanted);
    let found = Some("tool_use").filter(|_| has_tools).and_then(named).or_else(|| named("default"));
    found.or(templates.first()).map(|(_, text)| text.as_str())
}

/// The prompt that `template` makes of `chat`. A last message of the assistant is continued; behind any other one the
/// assistant's turn begins.
pub fn render(template: &str, chat: &Chat<'_>) -> Result<String, String> {
    let mut messages = chat.messages.to_vec();
    let continues = messages.last().is_some_and(|last| last["role"] == "assistant");
    if let Some(last) = messages.last_mut().filter(|_| continues) {
        let content = last["content"].as_str().ok_or("the assistant's last message has no text to continue")?;
        last["content"] = format!("{content}{CONTINUED}").into();
    }
    let rendered = run(template, &messages, chat, !continues).map_err(|error| explain(&error))?;
    if !continues {
        return Ok(rendered);
    }
    let at = rendered.rfind(CONTINUED.trim_end()).ok_or("the template leaves out the assistant's last message")?;
    // a template that trims its messages has trimmed the mark as well
    let whole = rendered[at..].starts_with(CONTINUED);
    Ok(if whole { &rendered[..at] } else { rendered[..at].trim_end() }.to_string())
}

fn run(template: &str, messages: &[serde_json::Value], chat: &Chat<'_>, prompt: bool) -> Result<String, Error> {
    let source = without_marks(template);
    let now = date::Moment::parse(chat.now);
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", tojson);
    // in Python nothing can be iterated over in None, and templates ask before they count
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| now.format(&format));
    let mut variables = BTreeMap::from([
        ("messages".to_string(), Value::from(Serde(messages))),
        ("add_generation_prompt".to_string(), Value::from(prompt)),
        ("tools".to_string(), chat.tools.map_or(Value::from(()), |tools| Value::from(Serde(tools)))),
        ("documents".to_string(), Value::from(())),
    ]);
    variables.extend(chat.names.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))));
    let template = environment.template_from_named_str("chat template", &source)?;
    template.render(Value::from_pairs(variables))
}

fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let format = json::Format {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: options.get("indent")?,
        separators: options.get::<Option<Vec<String>>>("separators")?,
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    format.text(value)
}

/// `template` with its marks around what the assistant says (`{% generation %}`) as blocks that always hold.
fn without_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at + 2]);
        rest = &rest[at + 2..];
        let Some(end) = rest.find("%}") else { break };
        let inside = &rest[..end];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&inside.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&inside.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(inside),
        }
        rest = &rest[end..];
    }
    out + rest
}

/// In a sentence, what went wrong and where.
fn explain(error: &Error) -> String {
    let place = error.line().map_or(String::new(), |line| format!(" (line {line} of the chat template)"));
    match error.detail() {
        Some(detail) => format!("{detail}{place}"),
        None => format!("{}{place}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render_with(template: &str, messages: serde_json::Value) -> Result<String, String> {
        let names = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
        let messages = messages.as_array().cloned().unwrap_or_default();
        render(template, &Chat { messages: &messages, tools: None, names: &names, now: "2026-02-03T04:05:06Z" })
    }

    /// A template in the manner of published ones; expected texts were made by jinja2 3.1.6 in transformers' settings.
    const TURNS: &str = "{{ bos_token }}{% for message in messages %}
    {% if message['role'] not in ['user', 'assistant', 'system'] %}
        {{ raise_exception('unknown role: ' + message['role']) }}
    {% endif %}
    {%- generation %}
<|{{ message.role }}|>{{ message['content'].strip() | replace('x', 'y') }}<|end|>
    {% endgeneration -%}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}
";

    #[test]
    fn a_conversation_becomes_a_prompt() {
        let said = json!([{"role": "system", "content": " be brief "}, {"role": "user", "content": "x <é> \u{1F600}"}]);
        let text = render_with(TURNS, said).expect("renders");
        assert_eq!(text, "<s><|system|>be brief<|end|>\n<|user|>y <é> \u{1F600}<|end|>\n<|assistant|>");
    }

    #[test]
    fn the_assistants_last_words_are_continued() {
        let said = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I am"}]);
        assert_eq!(render_with(TURNS, said).expect("renders"), "<s><|user|>hi<|end|>\n<|assistant|>I am");
    }

    #[test]
    fn a_refusal_of_the_template_is_an_error_with_its_words() {
        let error = render_with(TURNS, json!([{"role": "tool", "content": ""}])).expect_err("refused");
        assert!(error.starts_with("unknown role: tool") && error.contains("line 3"), "{error}");
        assert!(render_with("{{ messages[", json!([])).is_err());
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let template = "{{ messages[0] | tojson }}|{{ messages[0].content | tojson(indent=2) }}|{{ [1, 'é'] | tojson(ensure_ascii=True) }}\
                        |{{ {'b': none, 'a': [true, 1.5]} | tojson(separators=(',', ':'), sort_keys=true) }}";
        let text =
            render_with(template, json!([{"role": "u", "content": {"é<\"\n": [], "k": [1, {}]}}])).expect("renders");
        assert_eq!(
            text,
            "{\"role\": \"u\", \"content\": {\"é<\\\"\\n\": [], \"k\": [1, {}]}}|{\n  \"é<\\\"\\n\": [],\n  \"k\": [\n    1,\n    {}\n  ]\n}\
             |[1, \"\\u00e9\"]|{\"a\":[true,1.5],\"b\":null}"
        );
    }

    #[test]
    fn dates_loops_and_methods_are_pythons() {
        let template = "{{ strftime_now('%d %b %Y, %A %H:%M') }}|{% for c in 'a,b,c'.split(',') %}{% if c == 'c' %}{% break %}{% endif %}{{ c.upper() }}{% endfor %}\
                        |{{ messages[0]['content'][::-1] }}|{{ none }} {{ true }} {{ tools is iterable }}|{{ 'x'.startswith('x') and 'abc'.endswith('c') }}";
        let text = render_with(template, json!([{"role": "user", "content": "abc"}])).expect("renders");
        assert_eq!(text, "03 Feb 2026, Tuesday 04:05|AB|cba|None True False|True");
    }

    #[test]
    fn a_template_is_chosen_by_name() {
        let of = |names: &[&str]| names.iter().map(|n| (n.to_string(), format!("<{n}>"))).collect::<Vec<_>>();
        let all = of(&["rag", "default", "tool_use"]);
        assert_eq!((choose(&all, false), choose(&all, true)), (Some("<default>"), Some("<tool_use>")));
        assert_eq!((choose(&of(&["rag"]), true), choose(&[], false)), (Some("<rag>"), None));
    }
}
