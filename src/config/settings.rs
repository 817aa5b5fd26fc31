//! The configuration as the daemon uses it. Every description here is in the JSON Schema and in editors.
//!
//! What does not work yet is not here, and is refused as unknown. The keys of a connector's own stay JSON: only
//! the connector knows them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use forebay_api::units::{ByteSize, Period};
use forebay_api::{DestinationSetting, JournalSetting, Op, SourceSetting};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::memory;
use super::privacy::PrivacySettings;
use super::validation::Validation;
use crate::filter::Accept;
use crate::format::Format;

/// Attempts of a best-effort destination, unless the configuration says otherwise.
const BEST_EFFORT_ATTEMPTS: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");

/// What the program takes without any event: measured some 15 MiB, and threads that are at work.
const PROGRAM: ByteSize = ByteSize::mib(28);

/// Everything that `forebay.yaml` says.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// This daemon's name, in the envelope, logs and metrics.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Where it runs, in the envelope: `production`, `staging`. Not set, it says `development`, so that nothing is
    /// taken for production by omission.
    #[schemars(length(min = 1, max = 128))]
    pub environment: String,
    /// Folder for checkpoints and dead letters; must outlive the process. Relative to the working directory.
    pub data_dir: PathBuf,
    /// In the order of the file.
    #[serde(skip)]
    pub sources: Vec<SourceSettings>,
    /// The durable log between a source and its destinations, for every source that says nothing else: `none`, or the
    /// kind of journal, alone or with its keys. With one, a source is told that its events are safe when the journal has
    /// them, and each destination reads the journal at its own pace. Default: none; the source waits for the slowest
    /// required destination.
    #[schemars(schema_with = "journal_schema")]
    pub journal: JournalChoice,
    /// In the order of the file.
    #[serde(skip)]
    pub destinations: Vec<DestinationSettings>,
    /// How events are judged by the schemas that they name.
    pub validation: Validation,
    /// What is taken out of events before anything of them is judged, stored or delivered. The first rule that names a field
    /// decides.
    pub privacy: Vec<PrivacySettings>,
    /// Bounds of the whole process.
    pub limits: Limits,
    /// The server for health, metrics and status.
    pub admin: Admin,
    /// How patient the start is.
    pub startup: Startup,
    /// How patient the stop is.
    pub shutdown: Shutdown,
    /// Where it is stored how far each source was delivered.
    pub checkpoints: Checkpoints,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: "forebay".to_owned(),
            environment: "development".to_owned(),
            data_dir: PathBuf::from("./data"),
            sources: Vec::new(),
            journal: JournalChoice::default(),
            destinations: Vec::new(),
            validation: Validation::default(),
            privacy: Vec::new(),
            limits: Limits::default(),
            admin: Admin::default(),
            startup: Startup::default(),
            shutdown: Shutdown::default(),
            checkpoints: Checkpoints::default(),
        }
    }
}

impl Settings {
    /// A destination that others hand dead letters on to takes no events unless `where.source` asks for some.
    pub(super) fn keep_for_dead_letters(&mut self) {
        let named: Vec<String> =
            self.destinations.iter().filter_map(|destination| destination.dead_letters.to.clone()).collect();
        for destination in self.destinations.iter_mut().filter(|one| named.contains(&one.name)) {
            destination.filter.source.get_or_insert_default();
        }
    }
}

/// What all sources have beside their connector's own keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// Its key under `sources`.
    #[serde(skip)]
    pub name: String,
    /// Its `type`.
    #[serde(skip)]
    pub kind: String,
    /// The keys that only its connector knows.
    #[serde(skip)]
    pub own: OwnKeys,
    /// Vendor of the schemas of its events. Default: `local.` and the source's name.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9_.-]{1,128}$"), example = "com.acme.shop")]
    pub vendor: Option<String>,
    /// A journal for this source alone, in place of the one for all; `none` for none.
    #[schemars(schema_with = "journal_schema")]
    pub journal: Option<JournalChoice>,
}

