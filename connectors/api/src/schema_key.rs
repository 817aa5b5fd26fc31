//! [`SchemaKey`]: the name of a JSON Schema in a registry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `vendor/name/version`, checked: no part of it can leave the folder or the path that a registry puts it into.
///
/// Read from `vendor/name/1-0-0`, `iglu:vendor/name/jsonschema/1-0-0` (the format of Iglu URIs) and
/// `vendor/some/name/v1.0` with or without `.json`. Written in the first and the last form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaKey {
    text: Box<str>,
    vendor: usize,
    name: usize,
}

/// The longest key that is accepted, in bytes.
pub const MAX_SCHEMA_KEY: usize = 512;

/// A text that is no schema key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a schema key such as `com.acme/order/1-0-0`, `iglu:com.acme/order/jsonschema/1-0-0` or `com.acme/order/v1.0`"
)]
pub struct NotASchemaKey(String);

impl SchemaKey {
    /// Who defines it: `com.acme`.
    pub fn vendor(&self) -> &str {
        &self.text[..self.vendor]
    }

    /// What it describes: `order`. With a version such as `v1.0` it may hold `/`.
    pub fn name(&self) -> &str {
        &self.text[self.vendor + 1..self.name]
    }

    /// `1-0-0`, or `v1.0`.
    pub fn version(&self) -> &str {
        &self.text[self.name + 1..]
    }

    /// The whole of it: `com.acme/order/1-0-0`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `vendor/name/jsonschema/1-0-0`, where the version is a SchemaVer: the path in an Iglu registry.
    pub fn iglu_path(&self) -> Option<String> {
        (!self.version().starts_with('v'))
            .then(|| format!("{}/{}/jsonschema/{}", self.vendor(), self.name(), self.version()))
    }
}

impl FromStr for SchemaKey {
    type Err = NotASchemaKey;

    fn from_str(text: &str) -> Result<SchemaKey, NotASchemaKey> {
        let refused = || NotASchemaKey(text.chars().take(MAX_SCHEMA_KEY).collect());
        if text.len() > MAX_SCHEMA_KEY {
            return Err(refused());
        }
        let parts: Vec<&str> = match text.strip_prefix("iglu:") {
            None => text.split('/').collect(),
            Some(path) => match path.split('/').collect::<Vec<_>>()[..] {
                [vendor, name, "jsonschema", version] if is_schema_ver(version) => {
                    vec![vendor, name, version]
                }
                _ => return Err(refused()),
            },
        };
        let [vendor, ref names @ .., version] = parts[..] else { return Err(refused()) };
        let version = if version.starts_with('v') { version.trim_end_matches(".json") } else { version };
        let whole = match names.len() {
            0 => false,
            1 => is_schema_ver(version) || is_dotted(version),
            _ => is_dotted(version),
        };
        if !whole || !is_plain(vendor) || !names.iter().all(|name| is_plain(name)) {
            return Err(refused());
        }
        let name = names.join("/");
        let (ends_vendor, ends_name) = (vendor.len(), vendor.len() + 1 + name.len());
        let text = format!("{vendor}/{name}/{version}").into_boxed_str();
        Ok(SchemaKey { text, vendor: ends_vendor, name: ends_name })
    }
}

/// Letters, digits, `_`, `-` and `.`, but not dots alone: safe as a part of a path everywhere.
fn is_plain(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !part.is_empty() && !part.contains("..") && part != "." && part.bytes().all(allowed)
}

/// `MODEL-REVISION-ADDITION`.
fn is_schema_ver(text: &str) -> bool {
    text.split('-').count() == 3 && text.split('-').all(is_number)
}

/// `v1`, `v1.0`, `v1.0.2`.
fn is_dotted(text: &str) -> bool {
    text.strip_prefix('v').is_some_and(|rest| rest.split('.').count() <= 3 && rest.split('.').all(is_number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for SchemaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SchemaKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SchemaKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SchemaKey, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_key_is_read_and_written_in_one() {
        for (text, vendor, name, version) in [
            ("com.acme/order/1-0-0", "com.acme", "order", "1-0-0"),
            ("iglu:com.acme/order_v2/jsonschema/2-0-13", "com.acme", "order_v2", "2-0-13"),
            ("com.acme/order/v1.0.json", "com.acme", "order", "v1.0"),
            (
                "io.acme/internal/contexts/httpHeaders/v1.0",
                "io.acme",
                "internal/contexts/httpHeaders",
                "v1.0",
            ),
            ("com.acme.shop/public.orders/1-0-0", "com.acme.shop", "public.orders", "1-0-0"),
        ] {
            let key: SchemaKey = text.parse().unwrap();
            assert_eq!((key.vendor(), key.name(), key.version()), (vendor, name, version), "{text}");
            assert_eq!(key.as_str().parse(), Ok(key.clone()));
        }
        let key: SchemaKey = "com.acme/order/1-0-0".parse().unwrap();
        assert_eq!(key.iglu_path().as_deref(), Some("com.acme/order/jsonschema/1-0-0"));
    }

    #[test]
    fn what_could_leave_a_registry_is_no_key() {
        for text in [
            "",
            "/",
            "com.acme",
            "com.acme/order",
            "../order/1-0-0",
            "com.acme/../1-0-0",
            "com.acme/a/b/1-0-0",
            "com.acme/./1-0-0",
            "/com.acme/order/1-0-0",
            "com.acme//1-0-0",
            "com.acme/order/1-0",
            "com.acme/order/v",
            "com.acme/order/v1..0",
            "com.acme/%2e%2e/1-0-0",
            "com.acme/order%2f/1-0-0",
            "com.acme/ord\\er/1-0-0",
            "com.acme/order\0/1-0-0",
            "com.acme/order/latest",
            "https://evil.example/com.acme/order/1-0-0",
            "file:///etc/passwd",
            "iglu:com.acme/order/avro/1-0-0",
            "iglu:com.acme/order/jsonschema/../1-0-0",
            "com.acme/order/1-0-0\n",
            "com.acme/órder/1-0-0",
        ] {
            assert!(text.parse::<SchemaKey>().is_err(), "{text:?}");
        }
        assert!(format!("com.acme/{}/1-0-0", "x".repeat(MAX_SCHEMA_KEY)).parse::<SchemaKey>().is_err());
    }
}
