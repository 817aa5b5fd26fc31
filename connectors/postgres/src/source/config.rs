//! The source's own keys.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use forebay_api::units::Period;
use forebay_api::{Mistake, SnapshotMode, SourceSetting};
use globset::{Glob, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::decode::options::ValueOptions;
use crate::url::{Url, UrlSetting};

/// A PostgreSQL database whose changes are read by logical replication.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSourceConfig {
    /// Where the database is: a libpq URI, `key=value` pairs, or a mapping of host, port, user, password and database.
    /// The role needs REPLICATION, and CREATE on the database unless the publication exists.
    pub url: UrlSetting,
    /// Which tables, as `schema.table`; `*`, `?` and `[…]` match as in file names.
    #[serde(default)]
    #[schemars(example = ["public.orders", "audit.*"])]
    pub tables: Vec<String>,
    /// Which of these not.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What is done to single columns before anything is stored.
    #[serde(default)]
    pub columns: ColumnRules,
    /// How numbers are written that many consumers read as floats. Another setting makes other versions of schemas.
    #[serde(default)]
    pub values: ValueOptions,
    /// The publication. Default: `forebay_` and the source's name.
    #[schemars(length(min = 1, max = 63))]
    pub publication: Option<String>,
    /// Who decides what is in the publication.
    #[serde(default)]
    pub publication_mode: PublicationMode,
    /// Whether changes of partitions are published as those of the partitioned table.
    #[serde(default)]
    pub publish_via_partition_root: bool,
    /// The replication slot. Default: `forebay_` and the source's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9_]+$"))]
    pub slot: Option<String>,
    /// Whether the slot is kept on standbys too, so that it survives a failover (PostgreSQL 17 and later).
    #[serde(default)]
    pub failover: bool,
    /// Whether what is already in the tables is copied first.
    #[serde(default)]
    pub snapshot: SnapshotMode,
    /// How many chunks of tables are copied at the same time, each over a connection of its own.
    #[serde(default = "default_parallel")]
    #[schemars(range(min = 1, max = 64))]
    pub snapshot_parallel: NonZeroUsize,
    /// How often a sign of life is written into the database's log, so that the slot moves on even while nothing else
    /// changes. `0s`: never.
    #[serde(default = "default_heartbeat")]
    pub heartbeat: Period,
    /// What is done with tables that have neither a primary key nor another replica identity. In a publication with
    /// updates, the application's own UPDATE and DELETE on them would fail.
    #[serde(default)]
    pub keyless: Keyless,
    /// Which changes: all, or only those that were not replicated into this database from elsewhere (PostgreSQL 16 and
    /// later), so that two databases that copy each other do not go in circles.
    #[serde(default)]
    pub origin: Origin,
    /// Raise it after the server was set back to an earlier state in another way than by a promotion or a recovery, which
    /// begin a new timeline: by a snapshot of its disk. The log's places are used again then, so that events would carry
    /// ids and marks that others had before.
    #[serde(default)]
    pub incarnation: u32,
    /// Logical messages (`pg_logical_emit_message`) whose prefix one of these globs matches. Empty: none.
    #[serde(default = "default_messages")]
    #[schemars(example = ["outbox", "audit.*"])]
    pub messages: Vec<String>,
}

impl PostgresSourceConfig {
    /// One in which nothing but these is written.
    pub(super) fn of(url: UrlSetting, tables: Vec<String>) -> PostgresSourceConfig {
        PostgresSourceConfig {
            url,
            tables,
            exclude: Vec::new(),
            columns: ColumnRules::default(),
            values: ValueOptions::default(),
            publication: None,
            publication_mode: PublicationMode::default(),
            publish_via_partition_root: false,
            slot: None,
            failover: false,
            snapshot: SnapshotMode::default(),
            snapshot_parallel: default_parallel(),
            heartbeat: default_heartbeat(),
            keyless: Keyless::default(),
            origin: Origin::default(),
            incarnation: 0,
            messages: default_messages(),
        }
    }
}

