//! A journal between the source and three destinations, of which one is away, one is slow and one is well, while the
//! daemon is killed again and again.

use std::time::Duration;

use forebay_integration::checker::Order;
use forebay_integration::workload::{Settings, Workload};
use forebay_integration::{Daemon, Database, Postgres, Proxy, Stop};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::sleep;

use super::{FOREBAY, Output, assert_adds_up_behind, behind, confirmed, full, load, read_by, reading};

/// Makes every write into the table take its time.
async fn slow_down(copy: &Database) {
    copy.wait_until("select to_regclass('forebay_events') is not null").await;
    copy.execute(
        "create function take_time() returns trigger language plpgsql as $$
         begin
             perform pg_sleep(0.2);
             return null;
         end $$;
         create trigger slow before insert on forebay_events for each statement execute function take_time()",
    )
    .await;
}

/// Bytes of the journal that a destination has yet to get.
fn behind_bytes(status: &Value, reader: &str) -> u64 {
    let readers = status["sources"][0]["journal"]["readers"].as_array().unwrap();
    let found = readers.iter().find(|found| found["name"] == reader);
    found.and_then(|found| found["behind_bytes"].as_u64()).unwrap_or(u64::MAX)
}

#[tokio::test]
async fn behind_a_journal_a_destination_that_is_away_or_slow_harms_neither_the_others_nor_the_database() {
    let settings = load();
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let mut postgres = Postgres::start(15, &[]).await;
    let source = postgres.database("journal").await;
    let server = Postgres::shared(15).await;
    let (slow, away) = (server.database("slow").await, server.database("away").await);
    Workload::create_tables(source.url()).await;
    let mut line = Proxy::to(server.server.port()).await;
    line.shut().await;
    let to_slow = Proxy::to(server.server.port()).await;
    let config = reading(&source, "64MiB")
        + &format!(
            "journal: {{type: disk, segment: 1MiB, max_bytes: 1GiB}}
destinations:
  well: {{type: file, path: files/out.ndjson}}
  slow: {{type: postgres, url: \"{}\", batch: {{records: 50}}}}
  away: {{type: postgres, url: \"{}\"}}
",
            behind(&to_slow, server, &slow),
            behind(&line, server, &away),
        );
    let mut daemon = Daemon::new(FOREBAY, &config);
    // A required destination that is away does not keep it from starting.
    read_by(&mut daemon).await;
    slow_down(&slow).await;
    let mut workload = Workload::start(source.url(), &settings);
    for round in 0..if full() { 60 } else { 15 } {
        sleep(Duration::from_millis(rng.random_range(200..1_500))).await;
        assert!(daemon.is_running(), "the daemon ended by itself\n{}", daemon.stderr());
        match round % 5 {
            0 => to_slow.reset_all().await,
            3 => postgres.restart(Stop::Immediate).await,
            _ => {
                daemon.kill().await;
                daemon.start().await;
            }
        }
    }
    workload.commits(200).await;
    let (ledger, contents) = workload.stop().await;
    confirmed(&mut daemon, &source).await;
    daemon.wait_until("the one that is well has all", |status| behind_bytes(status, "well") == 0).await;
    let status = daemon.status().await;
    assert!(behind_bytes(&status, "away") > 0, "{status:#}");
    assert_eq!(
        status["ready"], true,
        "a destination behind a journal keeps nothing from being taken in: {status:#}"
    );
    let files = Output::of_folder(&daemon.path("files")).judge(Order::Total, &ledger, &contents);
    eprintln!("well, while another is away: {files}");
    files.expect_at_least_once();

    line.open().await;
    let all = |status: &Value| ["well", "slow", "away"].iter().all(|name| behind_bytes(status, name) == 0);
    let status = daemon.wait_until("the others have caught up", all).await;
    assert_adds_up_behind(&status, &["well", "slow", "away"]);
    for copy in [&slow, &away] {
        let rows = Output::of_table(copy, "forebay_events").await.judge(Order::Total, &ledger, &contents);
        eprintln!("{}: {rows}", copy.name());
        rows.expect_exactly_once();
    }
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test]
async fn killed_at_every_step_of_the_journal_nothing_is_lost() {
    let settings = Settings { pause: Duration::from_millis(10), ..load() };
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let server = Postgres::shared(15).await;
    let (source, copy) = (server.database("steps").await, server.database("copy").await);
    Workload::create_tables(source.url()).await;
    let config = reading(&source, "64MiB")
        + &format!(
            "journal: {{type: disk, segment: 512KiB, max_bytes: 1GiB}}
destinations:
  files: {{type: file, path: files/out.ndjson}}
  table: {{type: postgres, url: \"{}\"}}
",
            copy.url()
        );
    let mut daemon = Daemon::new(FOREBAY, &config);
    read_by(&mut daemon).await;
    let mut workload = Workload::start(source.url(), &settings);
    workload.commits(50).await;
    daemon.kill().await;
    for (step, most) in super::steps::JOURNAL {
        // Fewer than its own process reaches: a daemon has a database to read.
        let most = if most > 3 { 20 } else { 1 };
        super::steps::dies_at(&mut daemon, step, rng.random_range(1..=most)).await;
    }
    read_by(&mut daemon).await;
    workload.commits(100).await;
    let (ledger, contents) = workload.stop().await;
    confirmed(&mut daemon, &source).await;
    let all = |status: &Value| ["files", "table"].iter().all(|name| behind_bytes(status, name) == 0);
    daemon.wait_until("all is delivered", all).await;
    Output::of_folder(&daemon.path("files")).judge(Order::Total, &ledger, &contents).expect_at_least_once();
    Output::of_table(&copy, "forebay_events")
        .await
        .judge(Order::Total, &ledger, &contents)
        .expect_exactly_once();
}
