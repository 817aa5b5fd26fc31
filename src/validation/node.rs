//! [`Node`]: what the validator sees of a [`Document`](super::document::Document).

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, NodeIdentity, Object};
use jsonschema_value::LazyInstance;
use serde_json::Value;

use super::document::{Item, behind};
use super::number::Number;

/// Our representation of JSON, for the validator.
#[derive(Debug)]
pub(super) struct Tape;

/// One value of a document, or the name of a member on its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'a> {
    /// The value at a place.
    Item(Place<'a>),
    /// A name.
    Name(&'a str),
}

/// A value's place in the items of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    items: &'a [Item<'a>],
    at: usize,
}

/// The members of an object, or the elements of an array: so many, from a place on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents<'a> {
    first: Place<'a>,
    count: u32,
}

impl<'a> Node<'a> {
    /// The whole of a document.
    pub(super) fn root(items: &'a [Item<'a>]) -> Node<'a> {
        Node::Item(Place { items, at: 0 })
    }

    /// The member of an object.
    pub(super) fn member(self, key: &str) -> Option<Node<'a>> {
        jsonschema::json::Node::as_object(&self)?.find(key)
    }

    /// How many values it has, itself among them.
    pub(super) fn size(self) -> usize {
        match self {
            Node::Item(place) => behind(place.items, place.at) - place.at,
            Node::Name(_) => 1,
        }
    }

    fn item(self) -> Option<&'a Item<'a>> {
        match self {
            Node::Item(place) => Some(&place.items[place.at]),
            Node::Name(_) => None,
        }
    }

    fn contents(place: Place<'a>, count: u32) -> Contents<'a> {
        Contents { first: Place { at: place.at + 1, ..place }, count }
    }

    /// JSON equality: numbers by what they mean, objects in any order.
    fn equals(self, other: Node<'a>) -> bool {
        use jsonschema::json::Node as _;
        if let (Some(one), Some(two)) = (self.as_string(), other.as_string()) {
            return one == two;
        }
        match (self.item(), other.item()) {
            (Some(Item::Null), Some(Item::Null)) => true,
            (Some(Item::Bool(one)), Some(Item::Bool(two))) => one == two,
            (Some(Item::Number(one)), Some(Item::Number(two))) => {
                one == two || Number(one).decimal() == Number(two).decimal()
            }
            (Some(Item::Array { count, .. }), Some(Item::Array { count: other_count, .. })) => {
                let both = self.as_array().zip(other.as_array());
                count == other_count
                    && both.is_some_and(|(one, two)| {
                        one.elements().zip(two.elements()).all(|(one, two)| one.equals(two))
                    })
            }
            (Some(Item::Object { count, .. }), Some(Item::Object { count: other_count, .. })) => {
                let both = self.as_object().zip(other.as_object());
                count == other_count
                    && both.is_some_and(|(one, two)| {
                        one.members()
                            .all(|(name, value)| two.find(name).is_some_and(|other| value.equals(other)))
                    })
            }
            _ => false,
        }
    }

    /// The same for what is equal.
    fn hash(self, keys: &RandomState) -> u64 {
        use jsonschema::json::Node as _;
        let mut hasher = keys.build_hasher();
        match self.item() {
            None | Some(Item::Text(_)) => self.as_string().hash(&mut hasher),
            Some(Item::Null) => 0u8.hash(&mut hasher),
            Some(Item::Bool(value)) => value.hash(&mut hasher),
            Some(Item::Number(text)) => Number(text).decimal().hash(&mut hasher),
            Some(Item::Array { .. }) => {
                self.as_array().into_iter().flat_map(|array| array.elements()).for_each(|element| {
                    element.hash(keys).hash(&mut hasher);
                });
            }
            Some(Item::Object { .. }) => {
                let member = |(name, value): (&str, Node<'a>)| keys.hash_one((name, value.hash(keys)));
                let members = self.as_object().into_iter().flat_map(|object| object.members());
                members.map(member).fold(0, u64::wrapping_add).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

impl Json for Tape {
    type Node<'a> = Node<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    /// A lookup goes through the members, as a pass over them does.
    const KEYS_PER_LOOKUP: usize = 4;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(Node<'_>) -> T) -> T {
        f(Node::Name(string))
    }
}

impl<'a> jsonschema::json::Node<'a, Tape> for Node<'a> {
    type Object = Contents<'a>;
    type Array = Contents<'a>;
    type Number = Number<'a>;

    fn as_object(&self) -> Option<Contents<'a>> {
        let Node::Item(place) = *self else { return None };
        match place.items[place.at] {
            Item::Object { count, .. } => Some(Node::contents(place, count)),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Contents<'a>> {
        let Node::Item(place) = *self else { return None };
        match place.items[place.at] {
            Item::Array { count, .. } => Some(Node::contents(place, count)),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Node::Name(name) => Some(Cow::Borrowed(name)),
            Node::Item(_) => match self.item() {
                Some(Item::Text(text)) => Some(Cow::Borrowed(text)),
                _ => None,
            },
        }
    }

    fn as_number(&self) -> Option<Number<'a>> {
        match self.item() {
            Some(Item::Number(text)) => Some(Number(text)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.item() {
            Some(Item::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.item(), Some(Item::Null))
    }

    fn json_type(&self) -> JsonType {
        match self.item() {
            None | Some(Item::Text(_)) => JsonType::String,
            Some(Item::Null) => JsonType::Null,
            Some(Item::Bool(_)) => JsonType::Boolean,
            Some(Item::Number(_)) => JsonType::Number,
            Some(Item::Array { .. }) => JsonType::Array,
            Some(Item::Object { .. }) => JsonType::Object,
        }
    }

    /// Numbers of the schema are exact within 64 bits.
    fn equals_value(&self, expected: &Value) -> bool {
        match expected {
            Value::Null => self.is_null(),
            Value::Bool(expected) => self.as_boolean() == Some(*expected),
            Value::Number(expected) => self.as_number().is_some_and(|number| number.equals(expected)),
            Value::String(expected) => self.as_string().is_some_and(|text| text == expected.as_str()),
            Value::Array(expected) => self.as_array().is_some_and(|array| {
                Array::len(&array) == expected.len()
                    && array
                        .elements()
                        .zip(expected)
                        .all(|(element, expected)| element.equals_value(expected))
            }),
            Value::Object(expected) => self.as_object().is_some_and(|object| {
                Object::len(&object) == expected.len()
                    && object.members().all(|(name, value)| {
                        expected.get(name).is_some_and(|expected| value.equals_value(expected))
                    })
            }),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        use jsonschema::json::JsonNumber;
        Cow::Owned(match self.item() {
            None | Some(Item::Text(_)) => {
                Value::String(self.as_string().map(Cow::into_owned).unwrap_or_default())
            }
            Some(Item::Null) => Value::Null,
            Some(Item::Bool(value)) => Value::Bool(*value),
            Some(Item::Number(text)) => Value::Number(Number(text).to_number().into_owned()),
            Some(Item::Array { .. }) => self
                .as_array()
                .into_iter()
                .flat_map(|array| array.elements())
                .map(|element| element.to_value().into_owned())
                .collect(),
            Some(Item::Object { .. }) => Value::Object(
                self.as_object()
                    .into_iter()
                    .flat_map(|object| object.members())
                    .map(|(name, value)| (name.to_owned(), value.to_value().into_owned()))
                    .collect(),
            ),
        })
    }

    /// Errors are told without the values they are about, so none is made for them: an event with many mistakes would
    /// be copied once for each.
    fn lazy_value(&self) -> LazyInstance<'a> {
        LazyInstance::Ready(Cow::Owned(Value::Null))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(match self {
            Node::Name(name) => NodeIdentity::new(name.as_ptr() as usize),
            Node::Item(place) => {
                let at = u32::try_from(place.at).expect("there are at most `MAX_ITEMS`");
                NodeIdentity::tagged(place.items.as_ptr() as usize, at + 1)
            }
        })
    }
}

impl<'a> Contents<'a> {
    fn find(self, key: &str) -> Option<Node<'a>> {
        self.members().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

impl<'a> Object<'a, Tape> for Contents<'a> {
    type Node = Node<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.count as usize
    }

    fn get(&self, key: &Box<str>) -> Option<Node<'a>> {
        self.find(key)
    }

    fn members(&self) -> Members<'a> {
        Members(*self)
    }
}

/// Goes through the members of an object.
#[derive(Debug)]
pub(super) struct Members<'a>(Contents<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<(&'a str, Node<'a>)> {
        self.0.count = self.0.count.checked_sub(1)?;
        let Place { items, at } = self.0.first;
        let Item::Text(name) = &items[at] else { unreachable!("keys and values alternate") };
        self.0.first.at = behind(items, at + 1);
        Some((name, Node::Item(Place { items, at: at + 1 })))
    }
}

impl<'a> Array<'a, Tape> for Contents<'a> {
    type Node = Node<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.count as usize
    }

    fn elements(&self) -> Elements<'a> {
        Elements(*self)
    }

    fn is_unique(&self) -> bool {
        /// What is equal has the same hash, so only such elements are compared.
        struct Element<'a>(u64, Node<'a>);
        impl PartialEq for Element<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0 && self.1.equals(other.1)
            }
        }
        impl Eq for Element<'_> {}
        impl Hash for Element<'_> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }
        let keys = RandomState::new();
        let mut seen = HashSet::with_capacity(self.count as usize);
        self.elements().all(|element| seen.insert(Element(element.hash(&keys), element)))
    }
}

