//! What a run says of itself: `report` makes the sentences, from the run as it lies in its folder.

use results::run::Run;

use super::Session;

/// Sentences that answer the scenario's question; `run` has its judged claims and its summary.
pub fn answer(_session: &Session, run: &Run) -> Vec<String> {
    report::answer(run)
}

/// Caveats that the numbers themselves raise.
pub fn caveats(_session: &Session, run: &Run) -> Vec<String> {
    report::caveats(run)
}
