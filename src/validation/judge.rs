//! [`Judge`]: the verdict on each event of a chunk.
//!
//! Events of trackers are judged by the schema that they name, and each entity of their contexts by its own. Rows of
//! tables and messages of topics match their generated schema by construction; they are judged where a contract is
//! configured for them. What a source refused keeps its refusal, and what comes out of a journal was judged before.
//!
//! With all schemas at hand nothing here waits. Where one has to be fetched and its store is down, the judge waits, and
//! with it the source: back-pressure is better than a wrong verdict.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Chunk, Event, Fault, Invalid, Op, Report, SchemaKey, Subject, Verdict};
use futures::StreamExt;
use globset::GlobMatcher;
use prometheus_client::metrics::counter::Counter;
use tracing::{error, info, warn};

use super::cache::{Entry, SchemaCache};
use super::document::{Document, Malformed};
use super::embedded::ARBITRARY;
use super::failure::{self, Failures};
use super::node::Node;
use super::schema::{Loaded, Schema};

/// The line of `/status` that says what the stage waits for.
pub const WAITS: &str = "waits_for_schema";

/// Schemas that are fetched at the same time for one chunk.
const FETCHES: usize = 16;

/// Entities that one event may have.
const MAX_ENTITIES: usize = 256;

/// Of a value with more parts than this only the first failure is told: to find all takes memory for each.
const LARGE: usize = 10_000;

/// The wait before the registry is asked again, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What is done with an event whose schema no store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// It is invalid.
    #[default]
    Invalid,
    /// It passes for valid.
    Pass,
}

/// Rows or messages that are judged beyond what their source promises.
#[derive(Clone, Debug)]
pub struct Contract {
    /// Of these sources; empty: of all.
    pub sources: Vec<String>,
    /// Of these tables, `table` or `schema.table`, or topics; empty: of all.
    pub tables: Vec<GlobMatcher>,
    /// By this schema; `None`: by the one that they name.
    pub schema: Option<SchemaKey>,
}

/// What is judged, and how.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Of events whose schema is not known.
    pub unknown: Unknown,
    /// The first that matches is used.
    pub contracts: Vec<Contract>,
}

/// Judges the events of one source.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The source's name.
    pub source: Arc<str>,
    /// Where schemas are.
    pub schemas: Arc<SchemaCache>,
    /// What is judged.
    pub rules: Arc<Rules>,
    /// Events that are invalid.
    pub invalid: Counter,
}

/// What was found while a chunk is judged: it holds for the whole of it.
type Found = HashMap<String, Arc<Entry>>;

/// Keys that have to be fetched first.
type Missing = Vec<SchemaKey>;

/// What rows of a subject are judged by.
enum By {
    /// Nothing: they are valid.
    Nothing,
    /// A schema, by its key; where the text is no key, the event cannot be judged.
    Key(String),
}

impl Judge {
    /// With the schemas that come with Forebay, and without contracts.
    pub fn plain(source: &str) -> Judge {
        Judge {
            source: source.into(),
            schemas: Arc::new(SchemaCache::embedded()),
            rules: Arc::default(),
            invalid: Counter::default(),
        }
    }

    /// The verdict on each row, or none where all are valid. Waits while the registry is down.
    pub async fn judge(&self, chunk: &mut Chunk, report: &Report) -> Vec<Verdict> {
        if let Some(judged) = chunk.judged.take() {
            return judged;
        }
        let rows = chunk.rows.len();
        let mut verdicts: Vec<Verdict> = Vec::new();
        let mut refused = vec![false; if chunk.refused.is_empty() { 0 } else { rows }];
        for (row, why) in chunk.refused.drain(..) {
            verdicts.resize(rows, Verdict::Valid);
            verdicts[row as usize] = Verdict::Invalid(why);
            refused[row as usize] = true;
        }
        let by: Vec<(By, bool)> = chunk.subjects.iter().map(|subject| self.by(subject)).collect();
        let needs = |row: usize| {
            let op = chunk.rows[row].op;
            let (by, contract) = &by[usize::from(chunk.rows[row].subject)];
            let judged = op == Op::Track
                || *contract && matches!(op, Op::Snapshot | Op::Insert | Op::Update | Op::Message);
            (judged && !refused.get(row).is_some_and(|refused| *refused)).then_some(by)
        };
        let mut open: Vec<usize> = (0..rows).filter(|row| needs(*row).is_some()).collect();
        let mut found = Found::new();
        while !open.is_empty() {
            let mut missing = Missing::new();
            let mut left = Vec::new();
            {
                let mut document = Document::default();
                for row in open {
                    let Some(by) = needs(row) else { continue };
                    let before = missing.len();
                    let event = chunk.event(row);
                    match self.event(event, by, &mut document, (&mut found, &mut missing)) {
                        _ if missing.len() > before => left.push(row),
                        None => {}
                        Some(why) => {
                            verdicts.resize(rows, Verdict::Valid);
                            verdicts[row] = Verdict::Invalid(why);
                        }
                    }
                }
            }
            open = left;
            missing.sort_unstable();
            missing.dedup();
            let fetched = futures::stream::iter(missing).map(|key| async move {
                let entry = self.fetched(&key, report).await;
                (key.as_str().to_owned(), entry)
            });
            found.extend(fetched.buffer_unordered(FETCHES).collect::<Vec<_>>().await);
        }
        let invalid = verdicts.iter().filter(|verdict| !verdict.is_valid()).count();
        self.invalid.inc_by(invalid as u64);
        verdicts
    }

