//! From the lists of a scenario to its cells: the reference first, then every other combination, then the control.

use attention::{AttentionSpec, FlashSpec};
use decoding::DecodingSpec;
use engine::{DeviceSpec, EngineSpec, PlanFacts};
use kv_cache::KvSpec;
use results::observation::{Axes, OWN_ENGINE};
use results::summary::Role;
use weights::WeightsSpec;

use crate::cell::Cell;
use crate::external::{External, ExternalPart};
use crate::scenario::{ModelPart, Parts, Scenario, Workload};

/// The axes, in the order of ids and columns.
pub const AXES: [&str; 6] = ["model", "attention", "weights", "kv", "decoding", "device"];

/// Most cells of one scenario.
pub const MOST_CELLS: usize = 256;

/// Tags of each axis's list; an axis that does not vary has the one part that all cells share.
pub fn lists(scenario: &Scenario) -> [Vec<String>; 6] {
    let parts = Lists::of(scenario);
    [
        match scenario.slowdowns() {
            [] => parts.model.iter().map(model_tag).collect(),
            costs => costs.iter().map(|cost| programmed_tag(*cost)).collect(),
        },
        parts.attention.iter().map(AttentionSpec::tag).collect(),
        parts.weights.iter().map(WeightsSpec::tag).collect(),
        parts.kv.iter().map(KvSpec::tag).collect(),
        parts.decoding.iter().map(DecodingSpec::tag).collect(),
        parts.device.iter().map(DeviceSpec::tag).collect(),
    ]
}

/// Tags that `[reference]` names.
pub fn reference_tags(scenario: &Scenario) -> [Option<String>; 6] {
    tags_of(&scenario.reference)
}

/// Tags of the parts that are named.
pub fn tags_of(parts: &Parts) -> [Option<String>; 6] {
    [
        parts.model.as_ref().map(ModelPart::tag),
        parts.attention.as_ref().map(AttentionSpec::tag),
        parts.weights.as_ref().map(WeightsSpec::tag),
        parts.kv.as_ref().map(KvSpec::tag),
        parts.decoding.as_ref().map(DecodingSpec::tag),
        parts.device.as_ref().map(DeviceSpec::tag),
    ]
}

/// Tags of every axis, those of single cells (`[[cell]]`) after those of the lists.
pub fn known_tags(scenario: &Scenario) -> [Vec<String>; 6] {
    let mut known = lists(scenario);
    for parts in &scenario.cells {
        let own = tags_of(parts);
        for (list, tag) in known.iter_mut().zip(own) {
            list.extend(tag.filter(|tag| !list.contains(tag)));
        }
    }
    known
}

/// `none` in a scenario without a model.
fn model_tag(model: &Option<ModelPart>) -> String {
    model.as_ref().map_or("none".into(), ModelPart::tag)
}

struct Lists {
    model: Vec<Option<ModelPart>>,
    attention: Vec<AttentionSpec>,
    weights: Vec<WeightsSpec>,
    kv: Vec<KvSpec>,
    decoding: Vec<DecodingSpec>,
    device: Vec<DeviceSpec>,
}

fn or_shared<T: Clone>(list: &[T], shared: &Option<T>, default: T) -> Vec<T> {
    match (list, shared) {
        ([], Some(part)) => vec![part.clone()],
        ([], None) => vec![default],
        (list, _) => list.to_vec(),
    }
}

impl Lists {
    fn of(scenario: &Scenario) -> Lists {
        let (m, e) = (&scenario.matrix, &scenario.engine);
        let models: Vec<_> = scenario.models().into_iter().map(Some).collect();
        Lists {
            model: if models.is_empty() { vec![None] } else { models },
            attention: or_shared(&m.attention, &e.attention, AttentionSpec::Flash(FlashSpec::default())),
            weights: or_shared(&m.weights, &e.weights, WeightsSpec::F32),
            kv: or_shared(&m.kv, &e.kv, KvSpec::default()),
            decoding: or_shared(&m.decoding, &e.decoding, DecodingSpec::Greedy),
            device: or_shared(&m.device, &e.device, DeviceSpec::default()),
        }
    }

    /// Every combination, the model varying slowest.
    fn product(&self) -> Vec<(Option<ModelPart>, EngineSpec)> {
        let specs = self.specs();
        self.model.iter().flat_map(|model| specs.iter().map(|spec| (model.clone(), spec.clone()))).collect()
    }

