//! What an operator may ask of a source's snapshots, and why it may be refused.

use std::sync::Arc;

use forebay_api::{Blame, SnapshotPlan, Table};
use globset::GlobBuilder;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::record::{Reason, State, Whole};

/// So many tables are named in one sentence.
const NAMED: usize = 10;

/// What an operator asks for. A table is named, or several by a glob; no table is all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Copy tables, whatever was copied before.
    Start {
        /// Which.
        table: String,
        /// Only the rows for which this holds, in the server's own language.
        #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
    },
    /// Read nothing more until `resume`, over restarts too.
    Pause {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
    },
    /// Go on.
    Resume {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
    },
    /// Give up.
    Stop {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
    },
}

/// Why a command is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What speaks against it.
    pub error: String,
    /// What to do.
    pub remedy: String,
    /// Whether the command itself is wrong; else it may be right another time.
    pub wrong: bool,
}

impl Refusal {
    /// The command itself is wrong.
    pub(crate) fn wrong(error: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { error: error.into(), remedy: remedy.into(), wrong: true }
    }

    /// The command cannot be obeyed as things are.
    pub(crate) fn not_now(error: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { error: error.into(), remedy: remedy.into(), wrong: false }
    }

    /// Who must act; decides the exit code.
    pub fn blame(&self) -> Blame {
        if self.wrong { Blame::Configuration } else { Blame::Outside }
    }
}

type Names = Vec<Arc<str>>;

impl Progress {
    /// Does what an operator asks for, and says so in a sentence.
    pub(super) fn obey(
        &mut self,
        command: &Command,
        plan: &SnapshotPlan,
        listed: &[Table],
    ) -> Result<String, Refusal> {
        match command {
            Command::Start { table, filter } => self.start(table, filter.as_deref(), plan, listed),
            Command::Pause { table } => self.pause(table.as_deref()),
            Command::Resume { table } => self.resume(table.as_deref()),
            Command::Stop { table } => self.stop(table.as_deref()),
        }
    }

    fn start(
        &mut self,
        table: &str,
        filter: Option<&str>,
        plan: &SnapshotPlan,
        listed: &[Table],
    ) -> Result<String, Refusal> {
        if filter.is_some_and(|filter| filter.trim().is_empty()) {
            return Err(Refusal::wrong("the filter is empty", "leave it out to have every row copied"));
        }
        let names: Names = listed.iter().map(|table| table.name.as_str().into()).collect();
        let wanted = matching(table, &names)?;
        if wanted.is_empty() {
            let error = format!("no table that the source reads matches `{table}`");
            return Err(Refusal::wrong(error, known(&names)));
        }
        let is_open =
            |name: &&Arc<str>| self.tables.get(*name).is_some_and(|known| known.record.state.is_open());
        let open: Names = wanted.iter().filter(is_open).cloned().collect();
        if !open.is_empty() {
            return Err(Refusal::not_now(
                format!("{} being copied already", are(&open)),
                "wait until that is done, or end it with `forebay snapshot stop`",
            ));
        }
        for name in &wanted {
            let record = self.begin(name, Reason::Asked, &plan.identity);
            record.filter = filter.map(str::to_owned);
            // with a filter nobody knows before the source has looked
            let estimate = listed.iter().find(|table| table.name.as_str() == &**name);
            record.estimated_rows =
                estimate.and_then(|table| table.estimated_rows).filter(|_| filter.is_none());
        }
        let held = if self.is_paused() {
            "; the snapshot is paused, `forebay snapshot resume` lets it go on"
        } else {
            ""
        };
        Ok(format!("{} copied{held}", will_be(&wanted)))
    }

    fn pause(&mut self, table: Option<&str>) -> Result<String, Refusal> {
        let open = self.open_names();
        if open.is_empty() {
            return Err(nothing_to("pause"));
        }
        let Some(table) = table else {
            if self.is_paused() {
                return Ok("the snapshot is paused already".to_owned());
            }
            self.set_paused(true);
            return Ok("the snapshot is paused; `forebay snapshot resume` lets it go on".to_owned());
        };
        let wanted = self.among(table, &open, "being copied")?;
        self.set_tables_paused(&wanted, true);
        Ok(format!("{} paused; `forebay snapshot resume` lets it go on", are(&wanted)))
    }

