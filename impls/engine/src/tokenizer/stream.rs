//! Text of tokens as they come: no character in pieces, the spaces of the whole text, and an end at a stop text.

use model::TokenId;

use super::Tokenizer;

/// Tokens of the prompt that a continuation is decoded behind: a decoder takes the space from the first token of a text.
const CONTEXT: usize = 8;

/// Turns a sequence's new tokens into text. What [`push`](TextStream::push) and [`finish`](TextStream::finish) give back, joined,
/// is the text of the continuation.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The last tokens of the prompt, then all that was generated but the hidden ones.
    tokens: Vec<TokenId>,
    /// The text of `tokens[start..read]` is known and given out; the window starts early enough for spaces to be right.
    start: usize,
    read: usize,
    hidden: Vec<TokenId>,
    stops: Vec<String>,
    /// Text that may be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// Text behind `prompt`, without the tokens `hidden`, up to the first of `stops` that is complete.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &[TokenId], hidden: &[TokenId], stops: &[String]) -> TextStream<'a> {
        let tokens = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let read = tokens.len();
        let hidden = hidden.to_vec();
        TextStream { tokenizer, tokens, start: 0, read, hidden, stops, held: String::new(), stopped: false }
    }

    /// Whether a stop text was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text that `new` tokens make certain.
    pub fn push(&mut self, new: &[TokenId]) -> String {
        let mut sure = String::new();
        for token in new {
            if self.stopped {
                break;
            }
            if self.hidden.contains(token) {
                continue;
            }
            self.tokens.push(*token);
            let text = self.settled(false);
            sure += &self.filtered(&text);
        }
        sure
    }

    /// What was held back: the beginning of a stop text that did not come, bytes that are no character.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let text = self.settled(true);
        let mut rest = self.filtered(&text);
        if !self.stopped {
            rest += &std::mem::take(&mut self.held);
        }
        rest
    }

    /// Text of the tokens that were not read yet, once their last character is whole or where it is the `last` chance.
    fn settled(&mut self, last: bool) -> String {
        let known = self.tokenizer.decode(&self.tokens[self.start..self.read]);
        let all = self.tokenizer.decode(&self.tokens[self.start..]);
        // a character may need more than one token: its first bytes decode to the replacement character
        if self.read == self.tokens.len() || (!last && all.ends_with('\u{fffd}')) {
            return String::new();
        }
        let new = match all.strip_prefix(&known) {
            Some(new) => new.to_string(),
            // bytes behind the known ones changed what they mean together; what was given out stays
            None => self.tokenizer.decode(&self.tokens[self.read..]),
        };
        self.start = self.read;
        self.read = self.tokens.len();
        new
    }

    /// What of `text` can be given out: nothing behind a stop text, and nothing that may be the beginning of one.
    fn filtered(&mut self, text: &str) -> String {
        self.held += text;
        let ends = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len())));
        // the one that is complete first, the longest of those
        if let Some((at, _)) = ends.min_by_key(|(at, length)| (at + length, *at)) {
            self.stopped = true;
            let mut sure = std::mem::take(&mut self.held);
            sure.truncate(at);
            return sure;
        }
        let open = |stop: &String| {
            let mut lengths = (1..stop.len()).rev().filter(|n| stop.is_char_boundary(*n));
            lengths.find(|n| self.held.ends_with(&stop[..*n])).unwrap_or(0)
        };
        let open = self.stops.iter().map(open).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - open);
        std::mem::replace(&mut self.held, rest)
    }
}
