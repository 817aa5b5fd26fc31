//! Those who read the WAL: `pg_recvlogical`, which only throws it away, and Forebay.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use forebay::demo::process::Process;
use forebay_integration::bench::{SCHEMAS, Usage, average_line, drop_slot, peak_memory, written};
use forebay_integration::{Daemon, Kafka, Signal};
use tokio::time::{Instant, sleep};

use crate::workload::{PUBLICATION, Wal};

/// How often a reader is looked at: this much a time may be wrong.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The longest that one run may take, on the slowest machine with the largest workload.
const RUN_LIMIT: Duration = Duration::from_secs(1800);

/// What is run.
pub(crate) struct Programs {
    /// The ceiling.
    pub(crate) pg_recvlogical: PathBuf,
    /// The daemon.
    pub(crate) forebay: PathBuf,
    /// Its `limits.memory`, where it is not the default.
    pub(crate) memory: Option<String>,
}

/// Where Forebay writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nowhere.
    Blackhole,
    /// Lines of JSON, each batch synced.
    Ndjson,
    /// The same behind a journal on the same disk.
    Journal,
    /// A broker on the same machine, acknowledged by it.
    Kafka,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Blackhole => "blackhole",
            Kind::Ndjson => "NDJSON, fdatasync",
            Kind::Journal => "journal → NDJSON",
            Kind::Kafka => "Kafka, acks=all",
        })
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// From the start of the reader to its first change.
    pub(crate) first: Duration,
    /// From there to the last change, durable.
    pub(crate) rest: Duration,
    /// What the reader used.
    pub(crate) usage: Usage,
    /// CPU-seconds of the server's process that served it.
    pub(crate) walsender: f64,
    /// The most memory that the reader had, in MiB.
    pub(crate) memory: f64,
    /// How long an event is on average, where that can be seen.
    pub(crate) event_bytes: Option<u64>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "first after {:.2} s, rest in {:.2} s, CPU {:.2} s + {:.2} s, walsender {:.2} s, peak {:.0} MiB",
            self.first.as_secs_f64(),
            self.rest.as_secs_f64(),
            self.usage.user,
            self.usage.system,
            self.walsender,
            self.memory,
        )
    }
}

/// The stages of a run as they are seen from outside.
struct Watch {
    slot: String,
    began: Instant,
    first: Option<Instant>,
    walsender: Option<u32>,
    walsender_cpu: f64,
}

impl Watch {
    fn begin(slot: String) -> Watch {
        Watch { slot, began: Instant::now(), first: None, walsender: None, walsender_cpu: 0.0 }
    }

    /// To be called often: the server's process is gone soon after the last change.
    async fn look(&mut self, wal: &Wal, has_changes: bool) {
        if self.walsender.is_none() {
            self.walsender = wal.walsender(&self.slot).await;
        }
        if let Some(usage) = self.walsender.and_then(Usage::of) {
            self.walsender_cpu = usage.cpu();
        }
        if has_changes {
            self.first.get_or_insert_with(Instant::now);
        }
        assert!(self.began.elapsed() < RUN_LIMIT, "a run does not end within {RUN_LIMIT:?}");
    }

    fn end(&self, last: Instant, usage: Usage, memory: f64) -> Run {
        let first = self.first.expect("there was a change before the last one");
        let (walsender, event_bytes) = (self.walsender_cpu, None);
        Run { first: first - self.began, rest: last - first, usage, walsender, memory, event_bytes }
    }
}

/// `pg_recvlogical` throws the WAL away as fast as the server sends it.
pub(crate) async fn ceiling(programs: &Programs, wal: &Wal) -> Run {
    let slot = wal.slot().await;
    let mut command = Command::new(&programs.pg_recvlogical);
    command.args(["--start", "--no-loop", "--file", "/dev/null", "--slot", &slot, "--endpos", &wal.end]);
    command.args(["--dbname", wal.database.url(), "-o", "proto_version=1"]);
    command.args(["-o", &format!("publication_names={PUBLICATION}")]).stdin(Stdio::null());
    let mut watch = Watch::begin(slot);
    let mut process = Process::spawn(&mut command, Signal::KILL, None).expect("it was found before");
    let (mut so_far, mut last) = (0, watch.began);
    let (mut memory, mut usage) = (0.0, Usage::default());
    // What it used can be read for as long as it was not waited for, also when it has ended.
    while !usage.ended {
        sleep(LOOK_PAUSE).await;
        let now = written(process.id()).expect("it was not waited for");
        if now > so_far {
            (so_far, last) = (now, Instant::now());
        }
        usage = Usage::of(process.id()).expect("it was not waited for");
        memory = peak_memory(process.id()).unwrap_or(memory);
        watch.look(wal, so_far > 0).await;
    }
    let status = process.wait(RUN_LIMIT).await.expect("a child can be waited for");
    assert!(status.is_some_and(|status| status.success()), "`pg_recvlogical` failed: {status:?}");
    assert!(so_far > u64::from(wal.changes), "`pg_recvlogical` saw {so_far} bytes: it ended too early");
    drop_slot(&wal.database, &watch.slot).await;
    watch.end(last, usage, memory)
}

