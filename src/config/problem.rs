//! What is wrong with a configuration, and how it is shown.
//!
//! Every mistake, whoever finds it, is a [`Problem`]; [`ConfigError::render`] is the only place that draws them.
//! Invariant: neither a message nor a help repeats a value that came out of `${…}` or the environment.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer to what is wrong, so that one place is not complained about twice.
    pub path: String,
    /// The bytes of the file that are shown; `None` where the mistake is not in the file.
    pub span: Option<Range<usize>>,
    /// What is wrong: lowercase, names in backticks.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole, or of something outside it.
    pub(super) fn outside(message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem { path: String::new(), span: None, message: message.into(), help: Some(help.into()) }
    }
}

/// A configuration that cannot be run, with everything that is wrong with it.
#[derive(Debug)]
pub struct ConfigError {
    /// The file's name, as it was given.
    pub file: String,
    /// The file's text, for the pictures.
    pub text: String,
    /// The mistakes, in the order of the file.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// Puts the problems into the order in which they are read, each said once (an alias repeats a mistake).
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        problems.dedup_by(|second, first| second.span == first.span && second.message == first.message);
        ConfigError { file: file.to_owned(), text: text.to_owned(), problems }
    }

    /// The picture of every problem: what, file:line:column, the line, the remedy.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let pictures: Vec<String> =
            self.problems.iter().map(|problem| renderer.render(&[self.group(problem)])).collect();
        pictures.join("\n\n") + "\n"
    }

    /// The line and column of a problem that is in the file.
    pub fn place(&self, problem: &Problem) -> Option<(usize, usize)> {
        problem.span.as_ref().map(|span| line_and_column(&self.text, span.start))
    }

    /// The parts of one picture.
    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let title = Level::ERROR.primary_title(&*problem.message);
        let group = match &problem.span {
            Some(span) => title.element(
                Snippet::source(&*self.text)
                    .path(&*self.file)
                    .annotation(AnnotationKind::Primary.span(span.clone())),
            ),
            None => title.element(Origin::path(&*self.file)),
        };
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(&**help)),
            None => group,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(f, "`{}` has {} problem{plural}", self.file, self.problems.len())
    }
}

impl std::error::Error for ConfigError {}

/// The line and column (in characters) of a byte of a text, both from one.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Names for a message: `` `a`, `b` ``.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