    /// What a subject's rows are judged by, and whether a contract says so.
    fn by(&self, subject: &Subject) -> (By, bool) {
        let contract = self.rules.contracts.iter().find(|contract| contract.covers(&self.source, subject));
        match contract {
            Some(Contract { schema: Some(key), .. }) => (By::Key(key.as_str().to_owned()), true),
            Some(_) => (By::Key(subject.schema_key()), true),
            None if subject.schema_key() == ARBITRARY => (By::Nothing, false),
            None => (By::Key(subject.schema_key()), false),
        }
    }

    /// Why an event is invalid. Of no meaning when keys were missing.
    fn event<'b>(
        &self,
        event: Event<'b>,
        by: &By,
        document: &mut Document<'b>,
        (found, missing): (&mut Found, &mut Missing),
    ) -> Option<Box<Invalid>> {
        let payload = match by {
            By::Nothing => None,
            By::Key(key) => self.payload(event, key, document, (found, missing)),
        };
        let entities = self.entities(event, document, (found, missing));
        match (payload, entities) {
            (Some(mut first), Some(second)) => {
                let room = failure::MAX_DETAILS.saturating_sub(first.details.len());
                first.details.extend(second.details.into_iter().take(room));
                first.message = format!("{}; {}", first.message, second.message);
                Some(first)
            }
            (first, second) => first.or(second),
        }
    }

    fn payload<'b>(
        &self,
        event: Event<'b>,
        key: &str,
        document: &mut Document<'b>,
        (found, missing): (&mut Found, &mut Missing),
    ) -> Option<Box<Invalid>> {
        let schema = match self.schema("the event", key, (found, missing)) {
            Ok(schema) => schema?,
            Err(why) => return Some(why),
        };
        if let Err(why) = document.read(event.payload()) {
            return Some(malformed("invalid_payload", "the payload", "", &why));
        }
        let failures = failures(&schema, Node::root(&document.items), "", event.unchanged())?;
        let what = format!("the payload does not obey `{}`", schema.key);
        let resolution =
            format!("send what the schema `{}` asks for, or register another version of it", schema.key);
        Some(failures.invalid("invalid_payload", &what, resolution))
    }

    fn entities<'b>(
        &self,
        event: Event<'b>,
        document: &mut Document<'b>,
        (found, missing): (&mut Found, &mut Missing),
    ) -> Option<Box<Invalid>> {
        use jsonschema::json::{Array, Node as _};
        if event.contexts().is_empty() {
            return None;
        }
        let wrong = |message: &str| {
            let mut failures = Failures::default();
            failures.add_plain("/contexts", message);
            Some(failures.invalid("invalid_context", "the contexts cannot be read", SHAPE.to_owned()))
        };
        if let Err(why) = document.read(event.contexts()) {
            return Some(malformed("invalid_context", "the contexts", "/contexts", &why));
        }
        let Some(array) = Node::root(&document.items).as_array() else {
            return wrong("it is not an array");
        };
        if Array::len(&array) > MAX_ENTITIES {
            return wrong(&format!("it has more than {MAX_ENTITIES} entities"));
        }
        let mut first: Option<Box<Invalid>> = None;
        for (index, entity) in array.elements().enumerate() {
            let Some(why) = self.entity(index, entity, (found, missing)) else { continue };
            match &mut first {
                None => first = Some(why),
                Some(first) => {
                    let room = failure::MAX_DETAILS.saturating_sub(first.details.len());
                    first.details.extend(why.details.into_iter().take(room));
                }
            }
        }
        first
    }

    fn entity(
        &self,
        index: usize,
        entity: Node<'_>,
        (found, missing): (&mut Found, &mut Missing),
    ) -> Option<Box<Invalid>> {
        use jsonschema::json::Node as _;
        let what = format!("entity {index} of the contexts");
        let named = entity.member("schema").and_then(|schema| schema.as_string());
        let (Some(key), Some(data)) = (named, entity.member("data")) else {
            let mut failures = Failures::default();
            failures.add_plain(&format!("/contexts/{index}"), "it has no `schema` and `data`");
            return Some(failures.invalid("invalid_context", &what, SHAPE.to_owned()));
        };
        let schema = match self.schema(&what, &key, (found, missing)) {
            Ok(schema) => schema?,
            Err(mut why) => {
                why.details.push(forebay_api::InvalidDetail {
                    path: format!("/contexts/{index}/schema"),
                    keyword: String::new(),
                    message: why.message.clone(),
                });
                return Some(why);
            }
        };
        let failures = failures(&schema, data, &format!("/contexts/{index}/data"), &[])?;
        let what = format!("{what} does not obey `{}`", schema.key);
        let resolution =
            format!("send what the schema `{}` asks for, or register another version of it", schema.key);
        Some(failures.invalid("invalid_context", &what, resolution))
    }

    /// The schema under a key; `None` where there is nothing to judge by, or not yet.
    fn schema(
        &self,
        what: &str,
        key: &str,
        (found, missing): (&mut Found, &mut Missing),
    ) -> Result<Option<Arc<Schema>>, Box<Invalid>> {
        // `iglu:…` and the plain form are one schema.
        let plain = key.strip_prefix("iglu:").and_then(|_| key.parse::<SchemaKey>().ok());
        let name = plain.as_ref().map_or(key, SchemaKey::as_str);
        let at_hand = found.get(name).cloned().or_else(|| {
            let entry = self.schemas.at_hand(name)?;
            found.insert(name.to_owned(), entry.clone());
            Some(entry)
        });
        let Some(entry) = at_hand else {
            let parsed = name.parse::<SchemaKey>().map_err(|error| {
                let message = format!("{what} names no schema: {error}");
                failure::plain("schema_not_found", message, "name the schema by its key in the registry")
            })?;
            if parsed.as_str() == name {
                missing.push(parsed);
                return Ok(None);
            }
            return self.schema(what, parsed.as_str(), (found, missing));
        };
        match &entry.loaded {
            Loaded::Schema(schema) => Ok(Some(schema.clone())),
            Loaded::NotThere if self.rules.unknown == Unknown::Pass => Ok(None),
            Loaded::NotThere => Err(failure::not_found(what, key)),
            Loaded::Broken(why) => match key.parse() {
                Ok(key) => Err(failure::broken(what, &key, why)),
                Err(_) => Err(failure::not_found(what, key)),
            },
        }
    }

    /// Waits for a schema for as long as it takes.
    async fn fetched(&self, key: &SchemaKey, report: &Report) -> Arc<Entry> {
        let mut wait = FIRST_WAIT;
        let mut told = false;
        loop {
            let mut fetching = std::pin::pin!(self.schemas.get(key));
            let fetched = loop {
                match tokio::time::timeout(crate::lane::TURN, fetching.as_mut()).await {
                    Ok(fetched) => break fetched,
                    Err(_) => report.turned(),
                }
            };
            let fault = match fetched {
                Ok(entry) => {
                    if told {
                        report.forget(WAITS);
                        info!(source = %self.source, schema = %key, "the registry answers again");
                    }
                    return entry;
                }
                Err(fault) => fault,
            };
            report.detail(WAITS, format!("`{key}`: {fault}"));
            if !told {
                self.tell(key, &fault);
            }
            told = true;
            tokio::time::sleep(wait).await;
            report.turned();
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn tell(&self, key: &SchemaKey, fault: &Fault) {
        let (source, remedy) = (&self.source, fault.remedy());
        if fault.is_retryable() {
            warn!(%source, schema = %key, error = %fault, remedy, "the registry cannot be asked for a schema that was never seen; events wait for it");
        } else {
            error!(%source, schema = %key, error = %fault, remedy, "the registry cannot be asked for a schema that was never seen; events wait until somebody acts");
        }
    }
}

/// What contexts look like.
const SHAPE: &str = "send an array of `{\"schema\": \"vendor/name/1-0-0\", \"data\": {…}}`";

impl Contract {
    fn covers(&self, source: &str, subject: &Subject) -> bool {
        let Some(table) = subject.table.as_deref() else { return false };
        let full = format!("{}.{table}", subject.schema.as_deref().unwrap_or_default());
        (self.sources.is_empty() || self.sources.iter().any(|name| name == source))
            && (self.tables.is_empty()
                || self.tables.iter().any(|glob| glob.is_match(table) || glob.is_match(&full)))
    }
}

/// What of a value its schema does not allow; `None`: nothing. Columns that the database did not send are not missing.
fn failures(schema: &Schema, node: Node<'_>, prefix: &str, unchanged: &[u8]) -> Option<Failures> {
    if schema.validator.is_valid(node) {
        return None;
    }
    let mut failures = Failures::default();
    if node.size() > LARGE {
        let error = schema.validator.validate(node).err()?;
        failures.add(prefix, &error);
        failures.add_plain(prefix, "the value is large: only its first failure is told");
        return Some(failures);
    }
    let unchanged: Vec<String> = match unchanged {
        [] => Vec::new(),
        columns => serde_json::from_slice(columns).unwrap_or_default(),
    };
    for error in schema.validator.iter_errors(node) {
        let absent = match error.kind() {
            jsonschema::error::ValidationErrorKind::Required { property } => {
                error.instance_path().is_empty()
                    && property.as_str().is_some_and(|name| unchanged.iter().any(|column| column == name))
            }
            _ => false,
        };
        if !absent {
            failures.add(prefix, &error);
        }
    }
    (!failures.details.is_empty()).then_some(failures)
}

fn malformed(kind: &str, what: &str, path: &str, why: &Malformed) -> Box<Invalid> {
    let mut failures = Failures::default();
    failures.add_plain(path, &why.to_string());
    failures.invalid(
        kind,
        &format!("{what} cannot be read"),
        "send JSON that every reader reads alike".to_owned(),
    )
}
