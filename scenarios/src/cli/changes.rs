//! What a command line changes in a scenario before it is read: its model, the limits of its choice, any other field.
//!
//! All of it is done to the text, so that a run keeps what it measured and is continued from that alone.

use anyhow::{anyhow, bail};
use clap::Args;
use engine::ModelSource;
use toml::{Table, Value};

use super::{Blame, Failure, overrides};
use crate::output;
use crate::scenario::{bytes_of, share_of};

/// Flags of `run` and `plan` that change a scenario.
#[derive(Args, Clone, Debug, Default)]
pub struct Changes {
    /// Another model in the place of the scenario's: a Hugging Face folder, a GGUF file, hf:org/name@revision, embedded:NAME or
    /// random:SHAPE. Where the cells name several models, OLD=NEW says which one it replaces
    #[arg(long, value_name = "SOURCE")]
    model: Option<String>,
    /// Most that perplexity may grow in the cell that the run recommends, such as 2%
    #[arg(long, value_name = "SHARE", value_parser = |text: &str| share_of(text).map(|_| text.to_string()))]
    max_loss: Option<String>,
    /// Most memory that the recommended cell may take at its peak, such as 300MiB
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| bytes_of(text).map(|_| text.to_string()))]
    max_memory: Option<String>,
    /// Another value for an axis (weights=f32,int8) or a field (budget.seconds=10)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

impl Changes {
    /// Other values of fields alone.
    pub fn of_sets(sets: &[String]) -> Changes {
        Changes { sets: sets.to_vec(), ..Changes::default() }
    }

    /// Refuses what would give a run that is continued other rows than it has.
    pub fn check_resumed(&self) -> Result<(), Failure> {
        let given = [("--model", &self.model), ("--max-loss", &self.max_loss), ("--max-memory", &self.max_memory)];
        if let Some((flag, _)) = given.iter().find(|(_, value)| value.is_some()) {
            let why = "a run that is continued keeps its models and its limits";
            return Err(anyhow!("{flag} with --resume: {why}; start a new run for others")).usage();
        }
        overrides::check_resumable(&self.sets)
    }

    /// The text of a scenario with the changes put in.
    pub fn applied(&self, text: &str) -> Result<String, Failure> {
        // a file that does not parse is explained by the parser that shows carets
        let Ok(mut table) = text.parse::<Table>() else { return Ok(text.into()) };
        if let Some(given) = &self.model {
            replace_model(&mut table, given).usage()?;
        }
        let limits = [("max_loss", &self.max_loss), ("max_memory", &self.max_memory)];
        for (name, value) in limits.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            let choose = table.entry("choose").or_insert_with(|| Value::Table(Table::new()));
            let choose = choose.as_table_mut().ok_or_else(|| anyhow!("`choose`: expected a table")).usage()?;
            choose.insert(name.into(), Value::String(value.clone()));
        }
        let changed = self.model.is_some() || self.max_loss.is_some() || self.max_memory.is_some();
        let text = if changed { toml::to_string(&table).failed()? } else { text.to_string() };
        overrides::apply(&text, &self.sets)
    }
}

/// Puts the model written as `given` in the place of the one that the cells share, or of the one that `OLD=NEW` names.
fn replace_model(table: &mut Table, given: &str) -> anyhow::Result<()> {
    let name = table.get("name").and_then(Value::as_str).unwrap_or("the scenario").to_string();
    let known = sources(table);
    let pair = given.split_once('=').filter(|(old, _)| known.iter().any(|source| source == old));
    let (old, new) = match (pair, known.as_slice()) {
        (Some((old, new)), _) => (old.to_string(), new),
        (None, [one]) => (one.clone(), given),
        (None, []) => bail!("--model: `{name}` runs no model, so there is none to replace"),
        (None, several) => bail!(
            "--model: the cells of `{name}` name {} models of their own ({}); say which one is replaced, as in --model {}={given}",
            several.len(),
            several.join(", "),
            several[0]
        ),
    };
    let new = absolute(new)?;
    if let Some(adapter) = adapter_on(table, &old) {
        bail!("--model: `{name}` puts the adapter {adapter} on {old}, and an adapter fits no other model");
    }
    places(table, &mut |value| rename(value, &old, &new));
    let claims = table.get_mut("claim").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten().filter_map(Value::as_table_mut) {
        selects(claim, &old, &new);
        // the reason is about the scenario's own model
        claim.remove("not_applicable");
    }
    let model = table.get_mut("model").and_then(Value::as_table_mut);
    if let Some(draft) = model.and_then(|model| model.remove("draft")) {
        let draft = draft.as_str().unwrap_or_default();
        output::note(&format!(
            "note: --model leaves out the draft {draft}, which is of another model; --set model.draft=SOURCE names one"
        ));
    }
    Ok(())
}

