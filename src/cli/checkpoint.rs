//! `forebay checkpoint`: where each source resumes, shown and set by an operator.
//!
//! Invariant: nothing is changed while a daemon has the checkpoints open, and nothing without a yes.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use forebay_api::registry::SourceEntry;
use forebay_api::{Blame, Fault, Position, Registry};
use serde_json::{Map, Value};

use super::config_file::ConfigOption;
use super::run::unknown_source;
use super::server::Server;
use super::status::{Seen, SeenCheckpoint};
use super::table::aligned;
use super::{Failure, print};
use crate::checkpoint::{Checkpoint as Stored, CheckpointStore, FileStore, Found};
use crate::config::Settings;
use crate::connectors;

/// Show or change where each source resumes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay checkpoint show
  forebay checkpoint set shop 0/16B3748
  forebay checkpoint reset shop --yes")]
pub(super) struct Checkpoint {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    Show(Show),
    Set(Set),
    Reset(Reset),
}

/// Print what is stored; asks the daemon where one runs
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    config: ConfigOption,
    /// Print JSON: an object with the position of each source
    #[arg(long)]
    json: bool,
}

/// Let a source resume at another position
///
/// Going forward skips what lies between, which is lost. Going back lets events come again with the same ids where
/// the source still has them; PostgreSQL keeps none from before what was confirmed, and the start then says so. The
/// daemon must be stopped.
#[derive(Debug, Args)]
struct Set {
    /// The source, or `source/destination` behind a journal
    source: String,
    /// The position, in the form in which `checkpoint show` prints it
    position: String,
    #[command(flatten)]
    config: ConfigOption,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Forget a source's position: it begins as it would at its first start
///
/// The daemon must be stopped. What reads a journal (`source/destination`) goes on where the journal has its place; to
/// give that up, use `forebay journal forget`.
#[derive(Debug, Args)]
struct Reset {
    /// The source, or `source/destination` behind a journal; one that the configuration has no more, too
    source: String,
    #[command(flatten)]
    config: ConfigOption,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Checkpoint {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.act {
            Act::Show(show) => show.run().await,
            Act::Set(set) => set.run().await,
            Act::Reset(reset) => reset.run(),
        }
    }
}

impl Show {
    async fn run(self) -> Result<(), Failure> {
        let settings = load(&self.config, &connectors::registry())?;
        let positions = match FileStore::find(&settings.data_dir)? {
            Found::Nothing => BTreeMap::new(),
            Found::Store(store) => {
                store.all()?.into_iter().map(|(key, stored)| (key, stored.position.to_string())).collect()
            }
            Found::Held(fault) => of_daemon(&settings, fault).await?,
        };
        if self.json {
            let positions: Map<_, _> =
                positions.into_iter().map(|(key, text)| (key, as_json(text))).collect();
            return print(&format!("{:#}\n", Value::from(positions)));
        }
        if positions.is_empty() {
            return print(&format!("no checkpoint is stored in `{}` yet\n", settings.data_dir.display()));
        }
        let rows: Vec<_> = positions.into_iter().map(|(key, position)| vec![key, position]).collect();
        print(&aligned("", &rows))
    }
}

impl Set {
    async fn run(self) -> Result<(), Failure> {
        let registry = connectors::registry();
        let settings = load(&self.config, &registry)?;
        let read = match self.source.contains('/') {
            true => of_reader,
            false => connector_of(&self.source, &settings, &registry)?.position,
        };
        let store = FileStore::open(&settings.data_dir)?;
        let before = store.load(&self.source).await?.map(|stored| stored.position);
        let position = read(&self.position, before.as_ref()).map_err(|why| {
            let doing = format!("reading the position `{}` of `{}`", self.position, self.source);
            Fault::fatal(doing, Blame::Configuration, why)
        })?;
        let before = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
        let change = format!("the position of `{}` becomes {position}; it is {before}", self.source);
        confirm(&change, self.yes)?;
        let stored = Stored { position, owed: BTreeMap::new() };
        store.save(&self.source, &stored).await.map_err(|error| {
            Fault::fatal(format!("storing the checkpoint of `{}`", self.source), Blame::Outside, error)
        })?;
        Ok(())
    }
}

impl Reset {
    fn run(self) -> Result<(), Failure> {
        let settings = load(&self.config, &connectors::registry())?;
        let nothing = || {
            let doing = format!("forgetting the position of `{}`", self.source);
            Fault::fatal(doing, Blame::Configuration, "nothing is stored for it")
                .with_remedy("look at `forebay checkpoint show`")
        };
        let store = match FileStore::find(&settings.data_dir)? {
            Found::Nothing => return Err(nothing().into()),
            Found::Held(fault) => return Err(fault.into()),
            Found::Store(store) => store,
        };
        let stored = store.all()?;
        let before = stored.get(&self.source).ok_or_else(nothing)?;
        confirm(
            &format!("the position of `{}` is forgotten; it is {}", self.source, before.position),
            self.yes,
        )?;
        store.remove(&self.source)?;
        Ok(())
    }
}

/// The configuration, which must be there: it says where the checkpoints are.
fn load(config: &ConfigOption, registry: &Registry) -> Result<Settings, Failure> {
    match config.load_if_any(registry)? {
        Some(settings) => Ok(settings),
        None => Err(config.path().expect_err("no file was found")),
    }
}

/// The connector of a source: only it can read its positions.
fn connector_of<'r>(
    source: &str,
    settings: &Settings,
    registry: &'r Registry,
) -> Result<&'r SourceEntry, Fault> {
    let entry = settings.sources.iter().find(|entry| entry.name == source);
    let entry = entry.ok_or_else(|| unknown_source(source, settings))?;
    Ok(&registry.sources()[entry.kind.as_str()])
}

/// A position in a journal, which is taken as it is: the journal refuses one that it has not.
fn of_reader(text: &str, _: Option<&Position>) -> Result<Position, String> {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(_) => Ok(Position(text.to_owned().into())),
        Err(_) => Err("it is not a position of a journal as `forebay checkpoint show` prints it".to_owned()),
    }
}

/// The positions that the daemon which holds the checkpoints has stored.
async fn of_daemon(settings: &Settings, held: Fault) -> Result<BTreeMap<String, String>, Fault> {
    let seen = Seen::of(&Server::of(settings)).await.map_err(|fault| {
        // both are true, and only together they say what to look for
        Fault::fatal(fault.to_string(), Blame::Outside, held).with_remedy(
            "stop what has the checkpoints open, or set `admin.listen` to where the daemon listens",
        )
    })?;
    let mut stored = BTreeMap::new();
    for source in seen.sources {
        for lane in source.destinations {
            let position = lane.checkpoint.as_ref().and_then(SeenCheckpoint::position);
            stored.extend(lane.pipeline.zip(position));
        }
        stored.extend(source.checkpoint.position().map(|position| (source.name, position)));
    }
    Ok(stored)
}

/// A position is opaque; where it is JSON, it is shown as such, as `/status` does.
fn as_json(position: String) -> Value {
    serde_json::from_str(&position).unwrap_or(Value::String(position))
}

/// Asks for a yes, on stderr, where somebody is there to give it.
pub(super) fn confirm(change: &str, yes: bool) -> Result<(), Failure> {
    let refused = |why: &str| {
        Fault::fatal(format!("confirming that {change}"), Blame::Configuration, why)
            .with_remedy("give `--yes` to have it done without being asked")
    };
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(refused("stdin is no terminal, so nobody can be asked").into());
    }
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "{change}. Go on? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let answered = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    answered.map_err(|error| refused(&format!("the question could not be asked: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(refused("the answer was not yes").into()),
    }
}
