//! How a connector is found by its configuration: typed where it is written, erased where the core uses it.
//!
//! No link-time magic: `src/connectors.rs` of the daemon names every connector once and registers it.
//! Building is pure: it validates and keeps; only [`crate::Destination::open`], [`crate::Source::run`] and `check`
//! touch the network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::destination::Destination;
use crate::fault::{Blame, Fault};
use crate::journal::{Journal, JournalConnector, JournalSetting};
use crate::mark::Position;
use crate::schema_store::{SchemaStore, SchemaStoreConnector, SchemaStoreEntry, SchemaStoreSetting};
use crate::source::Source;
use crate::units::ByteSize;

/// What the core tells a source about its place in the configuration.
#[derive(Clone, Debug)]
pub struct SourceSetting {
    /// Its key under `sources`.
    pub name: String,
    /// `vendor` of the schemas of its events.
    pub vendor: String,
    /// `run --dry-run`: leave nothing behind on the server (temporary slot and publication), confirm nothing.
    pub dry_run: bool,
}

/// What the core tells a destination about its place in the configuration.
#[derive(Clone, Debug)]
pub struct DestinationSetting {
    /// Its key under `destinations`.
    pub name: String,
    /// The output format of its records: `forebay`, `debezium`, `cloudevents`, `buz`.
    pub format: String,
    /// Where it may keep state of its own, in a folder named after itself.
    pub data_dir: PathBuf,
    /// The names of all sources, for templates.
    pub sources: Vec<String>,
}

/// Something in a connector's configuration that is wrong in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// JSON pointer inside the connector's mapping: `/topic`. Empty: the whole of it.
    pub at: String,
    /// What is wrong: lowercase, names in backticks.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// One thing that `forebay check` looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked at, as a fact: "`wal_level` is `logical`", "`wal_level` is `replica`".
    pub fact: String,
    /// What is wrong with it, when something is.
    pub trouble: Option<Trouble>,
}

/// Why a [`Finding`] is not good, and what mends it.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Who must act; decides the exit code of `check`. `None`: worth knowing, but it will run.
    pub blame: Option<Blame>,
    /// The statement or setting that mends it.
    pub remedy: String,
}

impl Finding {
    /// A good one.
    pub fn good(fact: impl Into<String>) -> Finding {
        Finding { fact: fact.into(), trouble: None }
    }

    /// One that keeps the daemon from running.
    pub fn bad(fact: impl Into<String>, blame: Blame, remedy: impl Into<String>) -> Finding {
        Finding { fact: fact.into(), trouble: Some(Trouble { blame: Some(blame), remedy: remedy.into() }) }
    }

    /// One worth knowing.
    pub fn warning(fact: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { fact: fact.into(), trouble: Some(Trouble { blame: None, remedy: remedy.into() }) }
    }

    /// What a fault says, as a finding.
    pub fn fault(fault: &Fault) -> Finding {
        let blame = match fault {
            Fault::Retryable { .. } => Blame::Outside,
            Fault::Fatal { blame, .. } => *blame,
        };
        Finding::bad(
            fault.to_string(),
            blame,
            fault.remedy().unwrap_or("mend the cause and run `forebay check` again"),
        )
    }
}

/// A configuration for what is found at a URL, for `forebay init`.
#[derive(Clone, Debug)]
pub struct Initial {
    /// A name for the source.
    pub name: String,
    /// Its keys as YAML with comments, `type` among them, not indented, and without secrets.
    pub yaml: String,
    /// What whoever runs it should know or do, each in lines of its own: a variable to set, a statement to run.
    pub notes: Vec<String>,
}

