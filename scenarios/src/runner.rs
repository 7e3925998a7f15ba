//! Runs a scenario: measures the machine, verifies every cell, scores quality, times with interleaved repetitions,
//! verifies again, judges claims, and leaves a run directory. What is measured is on disk before the next thing starts.

mod advice;
mod answer;
mod batch;
mod ending;
mod facts;
mod process;
mod quality;
mod resume;
mod rows;
mod show;
pub(crate) mod timing;

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Result;
use results::claim::ClaimResult;
use results::observation::{Fact, Observation, Status};
use results::progress::{Progress, bad_sittings};
use results::run::{Run, RunDirectory, StoreError, sitting_scope};
use results::summary::{CellSummary, ModelCard, Role, Summary, WorkloadSummary};
use results::trace::{Roof, Trace};

use crate::cell::ResolvedScenario;
use crate::machine;
use crate::protocol::{Command, Reply};
use crate::stop::{Stop, Stopped};
use crate::stopwatch::{Stopwatch, utc_now};
use process::{Program, Worker};
pub use resume::Refusal;
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
    /// What the caller typed, and what continues the run.
    pub asked: Asked,
    /// Continue it with another build than the one that began it.
    pub allow_other_build: bool,
    /// Interpreter of the adapters of other engines.
    pub python: PathBuf,
    /// No bars and no table.
    pub quiet: bool,
}

/// Words of the command line.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Command line, for provenance and re-running.
    pub command: String,
    /// Command that continues the run; empty where it cannot be continued.
    pub continue_with: String,
    /// Fields of the budget that this sitting has another value for, as `KEY=VALUE`.
    pub sets: Vec<String>,
    /// Hash of the scenario's file as it lies on disk, before fields were given other values.
    pub file_blake3: Option<String>,
}

/// How a run ended.
pub struct RunOutcome {
    /// What the process says with its exit code.
    pub exit: u8,
    /// The run directory.
    pub run_dir: PathBuf,
    /// Claims as judged; none of a run that was stopped.
    pub claims: Vec<ClaimResult>,
    /// The summary as written.
    pub summary: Summary,
    /// How far the run is.
    pub progress: Option<Progress>,
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
    /// Not asked for in this sitting; what earlier ones measured stands.
    pub rests: bool,
}

impl Live {
    /// Whether this sitting measures it.
    pub fn runs(&self) -> bool {
        self.status == Status::Ok && !self.rests
    }
}

/// Rows of a cell (by its index), and how it ends where they say so.
pub(crate) type Kept = (usize, Vec<Observation>, Option<(Status, String)>);

/// A run in progress.
pub(crate) struct Session {
    /// The scenario.
    pub scenario: ResolvedScenario,
    /// Programs that can be workers; one, or base and head.
    pub programs: Vec<Program>,
    /// Where rows go.
    pub directory: RunDirectory,
    /// What earlier sittings left.
    pub before: Run,
    /// Cells and sittings of it that are not believed.
    pub bad: HashSet<(String, u32)>,
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
    /// Budget that would hold what this one did not; 0 where nothing is owed for want of time.
    pub seconds_owed: f64,
    /// Facts that are kept already.
    stated: Vec<Fact>,
    cards: Vec<ModelCard>,
    stop: Stop,
    clock: Stopwatch,
    started: String,
    asked: Asked,
}

/// Runs a scenario with this binary.
pub fn run(request: RunRequest) -> Result<RunOutcome> {
    let stop = Stop::listen()?;
    let program = Program::this(&stop)?;
    Session::open(request, vec![program], stop)?.measure()
}

/// Runs the cells of a scenario with two builds, interleaved in one run: ids start with `base/` and `head/`.
pub fn run_against(mut request: RunRequest, base: PathBuf) -> Result<RunOutcome> {
    let stop = Stop::listen()?;
    let programs = vec![Program::at(base, &stop), Program::this(&stop)?];
    request.scenario.scenario.budget.aa_control = false;
    Session::open(request, programs, stop)?.measure()
}

