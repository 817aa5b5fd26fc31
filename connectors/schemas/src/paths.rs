//! [`Layout`]: under which path a store keeps a schema.

use forebay_api::SchemaKey;
use schemars::JsonSchema;
use serde::Deserialize;

/// Under which path a schema is: `com.acme/order/1-0-0` is …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Layout {
    /// `com.acme/order/1-0-0.json`.
    #[default]
    Nested,
    /// `com.acme.order.1-0-0.json`: all in one folder.
    Flat,
    /// `com.acme/order/jsonschema/1-0-0`: as in a static Iglu registry.
    Iglu,
}

impl Layout {
    /// The path of a key; `None` where the layout has none for it.
    pub(crate) fn path(self, key: &SchemaKey) -> Option<String> {
        match self {
            Layout::Nested => Some(format!("{key}.json")),
            Layout::Flat => Some(format!("{}.json", key.as_str().replace('/', "."))),
            Layout::Iglu => key.iglu_path(),
        }
    }

    /// The key of a path, where it can be told from it.
    pub(crate) fn key(self, path: &str) -> Option<SchemaKey> {
        match self {
            Layout::Nested => path.strip_suffix(".json")?.parse().ok(),
            // A vendor has dots too.
            Layout::Flat => None,
            Layout::Iglu => format!("iglu:{path}").parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_has_a_path_for_a_key_and_finds_it_again() {
        let key: SchemaKey = "com.acme/order/1-0-0".parse().unwrap();
        for (layout, path) in [
            (Layout::Nested, "com.acme/order/1-0-0.json"),
            (Layout::Flat, "com.acme.order.1-0-0.json"),
            (Layout::Iglu, "com.acme/order/jsonschema/1-0-0"),
        ] {
            assert_eq!(layout.path(&key).as_deref(), Some(path));
            assert!(layout == Layout::Flat || layout.key(path).as_ref() == Some(&key), "{path}");
        }
        assert_eq!(Layout::Iglu.path(&"com.acme/order/v1.0".parse().unwrap()), None);
    }
}
