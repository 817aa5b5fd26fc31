//! [`Mount`]: the path that an input is under.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// What a path may be made of: letters, digits, `_`, `-`, `.`, `~`.
const PATTERN: &str = "^(/[A-Za-z0-9_.~-]+)+$";

/// A path such as `/webhook`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount(Cow<'static, str>);

impl Mount {
    /// One that is known here.
    pub(super) const fn known(path: &'static str) -> Mount {
        Mount(Cow::Borrowed(path))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows in `path`, without the `/` between: empty for the path itself; `None` where it is another.
    pub fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&*self.0)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

impl<'de> Deserialize<'de> for Mount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mount, D::Error> {
        let path = String::deserialize(deserializer)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.~-".contains(&byte);
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed);
        match path.strip_prefix('/').is_some_and(|parts| parts.split('/').all(plain)) {
            true => Ok(Mount(Cow::Owned(path))),
            false => Err(de::Error::custom(
                "not a path such as `/webhook`: `/`, then letters, digits, `_`, `.`, `~`, `-`",
            )),
        }
    }
}

impl JsonSchema for Mount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Mount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "path", "type": "string", "pattern": PATTERN, "examples": ["/webhook"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_another_by_whole_parts() {
        let mount = Mount::known("/webhook");
        assert_eq!(mount.below("/webhook"), Some(""));
        assert_eq!(mount.below("/webhook/a/b"), Some("a/b"));
        assert_eq!(mount.below("/webhooks"), None);
        assert_eq!(mount.below("/a/webhook"), None);
    }

    #[test]
    fn only_plain_paths_are_paths() {
        for (path, plain) in [
            ("/a", true),
            ("/a/b.c", true),
            ("a", false),
            ("/", false),
            ("/a/", false),
            ("/a/../b", false),
            ("/a?b", false),
        ] {
            assert_eq!(serde_json::from_str::<Mount>(&format!("\"{path}\"")).is_ok(), plain, "{path}");
        }
    }
}