impl Session {
    fn open(request: RunRequest, programs: Vec<Program>, stop: Stop) -> Result<Session> {
        let (mut directory, before) = match request.resume {
            true => RunDirectory::resume(&request.output)?,
            false => (RunDirectory::create(&request.output)?, Run::default()),
        };
        let scenario = &request.scenario;
        let threads = scenario.scenario.budget.threads.unwrap_or_else(machine::default_threads);
        let known = before.summary.as_ref().map(|s| s.started.clone());
        let stated = || before.values(&sitting_scope(0), "sitting_started").first().map(|text| text.to_string());
        let started = known.or_else(stated).unwrap_or_else(utc_now);
        let run_id = before.run_id().map_or_else(|| facts::run_id(scenario, &started), str::to_string);
        let sitting = before.next_sitting();
        let build = facts::of_build(&programs[programs.len() - 1]);
        let mut of_run = facts::of_run(&run_id, scenario, &request.asked, threads, &build)?;
        if programs.len() > 1 {
            let base = vec![(resume::BASE_PROGRAM.to_string(), programs[0].blake3())];
            of_run.extend(facts::scoped(&run_id, "run", base));
        }
        if request.resume {
            resume::check_same(&before, &of_run, &request)?;
        }
        directory.keep_scenario(&scenario.source_text)?;
        let mut all = facts::of_sitting(&run_id, sitting, &request.asked, &build);
        all.extend(resume::news(&before, of_run));
        directory.append_facts(&all)?;
        let live = live_cells(&request, &before, programs.len());
        let labels = live.iter().map(|l| (l.cell.id.as_str(), l.cell.label.as_str()));
        let show = Show::new(request.quiet, &request.output, &scenario.scenario.name, labels);
        let bad = bad_sittings(&before.observations).into_iter().map(|(cell, at)| (cell.to_string(), at)).collect();
        let session = Session {
            rows: Rows::new(&run_id, scenario, sitting, threads),
            roof: None,
            surveyor: None,
            show,
            python: request.python,
            seconds_owed: 0.0,
            stated: before.facts.clone(),
            cards: facts::model_cards(&request.scenario),
            stop,
            clock: Stopwatch::start(),
            scenario: request.scenario,
            programs,
            directory,
            before,
            bad,
            threads,
            live,
            started,
            asked: request.asked,
        };
        if request.resume {
            // a machine that went down with the run left them
            session.clean();
        }
        Ok(session)
    }

