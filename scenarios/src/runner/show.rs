//! What a person sees while a run goes on: one bar for the phase, one line per cell with its latest numbers.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use results::trace::{Event, Trace};

use crate::output::note;

/// More cells than this get no lines of their own.
const MOST_LINES: usize = 40;

/// Bars and the live table, on standard error.
pub struct Show {
    bars: MultiProgress,
    phase: ProgressBar,
    lines: HashMap<String, ProgressBar>,
    labels: HashMap<String, String>,
    width: usize,
    /// Not a terminal: phases are printed, nothing is redrawn.
    plain: bool,
    quiet: bool,
}

impl Show {
    /// A display for `cells` (id, label) of `scenario`.
    pub fn new<'a>(
        quiet: bool,
        folder: &Path,
        scenario: &str,
        cells: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Show {
        let plain = !std::io::stderr().is_terminal();
        if !quiet {
            note(&format!("results go to {}", folder.display()));
        }
        let hidden = quiet || plain;
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let bars = MultiProgress::with_draw_target(target);
        let phase = bars.add(ProgressBar::new(1));
        phase.set_style(style(&format!("{scenario}  {{msg:24}} {{bar:30}} {{pos}}/{{len}}  {{elapsed_precise}}")));
        phase.enable_steady_tick(Duration::from_millis(250));
        let labels: HashMap<String, String> = cells.map(|(id, label)| (id.to_string(), label.to_string())).collect();
        let width = labels.values().map(|l| l.chars().count()).max().unwrap_or(0);
        let mut show = Show { bars, phase, lines: HashMap::new(), labels, width, plain, quiet };
        if show.labels.len() <= MOST_LINES {
            let mut ids: Vec<String> = show.labels.keys().cloned().collect();
            ids.sort();
            for id in ids {
                let line = show.bars.add(ProgressBar::new(1));
                line.set_style(style("  {prefix}  {msg}"));
                line.set_prefix(show.padded(&id));
                show.lines.insert(id, line);
            }
        }
        show
    }

    fn padded(&self, id: &str) -> String {
        format!("{:width$}", self.labels.get(id).map_or(id, String::as_str), width = self.width)
    }

    /// A new phase of `n` steps.
    pub fn phase(&self, name: &str, n: usize) {
        self.phase.set_message(name.to_string());
        self.phase.set_length(n as u64);
        self.phase.set_position(0);
        if self.plain && !self.quiet {
            note(&format!("{name} …"));
        }
    }

    /// One step of the phase is done.
    pub fn step(&self) {
        self.phase.inc(1);
    }

    /// What a cell is doing or has come to.
    pub fn cell(&self, id: &str, text: &str) {
        if let Some(line) = self.lines.get(id) {
            line.set_message(text.chars().take(110).collect::<String>());
        }
        let ended = ["skipped", "failed", "wrong"].iter().any(|w| text.starts_with(w));
        if self.plain && !self.quiet && ended {
            note(&format!("  {}  {text}", self.padded(id)));
        }
    }

    /// The latest repetition of a cell.
    pub fn timed(&self, id: &str, trace: &Trace) {
        if let Some(latest) = headline(trace) {
            self.cell(id, &format!("{} {latest} (repetition {})", trace.workload, trace.repetition + 1));
        }
    }

    /// Clears bars and lines.
    pub fn done(&self) {
        self.phase.finish_and_clear();
        self.lines.values().for_each(ProgressBar::finish_and_clear);
    }
}

fn style(template: &str) -> ProgressStyle {
    // templates are constants but for the scenario's name, which may hold braces
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The number a person looks for first.
fn headline(trace: &Trace) -> Option<String> {
    let rate = |n: u32, ns: u64| format!("{:.0} tok/s", f64::from(n) / (ns.max(1) as f64 / 1e9));
    trace.events.iter().find_map(|event| match event {
        Event::Prefill { n_tokens, duration_ns, .. } | Event::Decode { n_tokens, duration_ns, .. } => {
            Some(rate(*n_tokens, *duration_ns))
        }
        Event::Request { chunks, .. } => {
            let (n, end) = (chunks.iter().map(|c| c.n_tokens).sum(), chunks.last()?.at_ns);
            Some(rate(n, end))
        }
        Event::Kernel { op, rung, calls, duration_ns, .. } => {
            Some(format!("{op} {rung} {:.1} µs", *duration_ns as f64 / 1e3 / (*calls).max(1) as f64))
        }
        _ => None,
    })
}
