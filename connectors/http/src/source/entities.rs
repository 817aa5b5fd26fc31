//! Context entities: `[{"schema": "vendor/name/1-0-0", "data": …}, …]`, read from senders and written for events.

use forebay_api::{Invalid, InvalidDetail, SchemaKey, json::write_string};
use serde_json::value::RawValue;

use super::json::{self, Members};
use super::own_schemas::UNREADABLE;
use super::text::short;
use super::unreadable::because;

/// The entities of one event, in the making.
#[derive(Debug, Default)]
pub struct Entities {
    json: Vec<u8>,
}

impl Entities {
    /// Adds one; `data` is JSON.
    pub fn push(&mut self, schema: &str, data: &[u8]) {
        self.json.push(if self.json.is_empty() { b'[' } else { b',' });
        self.json.extend_from_slice(b"{\"schema\":");
        write_string(schema, &mut self.json);
        self.json.extend_from_slice(b",\"data\":");
        self.json.extend_from_slice(data);
        self.json.push(b'}');
    }

    /// Adds those of an array of entities, or of an object whose members are schemas and data. One that cannot be read
    /// makes the event invalid, and is kept as an entity that says what it was.
    pub fn read(&mut self, contexts: &RawValue) -> Result<(), Invalid> {
        let mut wrong = Vec::new();
        let mut all = 0;
        if contexts.get().starts_with('{') {
            let Members(members) =
                Members::of("the object of contexts", contexts).inspect_err(|_| self.keep(contexts))?;
            for (name, data) in members {
                let read = key(&name).map(|key| self.push(key.as_str(), data.get().as_bytes()));
                all += 1;
                if let Err(why) = read {
                    self.keep(data);
                    wrong.push(detail(&short(&name), why));
                }
            }
        } else if contexts.get().starts_with('[') {
            for entity in json::items(contexts.get()).inspect_err(|_| self.keep(contexts))? {
                if let Err(why) = self.one(entity) {
                    self.keep(entity);
                    wrong.push(detail(&all.to_string(), why));
                }
                all += 1;
            }
        } else if !json::is_null(contexts) {
            self.keep(contexts);
            let message = format!("contexts are {}, not an array of entities", json::kind(contexts));
            return Err(because("invalid_entity", message));
        }
        let Some(first) = wrong.first() else { return Ok(()) };
        let message = format!("{} of {all} context entities cannot be read: {}", wrong.len(), first.message);
        wrong.truncate(MAX_DETAILS);
        Err(Invalid { details: wrong, ..because("invalid_entity", message) })
    }

    fn one(&mut self, entity: &RawValue) -> Result<(), Invalid> {
        let (mut schema, mut data) = (None, None);
        for (name, value) in Members::of("the entity", entity)?.0 {
            match &*name {
                "schema" => schema = Some(value),
                "data" => data = Some(value),
                other => {
                    let message = format!("it has the member `{}` beside `schema` and `data`", short(other));
                    return Err(because("invalid_entity", message));
                }
            }
        }
        let missing = |name| because("invalid_entity", format!("it has no `{name}`"));
        let schema = json::string(schema.ok_or_else(|| missing("schema"))?)
            .ok_or_else(|| because("invalid_entity", "its `schema` is not a string"))?;
        let data = data.ok_or_else(|| missing("data"))?;
        self.push(key(&schema)?.as_str(), data.get().as_bytes());
        Ok(())
    }

    /// Keeps what could not be read, as text.
    fn keep(&mut self, original: &RawValue) {
        let mut data = b"{\"body\":".to_vec();
        write_string(original.get(), &mut data);
        data.push(b'}');
        self.push(UNREADABLE.as_str(), &data);
    }

    /// The JSON array; empty where there is none.
    pub fn finish(mut self) -> Vec<u8> {
        if !self.json.is_empty() {
            self.json.push(b']');
        }
        self.json
    }
}

/// How many wrong entities are told of one by one.
const MAX_DETAILS: usize = 20;

/// The key that a sender wrote.
pub fn key(text: &str) -> Result<SchemaKey, Invalid> {
    text.parse().map_err(|_| {
        let text = short(text);
        let message = format!("`{text}` is not a schema key such as `com.acme/order/1-0-0` or `iglu:com.acme/order/jsonschema/1-0-0`");
        because("invalid_schema_key", message)
    })
}

fn detail(place: &str, why: Invalid) -> InvalidDetail {
    let message = format!("entity {place}: {}", why.message);
    InvalidDetail { path: format!("/contexts/{place}"), keyword: String::new(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Result<(), Invalid>) {
        let mut entities = Entities::default();
        let read = entities.read(json::value(text).unwrap());
        (String::from_utf8(entities.finish()).unwrap(), read)
    }

    #[test]
    fn entities_keep_their_data_and_take_one_spelling_of_keys() {
        let (array, ok) = read(r#"[{"data":{"n":1.10},"schema":"iglu:com.acme/user/jsonschema/1-0-0"}]"#);
        assert_eq!((ok, &*array), (Ok(()), r#"[{"schema":"com.acme/user/1-0-0","data":{"n":1.10}}]"#));
        assert_eq!(
            read(r#"{"com.acme/user/v1.0.json":[1]}"#).0,
            r#"[{"schema":"com.acme/user/v1.0","data":[1]}]"#
        );
        assert_eq!(read("[]"), (String::new(), Ok(())));
        assert_eq!(read("null"), (String::new(), Ok(())));
    }

    #[test]
    fn an_entity_that_cannot_be_read_is_named_and_kept() {
        let good = r#"{"schema":"com.acme/user/1-0-0","data":1}"#;
        for (bad, reason) in [
            ("null", "the entity is null, not an object"),
            ("{}", "it has no `schema`"),
            (r#"{"schema":1,"data":1}"#, "its `schema` is not a string"),
            (r#"{"schema":"com.acme/user/1-0-0"}"#, "it has no `data`"),
            (
                r#"{"schema":"com.acme/user/1-0-0","data":1,"x":2}"#,
                "it has the member `x` beside `schema` and `data`",
            ),
            (r#"{"schema":"a/../1-0-0","data":1}"#, "`a/../1-0-0` is not a schema key"),
            (
                r#"{"schema":"a/b/1-0-0","data":1,"data":2}"#,
                "the entity cannot be read: member `data` is there twice",
            ),
        ] {
            let (text, read) = read(&format!("[{good},{bad},{good}]"));
            let why = read.unwrap_err();
            let message = format!("1 of 3 context entities cannot be read: entity 1: {reason}");
            assert!(why.message.starts_with(&message), "{}", why.message);
            assert_eq!(why.details[0].path, "/contexts/1");
            let kept: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert_eq!(kept[1]["data"]["body"], bad);
            assert_eq!(kept.len(), 3);
        }
        assert_eq!(read("7").1.unwrap_err().message, "contexts are a number, not an array of entities");
        assert!(read(r#"{"nonsense":1}"#).0.contains(r#"{"body":"1"}"#));
    }
}
