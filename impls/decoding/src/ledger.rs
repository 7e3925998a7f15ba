//! What speculation drafted, what was accepted.

/// Counts over all sequences and rounds. A round without drafts (a prompt's first token, the last token before the
/// length limit) is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Tokens drafted.
    pub drafted: u64,
    /// Drafted tokens that the target accepted.
    pub accepted: u64,
    /// Verifications: one per sequence and round.
    pub target_runs: u64,
    /// Tokens emitted by those; a stop token inside an accepted run cuts them, `accepted` it does not.
    pub emitted: u64,
    /// Tokens drafted at each draft position, `[γ]`.
    pub drafted_at: Vec<u64>,
    /// Tokens whose acceptance was decided at each draft position, all before them being accepted, `[γ]`.
    pub decided_at: Vec<u64>,
    /// Tokens accepted at each draft position, `[γ]`.
    pub accepted_at: Vec<u64>,
}

impl Ledger {
    /// Observed acceptance rate α: accepted among those that acceptance was decided for; none before any was.
    pub fn alpha(&self) -> Option<f64> {
        let decided: u64 = self.decided_at.iter().sum();
        (decided > 0).then(|| self.accepted as f64 / decided as f64)
    }

    pub(crate) fn new(gamma: usize) -> Ledger {
        let zeros = || vec![0; gamma];
        Ledger { drafted_at: zeros(), decided_at: zeros(), accepted_at: zeros(), ..Ledger::default() }
    }

    /// Adds one verification of `drafted` tokens.
    pub(crate) fn record(&mut self, drafted: usize, accepted: usize, emitted: usize) {
        self.drafted += drafted as u64;
        self.accepted += accepted as u64;
        self.target_runs += 1;
        self.emitted += emitted as u64;
        self.drafted_at[..drafted].iter_mut().for_each(|n| *n += 1);
        self.decided_at[..drafted.min(accepted + 1)].iter_mut().for_each(|n| *n += 1);
        self.accepted_at[..accepted].iter_mut().for_each(|n| *n += 1);
    }
}
