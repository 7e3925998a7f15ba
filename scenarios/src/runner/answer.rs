//! What a run says of itself: `report` makes the sentences, from the run as it will lie in its folder.

use results::claim::ClaimResult;
use results::run::Run;

use super::Session;

/// Sentences about a run.
pub struct Words {
    /// The answer to the scenario's question.
    pub answer: Vec<String>,
    /// What a reader must not overlook.
    pub caveats: Vec<String>,
}

/// Sums up the rows of `run` with its judged claims.
pub fn sum_up(session: &Session, run: &Run, claims: &[ClaimResult], complete: bool) -> Words {
    let summary = Some(session.summary(complete, vec![]));
    let run = Run { claims: claims.to_vec(), summary, ..run.clone() };
    Words { answer: report::answer(&run), caveats: report::caveats(&run) }
}
