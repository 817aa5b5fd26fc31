//! `forebay schema`: the JSON Schemas that this build goes by, and those of a source's tables.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use forebay_api::{Blame, Fault, Registry, SchemaKey};
use serde::Deserialize;

use super::config_file::{ConfigOption, is_under};
use super::run::unknown_source;
use super::server::ServerOption;
use super::table::aligned;
use super::{Failure, print};
use crate::admin::schemas::Command;
use crate::config::{self, Environment, Settings, SourceSettings};
use crate::connectors;
use crate::schemas::ENVELOPE;
use crate::telemetry::SchemaFigures;
use crate::validation::{Loaded, SchemaCache, build_chain};

/// Where a daemon lists its schemas.
const PATH: &str = "/s";

/// Print a JSON Schema
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay schema > schema.json         for `# yaml-language-server: $schema=./schema.json`
  forebay schema envelope              what every event obeys in the format `forebay`
  forebay schema table public.orders   what the rows of a table obey, as it is now
  forebay schema get com.acme/order/1-0-0   one from the schema registry
  forebay schema list                  those that a running daemon serves")]
pub(super) struct Schema {
    #[command(subcommand)]
    of: Option<Of>,
}

/// What there are schemas of.
#[derive(Debug, Subcommand)]
enum Of {
    /// That of the configuration file, with the connectors of this build; the same as without a word
    Config,
    /// That of events in the format `forebay`
    Envelope,
    Table(Table),
    Get(Get),
    Put(Put),
    List(List),
    Purge(Purge),
}

/// That of a table's rows as the table is now
///
/// Connects to the source's server and only reads there. Events name a version of it; a daemon serves every version
/// that it has seen.
#[derive(Debug, Args)]
struct Table {
    /// The table as events name it, such as public.orders
    table: String,
    /// The source; may be left out where there is one
    #[arg(short, long, value_name = "NAME")]
    source: Option<String>,
    #[command(flatten)]
    config: ConfigOption,
}

/// One from the schema registry that is configured
///
/// Asks the stores of `validation.registry` in order, and says which mistake a schema has that cannot be used.
#[derive(Debug, Args)]
struct Get {
    /// Its key, such as com.acme/order/1-0-0 or iglu:com.acme/order/jsonschema/1-0-0
    key: SchemaKey,
    #[command(flatten)]
    config: ConfigOption,
}

/// Put one into the schema registry that is configured
///
/// The schema is judged first: its key, its meta-schema, and that all it refers to is in the registry.
#[derive(Debug, Args)]
struct Put {
    /// Its key, such as com.acme/order/1-0-0
    key: SchemaKey,
    /// The file with the schema
    file: PathBuf,
    /// Which store of `validation.registry`, counted from 1. Default: the first that can be written
    #[arg(long, value_name = "NUMBER")]
    store: Option<usize>,
    #[command(flatten)]
    config: ConfigOption,
}

/// Let a running daemon fetch schemas again
#[derive(Debug, Args)]
struct Purge {
    /// The key of one; without it, all that were fetched
    key: Option<SchemaKey>,
    #[command(flatten)]
    server: ServerOption,
}

/// List those that a running daemon serves, with their paths
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    server: ServerOption,
}

/// What a daemon lists.
#[derive(Debug, Deserialize)]
struct Listed {
    schemas: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    schema: String,
    path: String,
}

impl Schema {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.of {
            None | Some(Of::Config) => print(&config_schema(&connectors::registry())),
            Some(Of::Envelope) => print(ENVELOPE),
            Some(Of::Table(table)) => table.run().await,
            Some(Of::Get(get)) => get.run().await,
            Some(Of::List(list)) => list.run().await,
            Some(Of::Put(put)) => put.run().await,
            Some(Of::Purge(purge)) => purge.run().await,
        }
    }
}

impl Table {
    async fn run(self) -> Result<(), Failure> {
        let registry = connectors::registry();
        let elsewhere = |missing: &config::Missing| is_under("destinations", missing);
        let path = self.config.path()?;
        let settings = config::load_without(&path, &registry, &Environment::of_process(), elsewhere)?;
        let source = source_of(self.source.as_deref(), &settings)?;
        let connector = &registry.sources()[source.kind.as_str()];
        let setting = source.setting(false);
        let schema = (connector.schema_of)(source.own.0.clone(), &setting, &self.table).await?;
        print(&format!("{schema:#}\n"))
    }
}

