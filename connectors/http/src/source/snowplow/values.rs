//! [`Values`]: the parameters of one event, as text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::parameters::{PARAMETERS, index_of};

/// The parameters that one event was given; an empty text counts as not given, which is what it says.
#[derive(Debug, Default)]
pub(super) struct Values<'v> {
    known: Vec<Option<Cow<'v, str>>>,
    /// Those that are in no table, by name.
    pub other: BTreeMap<Cow<'v, str>, Cow<'v, str>>,
}

impl<'v> Values<'v> {
    /// None yet.
    pub(super) fn new() -> Values<'v> {
        let mut known = Vec::new();
        known.resize(PARAMETERS.len(), None);
        Values { known, other: BTreeMap::new() }
    }

    /// Sets a parameter, and gives what it was before.
    pub(super) fn set(&mut self, name: Cow<'v, str>, text: Cow<'v, str>) -> Option<Cow<'v, str>> {
        match index_of(&name) {
            Some(at) => self.known[at].replace(text),
            None => self.other.insert(name, text),
        }
    }

    /// A parameter of the table by its name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        index_of(name).and_then(|at| self.at(at))
    }

    /// A parameter by its index in the table.
    pub(super) fn at(&self, at: usize) -> Option<&str> {
        self.known[at].as_deref().filter(|text| !text.is_empty())
    }
}
