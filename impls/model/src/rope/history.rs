//! Rotations that depend on the length of the sequence: the whole sequence is computed again when they change.
//!
//! Dynamic NTK and LongRoPE rotate every key by the length of the sequence as it is now. Keys cached at a shorter length
//! would keep an older rotation; computing the sequence again gives what one full pass gives, at its cost.

use std::collections::HashMap;

use super::RopeTable;
use crate::{SeqId, Span, Step, TokenId, Visibility};

struct Past {
    tokens: Vec<TokenId>,
    /// Length that the cached keys were rotated for.
    rotated_for: usize,
}

/// Tokens of every sequence, kept only where the rotation depends on the length.
#[derive(Default)]
pub(crate) struct History {
    sequences: HashMap<SeqId, Past>,
}

/// A Step that starts some of its sequences anew.
pub(crate) struct Rerun {
    /// What to run instead.
    pub(crate) step: Step,
    /// Sequences whose cached entries must go first.
    pub(crate) restarted: Vec<SeqId>,
}

impl History {
    /// Notes the rows of `step`; gives back what to run instead of it, if the rotation of some sequence changes.
    pub(crate) fn advance(&mut self, rope: &RopeTable, step: &Step) -> Option<Rerun> {
        if rope.length_matters_beyond().is_none() || step.visibility != Visibility::Causal {
            return None;
        }
        let mut rerun = Rerun { step: Step::batch(&[]), restarted: vec![] };
        for span in &step.spans {
            let past = self.sequences.entry(span.seq).or_insert(Past { tokens: vec![], rotated_for: 0 });
            past.tokens.truncate(span.kv_len - span.rows.len());
            past.tokens.extend_from_slice(&step.tokens[span.rows.clone()]);
            let restart = past.tokens.len() > span.rows.len() && rope.changes(past.rotated_for, span.kv_len);
            past.rotated_for = span.kv_len;
            let rows = if restart { 0..past.tokens.len() } else { span.kv_len - span.rows.len()..span.kv_len };
            let (base, skipped) = (rerun.step.rows(), rows.len() - span.rows.len());
            rerun.step.tokens.extend_from_slice(&past.tokens[rows.clone()]);
            rerun.step.positions.extend(rows.clone().map(|position| position as u32));
            rerun.step.spans.push(Span { rows: base..base + rows.len(), ..span.clone() });
            let wanted = step.logit_rows.iter().filter(|row| span.rows.contains(row));
            rerun.step.logit_rows.extend(wanted.map(|row| base + skipped + row - span.rows.start));
            if restart {
                rerun.restarted.push(span.seq);
            }
        }
        (!rerun.restarted.is_empty()).then_some(rerun)
    }

    /// Forgets the tokens of `seq` from `len` on.
    pub(crate) fn truncate(&mut self, seq: SeqId, len: usize) {
        match self.sequences.get_mut(&seq) {
            Some(past) if len > 0 => past.tokens.truncate(len),
            _ => drop(self.sequences.remove(&seq)),
        }
    }

    /// Makes `to` a copy of `from`.
    pub(crate) fn fork(&mut self, from: SeqId, to: SeqId) {
        if let Some(Past { tokens, rotated_for }) = self.sequences.get(&from) {
            let copy = Past { tokens: tokens.clone(), rotated_for: *rotated_for };
            self.sequences.insert(to, copy);
        }
    }
}