impl Settings {
    /// The journal of a source, if it has one.
    pub fn journal_of<'s>(&'s self, source: &'s SourceSettings) -> Option<&'s JournalSettings> {
        source.journal.as_ref().unwrap_or(&self.journal).0.as_ref()
    }

    /// What a journal is told beside its own keys.
    pub fn journal_setting(&self, source: &SourceSettings) -> JournalSetting {
        JournalSetting {
            source: source.name.clone(),
            instance: self.name.clone(),
            data_dir: self.data_dir.clone(),
        }
    }
}

impl SourceSettings {
    /// What the connector is told beside its own keys.
    pub fn setting(&self, dry_run: bool) -> SourceSetting {
        let vendor = self.vendor.clone().unwrap_or_else(|| format!("local.{}", self.name));
        SourceSetting { name: self.name.clone(), vendor, dry_run }
    }
}

/// `journal: none`, `journal: disk`, or a mapping with `type`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JournalChoice(pub Option<JournalSettings>);

/// What all journals have beside their connector's own keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// Its `type`.
    #[serde(skip)]
    pub kind: String,
    /// The keys that only its connector knows.
    #[serde(skip)]
    pub own: OwnKeys,
    /// What this daemon does with a journal that several daemons share.
    pub role: Role,
}

/// What a daemon does with a journal that several daemons share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Role {
    /// It reads the source into the journal and delivers what is in it.
    #[default]
    Both,
    /// It reads the source; other daemons deliver.
    Intake,
    /// It delivers; other daemons read the source.
    Delivery,
}

impl<'de> Deserialize<'de> for JournalChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JournalChoice, D::Error> {
        let mut own = match Value::deserialize(deserializer)? {
            Value::Null => return Ok(JournalChoice(None)),
            Value::String(kind) if kind == NO_JOURNAL => return Ok(JournalChoice(None)),
            Value::String(kind) => {
                let own = OwnKeys(Value::Object(Map::new()));
                return Ok(JournalChoice(Some(JournalSettings { kind, own, ..JournalSettings::default() })));
            }
            Value::Object(own) => own,
            _ => return Err(de::Error::custom("neither a kind of journal nor a mapping")),
        };
        let kind = match own.remove("type") {
            Some(Value::String(kind)) => kind,
            _ => return Err(de::Error::missing_field("type")),
        };
        let mut common = Map::new();
        for key in super::schema::common_keys::<JournalSettings>() {
            common.extend(own.remove(&key).map(|value| (key, value)));
        }
        let common: JournalSettings =
            serde_json::from_value(Value::Object(common)).map_err(de::Error::custom)?;
        Ok(JournalChoice(Some(JournalSettings { kind, own: OwnKeys(Value::Object(own)), ..common })))
    }
}

/// The word for no journal.
pub(super) const NO_JOURNAL: &str = "none";

/// The choice is the same wherever it stands; the kinds of journals are added to the file's schema.
fn journal_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"$ref": "#/$defs/journal_choice"})
}

/// What all destinations have beside their connector's own keys.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DestinationSettings {
    /// Its key under `destinations`.
    #[serde(skip)]
    pub name: String,
    /// Its `type`.
    #[serde(skip)]
    pub kind: String,
    /// The keys that only its connector knows.
    #[serde(skip)]
    pub own: OwnKeys,
    /// Whether the checkpoint waits for it. One that is not required gets bounded attempts and a queue of its own,
    /// and what it could not take is dropped and counted.
    pub required: bool,
    /// Which events it takes, by their verdict.
    pub accept: Accept,
    /// Which events it takes, by where they come from. Several conditions must all hold.
    #[serde(rename = "where")]
    pub filter: Where,
    /// What its records look like.
    pub format: Format,
    /// Where it begins behind a journal when it is new: with the oldest entry, or with what comes from then on.
    pub start: Beginning,
    /// How records are gathered before an attempt.
    pub batch: BatchSettings,
    /// How long one attempt may take. Default: 30s; none where an attempt cannot be taken back (Kafka without transactions).
    pub timeout: Option<Period>,
    /// What happens after an attempt that failed.
    pub retry: Retry,
    /// What becomes of a record that it refuses for what it holds.
    pub on_poison: OnPoison,
    /// Where such records go: `dead_letters/<destination>` in `data_dir`, and from there to another destination if you
    /// like.
    pub dead_letters: DeadLetterSettings,
}

