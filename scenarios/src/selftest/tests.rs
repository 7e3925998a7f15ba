//! The promises hold, and they are not empty: rules that are wrong break them on the same runs.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use results::statistics::{ALPHA, mann_whitney};

use super::*;

#[test]
fn false_alarms_slow_downs_and_intervals_are_as_promised() {
    let figures = figures().expect("the shipped policy");
    println!("{figures:?}");
    assert!(figures.alarm_rate() <= 0.01, "{figures:?}");
    assert!(figures.catch_rate() >= 0.95, "{figures:?}");
    assert!((0.93..=0.97).contains(&figures.coverage()), "{figures:?}");
    assert!(figures.hold());
}

/// The first cell of a round is slower on this machine; in a fixed order that is always the same cell.
#[test]
fn a_fixed_order_raises_false_alarms() {
    let policy = ci::policy::Policy::shipped().expect("the shipped policy");
    let alarms = many(300, |run| Judged::of(&equal_run(run, |n, _| (0..n).collect()), &policy).is_alarm());
    let count = alarms.into_iter().filter(|alarm| *alarm).count();
    assert!(count > 9, "{count} of 300");
}

/// Values of one cell, in the order of its repetitions.
fn values(rows: &[Observation], cell: &str) -> Vec<f64> {
    rows.iter().filter(|row| row.cell == cell).filter_map(|row| row.value).collect()
}

/// Without pairs the drift of the machine hides what is there.
#[test]
fn an_unpaired_test_misses_slow_downs() {
    let found = many(100, |run| {
        let (rows, _) = slow_run(run);
        let (candidate, reference) = (values(&rows, CANDIDATE), values(&rows, REFERENCE));
        mann_whitney(&candidate, &reference).is_some_and(|p| p <= ALPHA)
    });
    let caught = found.into_iter().filter(|caught| *caught).count();
    assert!(caught < 95, "{caught} of 100");
}

/// The plain percentile bootstrap of few pairs is narrower than it says.
#[test]
fn a_plain_bootstrap_covers_too_little() {
    let covered = many(600, |run| {
        let cells = [(CANDIDATE, 1.0), (REFERENCE, 1.0)];
        let rows = measure(&mut SharedMachine::new(run), &cells, order, run, |round, _| round < 6);
        let pairs = values(&rows, CANDIDATE).into_iter().zip(values(&rows, REFERENCE));
        let logs: Vec<f64> = pairs.map(|(a, b)| (a / b).ln()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(run);
        let mut means: Vec<f64> = (0..400)
            .map(|_| (0..logs.len()).map(|_| logs[rng.random_range(0..logs.len())]).sum::<f64>() / logs.len() as f64)
            .collect();
        means.sort_by(f64::total_cmp);
        means[10] <= 0.0 && 0.0 <= means[389]
    });
    let share = covered.iter().filter(|covers| **covers).count() as f64 / covered.len() as f64;
    assert!(share < 0.93, "{share}");
}
