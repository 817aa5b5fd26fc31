//! Routing templates: `{source}.{schema}.{table}` for topics, tables, paths and keys.
//!
//! A [`Template`] is read once, with the configuration; afterwards rendering cannot fail. Characters that a
//! target forbids become `_`, in what the placeholders bring and never in the template's own text: a path's `/`
//! stays, a table's does not. [`Names`] notices when two subjects would then share a name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// What stands where an event has nothing for a placeholder (a logical message has no table).
const ABSENT: &str = "_";

/// What a template can ask of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// The source's name in the configuration.
    Source,
    /// The database that the source reads.
    Database,
    /// The database's schema.
    Schema,
    /// The table.
    Table,
    /// Vendor of the registry key.
    Vendor,
    /// Name of the registry key.
    Name,
    /// Version of the registry key.
    Version,
    /// What happened.
    Op,
    /// Whether the event is valid.
    Valid,
    /// Year of the event's time, four digits.
    Year,
    /// Month of the event's time, two digits.
    Month,
    /// Day of the event's time, two digits.
    Day,
    /// Hour of the event's time, two digits, UTC.
    Hour,
}

impl Placeholder {
    /// Every placeholder, in the order in which messages list them.
    pub const ALL: [Placeholder; 13] = [
        Placeholder::Source,
        Placeholder::Database,
        Placeholder::Schema,
        Placeholder::Table,
        Placeholder::Vendor,
        Placeholder::Name,
        Placeholder::Version,
        Placeholder::Op,
        Placeholder::Valid,
        Placeholder::Year,
        Placeholder::Month,
        Placeholder::Day,
        Placeholder::Hour,
    ];

    /// The word between the braces.
    pub fn as_str(self) -> &'static str {
        match self {
            Placeholder::Source => "source",
            Placeholder::Database => "database",
            Placeholder::Schema => "schema",
            Placeholder::Table => "table",
            Placeholder::Vendor => "vendor",
            Placeholder::Name => "name",
            Placeholder::Version => "version",
            Placeholder::Op => "op",
            Placeholder::Valid => "valid",
            Placeholder::Year => "year",
            Placeholder::Month => "month",
            Placeholder::Day => "day",
            Placeholder::Hour => "hour",
        }
    }
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing would ever be rendered.
    #[error("the template is empty")]
    Empty,
    /// A brace stands alone.
    #[error("a `{0}` has no partner; write `{0}{0}` for the character itself")]
    Brace(char),
    /// Nobody knows the word between the braces.
    #[error(
        "unknown placeholder `{{{word}}}`{}; the known ones are {}",
        suggestion(word),
        known_placeholders()
    )]
    Unknown {
        /// The word.
        word: String,
    },
}

/// A text with placeholders, read from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Text and placeholders in turn.
    parts: Vec<Part>,
}

/// One piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Stands as it is.
    Text(String),
    /// Is asked of each event.
    Placeholder(Placeholder),
}

impl Template {
    /// Reads `{name}` as a placeholder, `{{` and `}}` as the braces themselves.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = if rest[at..].starts_with('{') { '{' } else { '}' };
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push(brace);
                rest = after;
                continue;
            }
            let (word, after) = match rest.split_once('}') {
                Some(split) if brace == '{' => split,
                _ => return Err(TemplateError::Brace(brace)),
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            let known = Placeholder::ALL.into_iter().find(|placeholder| placeholder.as_str() == word);
            parts.push(Part::Placeholder(
                known.ok_or_else(|| TemplateError::Unknown { word: word.to_owned() })?,
            ));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if parts.is_empty() { Err(TemplateError::Empty) } else { Ok(Template { parts }) }
    }

    /// The placeholders it asks for, in order; one that stands twice comes twice.
    pub fn placeholders(&self) -> impl Iterator<Item = Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(placeholder) => Some(*placeholder),
            Part::Text(_) => None,
        })
    }

    /// Appends the name for one event to `out`. In what `vars` gives, every character that is `forbidden`
    /// becomes `_`; what it has nothing for is written `_`.
    pub fn render<'v>(
        &self,
        vars: impl Fn(Placeholder) -> Option<&'v str>,
        forbidden: fn(char) -> bool,
        out: &mut String,
    ) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Placeholder(placeholder) => {
                    let value = vars(*placeholder).filter(|value| !value.is_empty()).unwrap_or(ABSENT);
                    out.extend(value.chars().map(|char| if forbidden(char) { '_' } else { char }));
                }
            }
        }
    }

    /// What a name is rendered from, quoted so that two subjects never read alike: `schema "a", table "b.c"`.
    /// [`Names`] compares it, and its message shows it.
    pub fn origin<'v>(&self, vars: impl Fn(Placeholder) -> Option<&'v str>) -> String {
        let mut out = String::new();
        for placeholder in self.placeholders() {
            let comma = if out.is_empty() { "" } else { ", " };
            let value = vars(placeholder).unwrap_or_default();
            write!(out, "{comma}{} {value:?}", placeholder.as_str())
                .expect("a String takes all that is written");
        }
        out
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Placeholder(placeholder) => write!(f, "{{{}}}", placeholder.as_str())?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
        Template::parse(&Cow::<'de, str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "template",
            "description": format!("A text with placeholders: {}.", known_placeholders()),
            "type": "string",
            "pattern": format!(
                r"^([^{{}}]|\{{\{{|\}}\}}|\{{({})\}})+$",
                Placeholder::ALL.map(Placeholder::as_str).join("|")
            ),
            "examples": ["{source}.{schema}.{table}"],
        })
    }
}

