//! [`Shapes`]: makes of a relation a [`Shape`], ready for the reader and the copy, under a version of its JSON Schema.
//!
//! ```text
//!  relation of the stream ─▶ is it the table as the catalogs have it now?
//!     yes ─▶ outline of both together ─▶ the version that has this schema, else a new one
//!     no, it is of an older part of the log ─▶ the newest version that is of such a relation,
//!         else as above, with what the catalogs still know
//! ```
//! So reading old parts of the log again makes no new versions, and going back to a former shape takes its version. A
//! row that does not fit says that the catalogs have changed without a word in the stream: [`Shapes::relearn`].

mod change;
mod facts;
mod history;
mod making;
mod outline;
mod schema;
mod table;

use std::sync::Arc;

use forebay_api::{Blame, Fault, SchemaVersion, Schemas, Subject, json};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::config::Plan;
use super::fault;
use crate::connect::Sql;
use crate::decode::row::{Columns, RowError};
use crate::decode::types::TypeCatalog;
use crate::protocol::{self, Message, Relation};
use facts::{Facts, message_of};
use history::{History, Place};
use making::{Candidate, Making};
use outline::OutlineError;
pub(super) use table::of_table;

/// What the schema of logical messages is called.
const MESSAGES: &str = "pg_logical_message";

/// A relation whose rows are written, or passed over.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// What its events are about, with the version of their schema.
    pub subject: Arc<Subject>,
    /// How its rows are written.
    pub columns: Columns,
    /// Whether its rows are wanted at all: a publication may hold more than the configuration does. Of what is not
    /// wanted there is no schema.
    pub wanted: bool,
    /// The JSON Schema that payloads obey.
    pub schema: Arc<str>,
    /// Whether no `schema` event of it is known to be durable, so that one belongs before its first row.
    pub announce: bool,
    /// Names the schema and its version, the same in every run: what the id of its `schema` event is made of.
    pub fingerprint: String,
    version: SchemaVersion,
    /// The relation that it was made of.
    message: Arc<[u8]>,
}

impl Shape {
    /// One that was never looked up.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn for_tests(subject: Arc<Subject>, columns: Columns, wanted: bool) -> Shape {
        Shape {
            subject,
            columns,
            wanted,
            schema: "{}".into(),
            announce: false,
            fingerprint: String::new(),
            version: SchemaVersion::FIRST,
            message: Arc::default(),
        }
    }
}

/// Makes shapes for one run, for the stream and the copy alike.
pub(super) struct Shapes {
    plan: Arc<Plan>,
    sql: Arc<Sql>,
    publications: Vec<String>,
    schemas: Arc<dyn Schemas>,
    /// What is known of types. Whoever holds it makes a shape, because each version must be given only once; held
    /// while the server and the disk are asked.
    types: Mutex<TypeCatalog>,
}

impl Shapes {
    /// The shapes of what these publications publish.
    pub(super) fn new(
        plan: Arc<Plan>,
        sql: Arc<Sql>,
        publications: Vec<String>,
        schemas: Arc<dyn Schemas>,
    ) -> Shapes {
        let types = Mutex::new(TypeCatalog::new(plan.config.values));
        Shapes { plan, sql, publications, schemas, types }
    }

    /// The shape of a relation of the stream.
    pub(super) async fn of(&self, relation: &Relation<'_>) -> Result<Shape, Fault> {
        let mut types = self.types.lock().await;
        let facts = self.facts(relation.id).await?;
        self.shape(relation, facts.as_ref(), &mut types).await
    }

    /// The shape of a table as it is now: the one that the stream would give it. `None`: there is no table of this oid.
    pub(super) async fn at_present(&self, table: u32) -> Result<Option<Shape>, Fault> {
        let mut types = self.types.lock().await;
        let Some(facts) = self.facts(table).await? else { return Ok(None) };
        let message = facts.message();
        self.shape(&relation_in(&message), Some(&facts), &mut types).await.map(Some)
    }

    /// The shape under which a row can be written that gave a [stale](RowError::is_stale) error under this one: it has a
    /// label or a NULL that the catalogs had not when they were asked, or have no more. `fits` tries to write the row,
    /// and leaves nothing behind.
    pub(super) async fn relearn(
        &self,
        shape: &Shape,
        fits: impl FnMut(&Columns) -> Result<(), RowError>,
    ) -> Result<Shape, Fault> {
        let relation = relation_in(&shape.message);
        let name = qualified(&relation);
        let mut types = self.types.lock().await;
        let facts = self.facts(relation.id).await?;
        self.load(&relation, &mut types).await?;
        let history = self.history(&name).await?;
        let making = Making {
            plan: &self.plan,
            name: &name,
            relation: &relation,
            facts: facts.as_ref(),
            types: &types,
            history: &history,
        };
        let candidate = making.fitting(fits)?;
        self.place(&relation, history, candidate).await
    }

    /// Remembers that a `schema` event of this shape is durable.
    pub(super) async fn announced(&self, shape: &Shape) -> Result<(), Fault> {
        let _turn = self.types.lock().await;
        let mut history = self.history(&shape.subject.name).await?;
        if history.announce(shape.version) {
            self.schemas.keep(&self.plan.vendor, &shape.subject.name, &history.kept()).await?;
        }
        Ok(())
    }

    /// The shape of logical messages, which are about no table.
    pub(super) async fn messages(&self) -> Result<Shape, Fault> {
        let _turn = self.types.lock().await;
        let schema = schema::of_messages();
        let mut history = self.history(MESSAGES).await?;
        let place = self.keep(&mut history, MESSAGES, (&schema, String::new())).await?;
        let subject = message_subject(&self.plan, &place.version.to_string());
        Ok(placed(place, subject, Columns::default(), Arc::default()))
    }