/// A kind of source.
#[async_trait]
pub trait SourceConnector: Send + 'static {
    /// The word in `type:`.
    const TYPE: &'static str;
    /// One line for `forebay list`.
    const ABOUT: &'static str;
    /// Memory that its client takes for itself once it runs: queues and buffers of its own, threads. Measured; it is left
    /// out of what `limits.memory` allows for events.
    const CLIENT_MEMORY: ByteSize = ByteSize::mib(0);
    /// Its own keys, beside those that every source has. Refuses unknown fields.
    type Config: DeserializeOwned + JsonSchema + Send;

    /// Validates what the type system cannot. No I/O.
    fn build(config: Self::Config, setting: &SourceSetting) -> Result<Box<dyn Source>, Vec<Mistake>>;

    /// Connects and looks at everything that could keep it from running. Changes nothing on the server.
    async fn check(config: Self::Config, setting: &SourceSetting) -> Vec<Finding>;

    /// Reads a position that an operator wrote (`forebay checkpoint set`): in the form that its [`Position`]s are shown
    /// in, or in a short one that takes the rest from what is stored now. The error says which forms there are.
    fn position(text: &str, stored: Option<&Position>) -> Result<Position, String>;

    /// Writes a configuration for what is at `url`, where it only reads; without one, a template. `None`: the URL is of
    /// another kind.
    async fn init(url: Option<&str>) -> Result<Option<Initial>, Fault> {
        let _ = url;
        Ok(None)
    }

    /// The JSON Schema that is generated for a table as it is now, as `forebay schema table` prints it.
    async fn schema(config: Self::Config, setting: &SourceSetting, table: &str) -> Result<Value, Fault> {
        let _ = (config, setting, table);
        let error = format!("a source of type `{}` generates no schemas", Self::TYPE);
        Err(Fault::fatal("generating a schema", Blame::Configuration, error))
    }
}

/// A kind of destination.
#[async_trait]
pub trait DestinationConnector: 'static {
    /// The word in `type:`.
    const TYPE: &'static str;
    /// One line for `forebay list`.
    const ABOUT: &'static str;
    /// Its keys in a new configuration, as YAML with comments, `type` among them, not indented, and without secrets; for
    /// `forebay init`. Empty: it is not proposed.
    const EXAMPLE: &'static str = "";
    /// Memory that its client takes for itself; see [`SourceConnector::CLIENT_MEMORY`].
    const CLIENT_MEMORY: ByteSize = ByteSize::mib(0);
    /// Its own keys, beside those that every destination has. Refuses unknown fields.
    type Config: DeserializeOwned + JsonSchema + Send;

    /// Validates what the type system cannot. No I/O.
    fn build(
        config: Self::Config,
        setting: &DestinationSetting,
    ) -> Result<Arc<dyn Destination>, Vec<Mistake>>;

    /// Connects and looks at everything that could keep it from running. Changes nothing at the other end.
    async fn check(config: Self::Config, setting: &DestinationSetting) -> Vec<Finding>;

    /// Schemas kept where the destination is: in its database, among its topics.
    fn schema_store(
        config: Self::Config,
        setting: &SchemaStoreSetting,
    ) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let _ = (config, setting);
        Err(vec![Mistake {
            at: String::new(),
            message: format!("a destination of type `{}` keeps no schemas", Self::TYPE),
            help: Some("name another destination, or a registry of its own".to_owned()),
        }])
    }
}

/// Every connector of this build, by its type.
#[derive(Default)]
pub struct Registry {
    sources: BTreeMap<&'static str, SourceEntry>,
    destinations: BTreeMap<&'static str, DestinationEntry>,
    journals: BTreeMap<&'static str, JournalEntry>,
    schema_stores: BTreeMap<&'static str, SchemaStoreEntry>,
}

/// What a connector builds, or all that is wrong with its configuration.
type Built<T> = Result<T, Vec<Mistake>>;

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a connector writes for `forebay init`.
pub type Written = Result<Option<Initial>, Fault>;