impl Default for DestinationSettings {
    fn default() -> DestinationSettings {
        DestinationSettings {
            name: String::new(),
            kind: String::new(),
            own: OwnKeys::default(),
            required: true,
            accept: Accept::All,
            filter: Where::default(),
            format: Format::Forebay,
            start: Beginning::Oldest,
            batch: BatchSettings::default(),
            timeout: None,
            retry: Retry::default(),
            on_poison: OnPoison::DeadLetter,
            dead_letters: DeadLetterSettings::default(),
        }
    }
}

impl DestinationSettings {
    /// Whether it takes events of a source.
    pub fn takes(&self, source: &str) -> bool {
        self.filter.source.as_ref().is_none_or(|sources| sources.iter().any(|name| name == source))
    }

    /// What the connector is told beside its own keys.
    pub fn setting(&self, settings: &Settings) -> DestinationSetting {
        DestinationSetting {
            name: self.name.clone(),
            format: self.format.as_str().to_owned(),
            data_dir: settings.data_dir.clone(),
            sources: settings.sources.iter().map(|source| source.name.clone()).collect(),
        }
    }

    /// How often a batch is attempted; `None`: until it succeeds.
    pub fn attempts(&self) -> Option<NonZeroU32> {
        if self.required { None } else { Some(self.retry.attempts.unwrap_or(BEST_EFFORT_ATTEMPTS)) }
    }
}

/// Where a destination begins that a journal has not seen before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Beginning {
    /// With the oldest entry there is.
    #[default]
    Oldest,
    /// With what is written from then on.
    Newest,
}

/// The keys that only a connector knows. They may hold secrets, so `Debug` does not show them.
#[derive(Clone, Default, PartialEq)]
pub struct OwnKeys(pub Value);

impl fmt::Debug for OwnKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Conditions on where an event comes from. One that is not given always holds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Where {
    /// From one of these sources.
    #[schemars(length(min = 1), example = ["shop"])]
    pub source: Option<Vec<String>>,
    /// One of these happened.
    #[serde(deserialize_with = "ops")]
    #[schemars(schema_with = "ops_schema")]
    pub op: Option<Vec<Op>>,
    /// In a database schema that one of these globs matches.
    #[schemars(length(min = 1), example = ["public", "audit_*"])]
    pub schema: Option<Vec<String>>,
    /// In a table that one of these globs matches; a glob with a dot is matched against `schema.table`.
    #[schemars(length(min = 1), example = ["orders", "audit.*"])]
    pub table: Option<Vec<String>>,
    /// Of a schema whose key in the registry (`vendor/name/1-0-0`) one of these globs matches.
    #[schemars(length(min = 1), example = ["com.acme/order/*"])]
    pub schema_key: Option<Vec<String>>,
}

/// How records are gathered before an attempt. A batch goes out when one of the bounds is reached, or when nothing
/// more is queued and `age` is over.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct BatchSettings {
    /// At most so many records.
    #[schemars(range(max = 1_000_000))]
    pub records: NonZeroUsize,
    /// At most so many bytes; a single larger record goes alone.
    pub bytes: ByteSize,
    /// Wait so long for more.
    pub age: Period,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            records: NonZeroUsize::new(10_000).expect("it is not zero"),
            bytes: ByteSize::mib(1),
            age: Period::millis(0),
        }
    }
}

/// What happens after an attempt that failed: wait, each time twice as long, give or take some, and try what is
/// still open again.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Retry {
    /// The first wait.
    pub initial: Period,
    /// The longest wait.
    pub max: Period,
    /// After so many attempts the batch is dropped and counted. Only with `required: false`, where it is 10 by
    /// default; a required destination is tried until it succeeds.
    pub attempts: Option<NonZeroU32>,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { initial: Period::millis(100), max: Period::seconds(30), attempts: None }
    }
}

