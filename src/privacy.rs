//! Privacy: what is taken out of events before anything of them is judged, encoded or stored.
//!
//! A rule names a field below `$.payload` or `$.contexts` and what becomes of it. A field of the payload is also one of the
//! key and of the row before, which are parts of the same row. Only rows that a rule concerns are rewritten, and then the
//! whole chunk is copied, so that no buffer keeps what was taken out.
//!
//! Invariant: a part that cannot be walked through is left out as a whole, never passed on as it came.

mod path;
mod rewrite;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use forebay_api::{Chunk, Invalid, Row, SchemaKey, Span, Subject};
use globset::GlobMatcher;
use hmac::{Hmac, KeyInit};
use sha2::Sha256;

pub use path::{NotAPath, Path};
use path::{Root, Step};
use rewrite::{Unreadable, rewrite};

/// What becomes of a field.
#[derive(Clone)]
pub enum Action {
    /// It is left out; an element of a list becomes `null`.
    Drop,
    /// It becomes `"***"`.
    Mask,
    /// It becomes its HMAC-SHA-256 in hex: what was equal stays equal, and cannot be read.
    Hash(Box<Hmac<Sha256>>),
    /// An IPv4 address loses its last byte, an IPv6 address all but the first six; anything else becomes `"***"`.
    TruncateIp,
}

impl Action {
    /// [`Action::Hash`] with this salt.
    pub fn hash(salt: &str) -> Action {
        Action::Hash(Box::new(Hmac::new_from_slice(salt.as_bytes()).expect("HMAC takes keys of any length")))
    }
}

/// The salt is secret.
impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Action::Drop => "Drop",
            Action::Mask => "Mask",
            Action::Hash(_) => "Hash",
            Action::TruncateIp => "TruncateIp",
        })
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which field.
    pub path: Path,
    /// What becomes of it.
    pub action: Action,
    /// Of events (below `$.contexts`: of entities) of these schemas; `None`: of all.
    pub schema: Option<GlobMatcher>,
}

/// All rules, in the order in which they are tried: the first that names a field decides.
#[derive(Clone, Debug, Default)]
pub struct Privacy {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// A rule as far as its path is still to be walked.
type Open<'r> = (&'r [Step], &'r Action);

impl Privacy {
    /// Applies the rules to a chunk that was not judged before: what comes out of a journal went through them on its way in.
    pub fn apply(&self, chunk: &mut Chunk) {
        if self.rules.is_empty() || chunk.judged.is_some() {
            return;
        }
        let of_subject: Vec<Vec<Open<'_>>> =
            chunk.subjects.iter().map(|subject| self.of_payload(subject)).collect();
        let of_contexts = self.rules.iter().any(|rule| rule.path.root == Root::Contexts);
        let concerned = |row: &Row| {
            !of_subject[usize::from(row.subject)].is_empty() || of_contexts && !row.contexts.is_empty()
        };
        if !chunk.rows.iter().any(concerned) {
            return;
        }
        let mut out = Vec::with_capacity(chunk.buf.len());
        let mut rows = Vec::with_capacity(chunk.rows.len());
        let mut left_out = Vec::new();
        for (index, row) in chunk.rows.iter().enumerate() {
            let part = |span: Span| &chunk.buf[span.at as usize..(span.at + span.len) as usize];
            let mut copy = |text: &[u8]| span(&mut out, |out| out.extend_from_slice(text));
            let (id, unchanged, extra) =
                (copy(part(row.id)), copy(part(row.unchanged)), copy(part(row.extra)));
            let rules = &of_subject[usize::from(row.subject)];
            let mut readable = true;
            let mut rewritten = |span_of: Span, rules: &[Open<'_>]| {
                let start = out.len();
                if rewrite(part(span_of), rules, &mut out).is_err() {
                    out.truncate(start);
                    readable = false;
                }
                since(&out, start)
            };
            let (key, before) = (rewritten(row.key, rules), rewritten(row.before, rules));
            let payload = rewritten(row.payload, rules);
            let start = out.len();
            if self.contexts(part(row.contexts), &mut out).is_err() {
                out.truncate(start);
                readable = false;
            }
            let contexts = since(&out, start);
            if !readable {
                left_out.push(u32::try_from(index).expect("a chunk has fewer rows than bytes"));
            }
            rows.push(Row { id, key, before, payload, unchanged, contexts, extra, ..*row });
        }
        chunk.rows = rows;
        chunk.buf = Bytes::from(out);
        for row in left_out {
            if !chunk.refused.iter().any(|(refused, _)| *refused == row) {
                chunk.refused.push((row, Box::new(unreadable())));
            }
        }
        chunk.refused.sort_by_key(|(row, _)| *row);
    }

    /// The rules for the payload of a subject's events.
    fn of_payload(&self, subject: &Arc<Subject>) -> Vec<Open<'_>> {
        let key = subject.schema_key();
        let rules = self.rules.iter().filter(|rule| rule.path.root == Root::Payload);
        rules.filter(|rule| rule.covers(&key)).map(|rule| (&rule.path.steps[..], &rule.action)).collect()
    }

    /// Copies entities, each with the rules for its own schema.
    fn contexts(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.path.root == Root::Contexts).collect();
        if text.is_empty() || rules.is_empty() {
            out.extend_from_slice(text);
            return Ok(());
        }
        rewrite::elements(text, out, |entity, out| {
            let named = rewrite::member(entity, "schema")?;
            let named: Option<Cow<'_, str>> = named.and_then(|text| serde_json::from_slice(text).ok());
            let key = named.as_deref().and_then(|named| named.parse::<SchemaKey>().ok());
            let key = key.as_ref().map_or("", SchemaKey::as_str);
            let open: Vec<Open<'_>> = rules
                .iter()
                .filter(|rule| rule.covers(key))
                .map(|rule| (&rule.path.steps[..], &rule.action))
                .collect();
            rewrite(entity, &open, out)
        })
    }
}

impl Rule {
    fn covers(&self, key: &str) -> bool {
        self.schema.as_ref().is_none_or(|glob| glob.is_match(key))
    }
}

fn unreadable() -> Invalid {
    Invalid {
        kind: "invalid_payload".to_owned(),
        message:
            "a part of the event is not JSON, so the privacy rules could not be applied; it was left out"
                .to_owned(),
        resolution: Some("send JSON".to_owned()),
        details: Vec::new(),
    }
}

fn span(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Span {
    let start = out.len();
    write(out);
    since(out, start)
}

fn since(out: &[u8], start: usize) -> Span {
    let fits = "nothing grows by more than a chunk may hold";
    Span { at: u32::try_from(start).expect(fits), len: u32::try_from(out.len() - start).expect(fits) }
}

#[cfg(test)]
mod tests;
