//! [`Schema`]: from bytes of a store to a validator.
//!
//! What a store answers becomes a schema only when it is a JSON object that its meta-schema allows and that names nothing
//! beyond the registry. A `$ref` to another schema is a key (`com.acme/address/1-0-0`) or an Iglu URI; those are fetched
//! through the same chain before anything is compiled. Any other address is an error and never fetched: an event, or a
//! schema, could name one inside of the network.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use forebay_api::{Blame, Fault, SchemaKey};
use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::{Map, Value};

use super::chain::Chain;
use super::node::Tape;

/// Schemas that one schema may need, itself among them.
const MAX_DOCUMENTS: usize = 64;

/// Their bytes together.
const MAX_BYTES: usize = 4 << 20;

/// From a schema to another to another.
const MAX_HOPS: usize = 16;

/// Steps back that a regular expression may take on one value.
const BACKTRACK_LIMIT: usize = 100_000;

/// Compiled, a schema takes about so many times its text.
const COMPILED: usize = 12;

/// Where the keys of a registry are, as URIs; nothing is ever fetched from there.
const BASE: &str = "registry:///";

/// What Iglu schemas name in `$schema`; it extends draft 4 by `self`.
const IGLU_META_SCHEMA: &str =
    "iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0";
const DRAFT_4: &str = "http://json-schema.org/draft-04/schema#";

/// One schema, ready to judge by.
pub struct Schema {
    /// Its key.
    pub key: SchemaKey,
    /// As the store keeps it.
    pub text: Bytes,
    /// What judges.
    pub(super) validator: Validator<Tape>,
    /// About what it takes in memory, in bytes.
    pub(super) weight: usize,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schema").field(&self.key).finish()
    }
}

/// What became of a key.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// A schema.
    Schema(Arc<Schema>),
    /// No store has it.
    NotThere,
    /// What a store has under it is no schema, and why.
    Broken(Arc<str>),
}

/// Fetches a schema with all that it refers to, and compiles it. A fault: a store could not be asked.
pub(super) async fn load(chain: &Chain, key: &SchemaKey) -> Result<Loaded, Fault> {
    match chain.fetch(key).await? {
        Some(text) => compiled(chain, key, text).await,
        None => Ok(Loaded::NotThere),
    }
}

/// The same for a text that is at hand.
pub(super) async fn compiled(chain: &Chain, key: &SchemaKey, text: Bytes) -> Result<Loaded, Fault> {
    let gathered = match gather(chain, key, &text).await? {
        Ok(gathered) => gathered,
        Err(why) => return Ok(Loaded::Broken(why.into())),
    };
    let (key, doing) = (key.clone(), format!("compiling the schema `{key}`"));
    let compiled = tokio::task::spawn_blocking(move || compile(key, text, gathered)).await;
    let compiled = compiled.map_err(|error| Fault::fatal(doing, Blame::Defect, error))?;
    Ok(compiled.map_or_else(|why| Loaded::Broken(why.into()), |schema| Loaded::Schema(Arc::new(schema))))
}

/// A schema and those that it refers to.
struct Gathered {
    documents: BTreeMap<SchemaKey, Value>,
    bytes: usize,
}

/// Follows references, each schema once. The inner error says why it is no schema.
async fn gather(chain: &Chain, root: &SchemaKey, text: &Bytes) -> Result<Result<Gathered, String>, Fault> {
    let mut gathered = Gathered { documents: BTreeMap::new(), bytes: 0 };
    let mut waiting = VecDeque::from([(root.clone(), text.clone(), 0)]);
    while let Some((key, text, hops)) = waiting.pop_front() {
        if gathered.documents.contains_key(&key) {
            continue;
        }
        gathered.bytes += text.len();
        if gathered.documents.len() >= MAX_DOCUMENTS || gathered.bytes > MAX_BYTES || hops > MAX_HOPS {
            return Ok(Err(format!(
                "it refers to too much: at most {MAX_DOCUMENTS} schemas of {MAX_BYTES} bytes together, {MAX_HOPS} deep"
            )));
        }
        let mut named = Vec::new();
        let document = match read(&key, &text, &mut named) {
            Ok(document) => document,
            Err(why) if key == *root => return Ok(Err(why)),
            Err(why) => return Ok(Err(format!("it refers to `{key}`: {why}"))),
        };
        gathered.documents.insert(key.clone(), document);
        for name in named {
            if gathered.documents.contains_key(&name) {
                continue;
            }
            match chain.fetch(&name).await? {
                Some(text) => waiting.push_back((name, text, hops + 1)),
                None => return Ok(Err(format!("`{key}` refers to `{name}`, which is not in the registry"))),
            }
        }
    }
    Ok(Ok(gathered))
}

