//! The accept-or-replace rule of speculative decoding: which drafts stand, and what takes the place of the first that
//! does not.

use model::{Activations, TokenId};

use crate::sampling::{self, UnusableLogits};
use crate::{DecodeError, SamplingSpec, Sequence};

/// How a row of logits becomes a token.
pub(crate) enum Choice {
    Greedy,
    Sampled(SamplingSpec),
}

/// A chosen token and the distribution it was drawn from (empty when greedy).
pub(crate) struct Draft {
    pub(crate) token: TokenId,
    pub(crate) q: Vec<f64>,
}

/// The target's word on a run of drafts: how many stand, and the token after them.
pub(crate) struct Verdict {
    pub(crate) accepted: usize,
    pub(crate) next: TokenId,
}

impl Choice {
    /// The token that `logits` give.
    pub(crate) fn pick(&self, logits: &[f32], sequence: &mut Sequence) -> Result<Draft, UnusableLogits> {
        match self {
            Choice::Greedy => Ok(Draft { token: sampling::argmax(logits)?, q: vec![] }),
            Choice::Sampled(spec) => {
                let q = sampling::distribution(logits, spec)?;
                Ok(Draft { token: sampling::draw(&q, sequence.uniform()), q })
            }
        }
    }

    /// Row `first_row + i` of `logits` is the target's prediction where draft i stands; the row after those is its
    /// prediction of what follows them all.
    pub(crate) fn judge(
        &self,
        logits: &Activations,
        first_row: usize,
        drafts: &[Draft],
        sequence: &mut Sequence,
    ) -> Result<Verdict, DecodeError> {
        let (seq, first_position) = (sequence.id(), sequence.tokens().len());
        let at = |i| move |source| DecodeError::Logits { model: "target", seq, position: first_position + i, source };
        for (i, draft) in drafts.iter().enumerate() {
            let replacement = self.replace(logits.row(first_row + i), draft, sequence).map_err(at(i))?;
            if let Some(next) = replacement {
                return Ok(Verdict { accepted: i, next });
            }
        }
        let accepted = drafts.len();
        let bonus = self.pick(logits.row(first_row + accepted), sequence).map_err(at(accepted))?;
        Ok(Verdict { accepted, next: bonus.token })
    }

    /// None if `draft` is accepted, else the token that takes its place.
    fn replace(
        &self,
        logits: &[f32],
        draft: &Draft,
        sequence: &mut Sequence,
    ) -> Result<Option<TokenId>, UnusableLogits> {
        match self {
            Choice::Greedy => {
                let best = sampling::argmax(logits)?;
                Ok((draft.token != best).then_some(best))
            }
            Choice::Sampled(spec) => {
                let p = sampling::distribution(logits, spec)?;
                if accepts(&p, &draft.q, draft.token, sequence.uniform()) {
                    return Ok(None);
                }
                Ok(Some(sampling::draw(&residual(&p, &draft.q), sequence.uniform())))
            }
        }
    }
}

/// Whether a `token` drawn from `q` passes for one drawn from `p`, given `u` uniform in [0, 1): u < p(x)/q(x), as a
/// product, so that p(x) = 0 never passes.
pub fn accepts(p: &[f64], q: &[f64], token: TokenId, u: f64) -> bool {
    let x = token.0 as usize;
    u * q[x] < p[x]
}

/// max(0, p - q), unnormalised: what follows a rejection is drawn from it. Where rounding leaves nothing, `p` itself.
pub fn residual(p: &[f64], q: &[f64]) -> Vec<f64> {
    let rest: Vec<f64> = p.iter().zip(q).map(|(p, q)| (p - q).max(0.0)).collect();
    if rest.iter().any(|&mass| mass > 0.0) { rest } else { p.to_vec() }
}
