//! `forebay dlq`: the events that a destination refused, looked at, delivered again, or given up.
//!
//! Letters are looked at in their files, whether a daemon runs or not. What changes them is done by the daemon where one
//! has the `data_dir`, and here where none does; never by both.

mod picture;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use forebay_api::template::nearest;
use forebay_api::{Blame, Fault};
use indicatif::{HumanCount, ProgressBar};
use serde_json::Value;

use self::picture::{in_lines, letters, picture};
use super::checkpoint::confirm;
use super::config_file::{ConfigOption, is_under};
use super::server::Server;
use super::{Failure, print};
use crate::admin::dead_letters::{Command, Done, Request};
use crate::checkpoint::{FileStore, Found};
use crate::config::{self, DestinationSettings, Environment, OnPoison, Settings};
use crate::connectors;
use crate::daemon::{build_destination, lane_limits};
use crate::dead_letters::{
    Courier, DeadLetters, Replay, ReplayProgress, Report, Selection, Shown, destinations,
};
use crate::snapshot::Refusal;
use crate::telemetry::DeadLetterFigures;

const PATH: &str = "/dead_letters";

/// How often a daemon that replays is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// After so many questions it is said that nothing has begun.
const PATIENT: u32 = 25;

/// Look at events that a destination refused, deliver them again, or give them up
///
/// An event that can never be delivered as it is (larger than a broker takes, holding what a column cannot) becomes a
/// dead letter: it is kept in `data_dir`, and its neighbours flow. Once the destination would take it, `replay` delivers
/// it, with the id, key and body that it had.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay dlq list
  forebay dlq show lake --reason too_large
  forebay dlq replay lake --all
  forebay dlq replay lake --key '{\"id\":7}'
  forebay dlq drop lake --id shop:5f3a…:1:0000000001A2B3C8:0")]
pub(super) struct Dlq {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    List(List),
    Show(Show),
    Replay(Again),
    Drop(GiveUp),
}

/// Print how many letters each destination has, and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay dlq list
  forebay dlq list --destination lake --json | jq .lake.reasons")]
struct List {
    /// Only this destination
    #[arg(short, long, value_name = "NAME")]
    destination: Option<String>,
    /// Print JSON: an object with the numbers of each destination
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigOption,
}

/// Print letters, oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay dlq show lake
  forebay dlq show lake --key 'public.orders {\"id\":7}'
  forebay dlq show lake --json --limit 1000 | jq .record.payload")]
struct Show {
    /// The destination that refused them
    destination: String,
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    limit: usize,
    /// Print each as one line of JSON, with the whole record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigOption,
}

/// Deliver letters again, to the destination that refused them
///
/// Where a daemon runs, it does so between two batches; live events of the same source wait meanwhile. A letter that is
/// refused again stays. With `on_poison: block_key` the letters of a key go oldest first, and the key flows again when it
/// has none left. Interrupting the command does not interrupt the daemon. Ends with 69 if a letter was refused again or
/// left.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay dlq replay lake --all
  forebay dlq replay lake --reason too_large
  forebay dlq replay lake --id shop:5f3a…:1:0000000001A2B3C8:0")]
struct Again {
    /// The destination that refused them
    destination: String,
    #[command(flatten)]
    which: WhichOrAll,
    #[command(flatten)]
    config: ConfigOption,
}

/// Give letters up: their events will never be at this destination
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay dlq drop lake --reason refused
  forebay dlq drop lake --all --yes")]
struct GiveUp {
    /// The destination that refused them
    destination: String,
    #[command(flatten)]
    which: WhichOrAll,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    config: ConfigOption,
}

/// Which letters; all conditions must hold.
#[derive(Debug, Args)]
struct Which {
    /// With this id; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Of this key: its JSON, or table and key as `list` prints them
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Refused for this reason, such as too_large
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
}

/// The same, and all only where that is said.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct WhichOrAll {
    /// With this id; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Of this key: its JSON, or table and key as `list` prints them
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Refused for this reason, such as too_large
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// Every letter
    #[arg(long, conflicts_with_all = ["id", "key", "reason"])]
    all: bool,
}

impl Which {
    fn selection(self) -> Selection {
        Selection { id: self.id, key: self.key, reason: self.reason }
    }
}

impl WhichOrAll {
    fn selection(self) -> Selection {
        Selection { id: self.id, key: self.key, reason: self.reason }
    }
}

