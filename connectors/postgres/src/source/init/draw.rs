//! What was found, as YAML with comments. Pure.

use std::fmt::Write;

use forebay_api::SnapshotMode;

use super::{Survey, Table, exactly, qualified};
use crate::source::check::figures::{count, size, span};
use crate::source::check::statement::{plain, shown};
use crate::source::check::survey::copy_time;

/// What stands in `tables` where there is no table that could.
const EVERYTHING: &str = "public.*";

/// Of a key's columns so many are named.
const KEY_COLUMNS: usize = 8;

/// What a configuration is drawn from.
pub(super) struct Drawn<'f> {
    /// The variable that holds the URL.
    pub variable: &'static str,
    /// The source's name.
    pub name: &'f str,
    /// The database's.
    pub database: &'f str,
    /// Whether what is in the tables can be copied.
    pub copies: bool,
    /// Every table, and what keeps it from being read.
    pub tables: Vec<(&'f Table, &'f Survey, Option<Trouble>)>,
}

/// What keeps a table from being read.
#[derive(Default)]
pub(super) struct Trouble {
    /// Why, in words.
    pub reasons: Vec<String>,
    /// What mends it.
    pub statements: Vec<String>,
}

impl Trouble {
    /// Whether statements mend it.
    pub(super) fn is_mendable(&self) -> bool {
        !self.statements.is_empty()
    }
}

impl Drawn<'_> {
    /// The tables that are selected, as patterns.
    pub(super) fn patterns(&self) -> Vec<String> {
        let selected = self.tables.iter().filter(|(_, _, trouble)| trouble.is_none());
        let patterns: Vec<String> = selected.map(|(table, _, _)| exactly(&qualified(table))).collect();
        if patterns.is_empty() { vec![EVERYTHING.to_owned()] } else { patterns }
    }

    /// Whether what is there is copied.
    pub(super) fn snapshot(&self) -> SnapshotMode {
        if self.copies { SnapshotMode::Initial } else { SnapshotMode::Never }
    }
}

/// The source's keys.
pub(super) fn draw(drawn: &Drawn<'_>) -> String {
    let mut text = format!(
        "type: postgres\n\
         url: ${{{}}}\n\
         # vendor: com.acme.{name}         # of the schemas of its events; default: local.{name}\n\n",
        drawn.variable,
        name = drawn.name
    );
    text += &snapshot(drawn);
    text.push('\n');
    let database = plain(drawn.database);
    if drawn.tables.is_empty() {
        text += &format!(
            "# Database `{database}` has no table yet, and Forebay starts only when there is one.\n\
             tables: [{}]\n",
            quoted(EVERYTHING)
        );
        return text;
    }
    text += &format!(
        "# The tables of database `{database}`. A pattern such as {} takes in those that come later, too,\n\
         # at the next start.\n",
        quoted(EVERYTHING)
    );
    let selected = drawn.tables.iter().any(|(_, _, trouble)| trouble.is_none());
    if selected {
        text += "tables:\n";
    } else {
        text += &format!("tables: [{}]\n", quoted(EVERYTHING));
    }
    for (table, survey, trouble) in &drawn.tables {
        text += &entry(table, survey, trouble.as_ref(), drawn.copies);
    }
    text
}

fn snapshot(drawn: &Drawn<'_>) -> String {
    if !drawn.copies {
        return "# The server is a standby, where nothing can be copied.\nsnapshot: never\n".to_owned();
    }
    let selected =
        || drawn.tables.iter().filter(|(_, _, trouble)| trouble.is_none()).map(|(_, survey, _)| survey);
    let rows: Option<u64> = selected().map(|survey| survey.rows()).sum();
    let bytes = selected().map(|survey| survey.bytes()).sum();
    let much = if selected().next().is_none() {
        String::new()
    } else {
        let time = span(selected().map(|survey| copy_time(survey.rows(), survey.bytes())).sum());
        format!(" ({}, {}, in about {time})", rows_of(rows), size(bytes))
    };
    format!(
        "# What is in the tables already is copied first{much}.\n\
         # `never`: only changes from now on, for which no SELECT is needed. Also: `only`, `when_needed`.\n\
         snapshot: initial\n"
    )
}

/// One table with what there is to know of it.
fn entry(table: &Table, survey: &Survey, trouble: Option<&Trouble>, copies: bool) -> String {
    let mut text = format!("  # {}\n", about(table, survey, copies));
    let Some(trouble) = trouble else {
        text += &format!("  - {}\n", quoted(&exactly(&qualified(table))));
        return text;
    };
    text += &format!("  # Left out: {}.\n", trouble.reasons.join("; "));
    if trouble.is_mendable() {
        text += "  # To read it, run this and take the `#` from the entry:\n";
    }
    for statement in &trouble.statements {
        text += &format!("  #     {statement}\n");
    }
    text += &format!("  # - {}\n", quoted(&exactly(&qualified(table))));
    text
}

