//! `forebay run` and `forebay tail`: from a file to a running daemon, or to a dry run that leaves nothing behind.

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use forebay_api::{Blame, Fault, Registry};
use indicatif::ProgressBar;
use tracing::info;

use super::config_file::{ConfigFile, is_under};
use super::console::Console;
use super::{Failure, progress};
use crate::config::{self, Environment, Settings};
use crate::connectors;
use crate::daemon::{Daemon, Finished};
use crate::format::Format;
use crate::shutdown::Shutdown;

/// Run until stopped: read every source and deliver to every destination
///
/// SIGTERM or Ctrl-C stops reading, lets the destinations write what was read, and ends with 0; a second one, or
/// `shutdown.grace` later, ends at once with 75. On a terminal one line shows what flows; elsewhere there are logs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay run
  forebay run -c /etc/forebay/forebay.yaml --log json
  forebay run --dry-run --format debezium | head")]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// Print every event to stdout instead: with a temporary slot and publication, no destination, nothing stored
    #[arg(long)]
    dry_run: bool,
    /// What the events of a dry run look like
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "forebay", requires = "dry_run")]
    format: Format,
}

/// Print live events to the terminal, of all sources or of those named
///
/// A dry run: it uses a temporary slot and publication, stores and confirms nothing, and needs no secret of a
/// destination. A daemon that runs is not disturbed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay tail
  forebay tail --source shop --format cloudevents
  forebay tail | jq .payload")]
pub(super) struct Tail {
    #[command(flatten)]
    config: ConfigFile,
    /// Only this source; may be given several times
    #[arg(short, long, value_name = "NAME")]
    source: Vec<String>,
    /// What the events look like
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "forebay")]
    format: Format,
}

impl Run {
    pub(super) async fn run(self, console: &Console) -> Result<Finished, Failure> {
        let registry = connectors::registry();
        if self.dry_run {
            let settings = self.config.load(&registry, |missing| is_under("destinations", missing))?;
            return rehearse(settings, registry, self.format).await;
        }
        let settings = self.config.load(&registry, |_| false)?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            name = settings.name,
            environment = settings.environment,
            data_dir = %settings.data_dir.display(),
            admin = %settings.admin.listen,
            "forebay starts"
        );
        let grace = settings.shutdown.grace.as_duration();
        let path = self.config.path()?;
        let reread = move || config::load(&path, &connectors::registry(), &Environment::of_process());
        let daemon = Daemon::build(settings, registry, Some(Box::new(reread)))?;
        until_ended(daemon, grace, console.show_progress()).await
    }
}

impl Tail {
    pub(super) async fn run(self) -> Result<Finished, Failure> {
        let registry = connectors::registry();
        let mut settings = self.config.load(&registry, |missing| is_under("destinations", missing))?;
        for name in &self.source {
            if !settings.sources.iter().any(|source| source.name == *name) {
                return Err(unknown_source(name, &settings).into());
            }
        }
        settings.sources.retain(|source| self.source.is_empty() || self.source.contains(&source.name));
        rehearse(settings, registry, self.format).await
    }
}

/// Somebody named a source that the configuration has not.
pub(super) fn unknown_source(name: &str, settings: &Settings) -> Fault {
    let known: Vec<String> = settings.sources.iter().map(|source| format!("`{}`", source.name)).collect();
    Fault::fatal(
        format!("looking for the source `{name}`"),
        Blame::Configuration,
        "the configuration has no such source",
    )
    .with_remedy(format!("name one of {}", known.join(", ")))
}

async fn rehearse(settings: Settings, registry: Registry, format: Format) -> Result<Finished, Failure> {
    let grace = settings.shutdown.grace.as_duration();
    let daemon = Daemon::rehearse(settings, registry, format)?;
    // events may be on the same terminal, so there is no line of progress
    until_ended(daemon, grace, ProgressBar::hidden()).await
}

async fn until_ended(daemon: Daemon, grace: Duration, bar: ProgressBar) -> Result<Finished, Failure> {
    let shutdown = Shutdown::default();
    let status = daemon.status();
    tokio::select! {
        // the handlers are there before anything is read
        biased;
        Err(error) = shutdown.clone().listen(grace) => {
            Err(Fault::fatal("listening for SIGTERM and SIGINT", Blame::Defect, error).into())
        }
        ended = daemon.run(shutdown.clone()) => Ok(ended?),
        never = progress::show(status, bar) => match never {},
    }
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Format] {
        &Format::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.about()))
    }
}