impl Dlq {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.act {
            Act::List(list) => list.run(),
            Act::Show(show) => show.run(),
            Act::Replay(again) => again.run().await,
            Act::Drop(give_up) => give_up.run().await,
        }
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let settings = load(&self.config)?;
        let names = match self.destination {
            Some(name) => vec![known(&settings, name)?],
            None => all_names(&settings)?.into_iter().collect(),
        };
        let mut reports = Vec::new();
        for name in names {
            let report = Report::of(&settings.data_dir, &name)?;
            reports.push((name, report));
        }
        if self.json {
            let value = |report| serde_json::to_value(report).expect("a report is plain JSON");
            let all: serde_json::Map<String, Value> =
                reports.into_iter().map(|(name, report)| (name, value(report))).collect();
            return print(&format!("{:#}\n", Value::from(all)));
        }
        let with_letters: Vec<_> = reports.iter().filter(|(_, report)| report.letters > 0).collect();
        if with_letters.is_empty() {
            return print("there are no dead letters\n");
        }
        let shown: Vec<String> = with_letters.iter().map(|(name, report)| picture(name, report)).collect();
        print(&shown.join("\n"))
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let settings = load(&self.config)?;
        let name = known(&settings, self.destination)?;
        let shown = Shown::of(&settings.data_dir, &name, &self.which.selection(), self.limit)?;
        if self.json {
            let mut lines = Vec::new();
            shown.letters.iter().for_each(|letter| letter.write(&mut lines));
            return print(&String::from_utf8_lossy(&lines));
        }
        if shown.letters.is_empty() {
            return print(&format!("there is no such dead letter of `{name}`\n"));
        }
        let mut text = shown.letters.iter().map(in_lines).collect::<Vec<_>>().join("\n");
        if shown.more > 0 {
            text += &format!("\n{} more; `--limit` shows them\n", HumanCount(shown.more));
        }
        print(&text)
    }
}

impl Again {
    async fn run(self) -> Result<(), Failure> {
        let settings = load(&self.config)?;
        let name = known(&settings, self.destination)?;
        let selection = self.which.selection();
        let bar = ProgressBar::new(0);
        let progress = match holder(&settings)? {
            Holder::Daemon => replay_by_daemon(&Server::of(&settings), &name, selection, &bar).await?,
            Holder::Us(_store) => replay_here(&self.config, &name, selection, &bar).await?,
        };
        bar.finish_and_clear();
        let ReplayProgress { selected, replayed, refused, left, why, .. } = &progress;
        print(&format!(
            "{} of `{name}`: {} replayed, {} refused again, {} left\n",
            letters(*selected),
            HumanCount(*replayed),
            HumanCount(*refused),
            HumanCount(*left)
        ))?;
        if refused + left == 0 {
            return Ok(());
        }
        let mut why: Vec<String> = why.iter().cloned().collect();
        if *refused > 0 {
            why.push("what was refused again is shown by `forebay dlq show`".to_owned());
        }
        Err(Fault::fatal(
            format!("replaying dead letters of `{name}`"),
            Blame::Outside,
            format!("{} stay", letters(refused + left)),
        )
        .with_remedy(why.join("; "))
        .into())
    }
}

impl GiveUp {
    async fn run(self) -> Result<(), Failure> {
        let settings = load(&self.config)?;
        let name = known(&settings, self.destination)?;
        let selection = self.which.selection();
        let meant = Shown::of(&settings.data_dir, &name, &selection, 0)?.more;
        if meant == 0 {
            return print(&format!("there is no such dead letter of `{name}`\n"));
        }
        let change = format!("{} of `{name}` are given up: their events will never be there", letters(meant));
        confirm(&change, self.yes)?;
        let dropped = match holder(&settings)? {
            Holder::Daemon => match ask(&Server::of(&settings), &name, Command::Drop(selection)).await? {
                Done::Dropped(dropped) => dropped,
                Done::Replay(_) => return Err(misunderstood().into()),
            },
            Holder::Us(_store) => {
                let letters = letters_of(&settings, &name);
                letters.drop_selected(selection).await?
            }
        };
        print(&format!("{} of `{name}` dropped\n", letters(dropped)))
    }
}

/// Who may change the letters.
enum Holder {
    /// A daemon that has the `data_dir`.
    Daemon,
    /// We, as long as this is kept.
    Us(Box<FileStore>),
}

fn holder(settings: &Settings) -> Result<Holder, Fault> {
    Ok(match FileStore::find(&settings.data_dir)? {
        Found::Held(_) => Holder::Daemon,
        Found::Store(store) => Holder::Us(Box::new(store)),
        Found::Nothing => Holder::Us(Box::new(FileStore::open(&settings.data_dir)?)),
    })
}

