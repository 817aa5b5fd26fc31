//! `type: file`: schemas in a folder.
//!
//! Invariant: nothing outside of the folder is read, through a symbolic link neither.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{
    Blame, Fault, MAX_SCHEMA_BYTES, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::paths::Layout;

/// Folders inside each other that are looked into for a list.
const MAX_DEPTH: usize = 8;

/// The connector, for the registry.
#[derive(Debug)]
pub struct FileStore;

/// A folder with schemas.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The folder; relative to the working directory. A schema is looked for as `vendor/name/version.json`, as
    /// `vendor/name/jsonschema/version` and as `vendor.name.version.json`, in this order.
    pub path: PathBuf,
}

impl SchemaStoreConnector for FileStore {
    const TYPE: &'static str = "file";
    const ABOUT: &'static str = "Schemas in a folder";
    type Config = FileConfig;

    fn build(config: FileConfig, _: &SchemaStoreSetting) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        if config.path.as_os_str().is_empty() {
            return Err(vec![Mistake {
                at: "/path".to_owned(),
                message: "the path is empty".to_owned(),
                help: Some("name a folder".to_owned()),
            }]);
        }
        Ok(Arc::new(Folder { path: config.path }))
    }
}

struct Folder {
    path: PathBuf,
}

#[async_trait]
impl SchemaStore for Folder {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        let (root, key) = (self.path.clone(), key.clone());
        blocking(move || find(&root, &key)).await
    }

    async fn list(&self, most: usize) -> Result<Option<Vec<SchemaKey>>, Fault> {
        let root = self.path.clone();
        let listed = blocking(move || {
            let mut keys = Vec::new();
            walk(&root, &root, 0, &mut keys, most).map_err(|error| unreadable(&root, error))?;
            Ok(keys)
        });
        Ok(Some(listed.await?))
    }

    async fn put(&self, key: &SchemaKey, schema: Bytes) -> Result<(), Fault> {
        let (root, key) = (self.path.clone(), key.clone());
        blocking(move || {
            let path = root.join(Layout::Nested.path(&key).expect("every key has one in this layout"));
            write(&path, &schema).map_err(|error| {
                Fault::retryable(format!("writing `{}`", path.display()), error)
                    .with_remedy("let us write in the folder of the registry")
            })
        })
        .await
    }

    fn is_writable(&self) -> bool {
        true
    }
}

/// The first file that there is.
fn find(root: &Path, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
    // A folder that is not there (a mount that failed) is not a folder without the schema.
    let real = root.canonicalize().map_err(|error| unreadable(root, error))?;
    for layout in [Layout::Nested, Layout::Iglu, Layout::Flat] {
        let Some(path) = layout.path(key) else { continue };
        let path = root.join(path);
        let found = match path.canonicalize() {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(unreadable(&path, error)),
        };
        if !found.starts_with(&real) {
            let error = "it leads out of the folder";
            return Err(Fault::fatal(format!("reading `{}`", path.display()), Blame::Outside, error)
                .with_remedy("copy the schema into the folder; links that leave it are not followed"));
        }
        if found.is_dir() {
            continue;
        }
        let mut text = Vec::new();
        let limit = MAX_SCHEMA_BYTES as u64 + 1;
        File::open(&found)
            .and_then(|file| file.take(limit).read_to_end(&mut text))
            .map_err(|error| unreadable(&path, error))?;
        return Ok(Some(Bytes::from(text)));
    }
    Ok(None)
}

fn walk(
    root: &Path,
    folder: &Path,
    depth: usize,
    keys: &mut Vec<SchemaKey>,
    most: usize,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if keys.len() >= most {
            return Ok(());
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if depth < MAX_DEPTH {
                walk(root, &path, depth + 1, keys, most)?;
            }
            continue;
        }
        let relative = path.strip_prefix(root).ok().and_then(Path::to_str);
        keys.extend(relative.and_then(|path| Layout::Nested.key(path).or_else(|| Layout::Iglu.key(path))));
    }
    Ok(())
}

/// Whole or not at all, for whoever reads meanwhile.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn unreadable(path: &Path, error: std::io::Error) -> Fault {
    Fault::retryable(format!("reading `{}`", path.display()), error)
        .with_remedy("correct `path` of the registry, and let us read what is in it")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::fatal("reading a folder of schemas", Blame::Defect, error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(path: &Path) -> Folder {
        Folder { path: path.to_owned() }
    }

    fn keep(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn a_schema_is_found_in_each_layout() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), "com.acme/a/1-0-0.json", "a");
        keep(folder.path(), "com.acme/b/jsonschema/1-0-0", "b");
        keep(folder.path(), "com.acme.c.1-0-0.json", "c");
        keep(folder.path(), "com.acme/deep/er/d/v1.0.json", "d");
        let store = store(folder.path());
        for (key, text) in [
            ("com.acme/a/1-0-0", Some("a")),
            ("com.acme/b/1-0-0", Some("b")),
            ("com.acme/c/1-0-0", Some("c")),
            ("com.acme/deep/er/d/v1.0", Some("d")),
            ("com.acme/e/1-0-0", None),
        ] {
            let found = store.fetch(&key.parse().unwrap()).await.unwrap();
            assert_eq!(found.as_deref(), text.map(str::as_bytes), "{key}");
        }
        let mut listed = store.list(100).await.unwrap().unwrap();
        listed.sort_unstable();
        let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
        assert_eq!(listed, ["com.acme/a/1-0-0", "com.acme/b/1-0-0", "com.acme/deep/er/d/v1.0"]);
    }

    #[tokio::test]
    async fn a_link_that_leaves_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        keep(outside.path(), "secret.json", "secret");
        keep(folder.path(), "com.acme/other/1-0-0.json", "inside");
        let place = folder.path().join("com.acme/a");
        std::fs::create_dir_all(&place).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.json"), place.join("1-0-0.json")).unwrap();
        let fault = store(folder.path()).fetch(&"com.acme/a/1-0-0".parse().unwrap()).await.unwrap_err();
        assert!(fault.to_string().contains("leads out of the folder"), "{fault}");
        std::os::unix::fs::symlink("../other/1-0-0.json", place.join("2-0-0.json")).unwrap();
        assert!(store(folder.path()).fetch(&"com.acme/a/2-0-0".parse().unwrap()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_not_one_without_schemas() {
        let fault =
            store(Path::new("/no/such/folder")).fetch(&"a/b/1-0-0".parse().unwrap()).await.unwrap_err();
        assert!(fault.is_retryable(), "{fault}");
    }

    #[tokio::test]
    async fn what_is_put_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let (store, key) = (store(folder.path()), "com.acme/a/1-0-0".parse().unwrap());
        store.put(&key, Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(store.fetch(&key).await.unwrap().unwrap(), "{}");
    }
}