/// A source connector with its types erased.
pub struct SourceEntry {
    /// One line for `forebay list`.
    pub about: &'static str,
    /// See [`SourceConnector::CLIENT_MEMORY`].
    pub client_memory: ByteSize,
    /// The schema of its own keys.
    pub schema: Schema,
    /// See [`SourceConnector::build`].
    pub build: fn(Value, &SourceSetting) -> Built<Box<dyn Source>>,
    /// See [`SourceConnector::check`].
    pub check: for<'a> fn(Value, &'a SourceSetting) -> BoxFuture<'a, Vec<Finding>>,
    /// See [`SourceConnector::position`].
    pub position: fn(&str, Option<&Position>) -> Result<Position, String>,
    /// See [`SourceConnector::init`].
    pub init: for<'a> fn(Option<&'a str>) -> BoxFuture<'a, Written>,
    /// See [`SourceConnector::schema`].
    pub schema_of: for<'a> fn(Value, &'a SourceSetting, &'a str) -> BoxFuture<'a, Result<Value, Fault>>,
}

/// A destination connector with its types erased.
pub struct DestinationEntry {
    /// One line for `forebay list`.
    pub about: &'static str,
    /// See [`DestinationConnector::CLIENT_MEMORY`].
    pub client_memory: ByteSize,
    /// See [`DestinationConnector::EXAMPLE`].
    pub example: &'static str,
    /// The schema of its own keys.
    pub schema: Schema,
    /// See [`DestinationConnector::build`].
    pub build: fn(Value, &DestinationSetting) -> Built<Arc<dyn Destination>>,
    /// See [`DestinationConnector::check`].
    pub check: for<'a> fn(Value, &'a DestinationSetting) -> BoxFuture<'a, Vec<Finding>>,
    /// See [`DestinationConnector::schema_store`].
    pub schema_store: fn(Value, &SchemaStoreSetting) -> Built<Arc<dyn SchemaStore>>,
}

/// The positions of a journal's readers that the core has stored, by their names.
pub type Stored = BTreeMap<String, Position>;

/// A journal connector with its types erased.
pub struct JournalEntry {
    /// One line for `forebay list`.
    pub about: &'static str,
    /// See [`JournalConnector::CLIENT_MEMORY`].
    pub client_memory: ByteSize,
    /// The schema of its own keys.
    pub schema: Schema,
    /// See [`JournalConnector::build`].
    pub build: fn(Value, &JournalSetting) -> Built<Arc<dyn Journal>>,
    /// See [`JournalConnector::check`].
    pub check: for<'a> fn(Value, &'a JournalSetting) -> BoxFuture<'a, Vec<Finding>>,
    /// See [`JournalConnector::left_behind`].
    pub left_behind: fn(&JournalSetting, &Stored) -> Result<Option<String>, Fault>,
    /// See [`JournalConnector::discard`].
    pub discard: fn(&JournalSetting) -> Result<bool, Fault>,
    /// See [`JournalConnector::salvage`].
    pub salvage: fn(&JournalSetting) -> Result<Vec<String>, Fault>,
}

impl Registry {
    /// Adds a kind of source.
    pub fn source<C: SourceConnector>(&mut self) {
        let entry = SourceEntry {
            about: C::ABOUT,
            client_memory: C::CLIENT_MEMORY,
            schema: schemars::schema_for!(C::Config),
            build: |value, setting| C::build(decode(value)?, setting),
            check: |value, setting| {
                Box::pin(async move {
                    match decode(value) {
                        Ok(config) => C::check(config, setting).await,
                        Err(mistakes) => mistakes.into_iter().map(mistaken).collect(),
                    }
                })
            },
            position: C::position,
            init: |url| C::init(url),
            schema_of: |value, setting, table| {
                Box::pin(async move {
                    let config = decode(value).map_err(|mistakes| {
                        let all: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
                        Fault::fatal(
                            "reading the source's configuration",
                            Blame::Configuration,
                            all.join("; "),
                        )
                    })?;
                    C::schema(config, setting, table).await
                })
            },
        };
        let known = self.sources.insert(C::TYPE, entry);
        assert!(known.is_none(), "two sources of type `{}`", C::TYPE);
    }