fn about(table: &Table, survey: &Survey, copies: bool) -> String {
    let mut text = format!(
        "{}: {}, {}; {}",
        shown(&table.schema, &table.name),
        rows_of(survey.rows()),
        size(survey.bytes()),
        key(survey)
    );
    if table.partitioned {
        let partitions = u64::try_from(survey.leaves.len()).unwrap_or(u64::MAX);
        text += &format!("; in {} partitions", count(partitions));
    }
    text += match survey.identity.as_str() {
        _ if table.partitioned && table.identified() => "; replica identity: that of its partitions",
        _ if !table.identified() => "; replica identity: none",
        "f" => "; replica identity: the whole row",
        "i" => "; replica identity: an index",
        _ => "; replica identity: the key",
    };
    if copies {
        text += &format!("; copied in about {}", span(copy_time(survey.rows(), survey.bytes())));
    }
    text
}

fn rows_of(rows: Option<u64>) -> String {
    match rows {
        Some(0) => "empty".to_owned(),
        Some(1) => "1 row".to_owned(),
        Some(rows) => format!("about {} rows", count(rows)),
        None => "its rows were never counted".to_owned(),
    }
}

fn key(survey: &Survey) -> String {
    if survey.key.is_empty() {
        return "no primary key".to_owned();
    }
    let columns: Vec<String> = survey.key.iter().take(KEY_COLUMNS).map(|column| plain(column)).collect();
    let more = if survey.key.len() > KEY_COLUMNS { ", …" } else { "" };
    format!("key: {}{more}", columns.join(", "))
}

/// A pattern in double quotes. No `${` is in it, since a `{` that is meant stands in brackets.
fn quoted(text: &str) -> String {
    let mut yaml = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => yaml.extend(['\\', c]),
            '\n' => yaml += "\\n",
            '\t' => yaml += "\\t",
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(yaml, "\\u{:04X}", u32::from(c)).expect("a string takes what is written to it");
            }
            c => yaml.push(c),
        }
    }
    yaml + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::check::survey::Leaf;

    fn table(name: &str, identified: bool) -> Table {
        let own = ("public".to_owned(), name.to_owned());
        Table {
            oid: 1,
            schema: "public".to_owned(),
            name: name.to_owned(),
            root: None,
            partitioned: false,
            unidentified: if identified { Vec::new() } else { vec![own] },
        }
    }

    fn survey(key: &[&str], rows: u64, bytes: u64) -> Survey {
        let leaf = Leaf {
            schema: "public".to_owned(),
            name: String::new(),
            rows: Some(rows),
            bytes,
            reachable: true,
            readable: true,
            hidden: false,
        };
        Survey {
            key: key.iter().map(|column| (*column).to_owned()).collect(),
            identity: "d".to_owned(),
            owner: "app".to_owned(),
            owner_is_superuser: false,
            owned: true,
            of_extension: false,
            leaves: vec![leaf],
        }
    }

    const EXPECTED: &str = r##"type: postgres
url: ${DATABASE_URL}
# vendor: com.acme.shop         # of the schemas of its events; default: local.shop

# What is in the tables already is copied first (about 1,200,000 rows, 310 MiB, in about 12 s).
# `never`: only changes from now on, for which no SELECT is needed. Also: `only`, `when_needed`.
snapshot: initial

# The tables of database `shop`. A pattern such as "public.*" takes in those that come later, too,
# at the next start.
tables:
  # public.orders: about 1,200,000 rows, 310 MiB; key: shop, id; replica identity: the key; copied in about 12 s
  - "public.orders"
  # public.a*\n${b}: 1 row, 8 KiB; no primary key; replica identity: none; copied in about 1 s
  # Left out: it has no key.
  # To read it, run this and take the `#` from the entry:
  #     ALTER …;
  # - "public.a[*]\n$[{]b[}]"
"##;

    #[test]
    fn a_table_stands_with_what_there_is_to_know_of_it() {
        let (orders, log) = (table("orders", true), table("a*\n${b}", false));
        let (of_orders, of_log) = (survey(&["shop", "id"], 1_200_000, 325_058_560), survey(&[], 1, 8192));
        let trouble =
            Trouble { reasons: vec!["it has no key".to_owned()], statements: vec!["ALTER …;".to_owned()] };
        let drawn = Drawn {
            variable: "DATABASE_URL",
            name: "shop",
            database: "shop",
            copies: true,
            tables: vec![(&orders, &of_orders, None), (&log, &of_log, Some(trouble))],
        };
        assert_eq!(draw(&drawn), EXPECTED);
        assert_eq!(drawn.patterns(), ["public.orders"]);
    }

    #[test]
    fn a_database_without_tables_says_so() {
        let drawn = Drawn {
            variable: "DATABASE_URL",
            name: "shop",
            database: "shop",
            copies: false,
            tables: Vec::new(),
        };
        let text = draw(&drawn);
        assert!(text.contains("has no table yet") && text.contains("tables: [\"public.*\"]"), "{text}");
        assert!(text.contains("snapshot: never"), "{text}");
    }
}
