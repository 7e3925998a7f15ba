//! Runs a scenario: measures the machine, verifies every cell, scores quality, times with interleaved repetitions,
//! verifies again, judges claims, and leaves a run directory. What is measured is on disk before the next thing starts.

mod answer;
mod batch;
mod facts;
mod process;
mod quality;
mod rows;
mod show;
pub(crate) mod timing;

use std::path::PathBuf;

use anyhow::{Context, Result};
use results::claim::ClaimResult;
use results::observation::{Fact, Status};
use results::run::{Run, RunDirectory};
use results::summary::{CellSummary, Summary};
use results::trace::Roof;

use crate::cell::ResolvedScenario;
use crate::claims;
use crate::machine;
use crate::protocol::{Command, Reply};
use crate::stopwatch::{Stopwatch, utc_now};
use process::{Program, Worker};
use rows::Rows;
use show::Show;

/// What to run and where.
pub struct RunRequest {
    /// The scenario, cells expanded.
    pub scenario: ResolvedScenario,
    /// Run directory to make or continue.
    pub output: PathBuf,
    /// Continue the run in `output`.
    pub resume: bool,
    /// Only cells whose id contains this (the reference always runs).
    pub cells_filter: Option<String>,
    /// Command line, for provenance and re-running.
    pub command: String,
    /// Interpreter of the adapters of other engines.
    pub python: PathBuf,
    /// No bars and no table.
    pub quiet: bool,
}

/// How a run ended.
pub struct RunOutcome {
    /// 0 pass, 1 a claim was refuted, 3 a cell or a claim's measurement failed or is owed, 4 claims left open.
    pub exit: u8,
    /// The run directory.
    pub run_dir: PathBuf,
    /// Claims as judged.
    pub claims: Vec<ClaimResult>,
    /// The summary as written.
    pub summary: Summary,
}

/// One cell while it runs.
pub(crate) struct Live {
    /// The cell.
    pub cell: crate::cell::Cell,
    /// Its id inside the scenario; `cell.id` has a prefix when two builds are compared.
    pub plain_id: String,
    /// How it stands.
    pub status: Status,
    /// Why, when not ok.
    pub reason: String,
    /// Kernels it runs.
    pub kernel_path: String,
    /// Logits seen by verification, to compare with after timing.
    pub sample: Vec<f32>,
    /// Program that runs it: base and head differ when two builds are compared.
    pub program: usize,
}

/// A run in progress.
pub(crate) struct Session {
    /// The scenario.
    pub scenario: ResolvedScenario,
    /// Programs that can be workers; one, or base and head.
    pub programs: Vec<Program>,
    /// Where rows go.
    pub directory: RunDirectory,
    /// What an earlier sitting left.
    pub before: Run,
    /// Row template.
    pub rows: Rows,
    /// Worker threads.
    pub threads: usize,
    /// Measured roofs, the best seen so far.
    pub roof: Option<Roof>,
    /// The process that measures them.
    surveyor: Option<Worker>,
    /// Cells in matrix order.
    pub live: Vec<Live>,
    /// Bars and table.
    pub show: Show,
    /// Interpreter of the adapters of other engines.
    pub python: PathBuf,
    /// Things a reader must know.
    pub caveats: Vec<String>,
    /// Facts of cells, as far as this sitting has kept them.
    stated: Vec<Fact>,
    clock: Stopwatch,
    started: String,
    command: String,
}

/// Runs a scenario with this binary.
pub fn run(request: RunRequest) -> Result<RunOutcome> {
    let program = Program::this()?;
    let mut session = Session::open(request, vec![program])?;
    session.measure()
}

/// Runs the cells of a scenario with two builds, interleaved in one run: ids start with `base/` and `head/`.
pub fn run_against(mut request: RunRequest, base: PathBuf) -> Result<RunOutcome> {
    let programs = vec![Program::at(base), Program::this()?];
    request.scenario.scenario.budget.aa_control = false;
    let mut session = Session::open(request, programs)?;
    session.measure()
}

