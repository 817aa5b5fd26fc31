//! `forebay reload`, `forebay replay` and `forebay journal`: what a running daemon does with its pipelines.

use std::time::Duration;

use clap::{Args, Subcommand};
use forebay_api::units::Period;
use forebay_api::{Blame, Fault};
use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;
use serde_json::Value;

use super::config_file::ConfigOption;
use super::console::Console;
use super::run::unknown_source;
use super::server::{Server, ServerOption};
use super::status::Seen;
use super::table::aligned;
use super::{Failure, print};
use crate::connectors;
use crate::daemon::order::{Order, ReplayOrder};
use crate::daemon::{REPLAYED, Wanted};
use crate::filter::Window;
use crate::snapshot::Refusal;

const PATH: &str = "/orders";

/// A pipeline that is restarted drains first, which takes as long as `shutdown.grace`.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often it is looked how far a replay is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Have the running daemon read its configuration again and restart only what changed
///
/// The file is judged first: where anything is wrong, nothing changes. SIGHUP does the same, and says in the log what it
/// did.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay reload
  forebay check && forebay reload
  systemctl reload forebay          what the unit does with this")]
pub(super) struct Reload {
    #[command(flatten)]
    server: ServerOption,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Deliver what is in a source's journal once more, to one destination
///
/// The daemon does it, beside what is new and without disturbing other destinations; events keep their ids. A replay goes
/// on after a restart. How far back it can begin is up to the journal's `retain`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  forebay replay --destination lake --from oldest
  forebay replay --destination lake --from 2h                      what happened in the last two hours
  forebay replay --destination lake --from 2026-01-31T08:00:00Z --to 2026-01-31T09:00:00Z
  forebay replay --destination lake --from 0/16B3748 --table public.orders
  forebay replay --destination lake --from oldest --key 42
  forebay replay stop 3"
)]
pub(super) struct Replay {
    #[command(subcommand)]
    act: Option<ReplayAct>,
    /// The source; may be left out where one has a journal
    #[arg(short, long, value_name = "NAME")]
    source: Option<String>,
    /// The destination that gets the events
    #[arg(short, long, value_name = "NAME", required = true)]
    destination: Option<String>,
    /// Where to begin: `oldest`, a time, how long ago, an LSN, or a position of the journal
    #[arg(long, value_name = "FROM", required = true)]
    from: Option<String>,
    /// Where to end: a time (not included), how long ago, or an LSN (included); else where the journal ends now
    #[arg(long, value_name = "TO")]
    to: Option<String>,
    /// Only this table, or a glob of tables; may be given several times
    #[arg(short, long, value_name = "TABLE")]
    table: Vec<String>,
    /// Only this key, as JSON: the object of it, or its value where it has one column; may be given several times
    #[arg(short, long, value_name = "KEY")]
    key: Vec<String>,
    /// Do not wait until it is done
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    server: ServerOption,
}

#[derive(Debug, Subcommand)]
enum ReplayAct {
    /// Give a replay up; what it delivered stays
    Stop {
        /// Its number
        number: u64,
        #[command(flatten)]
        server: ServerOption,
    },
}

/// Look at a source's journal, or give up what it keeps for a destination
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay journal status
  forebay journal forget --source shop lake      for a destination that is gone, or that was parked
  forebay journal salvage shop                   for a journal that is refused because of damage")]
pub(super) struct Journal {
    #[command(subcommand)]
    act: JournalAct,
}

