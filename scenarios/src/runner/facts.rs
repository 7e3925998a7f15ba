//! Provenance: everything that a number depends on and no column says.

use anyhow::Result;
use engine::ModelSource;
use results::observation::Fact;
use results::run::sitting_scope;
use results::summary::ModelCard;
use results::trace::Roof;

use super::Asked;
use super::advice;
use super::process::Program;
use crate::cell::ResolvedScenario;
use crate::library;
use crate::scenario::{ModelPart, Workload};
use crate::stopwatch::{unix_ns, utc_now};
use crate::task;
use crate::text;
use crate::worker::open_models;

/// Name of a run: scenario, start, and digits that no other run has, on this machine in this second or elsewhere.
pub fn run_id(scenario: &ResolvedScenario, started: &str) -> String {
    let unlike = format!("{} {} {}", scenario.source_text, std::process::id(), unix_ns());
    let hash = blake3::hash(unlike.as_bytes()).to_hex();
    format!("{}-{}-{}", scenario.scenario.name, started.replace([':', '-'], ""), &hash[..12])
}

/// What this program was built from; the hash tells builds apart where the rest cannot.
pub fn of_build(program: &Program) -> Vec<(String, String)> {
    vec![
        ("infermark_version".into(), env!("CARGO_PKG_VERSION").into()),
        ("git_commit".into(), env!("INFERMARK_COMMIT").into()),
        ("rustc".into(), env!("INFERMARK_RUSTC").into()),
        ("build".into(), env!("INFERMARK_BUILD").into()),
        ("program_blake3".into(), program.blake3()),
    ]
}

/// Facts about one sitting: its rows name it in their column `sitting`, so each row has its build and its command.
pub fn of_sitting(run_id: &str, sitting: u32, asked: &Asked, build: &[(String, String)]) -> Vec<Fact> {
    let mut facts = vec![("command".to_string(), asked.command.clone()), ("sitting_started".into(), utc_now())];
    facts.extend(asked.sets.iter().map(|set| ("set".to_string(), set.clone())));
    facts.extend_from_slice(build);
    scoped(run_id, &sitting_scope(sitting), facts)
}

/// Facts about the run as a whole.
pub fn of_run(
    run_id: &str,
    scenario: &ResolvedScenario,
    asked: &Asked,
    threads: usize,
    build: &[(String, String)],
) -> Result<Vec<Fact>> {
    let s = &scenario.scenario;
    let mut facts = build.to_vec();
    facts.extend([
        ("scenario_blake3".to_string(), blake3::hash(scenario.source_text.as_bytes()).to_hex().to_string()),
        ("seed".into(), s.seed.to_string()),
        ("random_generator".into(), "ChaCha8".into()),
        ("threads".into(), threads.to_string()),
    ]);
    if let Some(file) = &scenario.file {
        let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        facts.push(("scenario_file".into(), path.display().to_string()));
        facts.extend(asked.file_blake3.iter().map(|hash| ("scenario_file_blake3".to_string(), hash.clone())));
    }
    for name in texts(scenario) {
        let text = text::resolve(&name, scenario.file.as_deref())?;
        facts.push((format!("text_blake3 {name}"), blake3::hash(text.as_bytes()).to_hex().to_string()));
        facts.push((format!("text_bytes {name}"), text.len().to_string()));
    }
    for name in s.workloads.iter().flat_map(task_files) {
        let text = task::text(name, scenario.file.as_deref())?;
        facts.push((format!("text_blake3 {name}"), blake3::hash(text.as_bytes()).to_hex().to_string()));
    }
    if let Some(c) = &s.calibration {
        let choice = c.seed.map_or("evenly spaced".to_string(), |seed| format!("drawn with seed {seed}"));
        let windows = format!("{} of {} tokens, {choice}", c.windows, c.window_tokens);
        facts.extend([("calibration_text".to_string(), c.text.clone()), ("calibration_windows".into(), windows)]);
    }
    facts.extend(advice::of_run(scenario));
    facts.extend(of_models(scenario)?);
    Ok(scoped(run_id, "run", facts))
}