    fn specs(&self) -> Vec<EngineSpec> {
        let mut specs = vec![];
        for device in &self.device {
            for attention in &self.attention {
                for weights in &self.weights {
                    for kv in &self.kv {
                        for decoding in &self.decoding {
                            specs.push(EngineSpec {
                                attention: attention.clone(),
                                weights: weights.clone(),
                                kv: kv.clone(),
                                decoding: decoding.clone(),
                                device: device.clone(),
                            });
                        }
                    }
                }
            }
        }
        specs
    }
}

fn tags(model: &Option<ModelPart>, spec: &EngineSpec) -> [String; 6] {
    [model_tag(model), spec.attention.tag(), spec.weights.tag(), spec.kv.tag(), spec.decoding.tag(), spec.device.tag()]
}

/// Every cell of `scenario`.
pub fn expand(scenario: &Scenario) -> Vec<Cell> {
    let lists = lists(scenario);
    let wanted = reference_tags(scenario);
    let reference: Vec<&str> =
        lists.iter().zip(&wanted).map(|(list, tag)| tag.as_deref().unwrap_or_else(|| &list[0])).collect();
    let varies: Vec<bool> = known_tags(scenario).iter().map(|list| list.len() > 1).collect();
    let parts = Lists::of(scenario);
    // a driver is asked once for all cells of its device
    let single = scenario.cells.iter().filter_map(|cell| cell.device.as_ref());
    let devices: Vec<_> = parts.device.iter().chain(single).map(|device| (device, device.plan())).collect();
    let plan = |spec: &EngineSpec, facts| {
        let known = devices.iter().find(|(device, _)| **device == spec.device);
        known.map_or_else(|| spec.device.plan(), |(_, outcome)| outcome.clone()).and_then(|()| spec.plan_parts(facts))
    };
    let cell = |(part, spec): (Option<ModelPart>, EngineSpec)| {
        let tags = tags(&part, &spec);
        let facts = PlanFacts {
            has_draft: scenario.draft().is_some(),
            random_weights: part.as_ref().is_some_and(ModelPart::is_random),
        };
        let role = if tags.iter().eq(reference.iter()) { Role::Reference } else { Role::Candidate };
        let label = label(&tags, &varies);
        // the model is part of an id only where it varies: ids of the others stay comparable between scenarios
        let id = tags[usize::from(!varies[0])..].join("+");
        let unsupported = plan(&spec, facts).err().map(|refusal| refusal.to_string());
        let [model, attention, weights, kv, decoding, device] = tags;
        let axes = Axes { engine: OWN_ENGINE.into(), model, attention, weights, kv, decoding, device };
        Cell { id, label, model: part, spec, external: None, axes, role, slowdown: 1.0, unsupported }
    };
    let mut combinations = parts.product();
    let is_reference = |(part, spec): &&(Option<ModelPart>, EngineSpec)| tags(part, spec).iter().eq(reference.iter());
    let first = combinations.iter().find(is_reference).cloned();
    combinations.extend(first.iter().flat_map(|first| scenario.cells.iter().map(|parts| with_parts(first, parts))));
    let mut cells: Vec<Cell> = combinations.into_iter().map(cell).collect();
    // stable: the other cells keep the order of the lists
    cells.sort_by_key(|cell| cell.role != Role::Reference);
    if let (Some(plain), [_, ..]) = (cells.first(), scenario.slowdowns()) {
        cells = programmed(plain, scenario.slowdowns());
    }
    let timed = scenario.workloads.iter().any(Workload::is_timed);
    cells.extend(externals(scenario, &cells, varies[0]));
    match cells.first() {
        Some(reference) if scenario.budget.aa_control && timed && reference.unsupported.is_none() => {
            let control = reference.control();
            cells.push(control);
        }
        _ => {}
    }
    cells
}

/// `combination` with the parts that `parts` names in the place of its own; the model stays.
fn with_parts(combination: &(Option<ModelPart>, EngineSpec), parts: &Parts) -> (Option<ModelPart>, EngineSpec) {
    let (model, spec) = combination.clone();
    let spec = EngineSpec {
        attention: parts.attention.clone().unwrap_or(spec.attention),
        weights: parts.weights.clone().unwrap_or(spec.weights),
        kv: parts.kv.clone().unwrap_or(spec.kv),
        decoding: parts.decoding.clone().unwrap_or(spec.decoding),
        device: parts.device.clone().unwrap_or(spec.device),
    };
    (model, spec)
}