#[derive(Debug, Subcommand)]
enum JournalAct {
    /// Print what each journal holds, and how far each reader is
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerOption,
    },
    /// Put damaged entries of a journal aside, so that what is left can be read
    ///
    /// For a journal that is refused because of damage. The daemon must be stopped. The damaged bytes are kept in a file;
    /// what they held is lost to destinations that had not read it, and is named.
    Salvage {
        /// The source
        source: String,
        #[command(flatten)]
        config: ConfigOption,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Keep nothing for a reader any more
    ///
    /// What it has not read is lost to it. One that is in the configuration begins anew, with the oldest entry that there
    /// is, or where its `start` says.
    Forget {
        /// The reader: the name of a destination
        reader: String,
        /// The source
        #[arg(short, long, value_name = "NAME")]
        source: String,
        #[command(flatten)]
        server: ServerOption,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Reload {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let done = give(&self.server.server()?, &Order::Reload).await?;
        if self.json {
            return print(&format!("{done:#}\n"));
        }
        let rows = ["started", "restarted", "stopped", "unchanged"].map(|word| {
            let names = done[word].as_array().into_iter().flatten().filter_map(Value::as_str);
            let names = names.collect::<Vec<_>>().join(", ");
            vec![word.to_owned(), if names.is_empty() { "none".to_owned() } else { names }]
        });
        print(&aligned("", &rows))
    }
}

impl Replay {
    pub(super) async fn run(self, console: &Console) -> Result<(), Failure> {
        let (server, order) = match self.act {
            Some(ReplayAct::Stop { number, server }) => (server.server()?, Order::StopReplay { number }),
            None => (self.server.server()?, Order::Replay(self.order(Timestamp::now())?)),
        };
        let answer = give(&server, &order).await?;
        print(&format!("{}\n", done(&answer)))?;
        let begun = answer["key"].as_str().zip(answer["number"].as_u64()).filter(|_| !self.detach);
        match begun {
            Some((key, number)) => follow(&server, key, number, console).await,
            None => Ok(()),
        }
    }

    fn order(&self, now: Timestamp) -> Result<ReplayOrder, Fault> {
        let mut window = Window::default();
        let mut position = None;
        match bound("--from", self.from.as_deref().unwrap_or(OLDEST), now)? {
            Bound::Oldest => {}
            Bound::Time(time) => window.from_time = Some(time),
            Bound::Lsn(lsn) => window.from_major = Some(lsn),
            Bound::Position(text) => position = Some(text),
        }
        match self.to.as_deref().map(|to| bound("--to", to, now)).transpose()? {
            None => {}
            Some(Bound::Time(time)) => window.to_time = Some(time),
            Some(Bound::Lsn(lsn)) => window.to_major = Some(lsn),
            Some(Bound::Oldest | Bound::Position(_)) => {
                return Err(unreadable("--to", self.to.as_deref().unwrap_or_default(), "a time or an LSN"));
            }
        }
        let keys = self.key.iter().map(|key| {
            serde_json::from_str(key).map_err(|_| {
                unreadable(
                    "--key",
                    key,
                    "JSON: a number, a string in quotes, or an object such as {\"id\": 42}",
                )
            })
        });
        Ok(ReplayOrder {
            source: self.source.clone(),
            destination: self.destination.clone().unwrap_or_default(),
            position,
            wanted: Wanted {
                window,
                tables: self.table.clone(),
                keys: keys.collect::<Result<Vec<Value>, Fault>>()?,
            },
        })
    }
}

impl Journal {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.act {
            JournalAct::Status { json, server } => show(&server.server()?, json).await,
            JournalAct::Salvage { source, config, yes } => salvage(&source, &config, yes),
            JournalAct::Forget { reader, source, server, yes } => {
                let change = format!("what the journal of `{source}` keeps for `{reader}` is given up");
                super::checkpoint::confirm(&change, yes)?;
                let done_ = give(&server.server()?, &Order::Forget { source, reader }).await?;
                print(&format!("{}\n", done(&done_)))
            }
        }
    }
}

/// Puts damaged entries aside, where no daemon has the journal.
fn salvage(source: &str, config: &ConfigOption, yes: bool) -> Result<(), Failure> {
    let registry = connectors::registry();
    let settings = match config.load_if_any(&registry)? {
        Some(settings) => settings,
        None => return Err(config.path().expect_err("no file was found")),
    };
    let found = settings.sources.iter().find(|known| known.name == source);
    let found = found.ok_or_else(|| unknown_source(source, &settings))?;
    let journal = settings.journal_of(found).ok_or_else(|| {
        let doing = format!("salvaging the journal of `{source}`");
        Fault::fatal(doing, Blame::Configuration, "the configuration gives it none")
    })?;
    let change = format!("what cannot be read in the journal of `{source}` is put aside and lost to it");
    super::checkpoint::confirm(&change, yes)?;
    let places = (registry.journals()[journal.kind.as_str()].salvage)(&settings.journal_setting(found))?;
    if places.is_empty() {
        return print("nothing in it is damaged\n");
    }
    print(&(places.join("\n") + "\n"))
}

/// Has the daemon do something; what it says was done.
async fn give(server: &Server, order: &Order) -> Result<Value, Failure> {
    let json = serde_json::to_string(order).expect("an order is plain JSON");
    let (status, body) = server.post_patiently(PATH, &json, PATIENCE).await?;
    if status == 200 {
        return Ok(serde_json::from_str(&body).map_err(|error| server.not_understood(PATH, error))?);
    }
    let refusal: Refusal = serde_json::from_str(&body).map_err(|_| server.unexpected(PATH, status))?;
    let blame = refusal.blame();
    Err(Fault::fatal("having the daemon do it", blame, refusal.error).with_remedy(refusal.remedy).into())
}

fn done(answer: &Value) -> &str {
    answer["done"].as_str().unwrap_or("done")
}