/// Reads one document: a JSON object that says of itself what its key says, with its references as URIs of the registry.
fn read(key: &SchemaKey, text: &[u8], named: &mut Vec<SchemaKey>) -> Result<Value, String> {
    let mut document: Value =
        serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(members) = &mut document else {
        return Err("it is JSON, but not an object".to_owned());
    };
    if !members.is_empty() && !members.keys().any(|key| is_keyword(key)) {
        return Err("it has none of the keywords of JSON Schema".to_owned());
    }
    describes_itself(key, members)?;
    settle_draft(members);
    settle_references(&mut document, named)?;
    jsonschema::meta::validate(&document).map_err(|error| {
        let at = error.instance_path().as_str().to_owned();
        let at = if at.is_empty() { "at its root".to_owned() } else { format!("at `{at}`") };
        format!("its meta-schema does not allow it {at}: {}", error.masked())
    })?;
    Ok(document)
}

/// Something that only a schema has: an error page in JSON has none of it.
fn is_keyword(key: &str) -> bool {
    const PLAIN: &[&str] = &[
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "const",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "self",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "definitions",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "uniqueItems",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "contains",
        "minProperties",
        "maxProperties",
        "contentEncoding",
        "contentMediaType",
    ];
    key.starts_with('$') || PLAIN.contains(&key)
}

/// What an Iglu schema says of itself is what its key says.
fn describes_itself(key: &SchemaKey, members: &Map<String, Value>) -> Result<(), String> {
    let Some(own) = members.get("self") else { return Ok(()) };
    let part = |name: &str| own.get(name).and_then(Value::as_str).unwrap_or_default();
    let said = format!("{}/{}/{}", part("vendor"), part("name"), part("version"));
    if said != key.as_str() {
        return Err(format!("it says of itself that it is `{said}`"));
    }
    match part("format") {
        "jsonschema" => Ok(()),
        other => Err(format!("its format is `{other}`, not `jsonschema`")),
    }
}

/// Iglu's meta-schema is draft 4 with `self`, which validators ignore.
fn settle_draft(members: &mut Map<String, Value>) {
    let iglu = match members.get("$schema").and_then(Value::as_str) {
        Some(named) => named.contains(IGLU_META_SCHEMA),
        None => members.contains_key("self"),
    };
    if iglu {
        members.insert("$schema".to_owned(), DRAFT_4.into());
    }
}

/// Turns keys and Iglu URIs in references into URIs of the registry, and notes them.
fn settle_references(value: &mut Value, named: &mut Vec<SchemaKey>) -> Result<(), String> {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    // these hold values, not schemas
                    ("const" | "enum" | "default" | "examples", _) => {}
                    ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                        if let Some(settled) = settle(reference, named)? {
                            *reference = settled;
                        }
                    }
                    (_, value) => settle_references(value, named)?,
                }
            }
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| settle_references(item, named))?,
        _ => {}
    }
    Ok(())
}

/// One reference: inside of the document, to a key, or an error.
fn settle(reference: &str, named: &mut Vec<SchemaKey>) -> Result<Option<String>, String> {
    let (target, fragment) = match reference.split_once('#') {
        Some((target, fragment)) => (target, format!("#{fragment}")),
        None => (reference, String::new()),
    };
    // A draft's own meta-schema is built in.
    if target.is_empty() || target.starts_with("http://json-schema.org/draft-0") {
        return Ok(None);
    }
    if target.starts_with("https://json-schema.org/draft/") {
        return Ok(None);
    }
    if let Ok(key) = target.parse::<SchemaKey>() {
        let settled = format!("{BASE}{key}{fragment}");
        named.push(key);
        return Ok(Some(settled));
    }
    match target.split_once(':') {
        // Within a document that has an `$id` or parts with one; what is not found there is an error when it is compiled.
        None => Ok(None),
        Some(("urn" | "tag", _)) => Ok(None),
        Some(_) => Err(not_fetched(target)),
    }
}

fn not_fetched(target: &str) -> String {
    format!(
        "it refers to `{target}`, which is not a key of the registry; addresses are never fetched: write \
         `com.acme/address/1-0-0` or `iglu:com.acme/address/jsonschema/1-0-0`"
    )
}

fn compile(key: SchemaKey, text: Bytes, gathered: Gathered) -> Result<Schema, String> {
    let weight = text.len() + gathered.bytes * COMPILED;
    let root = gathered.documents.get(&key).cloned().ok_or("it is missing")?;
    let validator = jsonschema::options_for::<Tape>()
        .with_base_uri(format!("{BASE}{key}"))
        .with_retriever(Documents(gathered.documents))
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT))
        .should_validate_formats(true)
        .build(&root)
        .map_err(|error| format!("it cannot be compiled: {}", error.masked()))?;
    Ok(Schema { key, text, validator, weight })
}

/// What was fetched, and nothing else.
struct Documents(BTreeMap<SchemaKey, Value>);

impl Retrieve for Documents {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let key = uri.as_str().strip_prefix(BASE).and_then(|key| key.parse::<SchemaKey>().ok());
        let document = key.and_then(|key| self.0.get(&key));
        document.cloned().ok_or_else(|| not_fetched(uri.as_str()).into())
    }
}