/// Cells of other engines, for every model that ours run.
fn externals(scenario: &Scenario, ours: &[Cell], model_varies: bool) -> Vec<Cell> {
    let mut firsts: Vec<&Cell> = vec![];
    for cell in ours {
        if firsts.iter().all(|first| first.model != cell.model) {
            firsts.push(cell);
        }
    }
    let parts: Vec<ExternalPart> = scenario.externals.iter().flat_map(External::parts).collect();
    firsts.iter().flat_map(|first| parts.iter().map(|part| external(first, model_varies, part.clone()))).collect()
}

/// A cell of another engine; where it has no word of its own it stands at the reference's place. Its spec is of what it is checked
/// with, which runs on the processor.
fn external(reference: &Cell, model_varies: bool, part: ExternalPart) -> Cell {
    let device = match &reference.spec.device {
        DeviceSpec::Cuda(_) => DeviceSpec::default(),
        cpu => cpu.clone(),
    };
    let spec = EngineSpec {
        attention: AttentionSpec::Naive,
        weights: part.same_weights(),
        kv: KvSpec::default(),
        decoding: DecodingSpec::Greedy,
        device,
    };
    let engine = part.engine.name();
    let axes = Axes {
        engine: engine.into(),
        attention: part.attention.clone(),
        weights: part.weights.clone(),
        kv: part.kv.clone(),
        decoding: spec.decoding.tag(),
        device: if part.is_on_gpu() { "cuda".into() } else { spec.device.tag() },
        ..reference.axes.clone()
    };
    let model = if model_varies { axes.model.as_str() } else { "" };
    let joint = if model_varies { "+" } else { "" };
    let id = format!("{model}{joint}{engine}+{}+{}+{}", part.attention, part.weights, part.kv);
    let joint = if model_varies { " · " } else { "" };
    Cell {
        id,
        label: format!("{model}{joint}{engine} {} · {}", part.attention, part.weights),
        model: reference.model.clone(),
        spec,
        external: Some(part),
        axes,
        role: Role::Candidate,
        slowdown: 1.0,
        unsupported: None,
    }
}

/// The cells of a scenario of known answer: one per programmed cost, the first the reference. What they run stands where other cells have
/// their model.
fn programmed(plain: &Cell, slowdowns: &[f64]) -> Vec<Cell> {
    let cell = |(i, &slowdown): (usize, &f64)| {
        let tag = programmed_tag(slowdown);
        Cell {
            id: tag.clone(),
            label: if i == 0 { "counted loop".into() } else { format!("cost × {slowdown}") },
            axes: Axes { model: tag, ..plain.axes.clone() },
            role: if i == 0 { Role::Reference } else { Role::Candidate },
            slowdown,
            ..plain.clone()
        }
    };
    slowdowns.iter().enumerate().map(cell).collect()
}

/// `counted-loop`, `counted-loop[x1.03]`.
fn programmed_tag(slowdown: f64) -> String {
    if slowdown == 1.0 { "counted-loop".into() } else { format!("counted-loop[x{slowdown}]") }
}

