//! Verdicts on claims as tidy rows, one per number of a claim: what is kept of many runs on many models, to be put side by side.

use std::io::{Read, Write};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::claim::{ClaimResult, PartResult, Verdict};
use crate::run::Run;

/// One number of one claim on one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Claim id, e.g. `gptq-4bit-ppl`.
    pub claim: String,
    /// What the number is; the headline of a claim stands first.
    pub part: String,
    /// What the claim was judged on: names of files without their folders, sources as they are; several joined by ` + `.
    pub model: String,
    /// SHA-256 of each file of weights, joined in the same way.
    pub model_sha256: String,
    /// Verdict on the whole claim.
    pub verdict: Verdict,
    /// Verdict on this number; `reported` where no rule judges it.
    pub part_verdict: Verdict,
    /// Measured value, where there is one.
    pub measured: Option<f64>,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub high: Option<f64>,
    /// Unit of the three.
    pub unit: String,
    /// Command that measures it again, files without their folders.
    pub command: String,
    /// Processor and threads.
    pub machine: String,
    /// Commit of the program.
    pub commit: String,
    /// When the run started (UTC).
    pub started: String,
}

impl Judgement {
    /// The models that the verdict is about: those that were brought, without the embedded ones that stayed beside them for comparison.
    pub fn subject(&self) -> String {
        let names: Vec<&str> = self.model.split(" + ").collect();
        let brought: Vec<&str> = names.iter().copied().filter(|name| !name.starts_with("embedded:")).collect();
        if brought.is_empty() { names.join(" + ") } else { brought.join(" + ") }
    }

    /// Whether a rule judges this number.
    pub fn is_judged(&self) -> bool {
        self.part_verdict != Verdict::Reported
    }
}

/// The number that stands for a claim, given its rows on one model: the first that a rule judges, else the first.
pub fn headline<'a>(rows: impl Iterator<Item = &'a Judgement> + Clone) -> Option<&'a Judgement> {
    rows.clone().find(|row| row.is_judged()).or_else(|| rows.clone().next())
}

/// What can be wrong with a file of judgements.
#[derive(Debug, thiserror::Error)]
pub enum JudgementError {
    /// No table of judgements, or a damaged line; the message of `csv` names the line.
    #[error("judgements: {0}; expected the columns that `infermark export RUN --claims FILE` writes")]
    Malformed(#[from] csv::Error),
}

/// Every number of every claim of `run`.
pub fn of(run: &Run) -> Vec<Judgement> {
    let models = Models::of(run);
    let fact = |scope: &str, key: &str| run.fact(scope, key).unwrap_or_default();
    let machine = format!("{}, {} threads", fact("machine", "cpu_model"), fact("run", "threads"));
    let started = run.values("sitting 0", "sitting_started").first().map_or(String::new(), ToString::to_string);
    let row = |claim: &ClaimResult, part: PartResult| Judgement {
        claim: claim.id.clone(),
        part: part.label,
        model: models.names.join(" + "),
        model_sha256: models.hashes.join(" + "),
        verdict: claim.verdict,
        part_verdict: part.verdict,
        measured: part.measured,
        low: part.interval.map(|(low, _)| low),
        high: part.interval.map(|(_, high)| high),
        unit: part.unit,
        command: models.without_folders(&claim.command),
        machine: machine.clone(),
        commit: fact("run", "git_commit"),
        started: started.clone(),
    };
    run.claims.iter().flat_map(|claim| numbers(claim).into_iter().map(move |part| row(claim, part))).collect()
}

/// The numbers of a claim; one without any still says its verdict.
fn numbers(claim: &ClaimResult) -> Vec<PartResult> {
    match claim.parts.is_empty() {
        false => claim.parts.clone(),
        true => vec![PartResult {
            label: String::new(),
            measured: claim.measured,
            interval: claim.interval,
            unit: claim.unit.clone(),
            verdict: claim.verdict,
            at_least: None,
            at_most: None,
            origin: None,
            paper: None,
            share: None,
            found: String::new(),
            why_open: String::new(),
        }],
    }
}

/// The models of a run, as its facts state them.
struct Models {
    names: Vec<String>,
    hashes: Vec<String>,
}

impl Models {
    fn of(run: &Run) -> Models {
        let mut models = Models { names: vec![], hashes: vec![] };
        for fact in run.facts.iter().filter(|fact| fact.scope == "run") {
            let name = without_folder(&fact.value);
            if is_about(&fact.key, "model_source") && !models.names.iter().any(|known| known == name) {
                models.names.push(name.to_string());
            } else if is_about(&fact.key, "model_sha256") && !models.hashes.contains(&fact.value) {
                models.hashes.push(fact.value.clone());
            }
        }
        models
    }

