//! `forebay status`: what a running daemon says of itself, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use forebay_api::Fault;
use indicatif::{BinaryBytes, HumanCount, HumanDuration};
use serde::Deserialize;
use serde_json::Value;

use super::progress::per_second;
use super::server::{Server, ServerOption};
use super::table::aligned;
use super::{Failure, print, snapshot};
use crate::snapshot::SnapshotReport;

const PATH: &str = "/status";

/// A rate is what flowed in so long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// Show what a running daemon does: positions, rates, lag, destinations
///
/// Asks the daemon's admin server: the one of `--url`, else that of the configuration's `admin.listen`. Rates are
/// those of one second.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay status
  forebay status --url http://10.0.0.7:9080
  forebay status --json | jq '.sources[].checkpoint'")]
pub(super) struct StatusOptions {
    #[command(flatten)]
    server: ServerOption,
    /// Print what the daemon says as it is: JSON
    #[arg(long)]
    json: bool,
}

/// What `/status` says, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    /// The daemon's name.
    pub(super) name: String,
    environment: String,
    version: String,
    uptime_seconds: u64,
    ready: bool,
    problems: Vec<String>,
    /// How the latest replays ended, by their numbers.
    #[serde(default)]
    pub(super) replays_ended: BTreeMap<u64, String>,
    memory: Memory,
    /// In the order of its configuration.
    pub(super) sources: Vec<SeenSource>,
}

#[derive(Debug, Deserialize)]
struct Memory {
    used_bytes: u64,
    budget_bytes: u64,
}

/// One source.
#[derive(Debug, Deserialize)]
pub(super) struct SeenSource {
    /// Its name.
    pub(super) name: String,
    #[serde(rename = "type")]
    kind: String,
    connected: bool,
    events: u64,
    /// What is stored.
    pub(super) checkpoint: SeenCheckpoint,
    measures: BTreeMap<String, f64>,
    details: BTreeMap<String, String>,
    /// What is copied; `None` before it was connected first.
    pub(super) snapshot: Option<SnapshotReport>,
    /// Its journal; null where it has none.
    #[serde(default)]
    pub(super) journal: Value,
    /// What its events go into.
    pub(super) destinations: Vec<SeenDestination>,
}

/// What is stored of a source.
#[derive(Debug, Deserialize)]
pub(super) struct SeenCheckpoint {
    position: Value,
    age_seconds: Option<f64>,
}

/// One destination of a source, or a replay into one.
#[derive(Debug, Deserialize)]
pub(super) struct SeenDestination {
    name: String,
    /// The key of the pipeline that reads the journal for it.
    pub(super) pipeline: Option<String>,
    /// How far that is.
    pub(super) checkpoint: Option<SeenCheckpoint>,
    #[serde(rename = "type")]
    kind: String,
    required: bool,
    connected: bool,
    /// Records durable there.
    pub(super) delivered: u64,
    dead_lettered: u64,
    dropped: u64,
    retries: u64,
    queue_records: i64,
    lag_seconds: f64,
    /// What it says of itself.
    pub(super) details: BTreeMap<String, String>,
}

impl StatusOptions {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let server = self.server.server()?;
        if self.json {
            return print(&server.get(PATH).await?);
        }
        let before = Seen::of(&server).await?;
        tokio::time::sleep(RATE_OVER).await;
        let now = Seen::of(&server).await?;
        print(&now.table(&before))
    }
}

impl Seen {
    /// Asks a daemon.
    pub(super) async fn of(server: &Server) -> Result<Seen, Fault> {
        let text = server.get(PATH).await?;
        serde_json::from_str(&text).map_err(|error| server.not_understood(PATH, error))
    }

    /// Everything, with the rates since `before`.
    fn table(&self, before: &Seen) -> String {
        let state = if self.ready { "ready" } else { "not ready" };
        let uptime = HumanDuration(Duration::from_secs(self.uptime_seconds));
        let (used, budget) = (BinaryBytes(self.memory.used_bytes), BinaryBytes(self.memory.budget_bytes));
        let mut text = format!(
            "{} ({}), {state}, forebay {}, up {uptime}, memory {used} of {budget}\n",
            self.name, self.environment, self.version
        );
        for source in &self.sources {
            text.push('\n');
            text += &source.table(before.sources.iter().find(|earlier| earlier.name == source.name));
        }
        if !self.problems.is_empty() {
            text += "\nproblems\n";
            text.extend(self.problems.iter().map(|problem| format!("  ✗ {problem}\n")));
        }
        text
    }
}