/// The tags of the axes that vary; when none does, those that say most.
fn label(tags: &[String; 6], varies: &[bool]) -> String {
    let varying: Vec<&str> =
        tags.iter().zip(varies).filter(|(_, varies)| **varies).map(|(tag, _)| tag.as_str()).collect();
    match varying.is_empty() {
        true => format!("{} · {}", tags[1], tags[2]),
        false => varying.join(" · "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cell::ResolvedScenario;
    use crate::library;

    fn cells(text: &str) -> Vec<Cell> {
        ResolvedScenario::parse(text, None).unwrap_or_else(|e| panic!("{e}")).cells
    }

    #[test]
    fn every_shipped_scenario_has_the_cells_it_had() {
        let mut names = BTreeSet::new();
        for definition in library::definitions() {
            assert!(names.insert(definition.name), "two scenarios are called {}", definition.name);
            let resolved =
                ResolvedScenario::parse(definition.text, None).unwrap_or_else(|e| panic!("{}: {e}", definition.path));
            assert_eq!(resolved.scenario.name, definition.name, "{}: name and file differ", definition.path);
            let lines: Vec<String> =
                resolved.cells.iter().map(|c| format!("{} | {} | {:?}", c.id, c.label, c.role)).collect();
            insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(definition.name, lines.join("\n"));
            });
            let ids: BTreeSet<&str> = resolved.cells.iter().map(|c| c.id.as_str()).collect();
            assert_eq!(ids.len(), resolved.cells.len(), "{}: ids are not unique", definition.path);
        }
    }

    #[test]
    fn the_reference_comes_first_and_the_control_last() {
        let text = "name = \"a\"\nquestion = \"q\"\n[model]\nsource = \"random:llama-tiny\"\n[matrix]\nweights = [\"f16\", \"f32\"]\n\
                    [reference]\nweights = \"f32\"\n[[workload]]\nkind = \"decode\"\ntokens = 4\n";
        let roles: Vec<(String, Role)> = cells(text).into_iter().map(|c| (c.axes.weights, c.role)).collect();
        let expected = [("f32", Role::Reference), ("f16", Role::Candidate), ("f32", Role::AaControl)];
        assert_eq!(roles, expected.map(|(w, r)| (w.to_string(), r)));
        let quiet = text.replace("[[workload]]", "[budget]\naa_control = false\n[[workload]]");
        assert_eq!(cells(&quiet).len(), 2);
    }

    #[test]
    fn what_cannot_run_is_skipped_with_its_reason() {
        let text = "name = \"a\"\nquestion = \"q\"\n[model]\nsource = \"random:llama-tiny\"\n[matrix]\n\
                    weights = [\"f32\", { kind = \"gptq\", bits = 4 }]\ndecoding = [\"greedy\", \"speculative\"]\n\
                    [[workload]]\nkind = \"prefill\"\ntokens = [4]\n";
        let skipped: Vec<bool> = cells(text).iter().map(|c| c.unsupported.is_some()).collect();
        assert_eq!(skipped, [false, true, true, true, false]);
        let reason = cells(text)[1].unsupported.clone().unwrap_or_default();
        assert!(reason.contains("draft"), "{reason}");
    }

    #[test]
    fn models_are_an_axis() {
        let text = "name = \"a\"\nquestion = \"q\"\n[model]\nsource = \"embedded:base\"\n[matrix]\n\
                    model = [\"embedded:base\", { source = \"embedded:base\", kv_heads = { groups = 1, method = \"first\" } }]\n\
                    weights = [\"f32\", \"f16\"]\n[reference]\nmodel = \"embedded:base\"\n[[workload]]\nkind = \"decode\"\ntokens = 4\n";
        let ids: Vec<String> = cells(text).into_iter().map(|c| c.id).collect();
        let expected = ["", "", "[kv1-first]", "[kv1-first]", ""].map(|changed| format!("embedded:base{changed}"));
        let weights = ["f32", "f16", "f32", "f16", "f32"];
        for (i, id) in ids.iter().enumerate() {
            let end = if i == 4 { "#aa" } else { "" };
            assert_eq!(*id, format!("{}+flash+{}+contiguous+greedy+cpu{end}", expected[i], weights[i]));
        }
        let one = text.replace("\"embedded:base\", {", "{").replace("model = \"embedded:base\"", "");
        assert_eq!(cells(&one)[0].axes.model, "embedded:base[kv1-first]");
        assert_eq!(cells(&one)[0].id, "flash+f32+contiguous+greedy+cpu", "a model that does not vary is not in ids");
    }

    #[test]
    fn single_cells_are_the_reference_with_other_parts() {
        let text = "name = \"a\"\nquestion = \"q\"\n[model]\nsource = \"random:llama-tiny\"\n[matrix]\nattention = [\"naive\", \"flash\"]\n\
                    weights = [\"f32\"]\n[reference]\nattention = \"flash\"\n[[cell]]\nweights = \"int8\"\n\
                    kv = { kind = \"contiguous\", encoding = \"f16\" }\n[[cell]]\nattention = \"naive\"\nweights = \"f16\"\n[[workload]]\nkind = \"decode\"\ntokens = 4\n";
        let found: Vec<(String, String)> = cells(text).into_iter().map(|c| (c.id, c.label)).collect();
        let expected = [
            ("flash+f32+contiguous", "flash · f32 · contiguous"),
            ("naive+f32+contiguous", "naive · f32 · contiguous"),
            ("flash+int8+contiguous-f16", "flash · int8 · contiguous-f16"),
            ("naive+f16+contiguous", "naive · f16 · contiguous"),
            ("flash+f32+contiguous", "flash · f32 · contiguous (again)"),
        ];
        for (i, ((id, label), (wanted, words))) in found.iter().zip(expected).enumerate() {
            let end = if i == 4 { "#aa" } else { "" };
            assert_eq!((id.as_str(), label.as_str()), (format!("{wanted}+greedy+cpu{end}").as_str(), words));
        }
        assert_eq!(found.len(), 5);
        let twice = text.replace("attention = \"naive\"\nweights = \"f16\"", "attention = \"naive\"");
        let refused = ResolvedScenario::parse(&twice, None).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("is there already"), "{refused}");
        let model = text.replace("[[cell]]\nweights = \"int8\"", "[[cell]]\nmodel = \"embedded:base\"");
        let refused = ResolvedScenario::parse(&model, None).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("matrix.model"), "{refused}");
    }

    #[test]
    fn other_engines_say_which_device_they_are_on() {
        let text = "name = \"a\"\nquestion = \"q\"\n[matrix]\ndevice = [{ kind = \"cuda\", emulate = true }]\n[budget]\naa_control = false\n\
                    [[external]]\nengine = \"pytorch\"\nattention = [\"sdpa\", \"cuda-flash\"]\n[[external]]\nengine = \"triton\"\n\
                    [[workload]]\nkind = \"gpu-kernels\"\nproblems = [{ op = \"gemv\", n = 8, k = 8 }]\n";
        let devices: Vec<String> = cells(text).into_iter().map(|c| c.axes.device).collect();
        assert_eq!(devices, ["cuda-emulated", "cpu", "cuda", "cuda"]);
    }

    #[test]
    fn programmed_costs_are_cells_with_a_control() {
        let text =
            "name = \"a\"\nquestion = \"q\"\n[[workload]]\nkind = \"known-answer\"\nslowdowns = [1, 1.03, 1.1]\n";
        let cells = cells(text);
        let found: Vec<(&str, f64, Role)> = cells.iter().map(|c| (c.id.as_str(), c.slowdown, c.role)).collect();
        let expected = [
            ("counted-loop", 1.0, Role::Reference),
            ("counted-loop[x1.03]", 1.03, Role::Candidate),
            ("counted-loop[x1.1]", 1.1, Role::Candidate),
            ("counted-loop#aa", 1.0, Role::AaControl),
        ];
        assert_eq!(found, expected);
        assert_eq!(cells[1].axes.model, "counted-loop[x1.03]");
    }

    #[test]
    fn what_a_known_answer_cannot_be_is_named_with_its_field() {
        let head = "name = \"a\"\nquestion = \"q\"\n";
        let known = |fields: &str| format!("[[workload]]\nkind = \"known-answer\"\n{fields}\n");
        for (text, field, said) in [
            (known("slowdowns = []"), "slowdowns", "must list"),
            (known("slowdowns = [1.03, 1.0]"), "slowdowns[0]", "must be 1"),
            (known("slowdowns = [1.0, 1.0]"), "slowdowns[1]", "same number of steps"),
            (known("slowdowns = [1.0, 0.0]"), "slowdowns[1]", "must lie between"),
            (known("slowdowns = [1.0, nan]"), "slowdowns[1]", "must lie between"),
            (known("slowdowns = [1.0, 1.01]\nunits = 10"), "units", "must be"),
            (known("slowdowns = [1.0]") + &known("slowdowns = [1.0]"), "workload[1]", "name of workload number 1"),
            (
                "[matrix]\nweights = [\"f32\", \"f16\"]\n".to_string() + &known("slowdowns = [1.0]"),
                "matrix.weights",
                "only its costs",
            ),
            (
                "[model]\nsource = \"embedded:base\"\n".to_string() + &known("slowdowns = [1.0]"),
                "model",
                "runs no model",
            ),
        ] {
            let error = ResolvedScenario::parse(&format!("{head}{text}"), None).expect_err(&text).to_string();
            assert!(error.contains(said), "{text}: {error}, expected {field} {said}");
        }
    }

    #[test]
    fn a_scenario_without_axes_has_one_cell() {
        let text = "name = \"a\"\nquestion = \"q\"\n[[workload]]\nkind = \"kernels\"\nkernels = [{ op = \"gemv\", rows = 1, n = 8, k = 8 }]\n[budget]\naa_control = false\n";
        let cells = cells(text);
        assert_eq!((cells.len(), cells[0].role, cells[0].axes.model.as_str()), (1, Role::Reference, "none"));
    }
}
