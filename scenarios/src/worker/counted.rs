//! A loop whose cost is programmed: what a run should find is known before it starts.
//!
//! Each step needs the result of the one before and passes through a place that the optimiser must treat as unknown, so no step is left out,
//! joined with another or done ahead of time, and the time of a loop is proportional to its count. The value it ends with proves the count:
//! it is computed a second way, in as many operations as the count has bits.

use std::hint::black_box;

use results::trace::{Event, Work};

use super::cell::{Held, Outcome};
use crate::stopwatch::Stopwatch;

/// Multiplier and increment of Knuth's MMIX generator: a full-period congruence modulo 2^64, so every count up to that has a value of its own.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// Steps of a cell that costs `slowdown` times the reference's `units`.
pub fn steps(units: u64, slowdown: f64) -> u64 {
    (units as f64 * slowdown).round() as u64
}

/// Where `n` steps lead from `start`.
fn walk(start: u64, n: u64, step: impl Fn(u64) -> u64) -> u64 {
    (0..n).fold(start, |value, _| step(value))
}

fn step(value: u64) -> u64 {
    black_box(value).wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)
}

/// The same place by squaring: two maps x -> a x + c make one of their kind.
fn place(start: u64, mut n: u64) -> u64 {
    let (mut a, mut c) = (MULTIPLIER, INCREMENT);
    let (mut total_a, mut total_c) = (1u64, 0u64);
    while n > 0 {
        if n & 1 == 1 {
            (total_a, total_c) = (total_a.wrapping_mul(a), total_c.wrapping_mul(a).wrapping_add(c));
        }
        (a, c) = (a.wrapping_mul(a), c.wrapping_mul(a).wrapping_add(c));
        n >>= 1;
    }
    start.wrapping_mul(total_a).wrapping_add(total_c)
}

/// One repetition: the held cell's steps, timed, and the check that they were made.
pub fn run(held: &Held, units: u64) -> Outcome {
    let n = steps(units, held.cells[0].slowdown);
    let start = black_box(held.scenario().seed);
    let clock = Stopwatch::start();
    let end = walk(start, n, step);
    let duration_ns = clock.ns();
    let wrong = f64::from(u8::from(end != place(start, n)));
    // all cells have one shape, the reference's: they answer one question
    let shape = format!("{units}-steps");
    let timed = Event::Kernel {
        op: "counted-loop".into(),
        rung: "scalar".into(),
        shape,
        calls: 1,
        duration_ns,
        work: Work::default(),
    };
    let counted = Event::Check { name: "steps".into(), value: wrong, limit: 0.0, passed: wrong == 0.0 };
    vec![timed, counted].into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Oracle: the definition, by counting calls and not by a clock.
    #[test]
    fn the_loop_makes_as_many_steps_as_it_is_told() {
        for n in [0, 1, 2, 1_000, 12_345] {
            let made = Cell::new(0u64);
            let counting = |value| {
                made.set(made.get() + 1);
                step(value)
            };
            let end = walk(9, n, counting);
            assert_eq!((made.get(), end), (n, place(9, n)), "{n} steps");
        }
        // one more or one less ends elsewhere
        assert!([999, 1_001].iter().all(|n| place(9, *n) != place(9, 1_000)));
    }

    #[test]
    fn steps_are_proportional_to_the_programmed_cost() {
        for (slowdown, expected) in [(1.0, 2_000_000), (1.03, 2_060_000), (1.1, 2_200_000), (0.5, 1_000_000)] {
            assert_eq!(steps(2_000_000, slowdown), expected);
        }
    }
}