/// Which subject has which name, so that no two share one by accident. Holds a name for each subject, hence as
/// many as the source has tables; do not give it names with a time in them, which never come to an end.
#[derive(Debug, Default)]
pub struct Names {
    /// Rendered name to where it came from.
    taken: HashMap<String, String>,
}

/// Two subjects whose names differ only in characters that the target forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "both {first} and {second} would be named `{name}`; tell them apart by another template or rename one of them"
)]
pub struct Collision {
    /// The name they would share.
    pub name: String,
    /// Who has it.
    pub first: String,
    /// Who asked for it as well.
    pub second: String,
}

impl Names {
    /// Gives `name` to `origin` (see [`Template::origin`]), for the first time or again.
    pub fn take(&mut self, name: &str, origin: &str) -> Result<(), Collision> {
        match self.taken.get(name) {
            Some(first) if first == origin => Ok(()),
            Some(first) => {
                Err(Collision { name: name.to_owned(), first: first.clone(), second: origin.to_owned() })
            }
            None => {
                self.taken.insert(name.to_owned(), origin.to_owned());
                Ok(())
            }
        }
    }
}

/// The name among `known` that was probably meant by `given`: the one that takes the fewest slips of the hand to
/// get there, if these are few enough for its length.
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name))
        .filter(|(slips, name)| *slips <= (name.chars().count() / 3).max(1))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// ` (did you mean …?)` where there is something near.
fn suggestion(word: &str) -> String {
    nearest(word, Placeholder::ALL.map(Placeholder::as_str))
        .map(|name| format!(" (did you mean `{{{name}}}`?)"))
        .unwrap_or_default()
}

/// All placeholders for a message.
fn known_placeholders() -> String {
    Placeholder::ALL.map(|placeholder| format!("`{{{}}}`", placeholder.as_str())).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(schema: &'static str, table: &'static str) -> impl Fn(Placeholder) -> Option<&'static str> {
        move |placeholder| match placeholder {
            Placeholder::Source => Some("shop"),
            Placeholder::Schema => Some(schema),
            Placeholder::Table => Some(table),
            _ => None,
        }
    }

    fn slash(char: char) -> bool {
        char == '/'
    }

    fn render(text: &str, schema: &'static str, table: &'static str) -> String {
        let mut out = String::new();
        Template::parse(text).unwrap().render(vars(schema, table), slash, &mut out);
        out
    }

    #[test]
    fn placeholders_are_filled_and_forbidden_characters_replaced_only_in_them() {
        assert_eq!(render("{source}.{schema}.{table}", "public", "orders"), "shop.public.orders");
        assert_eq!(render("out/{table}.ndjson", "public", "a/b"), "out/a_b.ndjson");
        assert_eq!(render("{{{table}}}", "public", "t"), "{t}");
        assert_eq!(render("plain", "public", "t"), "plain");
    }

    #[test]
    fn what_an_event_lacks_is_an_underscore() {
        assert_eq!(render("{database}.{table}", "public", ""), "_._");
    }

    #[test]
    fn a_template_prints_as_it_was_written() {
        for text in ["{source}.{schema}.{table}", "a{{b}}c", "{year}/{month}"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_placeholder_names_the_nearest_and_the_known_ones() {
        let error = Template::parse("{source}.{tabel}").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown placeholder `{tabel}` (did you mean `{table}`?); the known ones are `{source}`, \
             `{database}`, `{schema}`, `{table}`, `{vendor}`, `{name}`, `{version}`, `{op}`, `{valid}`, `{year}`, \
             `{month}`, `{day}`, `{hour}`"
        );
    }

    #[test]
    fn a_lonely_brace_and_an_empty_template_are_refused() {
        assert_eq!(Template::parse("a{b"), Err(TemplateError::Brace('{')));
        assert_eq!(Template::parse("a}b"), Err(TemplateError::Brace('}')));
        assert_eq!(Template::parse(""), Err(TemplateError::Empty));
    }

    #[test]
    fn two_subjects_never_share_a_name_by_accident() {
        let template = Template::parse("{schema}.{table}").unwrap();
        let mut names = Names::default();
        let mut take = |schema, table| {
            let mut name = String::new();
            template.render(vars(schema, table), slash, &mut name);
            names.take(&name, &template.origin(vars(schema, table)))
        };
        assert_eq!(take("public", "a/b"), Ok(()));
        assert_eq!(take("public", "a/b"), Ok(()));
        assert_eq!(
            take("public", "a_b").unwrap_err().to_string(),
            "both schema \"public\", table \"a/b\" and schema \"public\", table \"a_b\" would be named \
             `public.a_b`; tell them apart by another template or rename one of them"
        );
        assert_eq!(take("x.y", "z"), Ok(()));
        assert!(take("x", "y.z").is_err());
    }

    #[test]
    fn tables_may_share_a_name_that_does_not_speak_of_them() {
        let template = Template::parse("everything").unwrap();
        let mut names = Names::default();
        for table in ["a", "b"] {
            assert_eq!(names.take("everything", &template.origin(vars("public", table))), Ok(()));
        }
    }

    #[test]
    fn the_nearest_name_takes_few_slips_or_there_is_none() {
        assert_eq!(nearest("brokrs", ["topic", "brokers"]), Some("brokers"));
        assert_eq!(nearest("dataDir", ["data_dir"]), Some("data_dir"));
        assert_eq!(nearest("xyz", ["topic", "brokers"]), None);
    }
}