/// Sources, hashes and transforms of every model; keys say which where there are several.
fn of_models(scenario: &ResolvedScenario) -> Result<Vec<(String, String)>> {
    let parts = scenario.scenario.models();
    let mut facts = vec![];
    for (i, part) in parts.iter().enumerate() {
        let of = if parts.len() > 1 { format!(" {}", part.tag()) } else { String::new() };
        let Some(models) = open_models(scenario, Some(part))? else {
            facts.extend(of_encoder_decoder(scenario, part, &of)?);
            continue;
        };
        if !part.transforms.is_empty() {
            facts.push((format!("model_transforms{of}"), library::json_of(&part.transforms)));
        }
        if let Some(given) = &part.adapter {
            let adapter = library::adapter(given, scenario.file.as_deref())?;
            facts.push((format!("adapter{of}"), format!("{given}, sha256 {}", adapter.sha256())));
        }
        let draft = models.draft.as_ref().filter(|_| i == 0);
        for (role, of, checkpoint) in [("model", of.as_str(), Some(&models.target)), ("draft", "", draft)] {
            let Some(checkpoint) = checkpoint else { continue };
            facts.push((format!("{role}_source{of}"), checkpoint.source.to_string()));
            for (file, digest) in checkpoint.hashes()? {
                facts.push((format!("{role}_sha256{of} {file}"), digest));
            }
        }
    }
    Ok(facts)
}

fn of_encoder_decoder(scenario: &ResolvedScenario, part: &ModelPart, of: &str) -> Result<Vec<(String, String)>> {
    let Some(pair) = library::encoder_decoder(part, scenario.file.as_deref())? else { return Ok(vec![]) };
    let mut facts = vec![(format!("model_source{of}"), pair.source.to_string())];
    let embedded = library::checkpoints().iter().find(|m| pair.source == ModelSource::Embedded(m.name.into()));
    facts.extend(embedded.map(|m| (format!("model_sha256{of} model.safetensors"), library::weights_sha256(m))));
    Ok(facts)
}

/// Facts about the machine: its description and its roofs, which may be stated again when they have risen.
pub fn of_machine(run_id: &str, roof: &Roof, facts: &[(String, String)]) -> Vec<Fact> {
    let roofs = [
        ("stream_bytes_s", roof.stream_bytes_s),
        ("cache_bytes_s", roof.cache_bytes_s),
        ("fma_flop_s", roof.fma_flop_s),
        ("int8_op_s", roof.int8_op_s),
    ];
    let roofs = roofs.map(|(key, value)| (key.to_string(), format!("{value:.0}")));
    scoped(run_id, "machine", facts.iter().cloned().chain(roofs).collect())
}

/// Facts of one scope.
pub fn scoped(run_id: &str, scope: &str, facts: Vec<(String, String)>) -> Vec<Fact> {
    facts.into_iter().map(|(key, value)| Fact { run_id: run_id.into(), scope: scope.into(), key, value }).collect()
}

/// Files of items that a workload reads.
fn task_files(workload: &Workload) -> Vec<&str> {
    let Workload::Task(part) = workload else { return vec![] };
    let shots = part.few_shot.as_ref();
    let labels = [part.labels.as_deref(), shots.and_then(|s| s.labels.as_deref()), shots.map(|s| s.from.as_str())];
    [part.task.as_str()].into_iter().chain(labels.into_iter().flatten()).collect()
}

/// Texts a scenario reads, each once.
fn texts(scenario: &ResolvedScenario) -> Vec<String> {
    use crate::scenario::Workload::{Generate, Perplexity, Sensitivity};
    let of_workloads = scenario.scenario.workloads.iter().flat_map(|w| match w {
        Perplexity { text, .. } | Generate { text, .. } => vec![text.clone()],
        Sensitivity { text, measured_on, .. } => vec![text.clone(), measured_on.clone()],
        _ => vec![],
    });
    let mut names: Vec<String> =
        of_workloads.chain(scenario.scenario.calibration.iter().map(|c| c.text.clone())).collect();
    names.sort();
    names.dedup();
    names
}

/// Cards of the scenario's models; one that cannot be opened has failed its cells already.
pub fn model_cards(scenario: &ResolvedScenario) -> Vec<ModelCard> {
    let (mut cards, mut draft) = (vec![], None);
    for part in scenario.scenario.models() {
        if let Ok(Some(models)) = open_models(scenario, Some(&part)) {
            cards.push(library::model_card(&part, &models.target));
            draft = models.draft.as_ref().map(|d| library::model_card(&ModelPart::plain(&d.source.to_string()), d));
        } else if let Ok(Some(pair)) = library::encoder_decoder(&part, scenario.file.as_deref()) {
            cards.push(library::encoder_decoder_card(&pair));
        }
    }
    cards.extend(draft);
    cards
}
