//! The daemon dies at every step whose order the promises depend on, one after the other, under the workload.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use forebay_integration::checker::Order;
use forebay_integration::workload::{Settings, Workload};
use forebay_integration::{Daemon, Database, Postgres};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::{FOREBAY, Output, assert_adds_up, full, load, read_by, reading, settled};

/// The steps that are reached once in the life of a slot: each seed takes one, `postgres_source/restart.rs` takes all.
const ONCE: [&str; 3] = ["slot-intended", "slot-created", "slot-position-stored"];

/// The steps that are reached again and again, with how often at most before the daemon dies there.
const AGAIN: [(&str, u32); 19] = [
    ("slot-started", 1),
    ("read", 20),
    ("sent", 20),
    ("received", 20),
    ("staged", 20),
    ("delivered", 20),
    ("accepted", 20),
    ("file-written", 20),
    ("file-synced", 20),
    ("file-renamed", 3),
    ("postgres-destination-before-commit", 20),
    ("postgres-destination-after-commit", 20),
    ("dead-letter-written", 3),
    ("dead-letter-synced", 3),
    ("buried", 3),
    ("before-save", 10),
    ("saved", 10),
    ("published", 10),
    ("confirmed", 10),
];

/// The steps of a copy; `snapshot/kill.rs` takes them.
const COPY: [&str; 4] = ["snapshot-read", "snapshot-watermark", "snapshot-sent", "snapshot-stored"];

/// The steps of a journal on disk, with how often at most before the daemon dies there; `journal.rs` takes them.
pub(super) const JOURNAL: [(&str, u32); 11] = [
    ("journal-tail-settled", 1),
    ("journal-frame-written", 20),
    ("journal-before-sync", 20),
    ("journal-synced", 20),
    ("journal-acknowledged", 20),
    ("journal-reader-sends", 20),
    ("journal-segment-prepared", 1),
    ("journal-segment-begun", 1),
    ("journal-file-written", 1),
    ("journal-file-renamed", 1),
    ("journal-segment-deleted", 1),
];

/// How many seeds the long run has.
const SEEDS: u64 = 20;

/// Every name in a `step!` below a folder.
fn steps_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            steps_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let names = code.flat_map(|line| line.split("step!(\"").skip(1));
            found.extend(names.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
}

#[test]
fn every_step_of_the_code_is_one_at_which_the_daemon_is_killed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut in_code = BTreeSet::new();
    for folder in ["src", "connectors"] {
        steps_below(&root.join(folder), &mut in_code);
    }
    let again = AGAIN.iter().map(|(step, _)| *step);
    let journal = JOURNAL.iter().map(|(step, _)| *step);
    let listed: BTreeSet<String> =
        ONCE.into_iter().chain(again).chain(COPY).chain(journal).map(str::to_owned).collect();
    assert_eq!(in_code, listed, "(in the code, in this list)");
}

/// Makes the table refuse one row in fifty for what is in it.
async fn refuse_some(copy: &Database) {
    copy.wait_until("select to_regclass('forebay_events') is not null").await;
    copy.execute(
        "create function refuse_some() returns trigger language plpgsql as $$
         begin
             if (new.body -> 'payload' ->> 'version')::bigint % 50 = 0 then
                 raise 'one in fifty is refused' using errcode = 'check_violation';
             end if;
             return new;
         end $$;
         create trigger refusal before insert on forebay_events for each row execute function refuse_some()",
    )
    .await;
}

/// Starts the daemon, which dies when it reaches `step` for the `nth` time.
pub(super) async fn dies_at(daemon: &mut Daemon, step: &str, nth: u32) {
    daemon.set_env("FOREBAY_STEP", &format!("{step}:{nth}"));
    daemon.spawn();
    let status = daemon.ended().await;
    let reached = format!("step `{step}` reached: aborting");
    assert!(daemon.stderr().contains(&reached), "`{step}` was not reached: {status}\n{}", daemon.stderr());
    daemon.unset_env("FOREBAY_STEP");
}

/// One database, one daemon, a death at every step.
async fn every_step(settings: Settings) {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let server = Postgres::shared(15).await;
    let (source, copy) = (server.database("steps").await, server.database("copy").await);
    Workload::create_tables(source.url()).await;
    let config = reading(&source, "64MiB")
        + &format!(
            "destinations:
  files: {{type: file, path: files/out.ndjson, rotate: {{bytes: 64KiB}}}}
  table: {{type: postgres, url: \"{}\", batch: {{records: 100}}}}
",
            copy.url()
        );
    let mut daemon = Daemon::new(FOREBAY, &config);
    dies_at(&mut daemon, ONCE[usize::try_from(settings.seed % 3).unwrap()], 1).await;
    // What is committed before there is a slot is nobody's promise.
    read_by(&mut daemon).await;
    refuse_some(&copy).await;
    let mut workload = Workload::start(source.url(), &settings);
    workload.commits(100).await;
    daemon.kill().await;
    let mut again = AGAIN;
    again.shuffle(&mut rng);
    for (step, most) in again {
        dies_at(&mut daemon, step, rng.random_range(1..=most)).await;
    }
    read_by(&mut daemon).await;
    workload.commits(100).await;
    let (ledger, contents) = workload.stop().await;
    let status = settled(&mut daemon, &source).await;
    assert_adds_up(&status, &["files", "table"]);
    let files = Output::of_folder(&daemon.path("files")).judge(Order::Total, &ledger, &contents);
    eprintln!("files: {files}");
    files.expect_at_least_once();
    let Output(mut either) = Output::of_table(&copy, "forebay_events").await;
    let Output(letters) = Output::of_dead_letters(&daemon, "table");
    assert!(!letters.is_empty(), "nothing was refused");
    either.extend(letters);
    Output(either).judge(Order::None, &ledger, &contents).expect_exactly_once();
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_loses_nothing_and_buries_or_stores_each_event_once() {
    let settings = load();
    for round in 0..if full() { SEEDS } else { 1 } {
        let seed = settings.seed.wrapping_add(round);
        eprintln!("steps: round {round}, FOREBAY_SEED={seed}");
        every_step(Settings { seed, ..settings.clone() }).await;
    }
}
