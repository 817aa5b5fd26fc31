//! The tables that the workload writes: one for each way in which PostgreSQL names a row in its log.
//!
//! Every table has a `version` that is unique in the whole run and grows with each change of a key, so that an
//! event says by itself which change it is. Nothing here knows how the daemon reads them.

use std::sync::Arc;

use tokio_postgres::Client;

/// The schema of all tables of the workload: what a configuration lists is `load.*`.
pub const SCHEMA: &str = "load";

/// How many different keys each table has; few, so that each key changes often.
pub(super) const KEYS: usize = 120;

/// A value as PostgreSQL prints it; `None` is null.
pub type Value = Option<Arc<str>>;

/// The values of one row, in the order of its table's columns.
pub type Row = Arc<[Value]>;

/// The values of the key columns of one row.
pub type Key = Arc<[Arc<str>]>;

/// What a value is in JSON; it decides how the two are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number token with the digits that PostgreSQL prints.
    Number,
    /// A string.
    Text,
    /// `true` or `false`.
    Bool,
    /// JSON in JSON, its bytes untouched.
    Json,
}

/// How a table names the old row in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By its primary key.
    PrimaryKey,
    /// By a unique index; the table has no primary key.
    Index,
    /// By the whole old row; the key is still the primary key.
    Full,
}

/// One column.
#[derive(Debug)]
pub struct Column {
    /// Its name in SQL and in the envelope.
    pub name: &'static str,
    /// Its type, which decides what values are made for it.
    pub sql: &'static str,
    /// What its values are in JSON.
    pub kind: Kind,
    /// Long values that are stored out of line, hence left out of the log where they did not change.
    pub toast: bool,
}

/// One table. The key columns come first, then `version`, then the rest.
#[derive(Debug)]
pub struct Table {
    /// Its name without the schema.
    pub name: &'static str,
    /// How many of the columns are its key.
    pub keys: usize,
    /// How the log names an old row.
    pub identity: Identity,
    /// All of its columns.
    pub columns: &'static [Column],
}

const fn column(name: &'static str, sql: &'static str, kind: Kind) -> Column {
    Column { name, sql, kind, toast: false }
}

const VERSION: Column = column("version", "int8", Kind::Number);
const BODY: Column = Column { name: "body", sql: "text", kind: Kind::Text, toast: true };

/// All tables of the workload; the rest of it names them by their place here.
pub static TABLES: [Table; 6] = [
    Table {
        name: "orders",
        keys: 1,
        identity: Identity::PrimaryKey,
        columns: &[
            column("id", "int8", Kind::Number),
            VERSION,
            column("note", "text", Kind::Text),
            column("amount", "numeric", Kind::Number),
            column("paid", "bool", Kind::Bool),
        ],
    },
    Table {
        name: "lines",
        keys: 2,
        identity: Identity::PrimaryKey,
        columns: &[
            column("order_id", "int4", Kind::Number),
            column("line", "int4", Kind::Number),
            VERSION,
            column("sku", "text", Kind::Text),
            column("quantity", "int4", Kind::Number),
        ],
    },
    Table {
        name: "people",
        keys: 1,
        identity: Identity::PrimaryKey,
        columns: &[column("handle", "text", Kind::Text), VERSION, column("profile", "jsonb", Kind::Json)],
    },
    Table {
        name: "pages",
        keys: 1,
        identity: Identity::PrimaryKey,
        columns: &[column("id", "int4", Kind::Number), VERSION, column("title", "text", Kind::Text), BODY],
    },
    Table {
        name: "documents",
        keys: 1,
        identity: Identity::Full,
        columns: &[column("id", "int4", Kind::Number), VERSION, column("title", "text", Kind::Text), BODY],
    },
    Table {
        name: "badges",
        keys: 1,
        identity: Identity::Index,
        columns: &[column("code", "text", Kind::Text), VERSION, column("label", "text", Kind::Text)],
    },
];

impl Table {
    /// The table of that schema and name, if it is one of the workload's.
    pub fn find(schema: &str, name: &str) -> Option<&'static Table> {
        TABLES.iter().find(|table| schema == SCHEMA && table.name == name)
    }

    /// Its key columns.
    pub fn key_columns(&self) -> &'static [Column] {
        &self.columns[..self.keys]
    }

    /// The key of one of its rows.
    pub fn key_of(&self, row: &[Value]) -> Key {
        let value = |value: &Value| value.clone().expect("key columns are not null");
        row[..self.keys].iter().map(value).collect()
    }

    /// The key with that number below [`KEYS`]: extremes, quotes and other scripts among them.
    pub(crate) fn key(&self, number: usize) -> Key {
        match (self.key_columns()[0].sql, self.keys) {
            ("int8", 1) if number.is_multiple_of(5) => {
                [format!("{}", 9_223_372_036_854_775_807 - number).into()].into()
            }
            ("text", 1) => {
                let shapes = ["plain", "quote ' and \"", "ünï ☃ 鍵", "tab\tand\nline", "back\\slash", ""];
                [format!("{}-{number}", shapes[number % shapes.len()]).into()].into()
            }
            (_, 1) => {
                let number = i64::try_from(number).expect("fewer keys than i64 holds");
                [(number - 20).to_string().into()].into()
            }
            _ => [(number / 8).to_string().into(), (number % 8).to_string().into()].into(),
        }
    }

    /// A key as people read it: `load.lines order_id=3 line=4`.
    pub fn name_key(&self, key: &[Arc<str>]) -> String {
        let parts: Vec<String> = self
            .key_columns()
            .iter()
            .zip(key)
            .map(|(column, value)| format!("{}={value:?}", column.name))
            .collect();
        format!("{SCHEMA}.{} {}", self.name, parts.join(" "))
    }

    fn definition(&self) -> String {
        let not_null = |at: usize| if at <= self.keys { " NOT NULL" } else { "" };
        let columns: Vec<String> = (self.columns.iter().enumerate())
            .map(|(at, column)| format!("{} {}{}", column.name, column.sql, not_null(at)))
            .collect();
        let name = format!("{SCHEMA}.{}", self.name);
        let keys: Vec<&str> = self.key_columns().iter().map(|column| column.name).collect();
        let keys = keys.join(", ");
        let mut sql = format!("CREATE TABLE {name} ({});\n", columns.join(", "));
        sql += &match self.identity {
            Identity::PrimaryKey => format!("ALTER TABLE {name} ADD PRIMARY KEY ({keys});\n"),
            Identity::Full => {
                format!("ALTER TABLE {name} ADD PRIMARY KEY ({keys}), REPLICA IDENTITY FULL;\n")
            }
            Identity::Index => format!(
                "CREATE UNIQUE INDEX {0}_key ON {name} ({keys}); ALTER TABLE {name} REPLICA IDENTITY USING INDEX {0}_key;\n",
                self.name
            ),
        };
        for column in self.columns.iter().filter(|column| column.toast) {
            sql += &format!("ALTER TABLE {name} ALTER {} SET STORAGE EXTERNAL;\n", column.name);
        }
        sql
    }
}

/// Makes the tables, and beside them the one in which each transaction leaves its tag.
pub(super) async fn create(client: &Client) -> Result<(), tokio_postgres::Error> {
    let mut sql = format!("CREATE SCHEMA {SCHEMA};\nCREATE SCHEMA ledger;\n");
    sql += "CREATE TABLE ledger.outcomes (tag int8 PRIMARY KEY, committed bool NOT NULL);\n";
    for table in &TABLES {
        sql += &table.definition();
    }
    client.batch_execute(&sql).await
}
