//! Those who copy the table: `COPY`, whose client throws the rows away, and Forebay.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use forebay::demo::process::Process;
use forebay_integration::bench::{SCHEMAS, Usage, average_line, drop_slot, peak_memory};
use forebay_integration::{Daemon, Signal, unique};
use tokio::time::{Instant, sleep};

use crate::table::{PUBLICATION, Table};

/// How often a copy is looked at: this much a time may be wrong.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The longest that one copy may take, on the slowest machine with the largest table.
const RUN_LIMIT: Duration = Duration::from_secs(1800);

/// The file of the `file` destination.
const FILE: &str = "out.ndjson";

/// What is run.
pub(crate) struct Programs {
    /// The client of the ceiling.
    pub(crate) psql: PathBuf,
    /// The daemon.
    pub(crate) forebay: PathBuf,
    /// Its `snapshot_parallel`, where it is not the default.
    pub(crate) parallel: Option<u32>,
}

/// Where Forebay writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nowhere.
    Blackhole,
    /// Lines of JSON, each batch synced.
    Ndjson,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Blackhole => "blackhole",
            Kind::Ndjson => "NDJSON, fdatasync",
        })
    }
}

/// What one copy came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// From the start of the program to the first rows.
    pub(crate) first: Duration,
    /// From there to the last row, durable.
    pub(crate) rest: Duration,
    /// Rows that came in that time.
    pub(crate) rows: f64,
    /// What the program used, from its start.
    pub(crate) usage: Usage,
    /// The most memory that it had, in MiB.
    pub(crate) memory: f64,
    /// How long an event is on average, where that can be seen.
    pub(crate) event_bytes: Option<u64>,
}

impl Run {
    /// Rows a second.
    pub(crate) fn rate(&self) -> f64 {
        self.rows / self.rest.as_secs_f64()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "first after {:.2} s, rest in {:.2} s, {:.0} rows/s, CPU {:.2} s + {:.2} s, peak {:.0} MiB",
            self.first.as_secs_f64(),
            self.rest.as_secs_f64(),
            self.rate(),
            self.usage.user,
            self.usage.system,
            self.memory,
        )
    }
}

/// `COPY` on so many connections, each with a part of the keys.
pub(crate) async fn ceiling(programs: &Programs, table: &Table, connections: u32) -> Run {
    let began = Instant::now();
    let mut processes: Vec<Process> =
        (0..connections).map(|part| copy(programs, table, part, connections)).collect();
    let mut usages = vec![Usage::default(); processes.len()];
    let mut memories = vec![0.0; processes.len()];
    // What they used can be read for as long as they were not waited for, also when they have ended.
    while usages.iter().any(|usage| !usage.ended) {
        sleep(LOOK_PAUSE).await;
        for ((process, usage), memory) in processes.iter().zip(&mut usages).zip(&mut memories) {
            *usage = Usage::of(process.id()).expect("it was not waited for");
            *memory = peak_memory(process.id()).unwrap_or(*memory);
        }
        assert!(began.elapsed() < RUN_LIMIT, "COPY does not end within {RUN_LIMIT:?}");
    }
    let rest = began.elapsed();
    for process in &mut processes {
        let status = process.wait(RUN_LIMIT).await.expect("a child can be waited for");
        assert!(status.is_some_and(|status| status.success()), "`psql` failed: {status:?}");
    }
    let usage = Usage {
        user: usages.iter().map(|usage| usage.user).sum(),
        system: usages.iter().map(|usage| usage.system).sum(),
        ended: true,
    };
    let rows = f64::from(table.rows);
    Run { first: Duration::ZERO, rest, rows, usage, memory: memories.iter().sum(), event_bytes: None }
}

/// One client, which copies one part of the table.
fn copy(programs: &Programs, table: &Table, part: u32, of: u32) -> Process {
    let bound = |part: u32| u64::from(table.rows) * u64::from(part) / u64::from(of);
    let what = match of {
        1 => table.name.to_owned(),
        _ => {
            format!("(select * from {} where id > {} and id <= {})", table.name, bound(part), bound(part + 1))
        }
    };
    let mut command = Command::new(&programs.psql);
    command.args(["--no-psqlrc", "--quiet", "--dbname", table.database.url()]);
    command.args(["--command", &format!("copy {what} to stdout")]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Process::spawn(&mut command, Signal::KILL, None).expect("it was found before")
}

/// Forebay, from its first start to the last row durable in its destination.
pub(crate) async fn forebay(programs: &Programs, table: &Table, kind: Kind, memory: Option<&str>) -> Run {
    let slot = unique("copy");
    let mut daemon = Daemon::new(&programs.forebay, &configuration(programs, table, &slot, kind, memory));
    let began = Instant::now();
    daemon.start().await;
    let all = f64::from(table.rows + SCHEMAS);
    let mut first = None;
    loop {
        let delivered = daemon.metric("forebay_delivered_total", &[]).await.unwrap_or(0.0);
        assert!(delivered <= all, "{delivered} events were delivered of {all}");
        if delivered > f64::from(SCHEMAS) {
            first.get_or_insert((Instant::now(), delivered));
        }
        if delivered == all {
            break;
        }
        assert!(daemon.is_running(), "the daemon ended:\n{}", daemon.stderr());
        assert!(began.elapsed() < RUN_LIMIT, "a copy does not end within {RUN_LIMIT:?}");
        sleep(LOOK_PAUSE).await;
    }
    let last = Instant::now();
    let usage = Usage::of(daemon.pid()).expect("the daemon runs");
    let memory = peak_memory(daemon.pid()).expect("the daemon runs");
    assert_eq!(daemon.stop().await, 0, "the daemon does not stop in order:\n{}", daemon.stderr());
    drop_slot(&table.database, &slot).await;
    let (first, before) = first.expect("there was a row before the last one");
    let event_bytes =
        (kind == Kind::Ndjson).then(|| average_line(&daemon.path(FILE), u64::from(table.rows + SCHEMAS)));
    Run { first: first - began, rest: last - first, rows: all - before, usage, memory, event_bytes }
}

/// A whole configuration. There is no heartbeat: it would be an event more.
fn configuration(programs: &Programs, table: &Table, slot: &str, kind: Kind, memory: Option<&str>) -> String {
    let limits = memory.map_or(String::new(), |memory| format!("limits: {{memory: {memory}}}\n"));
    let parallel =
        programs.parallel.map_or(String::new(), |parallel| format!("    snapshot_parallel: {parallel}\n"));
    let destination = match kind {
        Kind::Blackhole => "{type: blackhole}".to_owned(),
        Kind::Ndjson => format!("{{type: file, path: {FILE}, fsync: batch}}"),
    };
    format!(
        "{limits}sources:
  bench:
    type: postgres
    url: {}
    tables: [{}]
    publication: {PUBLICATION}
    publication_mode: existing
    slot: {slot}
    snapshot: initial
    heartbeat: 0s
{parallel}destinations:
  out: {destination}
",
        table.database.url(),
        table.name,
    )
}
