//! `forebay snapshot`: copying tables again, holding a copy, giving it up, and how far it is.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use forebay_api::Fault;
use indicatif::{HumanCount, HumanDuration};

use super::server::ServerOption;
use super::status::Seen;
use super::table::aligned;
use super::{Failure, print};
use crate::admin::snapshot::{Done, Request};
use crate::snapshot::{Command, Refusal, SnapshotReport, TableReport, Totals};

const PATH: &str = "/snapshot";

/// Copy tables of a source that is being read, or look at a copy, hold it, give it up
///
/// Asks the daemon, which must be running; it does the copying, beside the stream. A table is named as events name it,
/// or several by a glob. Changes that are made meanwhile always come after the copied row. What is copied again has new
/// ids.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  forebay snapshot --source shop --table public.orders
  forebay snapshot --table 'public.*'                     where there is one source
  forebay snapshot --table public.orders --where \"placed > '2026-01-01'\"
  forebay snapshot status
  forebay snapshot pause
  forebay snapshot resume
  forebay snapshot stop --source shop --table public.orders"
)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    act: Option<Act>,
    /// The source; may be left out where there is one
    #[arg(short, long, value_name = "NAME")]
    source: Option<String>,
    /// The table, or a glob of tables
    #[arg(short, long, value_name = "TABLE", required = true)]
    table: Option<String>,
    /// Copy only the rows for which this holds; in the language of the server, as after WHERE
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,
    #[command(flatten)]
    server: ServerOption,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Hold copies; changes go on
    Pause(Copies),
    /// Let copies go on that were held
    Resume(Copies),
    /// Give copies up; what was copied stays
    Stop(Copies),
    Status(Look),
}

/// The copies that are meant.
#[derive(Debug, Args)]
struct Copies {
    /// The source; may be left out where there is one
    #[arg(short, long, value_name = "NAME")]
    source: Option<String>,
    /// The table, or a glob of tables; all that are being copied where it is left out
    #[arg(short, long, value_name = "TABLE")]
    table: Option<String>,
    #[command(flatten)]
    server: ServerOption,
}

/// Print how far each table is
#[derive(Debug, Args)]
struct Look {
    /// Only this source
    #[arg(short, long, value_name = "NAME")]
    source: Option<String>,
    /// Print JSON: an object with what each source is at
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOption,
}

impl Snapshot {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Some(act) = self.act else {
            let table = self.table.expect("clap requires it without a word");
            let request =
                Request { source: self.source, command: Command::Start { table, filter: self.filter } };
            return command(&self.server, request).await;
        };
        match act {
            Act::Pause(Copies { source, table, server }) => {
                command(&server, Request { source, command: Command::Pause { table } }).await
            }
            Act::Resume(Copies { source, table, server }) => {
                command(&server, Request { source, command: Command::Resume { table } }).await
            }
            Act::Stop(Copies { source, table, server }) => {
                command(&server, Request { source, command: Command::Stop { table } }).await
            }
            Act::Status(look) => look.run().await,
        }
    }
}

/// Has the daemon do something, and prints what it says.
async fn command(server: &ServerOption, request: Request) -> Result<(), Failure> {
    let server = server.server()?;
    let json = serde_json::to_string(&request).expect("a command is plain JSON");
    let (status, body) = server.post(PATH, &json).await?;
    if status == 200 {
        let Done { done } =
            serde_json::from_str(&body).map_err(|error| server.not_understood(PATH, error))?;
        return print(&format!("{done}\n"));
    }
    let refusal: Refusal = serde_json::from_str(&body).map_err(|_| server.unexpected(PATH, status))?;
    let blame = refusal.blame();
    Err(Fault::fatal("commanding the snapshot", blame, refusal.error).with_remedy(refusal.remedy).into())
}

impl Look {
    async fn run(self) -> Result<(), Failure> {
        let server = self.server.server()?;
        let seen = Seen::of(&server).await?;
        let known = seen.sources.iter().map(|source| format!("`{}`", source.name)).collect::<Vec<_>>();
        let wanted = |name: &str| self.source.as_deref().is_none_or(|source| source == name);
        let mut reports: BTreeMap<String, Option<SnapshotReport>> = BTreeMap::new();
        for source in seen.sources.into_iter().filter(|source| wanted(&source.name)) {
            reports.insert(source.name, source.snapshot);
        }
        if let Some(source) = self.source.filter(|_| reports.is_empty()) {
            let refusal = Refusal::wrong(
                format!("there is no source `{source}`"),
                format!("name one of {}", known.join(", ")),
            );
            let doing = "looking at the snapshot";
            return Err(Fault::fatal(doing, refusal.blame(), refusal.error)
                .with_remedy(refusal.remedy)
                .into());
        }
        if self.json {
            let reports = serde_json::to_value(&reports).expect("a report is plain JSON");
            return print(&format!("{reports:#}\n"));
        }
        let shown = reports.iter().map(|(name, report)| match report {
            Some(report) => format!("source {name}, {}\n{}", line(report), table("  ", &report.tables)),
            None => format!("source {name}, nothing is known before it is connected\n"),
        });
        print(&shown.collect::<Vec<_>>().join("\n"))
    }
}

