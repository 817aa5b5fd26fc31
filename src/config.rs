//! The configuration: read whole, judged whole, and refused with every mistake at once.
//!
//! ```text
//! file ─yaml─▶ document ─expand `${…}`─▶ ─overrides─▶ ─settle types─▶ ─schema─▶ decode ─▶ rules ─▶ connectors
//!              (spans)                                              (explain)
//! ```
//!
//! Each step adds its [`Problem`]s and the next goes on with what it can, so that a file is corrected in one go.
//! Nothing here connects to anything: a configuration that is refused has touched nothing. Secrets, that is all
//! that came out of `${…}` or the environment, are in the values and never in a message.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use forebay_api::registry::pointer;
use forebay_api::units::ByteSize;
use forebay_api::{Mistake, Op, Registry};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

mod document;
mod expand;
mod explain;
mod memory;
mod overrides;
mod privacy;
mod problem;
mod rules;
mod schema;
mod settings;
mod shape;
mod validation;
mod yaml;

#[cfg(test)]
mod tests;

pub use document::Missing;
pub use expand::Environment;
pub(crate) use privacy::privacy;
pub use privacy::{PrivacySettings, Salt};
pub use problem::{ConfigError, Problem};
pub use schema::schema;
pub use settings::{
    Admin, BatchSettings, Beginning, CheckpointKind, Checkpoints, DeadLetterSettings, DestinationSettings,
    JournalChoice, JournalSettings, Limits, OnPoison, OwnKeys, Retry, Role, Settings, Shutdown,
    SourceSettings, Startup, Where,
};
pub(crate) use validation::DESTINATION_STORE;
pub use validation::{
    CacheSettings, ContractSettings, DestinationStore, StoreSettings, UnknownSchema, Validation, WarmUp,
};

use document::{Document, Focus, child, is_at_or_under, named};
use shape::Shape;

/// A configuration is read into memory at once, and no honest one is larger.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads a file for running. Every variable that it names must be there.
pub fn load(path: &Path, registry: &Registry, environment: &Environment) -> Result<Settings, ConfigError> {
    load_without(path, registry, environment, |_| false)
}

/// Reads a file for a command that can do without some of what is missing: an option that is `excused` keeps its
/// `${…}` as it stands in the file.
pub fn load_without(
    path: &Path,
    registry: &Registry,
    environment: &Environment,
    excused: impl Fn(&Missing) -> bool,
) -> Result<Settings, ConfigError> {
    let text = read_file(path)?;
    Reading::of(&path.display().to_string(), &text, registry, environment)?.settings(excused)
}

/// Reads a file without needing its secrets (`check --offline`): gives what is missing, in the order of the file.
pub fn check_offline(
    path: &Path,
    registry: &Registry,
    environment: &Environment,
) -> Result<Vec<Missing>, ConfigError> {
    let text = read_file(path)?;
    Reading::of(&path.display().to_string(), &text, registry, environment)?.missing()
}

