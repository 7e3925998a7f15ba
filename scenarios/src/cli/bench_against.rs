//! `bench-against`: another commit's build and this one, measured in turns on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use ci::CheckOptions;
use clap::Args;
use results::summary::Ending;

use super::changes::Changes;
use super::{Blame, Outcome, PASS, check, find, print, run};
use crate::output;
use crate::runner::{self, Asked, RunRequest};

/// The command `bench-against`.
#[derive(Args)]
#[command(
    after_long_help = "The commit is checked out into a worktree below target/, built in release mode beside it, and its \
workers run in turns with this program's: A B A B. Both sides share machine, scenario and time, so wall-clock can gate.

Exit codes are those of `infermark check`; 3 also where a cell of either side failed, 2 for a commit that does not exist.

Example: cargo run --release -- bench-against main --scenario smoke"
)]
pub struct BenchAgainst {
    /// Commit, branch or tag to measure against
    #[arg(value_name = "GITREF")]
    reference: String,
    /// Name of a scenario, or the path of a .toml file
    #[arg(long, value_name = "NAME|FILE.toml")]
    scenario: String,
    /// Where results go [default: results/runs/DATE-NAME-against-COMMIT]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Another value for an axis or a field
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// A policy instead of the shipped one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Undecided is a failure (exit code 4)
    #[arg(long)]
    strict: bool,
    /// console, markdown (a pull-request comment), junit, annotations or json
    #[arg(long, default_value = "console", value_parser = str::parse::<ci::Format>)]
    format: ci::Format,
}

impl BenchAgainst {
    pub(super) fn obey(&self) -> Outcome {
        let scenario = find::resolve(find::find(&self.scenario)?, &Changes::of_sets(&self.sets))?;
        // a slip of the pen should not cost a measurement
        ci::policy::Policy::load(self.policy.as_deref()).usage()?;
        if let Some(output) = self.output.as_ref().filter(|output| output.exists()) {
            let occupied = std::fs::read_dir(output).map_or(true, |mut entries| entries.next().is_some());
            if occupied {
                return Err(anyhow!("--output {}: is a file or not empty; choose another folder", output.display()))
                    .usage();
            }
        }
        find::fetch_models(&scenario)?;
        if cfg!(debug_assertions) {
            output::note("note: this program is a debug build and the other one will not be; use cargo run --release");
        }
        let root = PathBuf::from(git(Path::new("."), &["rev-parse", "--show-toplevel"]).usage()?);
        let commit = git(&root, &["rev-parse", "--verify", &format!("{}^{{commit}}", self.reference)])
            .with_context(|| format!("{}: not a commit of this repository", self.reference))
            .usage()?;
        let base = build(&root, &commit).failed()?;
        let name = format!("{}-against-{}", scenario.scenario.name, &commit[..commit.len().min(8)]);
        let output = self.output.clone().map_or_else(|| run::default_output(&name), Ok)?;
        let asked = Asked { command: run::command_line(), ..Asked::default() };
        let request = RunRequest {
            scenario,
            output,
            resume: false,
            cells_filter: None,
            asked,
            allow_other_build: false,
            python: "python3".into(),
            quiet: false,
        };
        let outcome = runner::run_against(request, base).failed()?;
        if outcome.summary.ending == Some(Ending::Interrupted) {
            return run::finish(outcome, false, self.strict);
        }
        let report = report::write(&outcome.run_dir).failed()?;
        let options = CheckOptions {
            head: outcome.run_dir.clone(),
            policy: self.policy.clone(),
            strict: self.strict,
            format: self.format,
            ..CheckOptions::default()
        };
        let ci::Answer { text, code, .. } = ci::run_check(&options).map_err(check::blame)?;
        print(&text)?;
        output::note(&format!("report: {}", report.display()));
        Ok(if code == PASS && outcome.exit == super::RUN_FAILED { super::RUN_FAILED } else { code })
    }
}

/// Builds `commit` in a worktree that is removed again; gives back the binary, which stays below target/.
fn build(root: &Path, commit: &str) -> Result<PathBuf> {
    let place = root.join("target").join("bench-against").join(&commit[..commit.len().min(12)]);
    let (tree, target) = (place.join("tree"), place.join("target"));
    let binary = target.join("release").join(format!("infermark{}", std::env::consts::EXE_SUFFIX));
    if binary.is_file() {
        return Ok(binary);
    }
    // an interrupted build leaves a worktree that git still knows
    let _ = git(root, &["worktree", "remove", "--force", &tree.to_string_lossy()]);
    git(root, &["worktree", "prune"])?;
    git(root, &["worktree", "add", "--detach", "--force", &tree.to_string_lossy(), commit])?;
    output::note(&format!("building {commit} …"));
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(&tree)
        .status()
        .context("cannot start cargo, which builds the other commit");
    let removed = git(root, &["worktree", "remove", "--force", &tree.to_string_lossy()]);
    if !status?.success() {
        bail!("{commit} does not build; see cargo's messages above");
    }
    removed?;
    match binary.is_file() {
        true => Ok(binary),
        false => {
            bail!("{}: the build left no such program; is {commit} older than the program's name?", binary.display())
        }
    }
}

/// Standard output of a git command run in `folder`.
fn git(folder: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(words)
        .current_dir(folder)
        .output()
        .context("cannot start git, which bench-against needs")?;
    if !output.status.success() {
        bail!("git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