/// Forebay, from a slot that it has never seen to the last change durable in its destination.
pub(crate) async fn forebay(programs: &Programs, wal: &Wal, kind: Kind, kafka: Option<&Kafka>) -> Run {
    let slot = wal.slot().await;
    let destinations = format!("  out: {}\n", destination(kind, kafka).await);
    let top = if kind == Kind::Journal { "journal: disk\n" } else { "" };
    let configuration = configuration(programs, wal.database.url(), &slot, (top, &destinations));
    let mut daemon = Daemon::new(&programs.forebay, &configuration);
    let mut watch = Watch::begin(slot);
    daemon.start().await;
    let all = f64::from(wal.changes + SCHEMAS);
    loop {
        let delivered =
            daemon.metric("forebay_delivered_total", &[("destination", "out")]).await.unwrap_or(0.0);
        assert!(delivered <= all, "{delivered} events were delivered of {all}");
        if delivered == all {
            break;
        }
        let has_changes = match watch.first {
            Some(_) => true,
            None => {
                daemon.metric("forebay_source_events_total", &[]).await.is_some_and(|events| events > 0.0)
            }
        };
        watch.look(wal, has_changes).await;
        assert!(daemon.is_running(), "the daemon ended:\n{}", daemon.stderr());
        sleep(LOOK_PAUSE).await;
    }
    let last = Instant::now();
    watch.look(wal, true).await;
    let usage = Usage::of(daemon.pid()).expect("the daemon runs");
    let memory = peak_memory(daemon.pid()).expect("the daemon runs");
    assert_eq!(daemon.stop().await, 0, "the daemon does not stop in order:\n{}", daemon.stderr());
    drop_slot(&wal.database, &watch.slot).await;
    let mut run = watch.end(last, usage, memory);
    if matches!(kind, Kind::Ndjson | Kind::Journal) {
        run.event_bytes = Some(average_line(&daemon.path(FILE), u64::from(wal.changes + SCHEMAS)));
    }
    run
}

/// The file of the `file` destination.
const FILE: &str = "out.ndjson";

/// What the configuration says of the destination.
async fn destination(kind: Kind, kafka: Option<&Kafka>) -> String {
    match kind {
        Kind::Blackhole => "{type: blackhole}".to_owned(),
        Kind::Ndjson | Kind::Journal => format!("{{type: file, path: {FILE}, fsync: batch}}"),
        Kind::Kafka => {
            let kafka = kafka.expect("a broker was started for this");
            into_topic(kafka, kafka.topic("wal", 1).await.name())
        }
    }
}

/// What the configuration says of one topic.
pub(crate) fn into_topic(kafka: &Kafka, topic: &str) -> String {
    format!("{{type: kafka, brokers: [\"{}\"], topic: {topic}}}", kafka.bootstrap())
}

/// A whole configuration. There is no heartbeat: each would add to the WAL that the next reader reads.
///
/// `top` are lines at its top, `destinations` a line for each.
pub(crate) fn configuration(
    programs: &Programs,
    url: &str,
    slot: &str,
    (top, destinations): (&str, &str),
) -> String {
    let limits =
        programs.memory.as_ref().map_or(String::new(), |memory| format!("limits: {{memory: {memory}}}\n"));
    format!(
        "{limits}{top}sources:
  bench:
    type: postgres
    url: {url}
    tables: [public.changes]
    publication: {PUBLICATION}
    publication_mode: existing
    slot: {slot}
    snapshot: never
    heartbeat: 0s
destinations:
{destinations}"
    )
}
