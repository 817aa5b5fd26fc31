//! From a validator's errors to what an envelope says of them: each failure with its path, its keyword and what was asked
//! for, those inside of `anyOf` and `oneOf` too, bounded in number and size.
//!
//! Messages never repeat a value of the event: the event is beside them, and they are read in more places than it is.

use forebay_api::{Invalid, InvalidDetail, SchemaKey};
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;

/// Failures that are listed of one event.
pub(super) const MAX_DETAILS: usize = 50;

/// Bytes of one text.
const MAX_TEXT: usize = 512;

/// The failures of one value, and how many were left out.
#[derive(Default)]
pub(super) struct Failures {
    pub(super) details: Vec<InvalidDetail>,
    pub(super) left_out: usize,
}

impl Failures {
    /// Adds an error and those that it is made of; `prefix` is the pointer of the value that was judged.
    pub(super) fn add(&mut self, prefix: &str, error: &ValidationError<'_>) {
        if self.details.len() >= MAX_DETAILS {
            self.left_out += 1;
            return;
        }
        self.details.push(InvalidDetail {
            path: cut(&format!("{prefix}{}", error.instance_path().as_str())),
            keyword: cut(error.schema_path().as_str()),
            message: cut(&error.masked().to_string()),
        });
        match error.kind() {
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context }
            | ValidationErrorKind::OneOfMultipleValid { context } => {
                context.iter().flatten().for_each(|nested| self.add(prefix, nested));
            }
            ValidationErrorKind::PropertyNames { error } => self.add(prefix, error),
            _ => {}
        }
    }

    /// Adds what is wrong with a value as a whole.
    pub(super) fn add_plain(&mut self, path: &str, message: &str) {
        let detail = InvalidDetail { path: cut(path), keyword: String::new(), message: cut(message) };
        if self.details.len() < MAX_DETAILS { self.details.push(detail) } else { self.left_out += 1 }
    }

    /// The verdict that they amount to.
    pub(super) fn invalid(self, kind: &str, what: &str, resolution: String) -> Box<Invalid> {
        let more = (self.details.len() + self.left_out).saturating_sub(1);
        let mut message = what.to_owned();
        if let Some(first) = self.details.first() {
            let at = if first.path.is_empty() { "at its root" } else { &first.path };
            message += &format!(": {at}: {}", first.message);
        }
        if more > 0 {
            message += &format!(" (and {more} more)");
        }
        Box::new(Invalid {
            kind: kind.to_owned(),
            message,
            resolution: Some(resolution),
            details: self.details,
        })
    }
}

/// An event that names a schema which no store has.
pub(super) fn not_found(what: &str, key: &str) -> Box<Invalid> {
    plain(
        "schema_not_found",
        format!("{what} names the schema `{}`, which is not in the registry", cut(key)),
        "put the schema into the registry, or send the key of one that is there",
    )
}

/// What is in the registry under a key is no schema.
pub(super) fn broken(what: &str, key: &SchemaKey, why: &str) -> Box<Invalid> {
    plain(
        "invalid_schema",
        format!(
            "{what} names the schema `{key}`, and what the registry has under it cannot be used: {}",
            cut(why)
        ),
        "correct the schema in the registry",
    )
}

/// One without details.
pub(super) fn plain(kind: &str, message: String, resolution: &str) -> Box<Invalid> {
    Box::new(Invalid {
        kind: kind.to_owned(),
        message,
        resolution: Some(resolution.to_owned()),
        details: Vec::new(),
    })
}

fn cut(text: &str) -> String {
    match text.char_indices().find(|(at, char)| at + char.len_utf8() > MAX_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
