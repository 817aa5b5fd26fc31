//! Which configuration file a command reads: the one that is named, else the first of the usual places.

use std::path::{Path, PathBuf};

use clap::Args;
use forebay_api::{Blame, Fault, Registry};

use super::Failure;
use crate::config::{self, Environment, Missing, Settings};

/// Names the file where no argument does.
const VARIABLE: &str = "FOREBAY_CONFIG";

/// Where it is when nothing names it.
const PLACES: [&str; 2] = ["./forebay.yaml", "/etc/forebay/forebay.yaml"];

/// `--config`, for commands whose own words stand at the end.
#[derive(Debug, Default, Args)]
pub(super) struct ConfigOption {
    /// The configuration file [env: FOREBAY_CONFIG] [default: ./forebay.yaml, then /etc/forebay/forebay.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `--config`, or the file alone.
#[derive(Debug, Default, Args)]
pub(super) struct ConfigFile {
    #[command(flatten)]
    option: ConfigOption,
    /// The configuration file, without `--config`
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    /// The file to read.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => self.option.path(),
        }
    }

    /// The settings of the file, of which an `excused` option may need what is missing.
    pub(super) fn load(
        &self,
        registry: &Registry,
        excused: impl Fn(&Missing) -> bool,
    ) -> Result<Settings, Failure> {
        Ok(config::load_without(&self.path()?, registry, &Environment::of_process(), excused)?)
    }
}

impl ConfigOption {
    /// The file to read.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        self.found().ok_or_else(|| {
            let places = PLACES.map(|place| format!("`{place}`")).join(" nor ");
            Fault::fatal(
                "looking for the configuration",
                Blame::Configuration,
                format!("there is neither {places}"),
            )
            .with_remedy("name the file with `--config` or `FOREBAY_CONFIG`")
            .into()
        })
    }

    /// The settings for a command that starts no source and no destination, and so needs no secrets; `None` where
    /// no file is named and none is in the usual places.
    pub(super) fn load_if_any(&self, registry: &Registry) -> Result<Option<Settings>, Failure> {
        let Some(path) = self.found() else { return Ok(None) };
        let secret = |missing: &Missing| is_under("sources", missing) || is_under("destinations", missing);
        Ok(Some(config::load_without(&path, registry, &Environment::of_process(), secret)?))
    }

    fn found(&self) -> Option<PathBuf> {
        let named = self.config.clone().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        named.or_else(|| PLACES.iter().map(Path::new).find(|place| place.exists()).map(Path::to_owned))
    }
}

/// Whether an option stands in a section of the file.
pub(super) fn is_under(section: &str, missing: &Missing) -> bool {
    missing.option.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}
