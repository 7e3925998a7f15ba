//! From texts to tokens: what is fed, and which tokens of it are scored.
//!
//! Source: `TemplateLM._encode_pair`, `loglikelihood` and `HFLM._loglikelihood_tokens` of lm-evaluation-harness 0.4. Spaces at the end of a
//! context go to the continuation; context and whole text are encoded apart, and what the whole has beyond the context's number of tokens is
//! scored; a text that begins with the beginning-of-text token gets no second one; where the context is empty, that token (else one that
//! ends a text) stands for it; of what is longer than the window, the beginning is cut.

use engine::Checkpoint;
use model::TokenId;

use super::layout::is_space;
use super::prompt::Pair;

/// Tokens of one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is fed; the last rows predict [`targets`](Request::targets), each row the token behind it.
    pub input: Vec<TokenId>,
    /// What is scored.
    pub targets: Vec<TokenId>,
    /// Tokens cut from the left.
    pub cut: usize,
}

impl Request {
    /// The first row whose prediction is scored.
    pub fn first_row(&self) -> usize {
        self.input.len() - self.targets.len()
    }
}

/// `pair` in tokens of `model`, of which at most `window` are fed.
pub fn encode(model: &Checkpoint, pair: &Pair, window: usize) -> Result<Request, String> {
    let (context, continuation) = halves(model, pair)?;
    if continuation.is_empty() {
        return Err(format!("the answer {:?} gives no token of its own behind its context", pair.continuation));
    }
    if continuation.len() > window {
        return Err(format!(
            "the answer {:?} has {} tokens, more than the window of {window}",
            shortened(&pair.continuation),
            continuation.len()
        ));
    }
    let mut whole = [context, continuation.clone()].concat();
    // the last token is scored and never fed
    let cut = whole.len().saturating_sub(window + 1);
    whole.drain(..cut);
    whole.pop();
    Ok(Request { input: whole, targets: continuation, cut })
}

fn halves(model: &Checkpoint, pair: &Pair) -> Result<(Vec<TokenId>, Vec<TokenId>), String> {
    let said = |error: engine::EngineError| error.to_string();
    let tokenizer = model.reader().map_err(said)?;
    let context = pair.context.trim_end_matches(is_space);
    let continuation = format!("{}{}", &pair.context[context.len()..], pair.continuation);
    let stand_in = model.facts.bos.or(model.facts.ends.first().copied());
    let begins = stand_in.and_then(|token| tokenizer.piece(token)).is_some_and(|text| context.starts_with(&text));
    let before = if begins { vec![] } else { model.before().map_err(said)? };
    let encode = |text: &str| tokenizer.encode(text).map_err(said);
    let mut context = [before.clone(), encode(context)?].concat();
    let whole = [before, encode(&format!("{}{}", pair.context, pair.continuation))?].concat();
    if !context.is_empty() && !pair.context.is_empty() {
        let scored = whole.get(context.len()..).unwrap_or_default().to_vec();
        return Ok((context, scored));
    }
    let mut scored = encode(&continuation)?;
    let stand_in =
        stand_in.ok_or("its context is empty, and no file of the model says which token begins or ends a text")?;
    context = vec![stand_in];
    if scored.first() == Some(&stand_in) {
        scored.remove(0);
    }
    Ok((context, scored))
}

fn shortened(text: &str) -> String {
    match text.chars().count() > 40 {
        true => format!("{}…", text.chars().take(40).collect::<String>()),
        false => text.to_string(),
    }
}