impl Get {
    async fn run(self) -> Result<(), Failure> {
        let registry = connectors::registry();
        let elsewhere = |missing: &config::Missing| !is_under("validation", missing);
        let settings = match self.config.path() {
            Ok(path) => config::load_without(&path, &registry, &Environment::of_process(), elsewhere)?,
            // Those that come with Forebay need no configuration.
            Err(_) => Settings::default(),
        };
        let cache = SchemaCache::new(
            build_chain(&settings, &registry)?,
            settings.validation.cache.limits(),
            SchemaFigures::default(),
        );
        let doing = format!("fetching the schema `{}`", self.key);
        let found = cache.get(&self.key).await?;
        match &found.loaded {
            Loaded::Schema(schema) => {
                print(&format!("{}\n", String::from_utf8_lossy(&schema.text).trim_end()))
            }
            Loaded::NotThere => {
                Err(Fault::fatal(doing, Blame::Configuration, "no store of the registry has it")
                    .with_remedy("put it into one of `validation.registry`")
                    .into())
            }
            Loaded::Broken(why) => Err(Fault::fatal(doing, Blame::Outside, why.to_string())
                .with_remedy("correct the schema in the registry")
                .into()),
        }
    }
}

impl Put {
    async fn run(self) -> Result<(), Failure> {
        let registry = connectors::registry();
        let elsewhere = |missing: &config::Missing| !is_under("validation", missing);
        let path = self.config.path()?;
        let settings = config::load_without(&path, &registry, &Environment::of_process(), elsewhere)?;
        let doing = format!("putting `{}` as the schema `{}`", self.file.display(), self.key);
        let text = std::fs::read(&self.file)
            .map_err(|error| Fault::fatal(doing.clone(), Blame::Configuration, error))?;
        let text = Bytes::from(text);
        let chain = build_chain(&settings, &registry)?;
        if let Loaded::Broken(why) = chain.judge(&self.key, &text).await? {
            return Err(Fault::fatal(doing, Blame::Configuration, why.to_string())
                .with_remedy("correct the schema")
                .into());
        }
        let wanted = |number: usize| self.store.is_none_or(|store| store == number);
        let mut links = (1..).zip(chain.links()).filter(|(number, _)| wanted(*number)).map(|(_, link)| link);
        let Some(link) = links.find(|link| link.store.is_writable()) else {
            return Err(Fault::fatal(doing, Blame::Configuration, "no such store can be written")
                .with_remedy(
                    "add one of type `file`, `postgres`, `s3`, `gcs` or `azure` to `validation.registry`",
                )
                .into());
        };
        link.store.put(&self.key, text).await?;
        print(&format!("`{}` has the schema `{}`\n", link.name, self.key))
    }
}

impl Purge {
    async fn run(self) -> Result<(), Failure> {
        const PATH: &str = "/schemas";
        let server = self.server.server()?;
        let command = Command::Purge(self.key.map(|key| key.to_string()));
        let json = serde_json::to_string(&command).expect("a command is JSON");
        let (status, body) = server.post(PATH, &json).await?;
        if status != 200 {
            return Err(server.unexpected(PATH, status).into());
        }
        let done: serde_json::Value =
            serde_json::from_str(&body).map_err(|error| server.not_understood(PATH, error))?;
        print(&format!("{} schemas are fetched again when they are needed\n", done["purged"]))
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let server = self.server.server()?;
        let text = server.get(PATH).await?;
        let listed: Listed =
            serde_json::from_str(&text).map_err(|error| server.not_understood(PATH, error))?;
        let rows: Vec<_> = listed.schemas.into_iter().map(|entry| vec![entry.schema, entry.path]).collect();
        print(&aligned("", &rows))
    }
}

/// The source that is named, or the only one.
fn source_of<'s>(name: Option<&str>, settings: &'s Settings) -> Result<&'s SourceSettings, Fault> {
    match (name, &settings.sources[..]) {
        (Some(name), sources) => {
            let found = sources.iter().find(|source| source.name == name);
            found.ok_or_else(|| unknown_source(name, settings))
        }
        (None, [only]) => Ok(only),
        (None, several) => {
            let known: Vec<String> = several.iter().map(|source| format!("`{}`", source.name)).collect();
            let error = "the configuration has not just one";
            Err(Fault::fatal("choosing a source", Blame::Configuration, error)
                .with_remedy(format!("name one of {} with `--source`", known.join(", "))))
        }
    }
}

/// That of the configuration file.
pub(super) fn config_schema(registry: &Registry) -> String {
    format!("{:#}\n", config::schema(registry))
}
