//! What a user may say of these destinations.

use std::path::{Path, PathBuf};

use forebay_api::Mistake;
use forebay_api::units::{ByteSize, Period};
use schemars::JsonSchema;
use serde::Deserialize;

/// One JSON object a line, appended to a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file; missing parent folders are created. Only one daemon and one destination can write to it.
    pub path: PathBuf,
    /// When to begin a new file. The full one is renamed to `<stem>-<utc>-<n>.ndjson` in the same folder, where `n`
    /// counts up, and is never touched again. Default: never.
    #[serde(default)]
    pub rotate: RotateConfig,
    /// When what was written is forced to the disk.
    #[serde(default)]
    pub fsync: Fsync,
}

/// When to begin a new file: at whichever limit is reached first.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateConfig {
    /// The most bytes of a file. Only a file of one record that is larger by itself has more.
    pub bytes: Option<ByteSize>,
    /// How long a file with records in it is written to; also while nothing comes.
    pub age: Option<Period>,
}

/// When what was written is forced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// After each batch, before it counts as delivered: nothing is lost when the machine dies.
    #[default]
    Batch,
    /// Left to the kernel: what was delivered may be lost when the machine dies, not when the daemon does.
    Never,
}

/// One JSON object a line, on standard output.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {}

/// Takes everything and keeps nothing: for measuring, and for trying a configuration.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlackholeConfig {}

impl FileConfig {
    /// What the types cannot refuse.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if names_no_file(&self.path) {
            mistakes.push(mistake(
                "/path",
                "`path` names no file",
                "write a path such as `./data/events.ndjson`",
            ));
        }
        if self.path.to_string_lossy().contains(['{', '}']) {
            mistakes.push(mistake(
                "/path",
                "`path` is one plain path and takes no placeholders",
                "use one destination with a `where:` for each file",
            ));
        }
        if self.rotate.bytes.is_some_and(|bytes| bytes.get() == 0) {
            mistakes.push(mistake(
                "/rotate/bytes",
                "a file of no bytes holds nothing",
                "write a size such as `256MiB`, or leave it out",
            ));
        }
        if self.rotate.age.is_some_and(|age| age.as_duration().is_zero()) {
            mistakes.push(mistake(
                "/rotate/age",
                "a file of no age holds nothing",
                "write a duration such as `1h`, or leave it out",
            ));
        }
        mistakes
    }
}

fn names_no_file(path: &Path) -> bool {
    path.file_name().is_none() || path.to_string_lossy().ends_with(std::path::MAIN_SEPARATOR)
}

fn mistake(at: &str, message: &str, help: &str) -> Mistake {
    Mistake { at: at.to_owned(), message: message.to_owned(), help: Some(help.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(yaml_as_json: &str) -> Vec<String> {
        let config: FileConfig = serde_json::from_str(yaml_as_json).unwrap();
        config.mistakes().into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect()
    }

    #[test]
    fn a_path_is_all_that_must_be_said() {
        let config: FileConfig = serde_json::from_str(r#"{"path": "out.ndjson"}"#).unwrap();
        assert_eq!(config.fsync, Fsync::Batch);
        assert!(config.rotate.bytes.is_none() && config.rotate.age.is_none());
        assert!(config.mistakes().is_empty());
    }

    #[test]
    fn what_cannot_work_is_refused_all_at_once() {
        let text = r#"{"path": "out/{table}/", "rotate": {"bytes": "0B", "age": "0s"}}"#;
        assert_eq!(
            mistakes(text),
            [
                "/path: `path` names no file",
                "/path: `path` is one plain path and takes no placeholders",
                "/rotate/bytes: a file of no bytes holds nothing",
                "/rotate/age: a file of no age holds nothing",
            ]
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [r#"{"path": "a", "mode": "append"}"#, r#"{"path": "a", "rotate": {"lines": 5}}"#] {
            assert!(
                serde_json::from_str::<FileConfig>(text).unwrap_err().to_string().contains("unknown field")
            );
        }
        assert!(serde_json::from_str::<StdoutConfig>(r#"{"rate": 5}"#).is_err());
        assert!(serde_json::from_str::<BlackholeConfig>(r#"{"delay": "5s"}"#).is_err());
    }
}