impl Session {
    fn open(request: RunRequest, programs: Vec<Program>) -> Result<Session> {
        let RunRequest { scenario, output, resume, cells_filter, command, python, quiet } = request;
        let (mut directory, before) = match resume {
            true => RunDirectory::resume(&output)?,
            false => (RunDirectory::create(&output)?, Run::default()),
        };
        let threads = scenario.scenario.budget.threads.unwrap_or_else(machine::default_threads);
        let known = before.summary.as_ref();
        let started = known.map_or_else(utc_now, |s| s.started.clone());
        let run_id = known.map_or_else(|| facts::run_id(&scenario, &started), |s| s.run_id.clone());
        let rows = Rows::new(&run_id, &scenario, before.next_sitting(), threads);
        let facts = facts::of_run(&run_id, &scenario, &command, threads)?;
        facts::check_same(&before, &facts)?;
        std::fs::write(directory.path().join("scenario.toml"), &scenario.source_text)
            .with_context(|| format!("{}: cannot write scenario.toml", directory.path().display()))?;
        directory.append_facts(&facts)?;
        let keep = |id: &str| cells_filter.as_ref().is_none_or(|f| id.contains(f.as_str()));
        let mut live = vec![];
        for cell in scenario.cells.iter().filter(|c| keep(&c.id) || c.role == results::summary::Role::Reference) {
            for program in 0..programs.len() {
                let plain_id = cell.id.clone();
                let mut cell = cell.clone();
                if programs.len() > 1 {
                    cell.id = format!("{}/{}", ["base", "head"][program], cell.id);
                }
                let (status, reason) = match &cell.unsupported {
                    Some(reason) => (Status::Skipped, reason.clone()),
                    None => (Status::Ok, String::new()),
                };
                live.push(Live { cell, plain_id, status, reason, kernel_path: String::new(), sample: vec![], program });
            }
        }
        let show =
            Show::new(quiet, &scenario.scenario.name, live.iter().map(|l| (l.cell.id.as_str(), l.cell.label.as_str())));
        let session = Session {
            rows,
            roof: None,
            surveyor: None,
            show,
            python,
            caveats: vec![],
            stated: vec![],
            clock: Stopwatch::start(),
            scenario,
            programs,
            directory,
            before,
            threads,
            live,
            started,
            command,
        };
        if resume {
            // a machine that went down with the run left them
            session.clean();
        }
        Ok(session)
    }

    fn measure(&mut self) -> Result<RunOutcome> {
        self.write_summary(false, vec![])?;
        self.append_skipped()?;
        self.measure_machine()?;
        quality::verify_and_score(self)?;
        let owed = timing::time(self)?;
        if let (Some(roof), Some(_)) = (self.roof, self.surveyor.take()) {
            self.directory.append_facts(&facts::of_machine(&self.rows.run_id, &roof, &[]))?;
        }
        self.clean();
        let complete = !owed && self.live.iter().all(|l| matches!(l.status, Status::Ok | Status::Skipped));
        self.finish(complete)
    }