/// A path as it is from anywhere: a scenario's own paths begin at its file.
fn absolute(given: &str) -> anyhow::Result<String> {
    match given.parse::<ModelSource>() {
        Err(error) => bail!("--model: {error}"),
        Ok(ModelSource::Folder(path)) => {
            if !path.exists() {
                bail!(
                    "--model {given}: there is no such file or folder; expected a Hugging Face folder, a GGUF file, hf:org/name@revision, embedded:NAME or random:SHAPE"
                );
            }
            Ok(std::path::absolute(&path)?.to_string_lossy().into_owned())
        }
        Ok(_) => Ok(given.to_string()),
    }
}

/// Every place of a scenario that names the model of a cell.
fn places(table: &mut Table, each: &mut dyn FnMut(&mut Value)) {
    if let Some(source) = table.get_mut("model").and_then(|model| model.get_mut("source")) {
        each(source);
    }
    for part in ["matrix", "engine", "reference"] {
        match table.get_mut(part).and_then(|part| part.get_mut("model")) {
            Some(Value::Array(list)) => list.iter_mut().for_each(&mut *each),
            Some(one) => each(one),
            None => {}
        }
    }
}

/// The source that a model's place names: a word, or a table's.
fn source_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("source")?.as_str())
}

/// Different sources of the cells; `[model]` counts where no list or shared part says otherwise.
fn sources(table: &Table) -> Vec<String> {
    let mut copy = table.clone();
    let listed = ["matrix", "engine"].iter().any(|part| table.get(*part).and_then(|t| t.get("model")).is_some());
    if listed {
        copy.remove("model");
    }
    let mut found: Vec<String> = vec![];
    places(&mut copy, &mut |value| {
        let source = source_of(value).unwrap_or_default().to_string();
        if !source.is_empty() && !found.contains(&source) {
            found.push(source);
        }
    });
    found
}

fn adapter_on(table: &mut Table, old: &str) -> Option<String> {
    let mut found = None;
    places(table, &mut |value| {
        if source_of(value) == Some(old)
            && let Some(adapter) = value.get("adapter")
        {
            found = Some(adapter.as_str().unwrap_or("of its table").to_string());
        }
    });
    found
}

fn rename(value: &mut Value, old: &str, new: &str) {
    if source_of(value) != Some(old) {
        return;
    }
    match value {
        Value::Table(table) => _ = table.insert("source".into(), Value::String(new.into())),
        other => *other = Value::String(new.into()),
    }
}