    async fn shape(
        &self,
        relation: &Relation<'_>,
        facts: Option<&Facts>,
        types: &mut TypeCatalog,
    ) -> Result<Shape, Fault> {
        let name = qualified(relation);
        self.load(relation, types).await?;
        let history = self.history(&name).await?;
        let making = Making { plan: &self.plan, name: &name, relation, facts, types, history: &history };
        match making.shape()? {
            Some(candidate) => self.place(relation, history, candidate).await,
            None => Ok(self.unwanted(relation, types)),
        }
    }

    async fn facts(&self, table: u32) -> Result<Option<Facts>, Fault> {
        let found = Facts::of(&self.sql, table, &self.publications).await;
        found.map_err(|error| fault::sql(format!("looking at the table of oid {table}"), error))
    }

    async fn history(&self, name: &str) -> Result<History, Fault> {
        let kept = self.schemas.versions(&self.plan.vendor, name).await?;
        History::read(kept).map_err(|error| unreadable(name, error))
    }

    /// Asks for the relation's types, also for those that are known: labels come without a word in the stream.
    async fn load(&self, relation: &Relation<'_>, types: &mut TypeCatalog) -> Result<(), Fault> {
        let oids: Vec<u32> = relation.columns().map(|column| column.type_oid).collect();
        let loaded = types.load(&self.sql, &oids).await;
        loaded
            .map_err(|error| fault::sql(format!("looking at the types of `{}`", qualified(relation)), error))
    }

    async fn place(
        &self,
        relation: &Relation<'_>,
        mut history: History,
        candidate: Candidate,
    ) -> Result<Shape, Fault> {
        let Candidate { outline, columns, schema } = candidate;
        let place = self.keep(&mut history, &qualified(relation), (&schema, outline.text())).await?;
        let subject = table_subject(&self.plan, relation, &place.version.to_string());
        Ok(placed(place, subject, columns, message_of(relation).into()))
    }

    /// Gives a schema its place among the versions, and stores what has changed.
    async fn keep(
        &self,
        history: &mut History,
        name: &str,
        (schema, shape): (&Value, String),
    ) -> Result<Place, Fault> {
        let (source, vendor) = (&self.plan.source, &self.plan.vendor);
        let place = history.place(vendor, name, schema, shape);
        if place.changed {
            self.schemas.keep(vendor, name, &history.kept()).await?;
        }
        if place.new {
            info!(source = %source, schema = %name, version = %place.version, "a new version of the schema");
        }
        if let Some(forgotten) = place.forgotten {
            warn!(source = %source, schema = %name, version = %forgotten, kept = history::MAX_VERSIONS, "the oldest version of the schema is not kept any more, because there are so many");
        }
        Ok(place)
    }

    /// A shape that nothing is written in.
    fn unwanted(&self, relation: &Relation<'_>, types: &TypeCatalog) -> Shape {
        let version = SchemaVersion::FIRST;
        Shape {
            subject: Arc::new(table_subject(&self.plan, relation, &version.to_string())),
            columns: Columns::new(relation, types),
            wanted: false,
            schema: Arc::default(),
            announce: false,
            fingerprint: String::new(),
            version,
            message: message_of(relation).into(),
        }
    }
}

/// A shape at its place.
fn placed(place: Place, subject: Subject, columns: Columns, message: Arc<[u8]>) -> Shape {
    let Place { version, schema, announced, .. } = place;
    let mut hash = Sha256::new();
    hash.update(subject.schema_key());
    hash.update([0]);
    hash.update(&schema);
    let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let (subject, schema) = (Arc::new(subject), schema.into());
    Shape { subject, columns, wanted: true, schema, announce: !announced, fingerprint, version, message }
}

/// What events of a table are about.
fn table_subject(plan: &Plan, relation: &Relation<'_>, version: &str) -> Subject {
    let (schema, table) = (schema_of(relation), relation.name);
    let mut source = source_members(plan);
    source.extend_from_slice(b",\"schema\":");
    json::write_string(schema, &mut source);
    source.extend_from_slice(b",\"table\":");
    json::write_string(table, &mut source);
    let source = String::from_utf8(source).expect("JSON of strings is a string");
    let key = (plan.vendor.as_str(), &*qualified(relation), version);
    Subject::new(key, (Some(&plan.url.database), Some(schema), Some(table)), source)
}

/// What logical messages are about: no table.
fn message_subject(plan: &Plan, version: &str) -> Subject {
    let source = String::from_utf8(source_members(plan)).expect("JSON of strings is a string");
    let key = (plan.vendor.as_str(), MESSAGES, version);
    Subject::new(key, (Some(&plan.url.database), None, None), source)
}

fn source_members(plan: &Plan) -> Vec<u8> {
    let mut source = b"\"type\":\"postgres\",\"name\":".to_vec();
    json::write_string(&plan.source, &mut source);
    source.extend_from_slice(b",\"database\":");
    json::write_string(&plan.url.database, &mut source);
    source
}

/// The stream leaves the schema of the server's own tables away.
fn schema_of<'a>(relation: &Relation<'a>) -> &'a str {
    if relation.namespace.is_empty() { "pg_catalog" } else { relation.namespace }
}

fn qualified(relation: &Relation<'_>) -> String {
    format!("{}.{}", schema_of(relation), relation.name)
}

/// The relation in a message that was written here.
fn relation_in(message: &[u8]) -> Relation<'_> {
    match protocol::message(message) {
        Ok(Message::Relation(relation)) => relation,
        other => unreachable!("a relation was written and {other:?} read"),
    }
}

fn unreadable(name: &str, error: OutlineError) -> Fault {
    Fault::fatal(format!("reading the kept schemas of `{name}`"), Blame::Outside, error)
        .with_remedy("run the Forebay that stored them, or a newer one")
}