/// What all copies together are at: `copying, 1,234 of about 5,678 rows, 99/s, 45 seconds left, 1 of 3 tables`.
pub(super) fn line(report: &SnapshotReport) -> String {
    match report.totals.tables {
        0 => report.state.as_str().to_owned(),
        _ => format!("{}, {}", report.state.as_str(), of_totals(&report.totals)),
    }
}

/// The numbers of several copies.
fn of_totals(totals: &Totals) -> String {
    let rows = HumanCount(totals.rows);
    let mut text = match totals.estimated_rows_left {
        0 => format!("{rows} rows"),
        _ => format!("{rows} of about {} rows", HumanCount(totals.estimated_rows)),
    };
    if totals.tables_ended < totals.tables {
        text += &format!(", {}/s", whole(totals.rate_rows_per_second));
        text += &totals.left_seconds.map(|left| format!(", {} left", duration(left))).unwrap_or_default();
    }
    text + &format!(", {} of {} tables", totals.tables_ended, totals.tables)
}

/// Each table's copy.
pub(super) fn table(indent: &str, tables: &[TableReport]) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let head =
        ["table", "copy", "state", "rows", "of about", "per second", "left", "ranges left", "why", "where"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(tables.iter().map(row));
    let mut text = aligned(indent, &rows);
    for (name, problem) in tables.iter().filter_map(|table| Some((&table.name, table.problem.as_ref()?))) {
        text += &format!("{indent}✗ {name}: {problem}\n");
    }
    text
}

fn row(table: &TableReport) -> Vec<String> {
    let count = |value: u64| HumanCount(value).to_string();
    let open = table.state.is_open();
    let reason = table.reason.map(|reason| reason.as_str().to_owned());
    vec![
        table.name.clone(),
        table.number.to_string(),
        table.state.as_str().replace('_', " "),
        count(table.rows),
        table.estimated_rows.filter(|_| open).map(count).unwrap_or_default(),
        if open { whole(table.rate_rows_per_second).to_string() } else { String::new() },
        table.left_seconds.map(duration).unwrap_or_default(),
        if open { table.ranges_left.to_string() } else { String::new() },
        reason.unwrap_or_default(),
        table.filter.clone().unwrap_or_default(),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people; the cast saturates"
)]
fn whole(rate: f64) -> HumanCount {
    HumanCount(rate.round() as u64)
}

fn duration(seconds: f64) -> String {
    // a rate may be so low that nobody waits for the end
    Duration::try_from_secs_f64(seconds).map_or("forever".to_owned(), |left| HumanDuration(left).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Reason, SnapshotState, TableState};

    fn of(name: &str, state: TableState) -> TableReport {
        TableReport {
            name: name.to_owned(),
            state,
            rows: 1_234_567,
            estimated_rows: Some(5_000_000),
            bytes: 9,
            rate_rows_per_second: 12_345.4,
            left_seconds: state.is_open().then_some(305.0),
            ranges_left: 3,
            chunks: 7,
            number: 1,
            reason: Some(Reason::Initial),
            filter: None,
            problem: None,
        }
    }

    #[test]
    fn a_copy_is_shown_with_how_far_it_is_how_fast_and_why() {
        let mut stopped = of("public.other", TableState::Stopped);
        stopped.filter = Some("x = ".to_owned());
        stopped.problem = Some("dividing: syntax error".to_owned());
        stopped.reason = Some(Reason::Asked);
        let mut left = of("audit.log", TableState::NotCopied);
        left.reason = None;
        let tables = vec![left, of("public.orders", TableState::Copying), stopped];
        let totals = Totals {
            tables: 2,
            tables_ended: 1,
            copying: vec!["public.orders".to_owned()],
            rows: 2_469_134,
            estimated_rows: 6_234_567,
            estimated_rows_left: 3_765_433,
            bytes: 18,
            rate_rows_per_second: 12_345.4,
            left_seconds: Some(305.0),
        };
        let report = SnapshotReport { state: SnapshotState::Copying, tables, totals };
        insta::assert_snapshot!(format!("{}\n{}", line(&report), table("  ", &report.tables)), @r"
        copying, 2,469,134 of about 6,234,567 rows, 12,345/s, 5 minutes left, 1 of 2 tables
          table          copy  state       rows       of about   per second  left       ranges left  why      where
          audit.log      1     not copied  1,234,567
          public.orders  1     copying     1,234,567  5,000,000  12,345      5 minutes  3            initial
          public.other   1     stopped     1,234,567                                                 asked    x =
          ✗ public.other: dividing: syntax error
        ");
    }
}
