//! `validation`: where schemas are, and what is judged by them.

use std::time::Duration;

use forebay_api::units::{ByteSize, Period};
use forebay_api::{Blame, Fault, SchemaKey};
use globset::Glob;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::settings::OwnKeys;
use crate::validation::{CacheLimits, Contract, Rules, Unknown};

/// The `type` of a store that is a destination.
pub(crate) const DESTINATION_STORE: &str = "destination";

/// How events are judged by the schemas that they name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Validation {
    /// Where schemas are. They are asked in this order, and the first that has a key wins; one that is down is waited for.
    /// The schemas that come with Forebay are behind them all.
    #[schemars(schema_with = "stores_schema")]
    pub registry: Vec<StoreSettings>,
    /// How long schemas are used before they are fetched again, and how many are kept.
    pub cache: CacheSettings,
    /// What becomes of an event whose schema is nowhere in the registry.
    pub unknown_schema: UnknownSchema,
    /// Rows of tables and messages of topics that must obey a schema of yours. Without one they match the schema that is
    /// generated from their table.
    pub contracts: Vec<ContractSettings>,
    /// Schemas that are fetched at the start: a list of keys, or `all` for what the registry can list.
    #[schemars(schema_with = "warm_up_schema")]
    pub warm_up: WarmUp,
}

/// One store of the registry. All its keys but `type` are its connector's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreSettings {
    /// Its `type`.
    pub kind: String,
    /// The keys that only its connector knows.
    pub own: OwnKeys,
}

/// What all stores have beside their connector's own keys: nothing yet.
#[derive(JsonSchema)]
pub(super) struct CommonStoreKeys {}

/// Schemas that a destination keeps beside the events: a table in its database, a topic on its brokers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationStore {
    /// The destination's name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// How long schemas are used before they are fetched again, and how many are kept.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct CacheSettings {
    /// A schema is fetched again after so long; while its store is down it is used on.
    pub ttl: Period,
    /// So long it is taken for granted that a schema is not there.
    pub negative_ttl: Period,
    /// What compiled schemas may take in memory, about. What was used longest ago goes first.
    pub max_bytes: ByteSize,
}

impl Default for CacheSettings {
    fn default() -> CacheSettings {
        CacheSettings {
            ttl: Period::seconds(300),
            negative_ttl: Period::seconds(10),
            max_bytes: ByteSize::mib(64),
        }
    }
}

impl CacheSettings {
    /// For the cache.
    pub fn limits(&self) -> CacheLimits {
        CacheLimits {
            // Zero would fetch a schema for every event.
            ttl: self.ttl.as_duration().max(Duration::from_secs(1)),
            negative_ttl: self.negative_ttl.as_duration().max(Duration::from_millis(100)),
            max_bytes: self.max_bytes.as_usize(),
        }
    }
}

/// What becomes of an event whose schema is nowhere in the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum UnknownSchema {
    /// It is invalid: `schema_not_found`.
    #[default]
    Invalid,
    /// It passes for valid.
    Pass,
}

/// A schema that rows or messages must obey.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct ContractSettings {
    /// Of these sources. Default: of all.
    #[schemars(length(min = 1), example = ["shop"])]
    pub source: Option<Vec<String>>,
    /// Of tables (or topics) that one of these globs matches: `table` or `schema.table`. Default: of all.
    #[schemars(length(min = 1), example = ["public.orders"])]
    pub table: Option<Vec<String>>,
    /// The key of the schema. Default: the one that the event names, which must then be in the registry.
    #[serde(deserialize_with = "key")]
    #[schemars(with = "Option<String>", example = "com.acme/order/1-0-0")]
    pub schema: Option<SchemaKey>,
}

/// Schemas that are fetched at the start.
#[derive(Clone, Debug, PartialEq)]
pub enum WarmUp {
    /// These.
    Keys(Vec<SchemaKey>),
    /// What the registry can list.
    All,
}

impl Default for WarmUp {
    fn default() -> WarmUp {
        WarmUp::Keys(Vec::new())
    }
}

impl WarmUp {
    /// Keys, and whether all that can be listed comes too.
    pub fn wanted(&self) -> (Vec<SchemaKey>, bool) {
        match self {
            WarmUp::Keys(keys) => (keys.clone(), false),
            WarmUp::All => (Vec::new(), true),
        }
    }
}

impl Validation {
    /// What is judged.
    pub fn rules(&self) -> Result<Rules, Fault> {
        let unknown = match self.unknown_schema {
            UnknownSchema::Invalid => Unknown::Invalid,
            UnknownSchema::Pass => Unknown::Pass,
        };
        let contract = |contract: &ContractSettings| -> Result<Contract, globset::Error> {
            let globs = contract.table.iter().flatten();
            Ok(Contract {
                sources: contract.source.clone().unwrap_or_default(),
                tables: globs
                    .map(|glob| Ok(Glob::new(glob)?.compile_matcher()))
                    .collect::<Result<_, globset::Error>>()?,
                schema: contract.schema.clone(),
            })
        };
        let contracts = self.contracts.iter().map(contract).collect::<Result<_, _>>();
        let contracts = contracts
            .map_err(|error| Fault::fatal("reading `validation.contracts`", Blame::Configuration, error))?;
        Ok(Rules { unknown, contracts })
    }
}

impl<'de> Deserialize<'de> for WarmUp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WarmUp, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(word) if word == "all" => Ok(WarmUp::All),
            keys => Ok(WarmUp::Keys(serde_json::from_value(keys).map_err(de::Error::custom)?)),
        }
    }
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SchemaKey>, D::Error> {
    Option::<SchemaKey>::deserialize(deserializer)
}

fn warm_up_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            {"type": "string", "enum": ["all"]},
            {"type": "array", "items": {"type": "string", "examples": ["com.acme/order/1-0-0"]}},
        ]
    })
}

/// Kinds of stores are added to the file's schema.
fn stores_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"$ref": "#/$defs/schema_store"}})
}

impl<'de> Deserialize<'de> for StoreSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StoreSettings, D::Error> {
        let mut own = Map::<String, Value>::deserialize(deserializer)?;
        match own.remove("type") {
            Some(Value::String(kind)) => Ok(StoreSettings { kind, own: OwnKeys(Value::Object(own)) }),
            _ => Err(de::Error::missing_field("type")),
        }
    }
}
