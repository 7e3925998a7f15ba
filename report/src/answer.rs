//! The answer in words: every sentence that a run says of itself, a pure function of what lies in its folder.
//!
//! One kind of sentence is one file below. None of them measures or judges: differences are the paired comparisons of `results`, and
//! what these cannot tell is said to be not told. Words live in this crate, beside the page that shows them, so that the terminal,
//! `summary.json` and the page say the same, and an old run can be summed up again from its rows.

mod axes;
mod caveats;
mod claims;
mod contest;
mod coverage;
mod emulated;
mod ladders;
mod material;
mod memory;
mod mixtures;
mod names;
mod noise;
mod quality;
mod recommend;
mod speed;
mod tasks;

use results::run::Run;

pub use caveats::caveats;
pub use coverage::progress;
pub use ladders::bandwidth;
use material::Material;
pub use names::listed;
use quality::Quality;

/// More than this nobody reads: the page has the rest.
const MOST_SENTENCES: usize = 10;

/// Sentences that answer the scenario's question as far as the rows of `run` support them: how far the run got, what became of the
/// claims, then what was measured, then how far to trust it.
pub fn answer(run: &Run) -> Vec<String> {
    let material = Material::read(run);
    let mut said = coverage::sentences(&material);
    if !material.has_values() {
        return said;
    }
    let quality = Quality::of(&material);
    said.extend(recommend::sentences(&material, &quality));
    said.extend(claims::sentences(&material));
    said.extend(noise::warning(&material));
    let axes = axes::sentences(&material, &quality);
    // what each part buys says more than a list of winners; one of those is enough beside it
    let kinds = if axes.is_empty() { &speed::KINDS[..] } else { &speed::KINDS[..1] };
    said.extend(axes.iter().cloned());
    said.extend(speed::sentences(&material, &quality, kinds));
    if axes.is_empty() {
        said.extend(memory::sentence(&material, &quality));
    }
    if axes.is_empty() || !quality.is_whole() {
        said.extend(quality::sentence(&material, &quality));
    }
    said.extend(tasks::sentences(&material));
    said.extend(ladders::sentences(&material));
    said.extend(mixtures::sentence(&material));
    said.extend(emulated::sentences(&material));
    let last = noise::sentence(&material);
    said.truncate(MOST_SENTENCES - last.iter().count());
    said.extend(last);
    said
}
