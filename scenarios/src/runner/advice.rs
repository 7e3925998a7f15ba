//! What a scenario with limits (`[choose]`) keeps beside its rows, so that the choice is made from the run's folder alone: the
//! limits, and of every cell the commands that use its parts.

use attention::AttentionSpec;
use decoding::DecodingSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Value;
use weights::WeightsSpec;

use crate::cell::{Cell, ResolvedScenario};
use crate::output::quoted;

/// Where a command puts codes that were chosen once.
const FOLDER: &str = "quantized-model";

/// Facts of the run: its limits.
pub fn of_run(scenario: &ResolvedScenario) -> Vec<(String, String)> {
    let Some(choose) = &scenario.scenario.choose else { return vec![] };
    let mut facts = vec![
        ("choose_max_loss".to_string(), choose.max_loss.to_string()),
        ("choose_speed".into(), choose.speed.word().into()),
    ];
    facts.extend(choose.max_memory.map(|bytes| ("choose_max_memory".to_string(), bytes.to_string())));
    facts
}

/// Facts of a cell: the commands that use its parts, the first to be typed first.
pub fn of_cell(scenario: &ResolvedScenario, cell: &Cell) -> Vec<(String, String)> {
    let (Some(_), Some(model)) = (&scenario.scenario.choose, &cell.model) else { return vec![] };
    // transforms and adapters have flags of their own, or none
    if cell.external.is_some() || !model.transforms.is_empty() || model.adapter.is_some() {
        return vec![];
    }
    let spec = &cell.spec;
    // drawing tokens gives another text, which is a wish and no matter of speed
    let greedy = scenario.reference().spec.decoding == DecodingSpec::Greedy && spec.decoding.keeps_greedy_tokens();
    if spec.decoding != scenario.reference().spec.decoding && !greedy {
        return vec![];
    }
    let mut facts = vec![];
    let (mut source, mut weights) = (model.source.clone(), spec.weights.clone());
    // codes that need a calibration are chosen once and stored; others are chosen while a file is read
    if let (WeightsSpec::Gptq(_) | WeightsSpec::Awq(_), None) = (&weights, weights.activation_bits())
        && let Some(calibration) = &scenario.scenario.calibration
    {
        let command = [
            "infermark quantize --model".into(),
            quoted(&source),
            "--method".into(),
            quoted(&spelled(&weights)),
            "--calibration".into(),
            quoted(&calibration.text),
            format!("--windows {} --window-tokens {}", calibration.windows, calibration.window_tokens),
            format!("--output {FOLDER}"),
        ];
        facts.push(("command_first".to_string(), command.join(" ")));
        (source, weights) = (FOLDER.into(), WeightsSpec::Stored);
    }
    let mut words = vec!["infermark generate --model".to_string(), quoted(&source)];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), quoted(&value)]);
    option("weights", spelled(&weights));
    option("kv", spelled(&spec.kv));
    if spec.attention != AttentionSpec::Flash(Default::default()) {
        option("attention", spelled(&spec.attention));
    }
    if spec.decoding != DecodingSpec::Greedy {
        option("decoding", spelled(&spec.decoding));
        if let (true, Some(draft)) = (spec.decoding.needs_draft(), scenario.scenario.draft()) {
            option("draft", draft.to_string());
        }
    }
    if spec.device != Default::default() {
        option("device", spelled(&spec.device));
    }
    facts.push(("command".into(), words.join(" ")));
    facts
}

/// A part as a command line takes it: its name, or a table of its kind and the fields that are not what the kind has anyway.
fn spelled<T: Serialize + DeserializeOwned + PartialEq>(part: &T) -> String {
    let Ok(Value::Table(mut table)) = Value::try_from(part) else { return String::new() };
    let fields: Vec<String> = table.keys().filter(|name| *name != "kind").cloned().collect();
    for field in fields {
        let mut without = table.clone();
        without.remove(&field);
        if Value::Table(without.clone()).try_into::<T>().is_ok_and(|same| same == *part) {
            table = without;
        }
    }
    match (table.get("kind"), table.len()) {
        (Some(Value::String(kind)), 1) => kind.clone(),
        _ => {
            let mut fields: Vec<String> = table.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            // the kind says what the others mean
            fields.sort_by_key(|field| !field.starts_with("kind "));
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cell: &str, choose: &str) -> Vec<(String, String)> {
        let text = format!(
            "name = \"a\"\nquestion = \"q\"\n{choose}\n[model]\nsource = \"embedded:base\"\n[calibration]\ntext = \"embedded:calibration\"\n\
             windows = 4\n[[cell]]\n{cell}\n[[workload]]\nkind = \"decode\"\ntokens = 4\n"
        );
        let resolved = ResolvedScenario::parse(&text, None).unwrap_or_else(|e| panic!("{e}"));
        of_cell(&resolved, &resolved.cells[1])
    }

    #[test]
    fn a_decoder_that_gives_another_text_is_no_candidate() {
        assert!(facts("decoding = \"sampled\"", "[choose]").is_empty());
    }

    #[test]
    fn commands_name_the_parts_of_a_cell_and_nothing_more() {
        let one = |command: &str| vec![("command".to_string(), command.to_string())];
        let kv = facts("weights = \"int8\"\nkv = { kind = \"contiguous\", encoding = \"f16\" }", "[choose]");
        let table = "'{ kind = \"contiguous\", encoding = \"f16\" }'";
        assert_eq!(kv, one(&format!("infermark generate --model embedded:base --weights int8 --kv {table}")));
        let rtn = facts("weights = { kind = \"rtn\", bits = 4, group = 32 }\nattention = \"naive\"", "[choose]");
        let weights = "'{ kind = \"rtn\", bits = 4, group = 32 }'";
        let wanted =
            format!("infermark generate --model embedded:base --weights {weights} --kv contiguous --attention naive");
        assert_eq!(rtn, one(&wanted));
        let gptq = facts("weights = { kind = \"gptq\", bits = 4 }", "[choose]");
        assert_eq!(
            gptq[0].1,
            "infermark quantize --model embedded:base --method '{ kind = \"gptq\", bits = 4 }' --calibration embedded:calibration \
             --windows 4 --window-tokens 256 --output quantized-model"
        );
        assert_eq!(gptq[1].1, "infermark generate --model quantized-model --weights stored --kv contiguous");
        assert!(facts("weights = \"int8\"", "").is_empty(), "nobody asked for a choice");
    }
}