    fn resume(&mut self, table: Option<&str>) -> Result<String, Refusal> {
        let open = self.open_names();
        let held: Names = open.iter().filter(|name| self.tables[*name].record.paused).cloned().collect();
        if !self.is_paused() && held.is_empty() {
            return Err(Refusal::not_now("nothing is paused", "look at `forebay snapshot status`"));
        }
        let Some(table) = table else {
            self.set_paused(false);
            self.set_tables_paused(&held, false);
            return Ok("the snapshot goes on".to_owned());
        };
        if self.is_paused() {
            return Err(Refusal::not_now("the whole snapshot is paused", "leave out `--table`"));
        }
        let wanted = self.among(table, &held, "paused")?;
        self.set_tables_paused(&wanted, false);
        Ok(format!("the copy of {} goes on", list(&wanted)))
    }

    fn stop(&mut self, table: Option<&str>) -> Result<String, Refusal> {
        let open = self.open_names();
        if open.is_empty() {
            return Err(nothing_to("stop"));
        }
        let wanted = match table {
            Some(table) => self.among(table, &open, "being copied")?,
            None => open,
        };
        for name in &wanted {
            self.give_up(name, State::Stopped);
        }
        Ok(format!("the copy of {} is given up; what was copied stays where it is", list(&wanted)))
    }

    fn open_names(&self) -> Names {
        self.open().map(|(name, _)| name.clone()).collect()
    }

    /// Those of `names`, which are all that are `what`, that are meant; there must be some.
    fn among(&self, table: &str, names: &Names, what: &str) -> Result<Names, Refusal> {
        let wanted = matching(table, names)?;
        if !wanted.is_empty() {
            return Ok(wanted);
        }
        let remedy = match names.is_empty() {
            true => "look at `forebay snapshot status`".to_owned(),
            false => format!("name one of {}", list(names)),
        };
        Err(if self.tables.contains_key(table) {
            Refusal::not_now(format!("`{table}` is not {what}"), remedy)
        } else {
            Refusal::wrong(format!("no table that is {what} matches `{table}`"), remedy)
        })
    }

    fn set_paused(&mut self, paused: bool) {
        let whole = self.whole.clone().unwrap_or_default();
        self.set_whole(Whole { paused, ..whole });
    }

    fn set_tables_paused(&mut self, names: &Names, paused: bool) {
        for name in names {
            let table = self.tables.get_mut(name).expect("the names are those of tables");
            table.record.paused = paused;
            self.touch(name);
        }
    }
}

/// A name that is one is meant alone, whatever characters it has.
fn matching(table: &str, names: &Names) -> Result<Names, Refusal> {
    if let Some(name) = names.iter().find(|name| ***name == *table) {
        return Ok(vec![name.clone()]);
    }
    let glob = GlobBuilder::new(table).literal_separator(false).build().map_err(|error| {
        Refusal::wrong(
            error.to_string(),
            "write a table's name such as `public.orders`, or a glob such as `public.*`",
        )
    })?;
    let glob = glob.compile_matcher();
    Ok(names.iter().filter(|name| glob.is_match(&***name)).cloned().collect())
}

fn nothing_to(verb: &str) -> Refusal {
    Refusal::not_now(
        format!("nothing is being copied that could be {verb}{}", if verb == "stop" { "ped" } else { "d" }),
        "look at `forebay snapshot status`",
    )
}

/// `a`, `b` and 3 more.
fn list(names: &Names) -> String {
    let shown: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn are(names: &Names) -> String {
    format!("{} {}", list(names), if names.len() == 1 { "is" } else { "are" })
}

fn will_be(names: &Names) -> String {
    format!("{} will be", list(names))
}

fn known(names: &Names) -> String {
    match names.is_empty() {
        true => "it reads no table; look at `tables` in its configuration".to_owned(),
        false => format!("name one of {}, or add the table to `tables`", list(names)),
    }
}
