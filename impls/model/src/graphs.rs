//! Decode Steps on a GPU as recorded graphs: one launch for a pass instead of one per kernel.
//!
//! A pass with one row per sequence makes the same launches with the same arguments at every position: tokens, positions and
//! places lie in device buffers that are written before. One graph per number of rows; it is stale when a buffer has been
//! allocated anew since.

use std::collections::HashMap;

use cuda_kernels::Recording;

use crate::{Cuda, Step, Visibility};

/// The graphs of a session.
#[derive(Default)]
pub(crate) struct Graphs {
    recorded: HashMap<usize, Recorded>,
    replays: u64,
}

struct Recorded {
    /// `None` until a pass has run: buffers grow in it, and growing cannot be recorded.
    recording: Option<Recording>,
    moves: u64,
}

/// Whether every sequence advances by one row and every row's logits are wanted.
fn is_decode(step: &Step) -> bool {
    let rows = step.rows();
    rows > 0 && step.spans.len() == rows && step.logit_rows.len() == rows && step.visibility == Visibility::Causal
}

impl Graphs {
    /// Makes the launches of `pass` for `step`, whose inputs are written: by its graph where there is a fresh one.
    pub(crate) fn run(&mut self, cuda: &Cuda, step: &Step, mut pass: impl FnMut()) {
        if !is_decode(step) {
            return pass();
        }
        let before = cuda.moves();
        let known = self.recorded.get(&step.rows()).filter(|known| known.moves == before);
        match known {
            Some(Recorded { recording: Some(recording), .. }) => {
                self.replays += 1;
                return cuda.run(|| recording.replay());
            }
            Some(_) => {
                if let Some(recording) = cuda.record(&mut pass) {
                    cuda.run(|| recording.replay());
                    self.recorded.insert(step.rows(), Recorded { recording: Some(recording), moves: before });
                    return;
                }
            }
            None => {}
        }
        pass();
        self.recorded.insert(step.rows(), Recorded { recording: None, moves: cuda.moves() });
    }

    /// Passes that were replayed.
    pub(crate) fn replays(&self) -> u64 {
        self.replays
    }
}