/// What is done to single columns before anything is stored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct ColumnRules {
    /// Columns that are left out, as `schema.table.column`. Not those of a key.
    #[schemars(example = ["public.users.password"])]
    pub exclude: Vec<String>,
    /// Columns whose values become HMAC-SHA-256 in hexadecimal digits, so that they can be compared and not read.
    #[schemars(example = ["public.users.email"])]
    pub hash: Vec<String>,
    /// The key of the HMAC. Without one anybody who guesses a value can check the guess.
    pub salt: Option<String>,
}

/// Who decides what is in the publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum PublicationMode {
    /// Forebay: it is created for the tables that `tables` names, and follows them.
    #[default]
    Tables,
    /// Forebay: it is created for the schemas that `tables` names as `schema.*` (PostgreSQL 15 and later).
    Schemas,
    /// Forebay: it is created for all tables (needs a superuser).
    All,
    /// Somebody else: it exists, and is used as it is.
    Existing,
}

/// What is done with tables without a replica identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Keyless {
    /// The start is refused, with the statement that mends it.
    #[default]
    Refuse,
    /// They are left out.
    Skip,
    /// Only their inserts are read, through a publication of their own.
    InsertOnly,
}

/// Which changes, by where they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Origin {
    /// All.
    #[default]
    Any,
    /// Only those made here.
    None,
}

fn default_parallel() -> NonZeroUsize {
    const { NonZeroUsize::new(2).expect("2 is not 0") }
}

fn default_heartbeat() -> Period {
    Period::seconds(10)
}

fn default_messages() -> Vec<String> {
    vec!["*".to_owned()]
}

/// The configuration, understood.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The source's name.
    pub source: String,
    /// Vendor of the schemas of its events.
    pub vendor: String,
    /// Leave nothing behind on the server.
    pub dry_run: bool,
    /// Where the database is.
    pub url: Url,
    /// The publication that updates and deletes come through.
    pub publication: String,
    /// The slot.
    pub slot: String,
    /// Which tables, `schema.table`.
    pub tables: GlobSet,
    /// Which of these not.
    pub exclude: GlobSet,
    /// Which logical messages, by prefix.
    pub messages: GlobSet,
    /// The rest, as it is written.
    pub config: PostgresSourceConfig,
}

impl Plan {
    /// Reads what is text; all that is wrong at once.
    pub(super) fn new(config: PostgresSourceConfig, setting: &SourceSetting) -> Result<Plan, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let url = config.url.parse().map_err(|error| {
            let help = "write it as `postgres://user:password@host:5432/database`";
            mistakes.push(mistake("/url", error.to_string(), help));
        });
        let name = |given: &Option<String>, at: &str, mistakes: &mut Vec<Mistake>| {
            let name = given.clone().unwrap_or_else(|| format!("forebay_{}", setting.name.replace('-', "_")));
            if name.len() > MAX_NAME {
                let message = format!(
                    "`{name}` is longer than {MAX_NAME} bytes, which is the most PostgreSQL keeps of a name"
                );
                mistakes.push(mistake(at, message, "write a shorter one"));
            }
            name
        };
        let publication = name(&config.publication, "/publication", &mut mistakes);
        let slot = name(&config.slot, "/slot", &mut mistakes);
        let tables = globs("/tables", &config.tables, &mut mistakes);
        let exclude = globs("/exclude", &config.exclude, &mut mistakes);
        let messages = globs("/messages", &config.messages, &mut mistakes);
        if config.snapshot_parallel.get() > MAX_PARALLEL {
            let message = format!("`snapshot_parallel` is more than {MAX_PARALLEL}");
            mistakes.push(mistake("/snapshot_parallel", message, "write a smaller number"));
        }
        judge_tables(&config, &mut mistakes);
        judge_columns(&config.columns, &mut mistakes);
        let Ok(url) = url else { return Err(mistakes) };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let (source, vendor) = (setting.name.clone(), setting.vendor.clone());
        Ok(Plan {
            source,
            vendor,
            dry_run: setting.dry_run,
            url,
            publication,
            slot,
            tables,
            exclude,
            messages,
            config,
        })
    }

    /// Whether a table is wanted.
    pub(super) fn wants(&self, schema: &str, table: &str) -> bool {
        let name = format!("{schema}.{table}");
        let everything = self.config.tables.is_empty();
        (everything || self.tables.is_match(&name)) && !self.exclude.is_match(&name)
    }

    /// Whether a table is wanted that has several names: its own, and that of the partitioned table it belongs to. One
    /// that is excluded under any of them is not.
    pub(super) fn wants_any(&self, names: &[(&str, &str)]) -> bool {
        let excluded = |(schema, table): &(&str, &str)| self.exclude.is_match(format!("{schema}.{table}"));
        !names.iter().any(excluded) && names.iter().any(|(schema, table)| self.wants(schema, table))
    }

    /// The publication of tables of which only inserts are read.
    pub(super) fn insert_publication(&self) -> String {
        let suffix = "_inserts";
        let room = MAX_NAME - suffix.len();
        let end =
            (0..=room.min(self.publication.len())).rev().find(|&at| self.publication.is_char_boundary(at));
        format!("{}{suffix}", &self.publication[..end.unwrap_or(0)])
    }

    /// The schemas that `tables` names as `schema.*`.
    pub(super) fn schemas(&self) -> BTreeSet<&str> {
        self.config.tables.iter().filter_map(|pattern| pattern.strip_suffix(".*")).collect()
    }

    /// While the rows of one chunk wait for their place in the stream, their session reads the next one.
    pub(super) fn chunks_at_once(&self) -> usize {
        2 * self.config.snapshot_parallel.get()
    }
}