/// Reads a text for running; `name` stands for the file in messages.
pub fn read(
    name: &str,
    text: &str,
    registry: &Registry,
    environment: &Environment,
) -> Result<Settings, ConfigError> {
    Reading::of(name, text, registry, environment)?.settings(|_| false)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let refuse =
        |message: String, help: &str| ConfigError::new(&name, "", vec![Problem::outside(message, help)]);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(
        |error| {
            refuse(format!("reading the configuration failed: {error}"), "name another file with `--config`")
        },
    )?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refuse("the file is larger than 1MiB".to_owned(), "name a configuration of Forebay"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| refuse("the file is not UTF-8".to_owned(), "save it as UTF-8 text"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A file that was read, with all that is wrong in it.
struct Reading {
    document: Document,
    problems: Vec<Problem>,
    settings: Settings,
}

impl Reading {
    /// Goes through all steps. Fails at once only where there is no YAML to go on with.
    fn of(
        name: &str,
        text: &str,
        registry: &Registry,
        environment: &Environment,
    ) -> Result<Reading, ConfigError> {
        let (mut document, mut problems) =
            Document::parse(name, text).map_err(|problem| ConfigError::new(name, text, vec![problem]))?;
        let schema = schema(registry);
        let shape = Shape { root: &schema };
        problems.extend(expand::expand(&mut document, environment));
        problems.extend(overrides::apply(&mut document, shape, environment));
        expand::settle_types(&mut document, shape);
        problems.extend(explain::violations(&document, &schema));
        let mut reading = Reading { document, problems, settings: Settings::default() };
        reading.decode(registry);
        Ok(reading)
    }

    /// The settings, if nothing is wrong and nothing is missing that is not excused.
    fn settings(mut self, excused: impl Fn(&Missing) -> bool) -> Result<Settings, ConfigError> {
        self.document.missing.retain(|_, missing| !excused(missing));
        self.problems.extend(expand::refuse_missing(&self.document));
        if self.problems.is_empty() { Ok(self.settings) } else { Err(self.refused()) }
    }

    /// What is missing, if nothing is wrong.
    fn missing(self) -> Result<Vec<Missing>, ConfigError> {
        if !self.problems.is_empty() {
            return Err(self.refused());
        }
        let mut missing: Vec<Missing> = self.document.missing.into_values().collect();
        missing.sort_by_key(|missing| (missing.line, missing.column));
        Ok(missing)
    }

    fn refused(self) -> ConfigError {
        ConfigError::new(&self.document.file, &self.document.text, self.problems)
    }

    /// Decodes what the schema had nothing against, then lets rules and connectors judge.
    fn decode(&mut self, registry: &Registry) {
        let mut core = self.document.tree.as_object().cloned().unwrap_or_default();
        let sources = take_section(&mut core, "sources");
        let destinations = take_section(&mut core, "destinations");
        let mut complete = true;
        for (key, value) in core.clone() {
            // one key at a time, so that a mistake in one hides none in another
            let single = Value::Object(Map::from_iter([(key.clone(), value)]));
            if !self.is_sound(&child("", &key)) || self.typed::<Settings>("", single).is_none() {
                core.remove(&key);
            }
        }
        if let Some(settings) = self.typed::<Settings>("", Value::Object(core)) {
            self.settings = settings;
        }
        for (name, entry) in sources {
            let at = child("/sources", &name);
            match self.entry::<SourceSettings>(&at, entry) {
                Some((kind, common, own)) => {
                    self.settings.sources.push(SourceSettings { name, kind, own: OwnKeys(own), ..common });
                }
                None => complete = false,
            }
        }
        for (name, entry) in destinations {
            let at = child("/destinations", &name);
            match self.entry::<DestinationSettings>(&at, entry) {
                Some((kind, common, own)) => {
                    self.settings.destinations.push(DestinationSettings {
                        name,
                        kind,
                        own: OwnKeys(own),
                        ..common
                    });
                }
                None => complete = false,
            }
        }
        self.settings.keep_for_dead_letters();
        self.settings.limits.clients = self.clients_memory(registry);
        self.problems.extend(rules::broken(&self.document, &self.settings, complete));
        self.ask_connectors(registry);
    }

    /// What the clients of all that is configured take for themselves.
    fn clients_memory(&self, registry: &Registry) -> ByteSize {
        let settings = &self.settings;
        let sources = settings.sources.iter().filter_map(|source| registry.sources().get(&source.kind[..]));
        let destinations =
            settings.destinations.iter().filter_map(|one| registry.destinations().get(&one.kind[..]));
        let journals = settings.sources.iter().filter_map(|source| settings.journal_of(source));
        let journals = journals.filter_map(|journal| registry.journals().get(&journal.kind[..]));
        let all = sources
            .map(|entry| entry.client_memory)
            .chain(destinations.map(|entry| entry.client_memory))
            .chain(journals.map(|entry| entry.client_memory));
        ByteSize::bytes(all.map(ByteSize::get).sum())
    }

    /// Lets each connector judge its own keys; building one touches nothing outside.
    fn ask_connectors(&mut self, registry: &Registry) {
        let mut found = Vec::new();
        for source in &self.settings.sources {
            let at = child("/sources", &source.name);
            if let Some(entry) = registry.sources().get(&source.kind[..]).filter(|_| self.is_sound(&at)) {
                let built = (entry.build)(source.own.0.clone(), &source.setting(false));
                found.extend(built.err().into_iter().flatten().map(|mistake| (at.clone(), mistake)));
            }
        }
        for destination in &self.settings.destinations {
            let at = child("/destinations", &destination.name);
            if let Some(entry) =
                registry.destinations().get(&destination.kind[..]).filter(|_| self.is_sound(&at))
            {
                let built = (entry.build)(destination.own.0.clone(), &destination.setting(&self.settings));
                found.extend(built.err().into_iter().flatten().map(|mistake| (at.clone(), mistake)));
            }
        }
        for source in &self.settings.sources {
            let Some(journal) = self.settings.journal_of(source) else { continue };
            let at = match source.journal {
                Some(_) => child(&child("/sources", &source.name), "journal"),
                None => "/journal".to_owned(),
            };
            if let Some(entry) = registry.journals().get(&journal.kind[..]).filter(|_| self.is_sound(&at)) {
                let built = (entry.build)(journal.own.0.clone(), &self.settings.journal_setting(source));
                for mistake in built.err().into_iter().flatten() {
                    // one that all sources share is judged once for each
                    if !found.contains(&(at.clone(), mistake.clone())) {
                        found.push((at.clone(), mistake));
                    }
                }
            }
        }
        for (index, store) in self.settings.validation.registry.iter().enumerate() {
            let at = format!("/validation/registry/{index}");
            // One that is a destination has that one's keys.
            let destination = store.own.0.get("name").and_then(Value::as_str);
            let of_destination = destination.filter(|_| store.kind == DESTINATION_STORE);
            let of_destination = of_destination.map(|name| child("/destinations", name));
            if self.is_sound(&at) && of_destination.is_none_or(|at| self.is_sound(&at)) {
                let built = crate::validation::build_store(index, store, &self.settings, registry);
                found.extend(built.err().into_iter().flatten().map(|mistake| (at.clone(), mistake)));
            }
        }
        for (at, Mistake { at: inside, message, help }) in found {
            let place = format!("{at}{inside}");
            let message = format!("{}: {}", named(&place), self.document.mask(&at, message));
            let help = help.map(|help| self.document.mask(&at, help));
            self.problems.push(self.document.problem(&place, Focus::Value, message, help));
        }
    }

    /// Whether nothing is wrong or missing at or under a pointer so far.
    fn is_sound(&self, at: &str) -> bool {
        !self.document.has_unknown(at)
            && !self.problems.iter().any(|problem| is_at_or_under(&problem.path, at))
    }

    /// One source or destination: its type, what all have, what only its connector knows.
    fn entry<T: DeserializeOwned + schemars::JsonSchema>(
        &mut self,
        at: &str,
        entry: Value,
    ) -> Option<(String, T, Value)> {
        let Value::Object(mut own) = entry else { return None };
        let kind = own.remove("type")?.as_str()?.to_owned();
        let mut common = Map::new();
        for key in schema::common_keys::<T>() {
            if let Some(value) = own.remove(&key) {
                common.insert(key, value);
            }
        }
        if !common.keys().all(|key| self.is_sound(&child(at, key))) {
            return None;
        }
        let common = self.typed(at, Value::Object(common))?;
        Some((kind, common, Value::Object(own)))
    }

    /// Decodes a value that stands at `base`. The schema was asked before, so this finds only what a schema cannot
    /// say.
    fn typed<T: DeserializeOwned>(&mut self, base: &str, value: Value) -> Option<T> {
        let error = match serde_path_to_error::deserialize(value) {
            Ok(decoded) => return Some(decoded),
            Err(error) => error,
        };
        let place = format!("{base}{}", pointer(error.path()));
        let why = self.document.mask(&place, error.inner().to_string());
        let message = format!("{} cannot be read: {why}", named(&place));
        self.problems.push(self.document.problem(&place, Focus::Value, message, None));
        None
    }
}

fn take_section(core: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match core.remove(key) {
        Some(Value::Object(section)) => section,
        _ => Map::new(),
    }
}

/// All ops, for a message.
fn op_names() -> String {
    problem::list(Op::ALL.map(Op::as_str))
}
