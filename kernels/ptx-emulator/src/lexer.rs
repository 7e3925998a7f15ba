//! PTX text to tokens, with line numbers.

use crate::fault::ParseError;

/// A number as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Decimal, hexadecimal, octal or binary; 64 bits.
    Integer(i64),
    /// `0f` and eight digits: bits of an f32.
    Single(u32),
    /// `0d` and sixteen digits, or a decimal fraction: bits of an f64.
    Double(u64),
}

/// A piece of text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// A name, opcode or directive.
    Word(&'a str),
    /// A number.
    Number(Number),
    /// A string literal; none has a meaning here.
    Text,
    /// Punctuation.
    Mark(char),
}

/// The text and how far it was read.
pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    ahead: Option<(Token<'a>, usize, u32)>,
}

impl<'a> Lexer<'a> {
    /// At the first line.
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0, line: 1, ahead: None }
    }

    /// Line of the last token taken, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// An error at the current line.
    pub fn error(&self, problem: &str) -> ParseError {
        let text = self.text.lines().nth(self.line as usize - 1).unwrap_or_default().trim().to_owned();
        ParseError { line: self.line, text, problem: problem.to_owned() }
    }

    /// Takes a token.
    pub fn next(&mut self) -> Result<Option<Token<'a>>, ParseError> {
        if let Some((token, at, line)) = self.ahead.take() {
            (self.at, self.line) = (at, line);
            return Ok(Some(token));
        }
        self.skip_blank();
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return Ok(None) };
        if first.is_ascii_digit() {
            return self.number().map(|number| Some(Token::Number(number)));
        }
        if first == '"' {
            let end = rest[1..].find('"').ok_or_else(|| self.error("`\"` is missing"))?;
            self.at += end + 2;
            return Ok(Some(Token::Text));
        }
        let end = word_end(rest);
        if end > 0 {
            self.at += end;
            return Ok(Some(Token::Word(&rest[..end])));
        }
        self.at += first.len_utf8();
        Ok(Some(Token::Mark(first)))
    }

    fn peek(&mut self) -> Option<Token<'a>> {
        if self.ahead.is_none() {
            let (at, line) = (self.at, self.line);
            let token = self.next().ok().flatten();
            self.ahead = token.map(|token| (token, self.at, self.line));
            (self.at, self.line) = (at, line);
        }
        self.ahead.map(|(token, _, _)| token)
    }

    /// The next token, if it is punctuation.
    pub fn peek_mark(&mut self) -> Option<char> {
        match self.peek() {
            Some(Token::Mark(mark)) => Some(mark),
            // The end of the text ends everything; the caller then meets it again.
            None => Some('\0'),
            _ => None,
        }
    }

    /// The next token, if it is a word.
    pub fn peek_word(&mut self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// The next token, if it is a whole number.
    pub fn peek_integer(&mut self) -> Option<i64> {
        match self.peek() {
            Some(Token::Number(Number::Integer(value))) => Some(value),
            _ => None,
        }
    }

    /// Drops the rest of the line.
    pub fn skip_line(&mut self) {
        self.ahead = None;
        self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            self.line += rest[..blank].matches('\n').count() as u32;
            self.at += blank;
            let rest = &rest[blank..];
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
                self.line += rest[..end].matches('\n').count() as u32;
                self.at += end;
            } else {
                return;
            }
        }
    }

    fn number(&mut self) -> Result<Number, ParseError> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
        let digits = &rest[..end];
        let lower = digits.to_ascii_lowercase();
        let whole = |text: &str, radix| u64::from_str_radix(text.trim_end_matches('u'), radix).ok();
        let number = if let Some(bits) = lower.strip_prefix("0f") {
            u32::from_str_radix(bits, 16).ok().map(Number::Single)
        } else if let Some(bits) = lower.strip_prefix("0d") {
            u64::from_str_radix(bits, 16).ok().map(Number::Double)
        } else if let Some(text) = lower.strip_prefix("0x") {
            whole(text, 16).map(|value| Number::Integer(value as i64))
        } else if let Some(text) = lower.strip_prefix("0b") {
            whole(text, 2).map(|value| Number::Integer(value as i64))
        } else if lower.contains('.') {
            lower.parse::<f64>().ok().map(|value| Number::Double(value.to_bits()))
        } else if lower.len() > 1 && lower.starts_with('0') {
            whole(&lower[1..], 8).map(|value| Number::Integer(value as i64))
        } else {
            whole(&lower, 10).map(|value| Number::Integer(value as i64))
        };
        let number = number.ok_or_else(|| self.error(&format!("`{digits}` is no number")))?;
        self.at += end;
        Ok(number)
    }
}

/// Length of the word at the start: letters, digits, `_ $ % .` and `::`.
fn word_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        let byte = bytes[end];
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.') {
            end += 1;
        } else if byte == b':' && bytes.get(end + 1) == Some(&b':') {
            end += 2;
        } else {
            break;
        }
    }
    end
}
