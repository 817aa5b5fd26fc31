//! A table that changes while an older part of the log may be read: which versions it gets.

use forebay_api::SourceSetting;
use tokio_postgres::types::Type;

use super::*;
use crate::decode::row::Notes;
use crate::decode::types::{CatalogType, TypeKind};
use crate::protocol::{ReplicaIdentity, Tuple};
use crate::source::relation::facts::ColumnFacts;
use crate::source::relation::history::{MAX_VERSIONS, Place};
use crate::source::relation::relation_in;

const MOOD: u32 = 90_001;

/// A table with its catalogs, and what was stored of it.
struct Table {
    plan: Plan,
    facts: Option<Facts>,
    types: TypeCatalog,
    history: History,
}

fn column(name: &str, of: u32, not_null: bool) -> ColumnFacts {
    ColumnFacts {
        name: name.to_owned(),
        type_oid: of,
        modifier: -1,
        identifying: name == "id",
        primary: name == "id",
        not_null,
        inline: of == Type::INT4.oid(),
        comment: None,
    }
}

impl Table {
    /// `public.t (id int PRIMARY KEY)`
    fn new(config: &str) -> Table {
        let config = format!(r#"{{"url": "postgres://u@h/d", {config}}}"#);
        let setting = SourceSetting { name: "shop".into(), vendor: "v".into(), dry_run: false };
        let facts = Facts {
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            comment: None,
            root: None,
            columns: vec![column("id", Type::INT4.oid(), true)],
            identity: ReplicaIdentity::Default,
            oid: 7,
        };
        let mut table = Table {
            plan: Plan::new(serde_json::from_str(&config).unwrap(), &setting).unwrap(),
            facts: Some(facts),
            types: TypeCatalog::default(),
            history: History::read(Vec::new()).unwrap(),
        };
        table.labels(MOOD, &["sad", "happy"]);
        table
    }

    fn any() -> Table {
        Table::new(r#""tables": ["public.*"]"#)
    }

    fn facts(&mut self) -> &mut Facts {
        self.facts.as_mut().unwrap()
    }

    fn add(&mut self, name: &str, of: u32) {
        self.facts().columns.push(column(name, of, false));
    }

    fn labels(&mut self, oid: u32, labels: &[&str]) {
        let kind = TypeKind::Enum(labels.iter().map(|&label| label.to_owned()).collect());
        self.types.insert(oid, CatalogType { namespace: "public".into(), name: "mood".into(), kind });
    }

    /// What the server sends of the table as it is now.
    fn message(&self) -> Vec<u8> {
        self.facts.as_ref().unwrap().message()
    }

    fn making<T>(&self, message: &[u8], make: impl FnOnce(Making<'_>) -> T) -> T {
        let relation = relation_in(message);
        make(Making {
            plan: &self.plan,
            name: "public.t",
            relation: &relation,
            facts: self.facts.as_ref(),
            types: &self.types,
            history: &self.history,
        })
    }

    fn place(&mut self, candidate: &Candidate) -> Place {
        self.history.place("v", "public.t", &candidate.schema, candidate.outline.text())
    }

    /// Reads a relation; its version, and whether that is new.
    fn read(&mut self, message: &[u8]) -> (String, bool) {
        let candidate = self.making(message, |making| making.shape().unwrap().expect("it is wanted"));
        let place = self.place(&candidate);
        (place.version.to_string(), place.new)
    }

    /// The same after a row that did not fit.
    fn relearn(&mut self, message: &[u8], row: &[Option<&str>]) -> (String, bool) {
        let candidate = self.making(message, |making| making.fitting(|columns| fits(columns, row)).unwrap());
        fits(&candidate.columns, row).unwrap();
        let place = self.place(&candidate);
        (place.version.to_string(), place.new)
    }
}

fn fits(columns: &Columns, row: &[Option<&str>]) -> Result<(), RowError> {
    let mut bytes = Vec::new();
    for value in row {
        match value {
            None => bytes.push(b'n'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    let tuple = Tuple::of_values(u16::try_from(row.len()).unwrap(), &bytes);
    columns.write_row(&tuple, None, &mut Vec::new(), &mut Notes::default())
}

fn old(version: &str) -> (String, bool) {
    (version.to_owned(), false)
}

fn new(version: &str) -> (String, bool) {
    (version.to_owned(), true)
}

#[test]
fn a_shape_never_seen_makes_a_version_and_a_former_one_takes_its_own() {
    let mut table = Table::any();
    let first = table.message();
    assert_eq!(table.read(&first), new("1-0-0"));
    assert_eq!(table.read(&first), old("1-0-0"));
    table.add("note", Type::TEXT.oid());
    assert_eq!(table.read(&table.message()), new("1-0-1"));
    table.facts().columns[1].not_null = true;
    assert_eq!(table.read(&table.message()), new("2-0-0"), "nothing in the message says so");
    table.facts().columns.pop();
    assert_eq!(table.read(&first), old("1-0-0"), "the column was dropped again");
    table.add("note", Type::BYTEA.oid());
    assert_eq!(table.read(&table.message()), new("3-0-0"));
}

#[test]
fn an_old_part_of_the_log_makes_no_version_whatever_the_catalogs_say_now() {
    let mut table = Table::any();
    table.add("mood", MOOD);
    let first = table.message();
    assert_eq!(table.read(&first), new("1-0-0"));
    table.add("note", Type::TEXT.oid());
    let second = table.message();
    assert_eq!(table.read(&second), new("1-0-1"));
    table.facts().columns[1].not_null = true;
    table.facts().comment = Some("all of them".to_owned());
    table.labels(MOOD, &["sad", "happy", "torn"]);
    table.facts().columns.pop();
    table.add("other", Type::TEXT.oid());
    let third = table.message();
    assert_eq!(table.read(&third), new("2-0-0"));
    for _ in 0..2 {
        assert_eq!(table.read(&first), old("1-0-0"));
        assert_eq!(table.read(&second), old("1-0-1"));
        assert_eq!(table.read(&third), old("2-0-0"));
    }
    table.facts = None;
    table.types = TypeCatalog::default();
    assert_eq!(table.read(&first), old("1-0-0"), "the table and its types were dropped");
    assert_eq!(table.relearn(&first, &[Some("1"), Some("happy")]), old("1-0-0"));
}

#[test]
fn an_old_part_of_the_log_that_was_never_read_is_described_by_what_is_left() {
    let mut table = Table::any();
    table.add("note", Type::INT4.oid());
    table.facts().columns[1].not_null = true;
    let first = table.message();
    table.add("other", Type::TEXT.oid());
    assert_eq!(table.read(&first), new("1-0-0"));
    let candidate = table.making(&first, |making| making.shape().unwrap().unwrap());
    assert_eq!(candidate.schema["required"], serde_json::json!(["id", "note"]));
    // A row from before the column was NOT NULL.
    assert_eq!(table.relearn(&first, &[Some("1"), None]), new("1-1-0"));
    assert_eq!(table.relearn(&first, &[Some("1"), None]), old("1-1-0"));
}

#[test]
fn a_label_that_came_without_a_word_is_learned_from_the_catalogs() {
    let mut table = Table::any();
    table.add("mood", MOOD);
    let message = table.message();
    assert_eq!(table.read(&message), new("1-0-0"));
    table.labels(MOOD, &["sad", "torn", "happy"]);
    assert_eq!(table.relearn(&message, &[Some("1"), Some("torn")]), new("1-1-0"));
}

#[test]
fn rows_with_a_label_that_was_renamed_take_the_version_that_had_it() {
    let mut table = Table::any();
    table.add("mood", MOOD);
    let message = table.message();
    assert_eq!(table.read(&message), new("1-0-0"));
    table.labels(MOOD, &["blue", "happy"]);
    assert_eq!(table.read(&message), new("2-0-0"));
    // Both are read again, in the order in which they were written.
    assert_eq!(table.read(&message), old("2-0-0"));
    assert_eq!(table.relearn(&message, &[Some("1"), Some("sad")]), old("1-0-0"));
    assert_eq!(table.relearn(&message, &[Some("1"), Some("blue")]), old("2-0-0"));
}

#[test]
fn what_neither_the_catalogs_nor_a_version_explains_widens_the_shape_once() {
    let mut table = Table::any();
    for name in ["a", "b"] {
        table.add(name, MOOD);
    }
    table.facts().columns[1].not_null = true;
    table.facts().columns[2].not_null = true;
    let message = table.message();
    assert_eq!(table.read(&message), new("1-0-0"));
    let row = [Some("1"), Some("of old"), None];
    assert_eq!(table.relearn(&message, &row), new("1-1-0"), "a label and a NULL are one change");
    assert_eq!(table.read(&message), old("1-0-0"));
    assert_eq!(table.relearn(&message, &row), old("1-1-0"));
}

#[test]
fn a_row_that_no_shape_explains_is_an_error() {
    let mut table = Table::any();
    let message = table.message();
    table.read(&message);
    for row in [&[Some("x")][..], &[Some("1"), Some("2")]] {
        let error =
            table.making(&message, |making| making.fitting(|columns| fits(columns, row))).unwrap_err();
        assert!(!error.is_retryable(), "{error}");
    }
    let stubborn = |_: &Columns| {
        Err(RowError::Unfitting { column: "id".to_owned(), source: crate::decode::Misfit::Null })
    };
    let error = table.making(&message, |making| making.fitting(stubborn)).unwrap_err();
    assert!(error.to_string().contains("public.t"), "{error}");
}

#[test]
fn types_that_were_made_anew_as_they_were_keep_the_version() {
    const AGAIN: u32 = 90_002;
    let mut table = Table::any();
    table.add("mood", MOOD);
    let first = table.message();
    assert_eq!(table.read(&first), new("1-0-0"));
    table.facts().oid = 8;
    table.facts().columns[1].type_oid = AGAIN;
    table.types = TypeCatalog::default();
    table.labels(AGAIN, &["sad", "happy"]);
    let second = table.message();
    assert_eq!(table.read(&second), old("1-0-0"));
    table.facts = None;
    table.types = TypeCatalog::default();
    assert_eq!(table.read(&second), old("1-0-0"), "the newest is known after it is gone");
}

#[test]
fn with_the_identity_full_the_key_is_the_primary_key_then_as_now() {
    let mut table = Table::any();
    table.add("note", Type::TEXT.oid());
    table.facts().identity = ReplicaIdentity::Full;
    table.facts().columns[1].identifying = true;
    let message = table.message();
    assert_eq!(table.read(&message), new("1-0-0"));
    for _ in 0..2 {
        let candidate = table.making(&message, |making| making.shape().unwrap().unwrap());
        let key: Vec<bool> = candidate.columns.0.iter().map(|column| column.key).collect();
        assert_eq!(key, [true, false]);
        table.facts = None;
    }
}

#[test]
fn a_partition_that_is_gone_is_wanted_and_treated_as_the_table_that_it_was_of() {
    let rules = r#""tables": ["public.orders"], "columns": {"exclude": ["public.orders.card"]}"#;
    let mut table = Table::new(rules);
    table.add("card", Type::TEXT.oid());
    let message = table.message();
    assert!(table.making(&message, |making| making.shape().unwrap()).is_none(), "nobody wants it");
    table.facts().root = Some(("public".to_owned(), "orders".to_owned()));
    assert_eq!(table.read(&message), new("1-0-0"));
    table.facts = None;
    let candidate = table.making(&message, |making| making.shape().unwrap().unwrap());
    assert!(candidate.schema["properties"].get("card").is_none(), "{}", candidate.schema);
}

#[test]
fn a_rule_for_a_column_makes_another_shape() {
    let mut table = Table::any();
    table.add("card", Type::TEXT.oid());
    let message = table.message();
    assert_eq!(table.read(&message), new("1-0-0"));
    table.plan = Table::new(r#""tables": ["public.*"], "columns": {"exclude": ["public.t.card"]}"#).plan;
    // An old part of the log is treated as everything is now.
    table.add("other", Type::TEXT.oid());
    assert_eq!(table.read(&message), new("2-0-0"));
    let candidate = table.making(&message, |making| making.shape().unwrap().unwrap());
    assert!(candidate.schema["properties"].get("card").is_none(), "{}", candidate.schema);
}

#[test]
fn what_is_kept_is_read_back_and_a_newer_form_is_refused() {
    let mut table = Table::any();
    table.add("mood", MOOD);
    table.facts().columns[1].comment = Some("how they are".to_owned());
    table.facts().columns[1].modifier = 5;
    let candidate = table.making(&table.message(), |making| making.shape().unwrap().unwrap());
    let text = candidate.outline.text();
    assert_eq!(Outline::read(&text).unwrap(), candidate.outline);
    let newer = text.replacen("\"v\":1", "\"v\":2", 1);
    assert!(Outline::read(&newer).unwrap_err().to_string().contains("newer"));
    assert!(Outline::read("{}").is_err() && Outline::read(&text.replace("columns", "rows")).is_err());
}

#[test]
fn a_version_is_announced_once_and_the_oldest_makes_room() {
    let mut table = Table::any();
    let first = table.message();
    table.read(&first);
    let version = forebay_api::SchemaVersion::FIRST;
    assert!(table.history.announce(version) && !table.history.announce(version));
    let candidate = table.making(&first, |making| making.shape().unwrap().unwrap());
    let place = table.place(&candidate);
    assert!(place.announced && !place.changed && place.schema.contains(r#""$id":"/s/v/public.t/1-0-0""#));
    for n in 0..MAX_VERSIONS {
        table.facts().comment = Some(n.to_string());
        let message = table.message();
        assert!(table.read(&message).1);
    }
    assert_eq!(table.history.kept().len(), MAX_VERSIONS);
    table.facts().comment = None;
    assert_eq!(table.read(&first), new(&format!("1-0-{}", MAX_VERSIONS + 1)), "it was forgotten");
}
