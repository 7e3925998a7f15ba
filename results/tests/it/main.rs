//! The crate from outside: traces to rows, rows to files and back, rows to tables.

mod aggregate;
mod frame;
mod kept_claims;
mod metric;
mod progress;
mod run;

use results::observation::{Axes, Direction, Observation, Status};

/// A row of `metric` for (cell, repetition, item).
fn row(cell: &str, metric: &str, repetition: u32, item: u32, value: f64) -> Observation {
    Observation {
        run_id: "r1".to_owned(),
        scenario: "test".to_owned(),
        cell: cell.to_owned(),
        axes: Axes { model: "embedded:base".to_owned(), attention: cell.to_owned(), ..Axes::default() },
        workload: "tg128".to_owned(),
        sitting: 0,
        repetition,
        item,
        metric: metric.to_owned(),
        formula_id: format!("{}@1", metric.split(':').next().unwrap_or(metric)),
        unit: "ms".to_owned(),
        direction: Direction::Lower,
        value: Some(value),
        x: None,
        status: Status::Ok,
        reason: String::new(),
        threads: 2,
        kernel_path: "avx2: gemv_f16".to_owned(),
        seed: 7,
    }
}