/// Shows how far a replay is until it is done.
async fn follow(server: &Server, key: &str, number: u64, console: &Console) -> Result<(), Failure> {
    let bar = console.show_progress();
    let mut delivered = 0;
    let ended = loop {
        let seen = Seen::of(server).await?;
        let mut all = seen.sources.iter().flat_map(|source| &source.destinations);
        let Some(lane) = all.find(|lane| lane.pipeline.as_deref() == Some(key)) else {
            break seen.replays_ended.get(&number).cloned();
        };
        delivered = lane.delivered;
        if let Some(why) = lane.details.get("stopped") {
            bar.finish_and_clear();
            let doing = format!("replaying `{key}`");
            return Err(Fault::fatal(doing, Blame::Outside, why.clone())
                .with_remedy("mend the cause; the daemon tries again by itself")
                .into());
        }
        bar.set_message(format!("{key}: {} delivered", HumanCount(delivered)));
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    if ended.as_deref() != Some(REPLAYED) {
        let how = ended.unwrap_or_else(|| "the daemon does not know it any more".to_owned());
        let doing = format!("replaying `{key}`");
        return Err(Fault::fatal(doing, Blame::Outside, how)
            .with_remedy("look at the daemon's log and at `forebay status`, and begin it again")
            .into());
    }
    print(&format!("it is done; {} events were seen delivered\n", HumanCount(delivered)))
}

async fn show(server: &Server, json: bool) -> Result<(), Failure> {
    let seen = Seen::of(server).await?;
    if json {
        let journals = seen.sources.iter().map(|source| (source.name.clone(), source.journal.clone()));
        return print(&format!("{:#}\n", Value::from_iter(journals)));
    }
    let mut text = String::new();
    for source in &seen.sources {
        let journal = &source.journal;
        if journal.is_null() {
            text += &format!("source {}, no journal\n", source.name);
            continue;
        }
        let bytes =
            |value: &Value| value.as_u64().map_or("unknown".to_owned(), |n| HumanBytes(n).to_string());
        text += &format!(
            "source {}, {} of {}",
            source.name,
            bytes(&journal["bytes"]),
            bytes(&journal["max_bytes"])
        );
        if let Some(age) = journal["oldest_age_seconds"].as_f64() {
            text += &format!(", oldest entry {age:.0} s old");
        }
        text.push('\n');
        let mut rows = vec![["reader", "behind", "state"].map(str::to_owned).to_vec()];
        for reader in journal["readers"].as_array().into_iter().flatten() {
            let state = match (reader["parked"].as_bool(), reader["running"].as_bool()) {
                (Some(true), _) => "parked",
                (_, Some(true)) => "reading",
                _ => "not reading",
            };
            let name = reader["name"].as_str().unwrap_or_default();
            rows.push(vec![name.to_owned(), bytes(&reader["behind_bytes"]), state.to_owned()]);
        }
        text += &aligned("  ", &rows);
    }
    print(&text)
}

const OLDEST: &str = "oldest";

/// One end of what is replayed.
#[derive(Debug, PartialEq)]
enum Bound {
    Oldest,
    /// Microseconds since the Unix epoch.
    Time(i64),
    Lsn(u64),
    Position(String),
}

fn bound(option: &str, text: &str, now: Timestamp) -> Result<Bound, Fault> {
    if text == OLDEST {
        return Ok(Bound::Oldest);
    }
    if text.starts_with('{') {
        return Ok(Bound::Position(text.to_owned()));
    }
    if let Some(lsn) = lsn(text) {
        return Ok(Bound::Lsn(lsn));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Bound::Time(time.as_microsecond()));
    }
    if let Ok(ago) = text.parse::<Period>() {
        let ago = i64::try_from(ago.as_duration().as_micros()).unwrap_or(i64::MAX);
        return Ok(Bound::Time(now.as_microsecond().saturating_sub(ago)));
    }
    let forms = "`oldest`, a time such as 2026-01-31T08:00:00Z, how long ago such as 2h, an LSN such as 0/16B3748, or a position of the journal as `forebay status` shows it";
    Err(unreadable(option, text, forms))
}

/// `16/B374D848`.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |digits: &str| u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() <= 8);
    Some(u64::from(half(high)?) << 32 | u64::from(half(low)?))
}

fn unreadable(option: &str, text: &str, forms: &str) -> Fault {
    Fault::fatal(format!("reading `{option} {text}`"), Blame::Configuration, "it is not understood")
        .with_remedy(format!("write {forms}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_replay_begins_is_read_in_every_form() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let at = |text| bound("--from", text, now).unwrap();
        assert_eq!(at("oldest"), Bound::Oldest);
        assert_eq!(at("0/16B3748"), Bound::Lsn(0x16B_3748));
        assert_eq!(at("16/B374D848"), Bound::Lsn(0x16_B374_D848));
        assert_eq!(at("2026-01-31T07:00:00Z"), at("1h"));
        assert_eq!(at(r#"{"at":1}"#), Bound::Position(r#"{"at":1}"#.to_owned()));
        for wrong in ["", "yesterday", "0/", "/1", "g/1", "123456789/0"] {
            assert!(bound("--from", wrong, now).is_err(), "{wrong}");
        }
    }
}