/// Goes through the elements of an array.
#[derive(Debug)]
pub(super) struct Elements<'a>(Contents<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        self.0.count = self.0.count.checked_sub(1)?;
        let place = self.0.first;
        self.0.first.at = behind(place.items, place.at);
        Some(Node::Item(place))
    }
}

#[cfg(test)]
mod tests {
    use jsonschema::json::conformance;

    use super::super::document::Document;
    use super::*;

    #[test]
    fn what_the_validator_relies_on_holds() {
        let text = conformance::document().to_string();
        let mut document = Document::default();
        document.read(text.as_bytes()).unwrap();
        conformance::assert_conformance::<Tape>(&Node::root(&document.items));
    }

    #[test]
    fn elements_are_unique_by_what_they_mean() {
        for (text, unique) in [
            ("[1, 2, 3]", true),
            ("[1, 1.0]", false),
            ("[12345678901234567890123, 12345678901234567890124]", true),
            (r#"[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]"#, false),
            (r#"["1", 1, null, false, [], {}]"#, true),
        ] {
            let mut document = Document::default();
            document.read(text.as_bytes()).unwrap();
            let node = Node::root(&document.items);
            let array = jsonschema::json::Node::as_array(&node).unwrap();
            assert_eq!(array.is_unique(), unique, "{text}");
        }
    }
}