    /// All phases. A wish to stop ends them where they are, with what they have kept.
    fn measure(mut self) -> Result<RunOutcome> {
        let ended = self.phases();
        drop(self.surveyor.take());
        self.clean();
        match (ended, self.stop.asked()) {
            (Ok(()), _) => ending::judge(&mut self),
            (Err(error), Some(signal)) if !is_of_the_disk(&error) => {
                self.show.done();
                ending::stopped(&self, signal)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn phases(&mut self) -> Result<()> {
        self.directory.write_claims(&[])?;
        self.write_summary()?;
        self.append_skipped()?;
        self.measure_machine()?;
        self.write_summary()?;
        quality::verify_and_score(self)?;
        self.write_summary()?;
        timing::time(self)?;
        if let (Some(roof), Some(_)) = (self.roof, &self.surveyor) {
            self.directory.append_facts(&facts::of_machine(&self.rows.run_id, &roof, &[]))?;
        }
        Ok(())
    }

    /// Folder for files that other engines need while the run goes on.
    /// It is this process's own: a worker that outlives its runner empties the folder it was given.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch").join(std::process::id().to_string())
    }

    /// Gigabytes of converted weights are no result.
    fn clean(&self) {
        let _ = std::fs::remove_dir_all(self.directory.path().join("scratch"));
    }

    fn append_skipped(&mut self) -> Result<()> {
        for live in self.live.iter().filter(|l| l.status == Status::Skipped && !l.rests) {
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
            other => self.caveat(format!(
                "the machine could not be measured ({}), so no roof fractions are given",
                process::reason(&other)
            ))?,
        }
        Ok(())
    }

    /// Looks at the machine once more: a roof measured while something else ran here would flatter every cell. What a
    /// look cannot see, an earlier one has seen; a surveyor that is gone leaves the roofs as they are.
    fn raise_roofs(&mut self) -> Result<(), Stopped> {
        let command = Command::Machine { threads: self.threads, again: true };
        let (Some(roof), Some(surveyor)) = (self.roof, &mut self.surveyor) else { return Ok(()) };
        match surveyor.call(&command, &mut |_, _, _| {}) {
            Ok(Reply::Machine { roof: seen, .. }) => self.roof = Some(roof.raised(seen)),
            _ => self.surveyor = None,
        }
        self.stop.check()
    }

    /// Keeps what a reader must know of this sitting, where a kill cannot lose it.
    pub(crate) fn caveat(&mut self, text: String) -> Result<()> {
        let scope = sitting_scope(self.rows.sitting);
        let fact = facts::scoped(&self.rows.run_id, &scope, vec![(resume::CAVEAT.to_string(), text)]);
        Ok(self.directory.append_facts(&fact)?)
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

    /// Rows of a trace as those of the cell with this index.
    pub(crate) fn rows_of(&self, index: usize, trace: &Trace) -> Vec<Observation> {
        let live = &self.live[index];
        self.rows.of(trace, &live.cell, &live.kernel_path)
    }

    /// Saves rows of cells and how they end as one batch, so that a kill keeps all of it or nothing.
    pub(crate) fn keep(&mut self, kept: Vec<Kept>) -> Result<()> {
        let mut batch = vec![];
        for (index, rows, end) in &kept {
            batch.extend_from_slice(rows);
            batch.extend(end.iter().map(|(status, why)| self.rows.status(&self.live[*index].cell, *status, why)));
        }
        self.directory.append(&batch)?;
        for (index, _, end) in kept {
            let Some((status, reason)) = end else { continue };
            let live = &mut self.live[index];
            self.show.cell(&live.cell.id, &format!("{}: {reason}", rows::word(status)));
            (live.status, live.reason) = (status, reason);
        }
        Ok(())
    }

    /// Marks a cell and leaves a row that says why.
    pub(crate) fn mark(&mut self, index: usize, status: Status, reason: &str) -> Result<()> {
        self.keep(vec![(index, vec![], Some((status, reason.into())))])
    }

    /// The reason of a failure that is the cell's; an error where the disk failed or the run should end.
    pub(crate) fn fault(&self, error: anyhow::Error) -> Result<String> {
        match is_of_the_disk(&error) || error.downcast_ref::<Stopped>().is_some() {
            true => Err(error),
            false => Ok(format!("{error:#}")),
        }
    }

    /// The summary as far as the run is.
    fn summary(&self) -> Summary {
        let scenario = &self.scenario.scenario;
        let cell = |l: &Live| CellSummary {
            id: l.cell.id.clone(),
            label: l.cell.label.clone(),
            axes: l.cell.axes.clone(),
            role: l.cell.role,
            status: l.status,
            reason: l.reason.clone(),
        };
        let workload = |w: &crate::scenario::Workload| WorkloadSummary {
            name: w.name(),
            timed: w.is_timed(),
            repetitions: if w.is_timed() { scenario.budget.min_repetitions } else { 1 },
        };
        let earlier = self.before.summary.as_ref().map_or(0.0, |s| s.elapsed_s);
        Summary {
            schema_version: results::observation::SCHEMA_VERSION,
            run_id: self.rows.run_id.clone(),
            scenario: scenario.name.clone(),
            question: scenario.question.clone(),
            analysis: scenario.analysis.clone(),
            models: self.cards.clone(),
            cells: self.live.iter().map(cell).collect(),
            command: self.first_command(),
            started: self.started.clone(),
            elapsed_s: earlier + self.clock.seconds(),
            workloads: scenario.workloads.iter().map(workload).collect(),
            continue_with: self.asked.continue_with.clone(),
            ..Summary::default()
        }
    }

    /// The command that began the run: a reader who wants the numbers again starts there.
    fn first_command(&self) -> String {
        let stated = self.before.values(&sitting_scope(0), "command").first().map(|text| text.to_string());
        let known = self.before.summary.as_ref().map(|summary| summary.command.clone());
        stated.or(known).unwrap_or_else(|| self.asked.command.clone())
    }

    fn write_summary(&self) -> Result<()> {
        Ok(self.directory.write_summary(&self.summary())?)
    }
}

/// Whether an error is the disk's or the run directory's, which no cell can help.
fn is_of_the_disk(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StoreError>().is_some()
}

/// The cells of the scenario, once per program; those that the caller left out rest.
fn live_cells(request: &RunRequest, before: &Run, programs: usize) -> Vec<Live> {
    let wanted = |id: &str| request.cells_filter.as_ref().is_none_or(|text| id.contains(text.as_str()));
    let mut live = vec![];
    for cell in &request.scenario.cells {
        for program in 0..programs {
            let plain_id = cell.id.clone();
            let mut cell = cell.clone();
            if programs > 1 {
                cell.id = format!("{}/{}", ["base", "head"][program], cell.id);
            }
            let rests = !wanted(&plain_id) && cell.role != Role::Reference;
            let (status, reason) = match (&cell.unsupported, &request.cells_filter) {
                (Some(reason), _) => (Status::Skipped, reason.clone()),
                (None, Some(text)) if rests && !was_asked_for(before, &cell.id) => {
                    (Status::Skipped, format!("left out by --cells {text}"))
                }
                _ => (Status::Ok, String::new()),
            };
            let (kernel_path, sample) = (String::new(), vec![]);
            live.push(Live { cell, plain_id, status, reason, kernel_path, sample, program, rests });
        }
    }
    live
}

/// Whether an earlier sitting ran the cell or owed it.
fn was_asked_for(before: &Run, id: &str) -> bool {
    let summary = before.summary.iter().flat_map(|summary| &summary.cells);
    summary.into_iter().any(|cell| cell.id == id && cell.status != Status::Skipped)
        || before.observations.iter().any(|row| row.cell == id && row.value.is_some())
}
