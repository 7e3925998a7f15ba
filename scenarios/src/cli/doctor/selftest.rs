//! `doctor --self-test`: what the statistics promise, counted.

use crate::cli::{Blame, Outcome, PASS, RUN_FAILED, print};
use crate::selftest::{EQUAL_RUNS, Figures, SLOW_RUNS, SLOWDOWN, figures};

pub(super) fn obey() -> Outcome {
    eprintln!("forging {} runs …", EQUAL_RUNS + SLOW_RUNS);
    let figures = figures().failed()?;
    print(&text(&figures))?;
    Ok(if figures.hold() { PASS } else { RUN_FAILED })
}

/// The three figures with their bounds.
pub(super) fn text(figures: &Figures) -> String {
    let [fewest, middle, most] = figures.asked;
    format!(
        "Statistics on a forged machine that others use too: slow drift, bursts of seconds, autocorrelation, spikes.\n  \
         false alarms  {:.2} % of {EQUAL_RUNS} runs without a difference (promised: at most 1 %)\n  \
         caught        {:.1} % of {SLOW_RUNS} runs with a slow-down of {:.0} % (promised: at least 95 %), with the repetitions that a pilot of a \
         minute asks for: {fewest} to {most}, in the middle {middle}\n  \
         coverage      {:.1} % of {} intervals hold the true ratio (promised: 93 to 97 %)\n{}\n",
        100.0 * figures.alarm_rate(),
        100.0 * figures.catch_rate(),
        100.0 * SLOWDOWN,
        100.0 * figures.coverage(),
        figures.intervals,
        if figures.hold() { "pass" } else { "failed" }
    )
}