/// What becomes of a record that a destination refuses for what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnPoison {
    /// It becomes a dead letter, and all others flow.
    #[default]
    DeadLetter,
    /// It becomes a dead letter, and so do later events of its key, until `forebay dlq replay` has delivered them in
    /// their order. Only for a required destination.
    BlockKey,
    /// The daemon stops. Only for a required destination.
    Halt,
}

/// How many records that a destination refused are kept, and where they go.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct DeadLetterSettings {
    /// At most so many bytes of them; a destination that has more stops and says so.
    pub max_bytes: ByteSize,
    /// The destination that they are handed on to, each as an event of its own. It may take no events of the sources
    /// that this one takes; without `where.source` it takes dead letters only.
    #[schemars(length(min = 1))]
    pub to: Option<String>,
}

impl Default for DeadLetterSettings {
    fn default() -> DeadLetterSettings {
        DeadLetterSettings { max_bytes: ByteSize::mib(256), to: None }
    }
}

/// Bounds of the whole process.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Limits {
    /// The memory of the whole process, one for all sources and destinations: events on their way, the copies that clients
    /// of servers make of them, and the program itself. Only a single value that is larger passes beyond it, alone.
    /// Default: a quarter of the container's memory (or the machine's), within 64MiB and 1GiB.
    pub memory: Option<ByteSize>,
    /// What the clients of all connectors take of it for themselves.
    #[serde(skip)]
    pub clients: ByteSize,
}

impl Limits {
    /// The budget, from here or from what the container has.
    pub fn memory_budget(&self) -> ByteSize {
        self.memory.unwrap_or_else(memory::default_budget)
    }

    /// What of it events in queues may take: half of what the program itself and its clients leave. The other half is for what is made
    /// of them on the way: what is being read and decoded, batches, and the copies of destinations' clients.
    pub fn events_budget(&self) -> ByteSize {
        let whole = self.memory_budget().get();
        let taken = PROGRAM.get() + self.clients.get();
        ByteSize::bytes((whole.saturating_sub(taken) / 2).max(whole / 8))
    }
}

/// The server for health, metrics and status.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Admin {
    /// Address and port.
    #[schemars(
        with = "String",
        regex(pattern = r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]{1,5}$"),
        extend("title" = "address", "examples" = ["127.0.0.1:9080", "0.0.0.0:9080"])
    )]
    pub listen: SocketAddr,
    /// `/ready` turns red when a source lags behind by more than this. Default: lag does not matter to `/ready`.
    pub ready_max_lag: Option<Period>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9080)), ready_max_lag: None }
    }
}

/// How patient the start is.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Startup {
    /// How long a server that something is required of may take to answer before the daemon gives up.
    pub wait: Period,
}

impl Default for Startup {
    fn default() -> Startup {
        Startup { wait: Period::seconds(30) }
    }
}

/// How patient the stop is.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Shutdown {
    /// How long the destinations may take to write what was already read.
    pub grace: Period,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { grace: Period::seconds(30) }
    }
}

/// Where it is stored how far each source was delivered.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Checkpoints {
    /// The kind of store.
    #[serde(rename = "type")]
    pub kind: CheckpointKind,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints { kind: CheckpointKind::File }
    }
}

/// The kinds of checkpoint stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CheckpointKind {
    /// A database file in `data_dir`.
    File,
}

fn ops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Op>>, D::Error> {
    let words = Option::<Vec<String>>::deserialize(deserializer)?;
    let op = |word: String| {
        let known = Op::ALL.into_iter().find(|op| op.as_str() == word);
        known
            .ok_or_else(|| de::Error::custom(format!("unknown op; the known ones are {}", super::op_names())))
    };
    words.map(|words| words.into_iter().map(op).collect()).transpose()
}

fn ops_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["array", "null"],
        "minItems": 1,
        "items": {"enum": Op::ALL.map(Op::as_str)},
    })
}