    /// Folder for files that other engines need while the run goes on.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch")
    }

    /// Gigabytes of converted weights are no result.
    fn clean(&self) {
        let _ = std::fs::remove_dir_all(self.scratch());
    }

    fn append_skipped(&mut self) -> Result<()> {
        for live in self.live.iter().filter(|l| l.status == Status::Skipped) {
            self.directory.append(&[self.rows.status(&live.cell, Status::Skipped, &live.reason)])?;
            self.show.cell(&live.cell.id, &format!("skipped: {}", live.reason));
        }
        Ok(())
    }

    fn measure_machine(&mut self) -> Result<()> {
        if !self.scenario.scenario.budget.measure_machine {
            return Ok(());
        }
        self.show.phase("measuring the machine", 1);
        let mut worker = self.programs[self.programs.len() - 1].start()?;
        let command = Command::Machine { threads: self.threads, again: false };
        match worker.call(&command, &mut |_, _, _| {})? {
            Reply::Machine { roof, facts } => {
                self.directory.append_facts(&facts::of_machine(&self.rows.run_id, &roof, &facts))?;
                self.roof = Some(roof);
                self.surveyor = Some(worker);
            }
            other => self.caveats.push(format!(
                "the machine could not be measured ({}), so no roof fractions are given",
                process::reason(&other)
            )),
        }
        Ok(())
    }

    /// Looks at the machine once more: a roof measured while something else ran here would flatter every cell. What a
    /// look cannot see, an earlier one has seen; a surveyor that is gone leaves the roofs as they are.
    fn raise_roofs(&mut self) {
        let command = Command::Machine { threads: self.threads, again: true };
        let (Some(roof), Some(surveyor)) = (self.roof, &mut self.surveyor) else { return };
        match surveyor.call(&command, &mut |_, _, _| {}) {
            Ok(Reply::Machine { roof: seen, .. }) => self.roof = Some(roof.raised(seen)),
            _ => self.surveyor = None,
        }
    }

    /// Keeps what became known of a cell; a repetition that says the same again adds nothing.
    pub(crate) fn state(&mut self, cell: &str, facts: &[(String, String)]) -> Result<()> {
        for (key, value) in facts {
            let fact =
                Fact { run_id: self.rows.run_id.clone(), scope: cell.into(), key: key.clone(), value: value.clone() };
            if !self.stated.contains(&fact) {
                self.directory.append_facts(std::slice::from_ref(&fact))?;
                self.stated.push(fact);
            }
        }
        Ok(())
    }

    /// Marks a cell and leaves a row that says why.
    pub(crate) fn mark(&mut self, index: usize, status: Status, reason: &str) -> Result<()> {
        let live = &mut self.live[index];
        live.status = status;
        live.reason = reason.into();
        self.directory.append(&[self.rows.status(&live.cell, status, reason)])?;
        self.show.cell(&live.cell.id, &format!("{}: {reason}", rows::word(status)));
        Ok(())
    }

    fn summary(&self, complete: bool, answer: Vec<String>) -> Summary {
        let scenario = &self.scenario.scenario;
        let cell = |l: &Live| CellSummary {
            id: l.cell.id.clone(),
            label: l.cell.label.clone(),
            axes: l.cell.axes.clone(),
            role: l.cell.role,
            status: l.status,
            reason: l.reason.clone(),
        };
        let earlier = self.before.summary.as_ref().map_or(0.0, |s| s.elapsed_s);
        Summary {
            schema_version: results::observation::SCHEMA_VERSION,
            run_id: self.rows.run_id.clone(),
            scenario: scenario.name.clone(),
            question: scenario.question.clone(),
            analysis: scenario.analysis.clone(),
            answer,
            caveats: self.caveats.clone(),
            models: facts::model_cards(&self.scenario),
            cells: self.live.iter().map(cell).collect(),
            command: self.command.clone(),
            started: self.started.clone(),
            elapsed_s: earlier + self.clock.seconds(),
            complete,
        }
    }

    fn write_summary(&self, complete: bool, answer: Vec<String>) -> Result<()> {
        Ok(self.directory.write_summary(&self.summary(complete, answer))?)
    }

    fn finish(&mut self, complete: bool) -> Result<RunOutcome> {
        self.show.phase("judging and writing", 1);
        let path = self.directory.path().to_path_buf();
        let run = Run::load(&path)?;
        self.caveats.extend(run.warnings.iter().cloned());
        self.caveats.extend(answer::caveats(self, &run));
        let claims = claims::judge(&self.scenario, &run, &self.command)?;
        let summary = self.summary(complete, answer::answer(self, &run));
        self.directory.write_claims(&claims)?;
        self.directory.write_summary(&summary)?;
        self.directory.seal()?;
        self.show.done();
        let broken = self.live.iter().any(|l| matches!(l.status, Status::Failed | Status::Wrong))
            || claims.iter().any(|c| c.verdict == results::claim::Verdict::Failed);
        let exit = match () {
            _ if broken || !complete => 3,
            _ if claims.iter().any(|c| c.verdict.is_refuted()) => 1,
            _ if claims.iter().any(|c| c.verdict == results::claim::Verdict::Inconclusive) => 4,
            _ => 0,
        };
        Ok(RunOutcome { exit, run_dir: path, claims, summary })
    }
}