/// Has the daemon replay, and waits until it has.
async fn replay_by_daemon(
    server: &Server,
    name: &str,
    selection: Selection,
    bar: &ProgressBar,
) -> Result<ReplayProgress, Fault> {
    let mut command = Command::Replay(selection);
    let (mut number, mut asked) = (None, 0);
    loop {
        let Done::Replay(progress) = ask(server, name, command).await? else { return Err(misunderstood()) };
        if *number.get_or_insert(progress.number) != progress.number {
            let doing = format!("waiting for the replay of `{name}`");
            return Err(Fault::fatal(doing, Blame::Outside, "the daemon has begun another one since")
                .with_remedy("look with `forebay dlq list` at what is left"));
        }
        bar.set_length(progress.selected);
        bar.set_position(progress.replayed + progress.refused + progress.left);
        if progress.ended {
            return Ok(progress);
        }
        asked += 1;
        if asked == PATIENT && !progress.waiting.is_empty() {
            let sources = progress.waiting.join("`, `");
            bar.suspend(|| {
                eprintln!(
                    "waiting for the deliveries of `{sources}`; `forebay status` says what they wait for"
                )
            });
        }
        tokio::time::sleep(ASK_EVERY).await;
        command = Command::Progress;
    }
}

/// Replays without a daemon.
async fn replay_here(
    config: &ConfigOption,
    name: &str,
    selection: Selection,
    bar: &ProgressBar,
) -> Result<ReplayProgress, Failure> {
    let registry = connectors::registry();
    let own = format!("destinations.{name}");
    let settings = config::load_without(&config.path()?, &registry, &Environment::of_process(), |missing| {
        !is_under(&own, missing)
    })?;
    let Some(entry) = settings.destinations.iter().find(|entry| entry.name == name) else {
        let doing = format!("replaying dead letters of `{name}`");
        let error = "the configuration has no such destination any more";
        return Err(Fault::fatal(doing, Blame::Configuration, error)
            .with_remedy("configure it as it was, or drop the letters")
            .into());
    };
    let destination = build_destination(entry, &settings, &registry)?;
    let (batch, timeout, retry) = lane_limits(entry);
    let courier = Courier { destination: destination.clone(), batch, timeout, retry };
    let replay = Replay { courier, in_order: entry.on_poison == OnPoison::BlockKey };
    let letters = letters_of(&settings, name);
    let begun = letters.begin_replay(selection, None).await;
    let begun = begun.map_err(|refusal| obeyed(name, refusal))?;
    bar.set_length(begun.selected);
    for part in letters.take_all_parts() {
        replay.run(part, || false).await;
    }
    destination.close().await?;
    Ok(letters.replay_progress().expect("one was begun"))
}

/// Has the daemon do something with letters.
async fn ask(server: &Server, name: &str, command: Command) -> Result<Done, Fault> {
    let request = Request { destination: name.to_owned(), command };
    let json = serde_json::to_string(&request).expect("a command is plain JSON");
    let (status, body) = server.post(PATH, &json).await?;
    if status == 200 {
        return serde_json::from_str(&body).map_err(|error| server.not_understood(PATH, error));
    }
    let refusal: Refusal = serde_json::from_str(&body).map_err(|_| server.unexpected(PATH, status))?;
    Err(obeyed(name, refusal))
}

fn obeyed(name: &str, refusal: Refusal) -> Fault {
    let blame = refusal.blame();
    Fault::fatal(format!("commanding the dead letters of `{name}`"), blame, refusal.error)
        .with_remedy(refusal.remedy)
}

fn misunderstood() -> Fault {
    Fault::fatal("commanding dead letters", Blame::Outside, "the daemon answered to another command")
        .with_remedy("let the `forebay` that asks have the version of the daemon")
}

/// The configuration, which must be there: it says where the letters are.
fn load(config: &ConfigOption) -> Result<Settings, Failure> {
    match config.load_if_any(&connectors::registry())? {
        Some(settings) => Ok(settings),
        None => Err(config.path().expect_err("no file was found")),
    }
}

fn letters_of(settings: &Settings, name: &str) -> Arc<DeadLetters> {
    let entry = settings.destinations.iter().find(|entry| entry.name == name);
    let usual = DestinationSettings::default();
    let max_bytes = entry.unwrap_or(&usual).dead_letters.max_bytes.get();
    Arc::new(DeadLetters::new(&settings.data_dir, name, max_bytes, DeadLetterFigures::default()))
}

/// The destinations that are configured or have letters.
fn all_names(settings: &Settings) -> Result<BTreeSet<String>, Fault> {
    let configured = settings.destinations.iter().map(|entry| entry.name.clone());
    Ok(configured.chain(destinations(&settings.data_dir)?).collect())
}

fn known(settings: &Settings, name: String) -> Result<String, Fault> {
    let names = all_names(settings)?;
    if names.contains(&name) {
        return Ok(name);
    }
    let near = nearest(&name, names.iter().map(String::as_str));
    let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let all: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Err(Fault::fatal(
        format!("looking for the destination `{name}`"),
        Blame::Configuration,
        "it is not configured and has no dead letters",
    )
    .with_remedy(format!("{near}name one of {}", all.join(", "))))
}