/// More would take connections that the application needs.
const MAX_PARALLEL: usize = 64;

/// PostgreSQL cuts names off behind so many bytes (NAMEDATALEN − 1).
const MAX_NAME: usize = 63;

/// What makes a pattern more than a name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{', '\\'])
}

/// The pattern that only this name matches.
pub(super) fn exactly(name: &str) -> String {
    globset::escape(&name.replace('\\', "\\\\"))
}

fn globs(at: &str, patterns: &[String], mistakes: &mut Vec<Mistake>) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for (index, pattern) in patterns.iter().enumerate() {
        match Glob::new(pattern) {
            Ok(glob) => drop(set.add(glob)),
            Err(error) => {
                mistakes.push(mistake(
                    format!("{at}/{index}"),
                    error.to_string(),
                    "write it as `schema.table` or `schema.*`",
                ));
            }
        }
    }
    set.build().unwrap_or_else(|error| {
        mistakes.push(mistake(at, error.to_string(), "write fewer patterns"));
        GlobSet::empty()
    })
}

fn judge_tables(config: &PostgresSourceConfig, mistakes: &mut Vec<Mistake>) {
    if config.tables.is_empty()
        && matches!(config.publication_mode, PublicationMode::Tables | PublicationMode::Schemas)
    {
        let help = "write `tables: [public.orders]`, or `[\"public.*\"]` for a whole schema";
        mistakes.push(mistake("", "`tables` names no table".to_owned(), help));
    }
    for (key, patterns) in [("tables", &config.tables), ("exclude", &config.exclude)] {
        for (index, pattern) in patterns.iter().enumerate().filter(|(_, pattern)| !pattern.contains('.')) {
            let message = format!("`{pattern}` names no schema");
            mistakes.push(mistake(format!("/{key}/{index}"), message, format!("write `public.{pattern}`")));
        }
    }
    if config.publication_mode == PublicationMode::Schemas {
        for (index, pattern) in config.tables.iter().enumerate() {
            if pattern.strip_suffix(".*").is_none_or(is_pattern) {
                let message =
                    format!("`{pattern}` is not a whole schema, as `publication_mode: schemas` needs");
                mistakes.push(mistake(
                    format!("/tables/{index}"),
                    message,
                    "write `schema.*`, or `publication_mode: tables`",
                ));
            }
        }
    }
}

