//! The destination's own keys.

use forebay_api::Mistake;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::destination::name::TableName;
use crate::url::{Url, UrlSetting};

/// A PostgreSQL table that every event is appended to, once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresDestinationConfig {
    /// Where the table is: a libpq URI, `key=value` pairs, or a mapping of host, port, user, password and database.
    pub url: UrlSetting,
    /// The table, `table` or `schema.table`, taken as it is written; a name with a dot is put in double quotes. It is
    /// created when it does not exist, and `forebay_positions` beside it.
    #[serde(default = "default_table")]
    pub table: String,
    /// How events become rows.
    #[serde(default)]
    pub mode: Mode,
}

/// How events become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Mode {
    /// One row for each event, with its envelope as `jsonb`.
    #[default]
    Append,
}

fn default_table() -> String {
    "forebay_events".to_owned()
}

impl PostgresDestinationConfig {
    /// Reads what is text; all that is wrong with it at once.
    pub(super) fn read(&self) -> Result<(Url, TableName), Vec<Mistake>> {
        // the one mode there is needs no more than this
        let Mode::Append = self.mode;
        let url = self.url.parse().map_err(|error| Mistake {
            at: "/url".to_owned(),
            message: error.to_string(),
            help: Some("write it as `postgres://user:password@host:5432/database`".to_owned()),
        });
        let table = self.table.parse().map_err(|error: super::name::NameError| Mistake {
            at: "/table".to_owned(),
            message: error.to_string(),
            help: Some("write `table` or `schema.table`".to_owned()),
        });
        match (url, table) {
            (Ok(url), Ok(table)) => Ok((url, table)),
            (url, table) => Err([url.err(), table.err()].into_iter().flatten().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<PostgresDestinationConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let config = config(r#"{"url": "postgres://host/db?nonsense=1", "table": "a.b.c"}"#).unwrap();
        let mistakes = config.read().unwrap_err();
        let places: Vec<&str> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
        assert_eq!(places, ["/url", "/table"]);
    }

    #[test]
    fn a_mode_that_does_not_exist_is_refused() {
        assert!(config(r#"{"url": "postgres://u@h/d", "mode": "mirror"}"#).is_err());
        assert!(config(r#"{"url": "postgres://u@h/d", "tables": "x"}"#).is_err());
        assert_eq!(config(r#"{"url": "postgres://u@h/d"}"#).unwrap().mode, Mode::Append);
    }
}
