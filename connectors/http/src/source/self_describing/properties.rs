//! [`Properties`]: what the members of a self-describing object are called, and finding them.

use forebay_api::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::source::json::Members;
use crate::source::object::Object;
use crate::source::unreadable::because;

/// How many parts a path may have.
const MAX_PARTS: usize = 8;

/// Where the parts of an event stand in an object. Dots lead into objects: `message.event`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Named")]
#[schemars(with = "Named")]
pub struct Properties {
    /// The whole paths of schema, data and contexts, part by part.
    paths: [Vec<Box<str>>; 3],
}

/// What the members of an object are called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SelfDescribingProperties")]
pub struct Named {
    /// The member with schema and data. Empty: the object itself.
    payload: String,
    /// The member of the payload with the key of its schema.
    #[schemars(length(min = 1))]
    schema: String,
    /// The member of the payload with what obeys the schema.
    #[schemars(length(min = 1))]
    data: String,
    /// The member of the object with its context entities: an array of objects with `schema` and `data`, or an object
    /// of data by schema.
    #[schemars(length(min = 1))]
    contexts: String,
}

impl Default for Named {
    fn default() -> Named {
        Named {
            payload: "payload".to_owned(),
            schema: "schema".to_owned(),
            data: "data".to_owned(),
            contexts: "contexts".to_owned(),
        }
    }
}

impl Default for Properties {
    fn default() -> Properties {
        Properties::try_from(Named::default()).expect("the defaults do not overlap")
    }
}

impl TryFrom<Named> for Properties {
    type Error = String;

    fn try_from(named: Named) -> Result<Properties, String> {
        let payload = match &*named.payload {
            "" => Vec::new(),
            path => parts(path)?,
        };
        let inside = |path: &str| Ok::<_, String>([payload.clone(), parts(path)?].concat());
        let paths = [inside(&named.schema)?, inside(&named.data)?, parts(&named.contexts)?];
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            if paths[a].starts_with(&paths[b]) || paths[b].starts_with(&paths[a]) {
                let (a, b) = (paths[a].join("."), paths[b].join("."));
                return Err(format!("`{a}` and `{b}` are the same member, or one is inside of the other"));
            }
        }
        Ok(Properties { paths })
    }
}

fn parts(path: &str) -> Result<Vec<Box<str>>, String> {
    let parts: Vec<Box<str>> = path.split('.').map(Box::from).collect();
    match parts.len() <= MAX_PARTS && parts.iter().all(|part| !part.is_empty()) {
        true => Ok(parts),
        false => Err(format!("`{path}` is not a name, or names joined by dots ({MAX_PARTS} at most)")),
    }
}

/// What was found in an object.
#[derive(Debug)]
pub(super) struct Parts<'p> {
    /// The key of the schema.
    pub(super) schema: &'p RawValue,
    /// What shall obey it.
    pub(super) data: &'p RawValue,
    /// The entities, where there are any.
    pub(super) contexts: Option<&'p RawValue>,
    /// All other members that were met, by their paths.
    pub(super) rest: Object,
}

impl Properties {
    /// The whole path of the schema's key, for messages.
    pub(super) fn schema(&self) -> String {
        self.paths[0].join(".")
    }

    /// Finds the parts of an event.
    pub(super) fn find<'p>(&self, item: &'p RawValue) -> Result<Parts<'p>, Invalid> {
        let mut search = Search { found: [None; 3], rest: Object::default(), places: Vec::new() };
        let wanted: Vec<(usize, &[Box<str>])> =
            self.paths.iter().enumerate().map(|(slot, path)| (slot, &path[..])).collect();
        search.walk("", item, &wanted)?;
        let [schema, data, contexts] = search.found;
        let missing =
            |slot: usize| because("invalid_envelope", format!("`{}` is missing", self.paths[slot].join(".")));
        Ok(Parts {
            schema: schema.ok_or_else(|| missing(0))?,
            data: data.ok_or_else(|| missing(1))?,
            contexts,
            rest: search.rest,
        })
    }
}

/// A walk along the paths. It goes no deeper than they do.
struct Search<'s> {
    found: [Option<&'s RawValue>; 3],
    rest: Object,
    /// The paths of what is in `rest`.
    places: Vec<String>,
}

impl<'s> Search<'s> {
    fn walk(
        &mut self,
        at: &str,
        value: &'s RawValue,
        wanted: &[(usize, &[Box<str>])],
    ) -> Result<(), Invalid> {
        let what = if at.is_empty() { "the event".to_owned() } else { format!("`{at}`") };
        for (name, value) in Members::of(&what, value)?.0 {
            let inside: Vec<(usize, &[Box<str>])> = wanted
                .iter()
                .filter(|(_, path)| *path[0] == *name)
                .map(|(slot, path)| (*slot, &path[1..]))
                .collect();
            let place = || if at.is_empty() { name.to_string() } else { format!("{at}.{name}") };
            match inside[..] {
                [] => {
                    let place = place();
                    if self.places.contains(&place) {
                        let message = format!("two members are at `{place}`");
                        return Err(because("invalid_envelope", message));
                    }
                    self.rest.push(&place, value.get().as_bytes());
                    self.places.push(place);
                }
                [(slot, [])] => self.found[slot] = Some(value),
                _ => self.walk(&place(), value, &inside)?,
            }
        }
        Ok(())
    }
}