fn judge_columns(rules: &ColumnRules, mistakes: &mut Vec<Mistake>) {
    for (key, columns) in [("exclude", &rules.exclude), ("hash", &rules.hash)] {
        for (index, column) in columns.iter().enumerate() {
            if column.split('.').count() < 3 {
                let message = format!("`{column}` does not name one column");
                mistakes.push(mistake(
                    format!("/columns/{key}/{index}"),
                    message,
                    "write `schema.table.column`",
                ));
            }
        }
    }
    for (index, column) in rules.hash.iter().enumerate().filter(|(_, column)| rules.exclude.contains(column))
    {
        let message = format!("`{column}` is excluded already");
        mistakes.push(mistake(format!("/columns/hash/{index}"), message, "take it out of one of the two"));
    }
}

fn mistake(at: impl Into<String>, message: String, help: impl Into<String>) -> Mistake {
    Mistake { at: at.into(), message, help: Some(help.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, Vec<String>> {
        let config: PostgresSourceConfig = serde_json::from_str(json).unwrap();
        let setting = SourceSetting { name: "my-shop".into(), vendor: "v".into(), dry_run: false };
        Plan::new(config, &setting)
            .map_err(|m| m.into_iter().map(|m| format!("{}: {}", m.at, m.message)).collect())
    }

    #[test]
    fn names_follow_the_source_and_tables_the_patterns() {
        let plan = plan(r#"{"url": "postgres://u@h/d", "tables": ["public.*", "audit.log"], "exclude": ["public.tmp_?"], "snapshot": "never"}"#).unwrap();
        assert_eq!((&*plan.slot, &*plan.publication), ("forebay_my_shop", "forebay_my_shop"));
        assert_eq!(plan.insert_publication(), "forebay_my_shop_inserts");
        assert!(plan.wants("public", "orders") && plan.wants("audit", "log"));
        assert!(!plan.wants("public", "tmp_1") && !plan.wants("audit", "other"));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let wrong = r#"{"url": "postgres://u@h/d", "tables": ["orders", "a.[b"], "snapshot": "never",
            "columns": {"exclude": ["a.b"], "hash": ["a.b"]}, "publication_mode": "schemas"}"#;
        let mistakes = plan(wrong).unwrap_err();
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
        let none = plan(r#"{"url": "postgres://u@h/d", "snapshot": "never"}"#).unwrap_err();
        assert_eq!(none, [": `tables` names no table"]);
    }

    #[test]
    fn what_is_there_is_copied_unless_it_is_refused() {
        let default = plan(r#"{"url": "postgres://u@h/d", "tables": ["a.b"]}"#).unwrap();
        assert_eq!(default.config.snapshot, SnapshotMode::Initial);
        let never = plan(r#"{"url": "postgres://u@h/d", "tables": ["a.b"], "snapshot": "never"}"#).unwrap();
        assert_eq!(never.config.snapshot, SnapshotMode::Never);
    }

    #[test]
    fn the_pattern_of_a_name_matches_that_name_alone() {
        for name in
            ["public.orders", r"s.a\b", "s.a*b?c[d]e{f,g}!^-", "s.line\nbreak", "S.\"Quoted\"", r"s.\[x]\*"]
        {
            let set = GlobSetBuilder::new().add(Glob::new(&exactly(name)).unwrap()).build().unwrap();
            assert!(set.is_match(name), "{name}");
            for other in ["s.ab", "s.axbxcde", "s.x", r"s.\x\y", "public.Orders"] {
                assert!(!set.is_match(other), "{name} is not {other}");
            }
        }
    }

    #[test]
    fn a_long_name_leaves_room_for_the_suffix() {
        let long = "é".repeat(31);
        let json = format!(
            r#"{{"url": "postgres://u@h/d", "tables": ["a.b"], "snapshot": "never", "publication": "{long}"}}"#
        );
        assert!(plan(&json).unwrap().insert_publication().len() <= MAX_NAME);
    }
}
