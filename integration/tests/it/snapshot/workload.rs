//! The whole proof: tables that were filled beforehand, a random workload that goes on, copies again and again, and
//! deaths at every step of them. The checker knows what was committed.

use forebay_integration::checker::{Checker, Order, Report};
use forebay_integration::workload::{Contents, Ledger, SCHEMA, Settings, TABLES, Workload};
use forebay_integration::{Daemon, Database, Postgres, Signal};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::{Duration, sleep};

use super::kill::STEPS;
use super::{Copying, is_copied};

/// How many transactions fill the tables.
const FILLED: u64 = 200;
/// How often everything is copied once more.
const ROUNDS: u32 = 4;

fn load() -> Settings {
    Settings { pause: Duration::from_millis(15), ..Settings::random() }
}

/// The newest version that may be older than the stream.
async fn slot_made(db: &Database, workload: &Workload) -> i64 {
    let made =
        "SELECT count(*) = 1 FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL AND slot_name";
    db.wait_until(&format!("{made} = '{}'", db.name())).await;
    workload.last_version()
}

fn judge(copying: &Copying, until: i64, ledger: &Ledger, contents: &Contents) -> Report {
    let mut checker = Checker::new(ledger, Order::Total).with_copies(until);
    let text = std::fs::read(copying.output()).unwrap();
    text.split_inclusive(|byte| *byte == b'\n').for_each(|line| checker.take(0, line));
    checker.finish(contents)
}

/// Asks for a copy of every table, which may fail because the daemon dies meanwhile.
async fn ask_for_all(daemon: &Daemon) {
    for table in &TABLES {
        let name = format!("{SCHEMA}.{}", table.name);
        daemon.command(&["snapshot", "--source", "db", "--table", &name, "-c", "forebay.yaml"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_with_copies_and_deaths_at_every_step_loses_and_undoes_nothing() {
    for major in [13, 15, 17, 18] {
        let settings = load();
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let db = Postgres::shared(major).await.database("proof").await;
        Workload::create_tables(db.url()).await;
        let mut workload = Workload::start(db.url(), &settings);
        workload.commits(FILLED).await;
        let mut copying = Copying::of(&db, "\"load.*\"", "");
        copying.daemon.spawn();
        let until = slot_made(&db, &workload).await;
        copying.daemon.kill().await;
        for round in 0..ROUNDS {
            for step in STEPS {
                copying.daemon.set_env("FOREBAY_STEP", &format!("{step}:{}", rng.random_range(1..=3)));
                copying.start_or_die().await;
                if round > 0 && copying.daemon.is_running() {
                    ask_for_all(&copying.daemon).await;
                }
                sleep(Duration::from_millis(rng.random_range(0..500))).await;
                // It may have died by itself.
                if copying.daemon.is_running() {
                    copying.daemon.signal(Signal::KILL);
                }
                copying.daemon.ended().await;
            }
        }
        copying.daemon.unset_env("FOREBAY_STEP");
        copying.start().await;
        for _ in 0..ROUNDS {
            ask_for_all(&copying.daemon).await;
            copying.copied().await;
        }
        workload.commits(50).await;
        let (ledger, contents) = workload.stop().await;
        let replica = copying.finished(&db).await;
        let report = judge(&copying, until, &ledger, &contents);
        eprintln!("PostgreSQL {major}: {report}");
        report.expect_at_least_once();
        assert!(report.before > 0 && report.copied > 0, "nothing was copied: {report}");
        replica.expect_sound();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_life_brings_each_change_once_and_no_row_twice() {
    let settings = load();
    let db = Postgres::shared(15).await.database("once").await;
    Workload::create_tables(db.url()).await;
    let mut workload = Workload::start(db.url(), &settings);
    workload.commits(FILLED).await;
    let mut copying = Copying::of(&db, "\"load.*\"", "");
    copying.daemon.spawn();
    let until = slot_made(&db, &workload).await;
    workload.commits(100).await;
    copying.copied().await;
    let (ledger, contents) = workload.stop().await;
    copying.finished(&db).await;
    let report = judge(&copying, until, &ledger, &contents);
    eprintln!("{report}");
    report.expect_exactly_once();
    let ids: Vec<Value> =
        copying.events().into_iter().filter(is_copied).map(|event| event["id"].clone()).collect();
    let different: std::collections::HashSet<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(different.len(), ids.len(), "a copied row came twice without a crash");
}
