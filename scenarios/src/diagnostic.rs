//! Messages about a scenario file: file, line and caret, the field, what was expected, what to do.

mod locate;
mod nearest;
mod serde_message;

use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

pub use locate::{At, Document};
pub use nearest::nearest;
pub use serde_message::{explain, meant};

/// One thing that is wrong with a scenario file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, with the field's path.
    pub title: String,
    /// Bytes of the file it is about.
    pub span: Range<usize>,
    /// Words beside the caret.
    pub label: String,
    /// What to do.
    pub help: String,
}

/// Everything that is wrong with one scenario file.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    /// The file, as the reader knows it.
    pub file: String,
    /// Its text.
    pub source: String,
    /// At least one.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// One diagnostic about `file`.
    pub fn one(file: &str, source: &str, diagnostic: Diagnostic) -> Diagnostics {
        Diagnostics { file: file.into(), source: source.into(), list: vec![diagnostic] }
    }

    /// A file that cannot even be read as text.
    pub fn unreadable(file: &Path, problem: String, help: &str) -> Diagnostics {
        let title = format!("{}: {problem}", file.display());
        Diagnostics::one("", "", Diagnostic { title, span: 0..0, label: String::new(), help: help.into() })
    }

    /// Text for people.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let messages: Vec<String> = self.list.iter().map(|d| self.render_one(&renderer, d)).collect();
        messages.join("\n\n")
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let title = Level::ERROR.primary_title(diagnostic.title.as_str());
        let mut group = annotate_snippets::Group::with_title(title);
        if !self.file.is_empty() {
            let span = first_line(&self.source, &diagnostic.span);
            let caret = AnnotationKind::Primary.span(span).label(diagnostic.label.as_str());
            group = group.element(Snippet::source(self.source.as_str()).path(self.file.as_str()).annotation(caret));
        }
        if !diagnostic.help.is_empty() {
            group = group.element(Level::HELP.message(diagnostic.help.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// `span`, put inside `source`, on character boundaries, and cut at the end of its first line.
fn first_line(source: &str, span: &Range<usize>) -> Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    let end = boundary(span.end).max(start);
    let line_end = source[start..].find('\n').map_or(source.len(), |n| start + n);
    start..end.min(line_end)
}
