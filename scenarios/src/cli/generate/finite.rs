//! A model that notices when its logits stop being numbers: a token chosen from such logits would be an accident.

use std::sync::{Arc, Mutex};

use model::{Activations, KvBytes, SeqId, Session, Step, StepError, StepModel};

/// Where logits were first no numbers: the position in the sequence, how many of them, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Position of the token after which they stand.
    pub position: usize,
    /// Logits that are not numbers.
    pub n: usize,
    /// Logits in all.
    pub of: usize,
}

/// What a watched model has noticed so far.
#[derive(Debug, Clone, Default)]
pub struct Notice(Arc<Mutex<Option<Broken>>>);

impl Notice {
    /// The first row of logits that was no good.
    pub fn first(&self) -> Option<Broken> {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A session whose logits are looked at.
pub struct Watched {
    session: Session,
    notice: Notice,
}

impl Watched {
    /// Watches `session` and tells `notice`.
    pub fn new(session: Session, notice: &Notice) -> Watched {
        Watched { session, notice: notice.clone() }
    }
}

impl StepModel for Watched {
    fn vocab(&self) -> usize {
        self.session.vocab()
    }

    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        let logits = self.session.forward(step)?;
        let mut seen = self.notice.0.lock().unwrap_or_else(|e| e.into_inner());
        for (row, &of_step) in step.logit_rows.iter().enumerate().take(logits.rows()) {
            let n = logits.row(row).iter().filter(|v| !v.is_finite()).count();
            if n > 0 && seen.is_none() {
                let position = step.positions.get(of_step).map_or(0, |&p| p as usize);
                *seen = Some(Broken { position, n, of: logits.cols() });
            }
        }
        Ok(logits)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.session.truncate(seq, len);
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        self.session.fork(from, to)
    }

    fn kv_bytes(&self) -> KvBytes {
        self.session.kv_bytes()
    }
}