    /// A folder of one machine says nothing on another, and where a run was kept nothing about its verdict.
    fn without_folders(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let mut kept: Vec<&str> = vec![];
        while let Some(word) = words.next() {
            match word {
                "--output" => {
                    words.next();
                }
                "--no-report" | "--quiet" | "-q" => {}
                _ if word.starts_with("--output=") => {}
                _ => kept.push(word),
            }
        }
        self.names.iter().fold(kept.join(" "), |mut command, name| {
            while let Some(end) = command.find(&format!("/{name}")) {
                let start =
                    command[..end].rfind(|c: char| c.is_whitespace() || "'\"=".contains(c)).map_or(0, |at| at + 1);
                command.replace_range(start..=end, "");
            }
            command
        })
    }
}

fn is_about(key: &str, what: &str) -> bool {
    key.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// The last part of a path; `embedded:`, `random:` and `hf:` sources are no paths.
fn without_folder(source: &str) -> &str {
    match source.split_once(':') {
        Some(("embedded" | "random" | "hf", _)) => source,
        _ => source.trim_end_matches('/').rsplit('/').next().unwrap_or(source),
    }
}

/// Verdicts that are kept with the program: the claims about quality on pretrained models and on the embedded ones.
pub fn kept() -> &'static [Judgement] {
    static KEPT: LazyLock<Vec<Judgement>> =
        LazyLock::new(|| read(include_str!("../records/claims.csv").as_bytes()).expect("a test reads this table"));
    &KEPT
}

/// Writes rows as CSV with a header.
pub fn write(rows: &[Judgement], destination: impl Write) -> Result<(), JudgementError> {
    let mut writer = csv::Writer::from_writer(destination);
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    writer.flush().map_err(csv::Error::from)?;
    Ok(())
}

/// Reads what [`write()`] wrote.
pub fn read(source: impl Read) -> Result<Vec<Judgement>, JudgementError> {
    Ok(csv::Reader::from_reader(source).deserialize().collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Tier;
    use crate::observation::Fact;

    fn claim(parts: Vec<PartResult>) -> ClaimResult {
        ClaimResult {
            id: "made-up".into(),
            paper: String::new(),
            source: String::new(),
            statement: String::new(),
            tier: Tier::Ratio,
            published: String::new(),
            counterpart: String::new(),
            rule: String::new(),
            measured: Some(1.5),
            interval: Some((1.4, 1.6)),
            unit: "×".into(),
            verdict: Verdict::Reproduced,
            reason: String::new(),
            command: "infermark run made-up --model embedded:base=../where/a.gguf --set model.draft=hf:x/y --output /some/where --quiet".into(),
            parts,
        }
    }

    fn fact(key: &str, value: &str) -> Fact {
        Fact { run_id: "r".into(), scope: "run".into(), key: key.into(), value: value.into() }
    }

    #[test]
    fn rows_come_back_and_name_no_folder() {
        let facts = vec![
            fact("model_source a", "/some/where/a.gguf"),
            fact("model_source a[induced]", "/some/where/a.gguf"),
            fact("model_sha256 a a.gguf", "12ab"),
            fact("threads", "2"),
        ];
        let run = Run { claims: vec![claim(vec![])], facts, ..Run::default() };
        let rows = of(&run);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].model.as_str(), rows[0].model_sha256.as_str()), ("a.gguf", "12ab"));
        assert_eq!(rows[0].command, "infermark run made-up --model embedded:base=a.gguf --set model.draft=hf:x/y");
        let mut text = vec![];
        write(&rows, &mut text).unwrap();
        assert_eq!(read(text.as_slice()).unwrap(), rows);
    }

    #[test]
    fn a_claim_is_about_the_model_that_was_brought() {
        let facts = vec![fact("model_source a", "embedded:draft"), fact("model_source b", "/some/where/a.gguf")];
        let part =
            |label: &str, verdict| PartResult { label: label.into(), verdict, ..numbers(&claim(vec![])).remove(0) };
        let parts = vec![part("beside", Verdict::Reported), part("judged", Verdict::Reproduced)];
        let rows = of(&Run { claims: vec![claim(parts)], facts, ..Run::default() });
        assert_eq!((rows[0].model.as_str(), rows[0].subject().as_str()), ("embedded:draft + a.gguf", "a.gguf"));
        assert_eq!(headline(rows.iter()).map(|row| row.part.as_str()), Some("judged"));
    }

    #[test]
    fn a_damaged_table_names_its_line() {
        let mut text = vec![];
        write(&of(&Run { claims: vec![claim(vec![])], ..Run::default() }), &mut text).unwrap();
        let damaged = String::from_utf8(text).unwrap().replace("reproduced", "perhaps");
        let message = read(damaged.as_bytes()).unwrap_err().to_string();
        assert!(message.contains("line: 2"), "{message}");
    }
}
