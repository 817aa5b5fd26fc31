//! The name of a table as the configuration writes it, and as SQL needs it.
//!
//! Names are taken as they are written: nothing is folded to lower case, because the configuration names tables in
//! the same way everywhere. In SQL every name is quoted.

use std::fmt;
use std::str::FromStr;

/// The server cuts longer names silently, and two tables would become one.
const MAX_NAME_BYTES: usize = 63;

/// `table` or `schema.table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    /// `None`: the first schema of the `search_path` that has the table, else the one where tables are created.
    pub(super) schema: Option<String>,
    /// The table alone.
    pub(super) table: String,
}

/// A text that is no table's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("a part of the name is empty")]
    Empty,
    #[error("a part of the name is longer than the {MAX_NAME_BYTES} bytes that PostgreSQL keeps")]
    TooLong,
    #[error("the name has more parts than a schema and a table; a part with a dot is put in double quotes")]
    TooManyParts,
    #[error("a double quote stands in the wrong place; inside quotes it is written twice")]
    Quote,
    #[error("the name holds a zero byte")]
    Zero,
    #[error("`{}` is where the positions are kept", super::tables::POSITIONS)]
    Taken,
}

impl FromStr for TableName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<TableName, NameError> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
                unquote(quoted)?
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            };
            parts.push(checked(part)?);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err(NameError::Quote),
            }
        }
        let (Some(table), schema) = (parts.pop(), parts.pop()) else { return Err(NameError::Empty) };
        if !parts.is_empty() {
            return Err(NameError::TooManyParts);
        }
        if table == super::tables::POSITIONS {
            return Err(NameError::Taken);
        }
        Ok(TableName { schema, table })
    }
}

/// For messages: as a person would write it.
impl TableName {
    /// As SQL needs it.
    pub(super) fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.table)),
            None => quote(&self.table),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.table)
    }
}

/// A name inside double quotes, and what follows them.
fn unquote(text: &str) -> Result<(String, &str), NameError> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(NameError::Quote)?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Ok((part, rest)),
        }
    }
}

fn checked(part: String) -> Result<String, NameError> {
    match part.len() {
        0 => Err(NameError::Empty),
        _ if part.contains('\0') => Err(NameError::Zero),
        1..=MAX_NAME_BYTES => Ok(part),
        _ => Err(NameError::TooLong),
    }
}

/// One part of a name as SQL writes it.
pub(super) fn quote(part: &str) -> String {
    format!("\"{}\"", part.replace('"', "\"\""))
}

/// A text as an SQL literal; servers of all supported versions have `standard_conforming_strings` on.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(schema: Option<&str>, table: &str) -> Result<TableName, NameError> {
        Ok(TableName { schema: schema.map(str::to_owned), table: table.to_owned() })
    }

    #[test]
    fn names_are_taken_as_they_are_written() {
        assert_eq!("events".parse(), name(None, "events"));
        assert_eq!("lake.Events".parse(), name(Some("lake"), "Events"));
        assert_eq!(r#""a.b"."c""d""#.parse(), name(Some("a.b"), "c\"d"));
        assert_eq!(r#"übung."""#.parse::<TableName>(), Err(NameError::Empty));
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        for (text, error) in [
            ("", NameError::Empty),
            ("a.", NameError::Empty),
            (".a", NameError::Empty),
            ("a.b.c", NameError::TooManyParts),
            ("\"a", NameError::Quote),
            ("\"a\"b", NameError::Quote),
            ("a\0", NameError::Zero),
            (&"x".repeat(64), NameError::TooLong),
            ("forebay_positions", NameError::Taken),
        ] {
            assert_eq!(text.parse::<TableName>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_name_comes_back(schema in "[^\0]{1,15}", table in "[^\0]{1,15}") {
            let text = format!("{}.{}", quote(&schema), quote(&table));
            prop_assert_eq!(text.parse(), name(Some(&schema), &table));
        }
    }
}