    /// Adds a kind of destination.
    pub fn destination<C: DestinationConnector>(&mut self) {
        let entry = DestinationEntry {
            about: C::ABOUT,
            client_memory: C::CLIENT_MEMORY,
            example: C::EXAMPLE,
            schema: schemars::schema_for!(C::Config),
            build: |value, setting| C::build(decode(value)?, setting),
            check: |value, setting| {
                Box::pin(async move {
                    match decode(value) {
                        Ok(config) => C::check(config, setting).await,
                        Err(mistakes) => mistakes.into_iter().map(mistaken).collect(),
                    }
                })
            },
            schema_store: |value, setting| C::schema_store(decode(value)?, setting),
        };
        let known = self.destinations.insert(C::TYPE, entry);
        assert!(known.is_none(), "two destinations of type `{}`", C::TYPE);
    }

    /// Adds a kind of journal.
    pub fn journal<C: JournalConnector>(&mut self) {
        let entry = JournalEntry {
            about: C::ABOUT,
            client_memory: C::CLIENT_MEMORY,
            schema: schemars::schema_for!(C::Config),
            build: |value, setting| C::build(decode(value)?, setting),
            check: |value, setting| {
                Box::pin(async move {
                    match decode(value) {
                        Ok(config) => C::check(config, setting).await,
                        Err(mistakes) => mistakes.into_iter().map(mistaken).collect(),
                    }
                })
            },
            left_behind: C::left_behind,
            discard: C::discard,
            salvage: C::salvage,
        };
        let known = self.journals.insert(C::TYPE, entry);
        assert!(known.is_none(), "two journals of type `{}`", C::TYPE);
    }

    /// Adds a kind of schema store.
    pub fn schema_store<C: SchemaStoreConnector>(&mut self) {
        let entry = SchemaStoreEntry {
            about: C::ABOUT,
            schema: schemars::schema_for!(C::Config),
            build: |value, setting| C::build(decode(value)?, setting),
        };
        let known = self.schema_stores.insert(C::TYPE, entry);
        assert!(known.is_none(), "two schema stores of type `{}`", C::TYPE);
    }

    /// The sources, by type.
    pub fn sources(&self) -> &BTreeMap<&'static str, SourceEntry> {
        &self.sources
    }

    /// The destinations, by type.
    pub fn destinations(&self) -> &BTreeMap<&'static str, DestinationEntry> {
        &self.destinations
    }

    /// The schema stores, by type.
    pub fn schema_stores(&self) -> &BTreeMap<&'static str, SchemaStoreEntry> {
        &self.schema_stores
    }

    /// The journals, by type.
    pub fn journals(&self) -> &BTreeMap<&'static str, JournalEntry> {
        &self.journals
    }
}

/// The configuration was checked against the schema before, so this fails only where the schema says less than the
/// type.
fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Vec<Mistake>> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().to_string();
        vec![Mistake { at: pointer(error.path()), message, help: None }]
    })
}

/// The JSON pointer of the place where decoding failed, as far as it is known.
pub fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

fn mistaken(mistake: Mistake) -> Finding {
    let help = mistake.help.unwrap_or_else(|| "correct the configuration".to_owned());
    Finding::bad(format!("{}: {}", mistake.at, mistake.message), Blame::Configuration, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only decoding is tested")]
        inner: Vec<u8>,
    }

    #[test]
    fn a_value_that_cannot_be_decoded_is_named_by_its_pointer() {
        let mistakes = decode::<Outer>(serde_json::json!({"inner": [1, 2, "three"]})).unwrap_err();
        assert_eq!(mistakes[0].at, "/inner/2");
        assert!(mistakes[0].message.contains("invalid type"), "{mistakes:?}");
    }
}
