//! [`Subjects`]: what events are about, made once for each schema and shared by all requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::{SchemaKey, Subject, json};

/// How many are kept. A sender can name any schema; when so many were named all are forgotten, and made again as they
/// come.
const MAX_KEPT: usize = 4096;

/// One subject for each input that brought events of a schema.
type ByInput = Vec<(&'static str, Arc<Subject>)>;

/// The subjects of one source.
#[derive(Debug)]
pub struct Subjects {
    /// The source's name in the configuration.
    source: Arc<str>,
    made: Mutex<HashMap<SchemaKey, ByInput>>,
}

impl Subjects {
    /// None yet.
    pub fn new(source: Arc<str>) -> Subjects {
        Subjects { source, made: Mutex::default() }
    }

    /// The subject of a schema, as one input brings it.
    pub fn get(&self, input: &'static str, schema: &SchemaKey) -> Arc<Subject> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(schema).and_then(|of| of.iter().find(|(name, _)| *name == input)) {
            return known.1.clone();
        }
        if made.len() >= MAX_KEPT {
            made.clear();
        }
        let subject = Arc::new(self.make(input, schema));
        made.entry(schema.clone()).or_default().push((input, subject.clone()));
        subject
    }

    fn make(&self, input: &str, schema: &SchemaKey) -> Subject {
        let mut source = Vec::from(&br#""type":"http","name":"#[..]);
        json::write_string(&self.source, &mut source);
        source.extend_from_slice(br#","input":"#);
        json::write_string(input, &mut source);
        let source = String::from_utf8(source).expect("JSON of strings is a string");
        Subject::new((schema.vendor(), schema.name(), schema.version()), (None, None, None), source)
    }
}