/// What claims select by the model's tag: the source, with what is changed in brackets.
fn selects(table: &mut Table, old: &str, new: &str) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::String(tag) if key == "model" => {
                let rest = tag.strip_prefix(old).filter(|rest| rest.is_empty() || rest.starts_with('['));
                if let Some(rest) = rest {
                    *tag = format!("{new}{rest}");
                }
            }
            Value::Table(inner) => selects(inner, old, new),
            Value::Array(list) => {
                list.iter_mut().filter_map(Value::as_table_mut).for_each(|inner| selects(inner, old, new));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::ResolvedScenario;
    use crate::library;

    fn changed(text: &str, model: &str) -> Result<Table, String> {
        let changes = Changes { model: Some(model.into()), ..Changes::default() };
        match changes.applied(text) {
            Ok(text) => Ok(text.parse().expect("TOML")),
            Err(Failure::Usage(error)) => Err(error.to_string()),
            Err(_) => panic!("the fault is the caller's"),
        }
    }

    #[test]
    fn the_shared_model_is_replaced_and_its_draft_left_out() {
        let text = "name = \"a\"\n[model]\nsource = \"embedded:base\"\ndraft = \"embedded:draft\"\nbos = \"never\"\n";
        let table = changed(text, "random:llama-tiny").expect("one model");
        assert_eq!(table["model"]["source"].as_str(), Some("random:llama-tiny"));
        assert!(table["model"].get("draft").is_none() && table["model"]["bos"].as_str() == Some("never"));
    }

    #[test]
    fn transforms_stay_and_claims_follow() {
        let text = "name = \"a\"\n[matrix]\nmodel = [\"embedded:base\", { source = \"embedded:base\", outliers = { scale = 32.0, channels = 6 } }]\n\
                    [reference]\nmodel = \"embedded:base\"\n[[claim]]\nnot_applicable = \"small\"\n[[claim.part]]\n\
                    measure = { kind = \"ratio\", over = { model = \"embedded:base[induced32x6]\" }, under = { model = \"embedded:base\" } }\n";
        let table = changed(text, "hf:org/name").expect("one source");
        assert_eq!(table["matrix"]["model"][0].as_str(), Some("hf:org/name"));
        assert_eq!(table["matrix"]["model"][1]["source"].as_str(), Some("hf:org/name"));
        assert_eq!(table["matrix"]["model"][1]["outliers"]["channels"].as_integer(), Some(6));
        assert_eq!(table["reference"]["model"].as_str(), Some("hf:org/name"));
        let measure = &table["claim"][0]["part"][0]["measure"];
        assert_eq!(measure["over"]["model"].as_str(), Some("hf:org/name[induced32x6]"));
        assert_eq!(measure["under"]["model"].as_str(), Some("hf:org/name"));
        assert!(table["claim"][0].get("not_applicable").is_none(), "it is about the scenario's own model");
    }

    #[test]
    fn several_models_need_a_word_and_what_cannot_be_is_refused() {
        let several = "name = \"a\"\n[matrix]\nmodel = [\"embedded:base\", \"embedded:mha\"]\n";
        let refused = changed(several, "random:llama-tiny").expect_err("two models");
        assert!(refused.contains("name 2 models") && refused.contains("embedded:base=random:llama-tiny"), "{refused}");
        let table = changed(several, "embedded:mha=random:llama-tiny").expect("one is named");
        assert_eq!(table["matrix"]["model"][0].as_str(), Some("embedded:base"));
        assert_eq!(table["matrix"]["model"][1].as_str(), Some("random:llama-tiny"));
        assert!(changed("name = \"a\"\n", "embedded:base").expect_err("no model").contains("runs no model"));
        let one = "name = \"a\"\n[model]\nsource = \"embedded:base\"\n";
        assert!(changed(one, "no/such/file.gguf").expect_err("no file").contains("no such file or folder"));
        let adapted =
            "name = \"a\"\n[matrix]\nmodel = [{ source = \"embedded:base\", adapter = \"embedded:capitals\" }]\n";
        assert!(changed(adapted, "embedded:mha").expect_err("an adapter").contains("embedded:capitals"));
    }

    #[test]
    fn limits_are_put_in_and_win() {
        let changes = Changes { max_loss: Some("5%".into()), max_memory: Some("1GiB".into()), ..Changes::default() };
        let Ok(text) = changes.applied("name = \"a\"\n[choose]\nmax_loss = \"1%\"\n") else { panic!("refused") };
        let table: Table = text.parse().expect("TOML");
        let choose = &table["choose"];
        assert_eq!((choose["max_loss"].as_str(), choose["max_memory"].as_str()), (Some("5%"), Some("1GiB")));
    }

    #[test]
    fn every_shipped_scenario_takes_another_model_or_says_why_not() {
        for definition in library::definitions() {
            let changes = Changes { model: Some("embedded:base".into()), ..Changes::default() };
            match changes.applied(definition.text) {
                Ok(text) => {
                    // a transform that fits no such model is refused as in any scenario
                    let refused = ResolvedScenario::parse(&text, None).err().map_or(String::new(), |e| e.to_string());
                    let by_transform = refused.contains("a transform is applied to the checkpoint's own architecture");
                    assert!(refused.is_empty() || by_transform, "{}: {refused}", definition.path);
                }
                Err(Failure::Usage(error)) => assert!(error.to_string().starts_with("--model"), "{error}"),
                Err(_) => panic!("{}: the fault is the caller's", definition.path),
            }
        }
    }
}