impl SeenSource {
    fn table(&self, before: Option<&SeenSource>) -> String {
        let rate =
            per_second(since(self.events, before.map(|before| before.events)), RATE_OVER.as_secs_f64());
        let mut text = format!(
            "source {} ({}), {}, {} events, {}/s\n",
            self.name,
            self.kind,
            connected(self.connected),
            HumanCount(self.events),
            HumanCount(rate)
        );
        let mut facts = vec![vec!["checkpoint".to_owned(), self.checkpoint.shown()]];
        facts.extend(self.details.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
        facts.extend(self.measures.iter().map(|(name, value)| vec![name.clone(), value.to_string()]));
        let copied = self.snapshot.iter().filter(|report| !report.tables.is_empty());
        facts.extend(copied.map(|report| vec!["snapshot".to_owned(), snapshot::line(report)]));
        text += &aligned("  ", &facts);
        let tables = self.snapshot.iter().flat_map(|report| &report.tables);
        let told = tables.filter(|table| table.state.is_open() || table.problem.is_some());
        text += &snapshot::table("  ", &told.cloned().collect::<Vec<_>>());
        let head = [
            "destination",
            "type",
            "state",
            "delivered",
            "per second",
            "waiting",
            "lag",
            "retries",
            "dead letters",
            "dropped",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.destinations.iter().map(|destination| {
            let earlier = before.and_then(|before| {
                before.destinations.iter().find(|earlier| earlier.shown() == destination.shown())
            });
            destination.row(earlier)
        }));
        text += &aligned("  ", &rows);
        for destination in &self.destinations {
            for (name, value) in &destination.details {
                writeln!(text, "  {} {name}: {value}", destination.name)
                    .expect("a string takes what is written to it");
            }
        }
        text
    }
}

impl SeenCheckpoint {
    /// The position in the form in which `checkpoint set` takes it; `None` before the first one.
    pub(super) fn position(&self) -> Option<String> {
        match &self.position {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            json => Some(json.to_string()),
        }
    }

    fn shown(&self) -> String {
        match (self.position(), self.age_seconds) {
            (None, _) => "none yet".to_owned(),
            (Some(position), None) => format!("{position}, from before this start"),
            (Some(position), Some(age)) => format!("{position}, stored {age:.1} s ago"),
        }
    }
}

impl SeenDestination {
    /// Its name, with that of the replay if it is one.
    fn shown(&self) -> &str {
        let pipeline = self.pipeline.as_deref().and_then(|key| key.split_once('/'));
        pipeline.map_or(self.name.as_str(), |(_, reader)| reader)
    }

    fn row(&self, before: Option<&SeenDestination>) -> Vec<String> {
        let rate =
            per_second(since(self.delivered, before.map(|before| before.delivered)), RATE_OVER.as_secs_f64());
        let required = if self.required { "" } else { ", best effort" };
        let count = |value: u64| HumanCount(value).to_string();
        vec![
            self.shown().to_owned(),
            self.kind.clone(),
            format!("{}{required}", connected(self.connected)),
            count(self.delivered),
            count(rate),
            self.queue_records.to_string(),
            format!("{:.1} s", self.lag_seconds),
            count(self.retries),
            count(self.dead_lettered),
            count(self.dropped),
        ]
    }
}

fn connected(connected: bool) -> &'static str {
    if connected { "connected" } else { "not connected" }
}

/// How much more; nothing where the daemon was started again in between.
fn since(now: u64, before: Option<u64>) -> u64 {
    now.saturating_sub(before.unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_api::{Budget, Position};

    use super::*;
    use crate::admin::Status;
    use crate::admin::tests::healthy_source;
    use crate::config::Settings;
    use crate::daemon::order::Orders;
    use crate::pipeline::StoredAt;

    fn status() -> Status {
        let settings =
            Settings { name: "edge-1".into(), environment: "production".into(), ..Settings::default() };
        let status = Status::new(&settings, Arc::default(), Orders::nowhere());
        let mut source = healthy_source(&status.telemetry);
        let intake = source.intake.as_mut().unwrap();
        let position = Position(r#"{"lsn":"0/16B3748"}"#.into());
        intake.stored = Arc::new(std::sync::Mutex::new(Some(StoredAt { position, at: None })));
        intake.budget = Budget::new(64 << 20);
        intake.reports.source.set_connected(false);
        intake.lanes[0].required = false;
        intake.lanes[0].report.set_connected(false);
        status.show(vec![source], Vec::new());
        status
    }

    #[tokio::test]
    async fn the_table_shows_what_the_daemon_says_and_what_flowed_meanwhile() {
        let status = status();
        let look = || serde_json::from_value::<Seen>(status.to_json()).unwrap();
        let sources = status.sources();
        let intake = sources[0].intake.as_ref().unwrap();
        intake.figures.events.inc_by(1_000);
        let before = look();
        intake.figures.events.inc_by(2_345);
        intake.lanes[0].figures.delivered.inc_by(1_200);
        insta::assert_snapshot!(look().table(&before), @r#"
        edge-1 (production), not ready, forebay 0.1.0, up 0 seconds, memory 0 B of 64.00 MiB

        source shop (postgres), not connected, 3,345 events, 2,345/s
          checkpoint  {"lsn":"0/16B3748"}, from before this start
          destination  type   state                       delivered  per second  waiting  lag    retries  dead letters  dropped
          lake         kafka  not connected, best effort  1,200      1,200       0        0.0 s  0        0             0

        problems
          ✗ source `shop` is not connected
          ✗ best-effort destination `lake` is not reachable
        "#);
    }
}
