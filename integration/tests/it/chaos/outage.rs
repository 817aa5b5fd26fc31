//! One destination is away for a while: a required one holds the position and loses nothing, a best-effort one holds up
//! nobody and its losses are counted.

use std::collections::BTreeSet;

use forebay_integration::checker::{Defect, Order};
use forebay_integration::workload::Workload;
use forebay_integration::{Daemon, Database, Postgres, Proxy};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    BATCH_RECORDS, FOREBAY, Output, assert_adds_up, behind, lane, load, outage, read_by, reading, settled,
};

/// The workload on its way into files and, through a proxy, into a table.
struct Crossing {
    source: Database,
    workload: Workload,
    copy: Database,
    to_table: Proxy,
    daemon: Daemon,
}

impl Crossing {
    /// One that works.
    async fn begin(table_is_required: bool) -> Crossing {
        let server = Postgres::shared(15).await;
        let (source, copy) = (server.database("outage").await, server.database("copy").await);
        let to_table = Proxy::to(server.server.port()).await;
        let retry = if table_is_required { "{max: 1s}" } else { "{max: 200ms, attempts: 3}" };
        // Room for all that a required table will owe; little of it for a best-effort one, whose queue must overflow.
        let memory = if table_is_required { "256MiB" } else { "4MiB" };
        let config = reading(&source, memory)
            + &format!(
                "destinations:
  files: {{type: file, path: files/out.ndjson, batch: {{bytes: 256KiB}}}}
  table: {{type: postgres, url: \"{}\", required: {table_is_required}, retry: {retry}, batch: {{records: {BATCH_RECORDS}, bytes: 256KiB}}}}
",
                behind(&to_table, server, &copy)
            );
        let mut daemon = Daemon::new(FOREBAY, &config);
        Workload::create_tables(source.url()).await;
        read_by(&mut daemon).await;
        let mut workload = Workload::start(source.url(), &load());
        workload.commits(100).await;
        copy.wait_until("select to_regclass('forebay_events') is not null").await;
        copy.wait_until("select exists (select from forebay_events)").await;
        Crossing { source, workload, copy, to_table, daemon }
    }

    fn files(&self) -> Output {
        Output::of_folder(&self.daemon.path("files"))
    }

    async fn table(&self) -> Output {
        Output::of_table(&self.copy, "forebay_events").await
    }

    /// How far the server may forget its log.
    async fn confirmed(&self) -> u64 {
        let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = ";
        lsn(&self.source.value::<String>(&format!("{sql}'{}'", self.source.name())).await)
    }
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

/// The id of an event, and where its transaction was committed.
fn head(event: &[u8]) -> (String, u64) {
    #[derive(serde::Deserialize)]
    struct Head {
        id: String,
        source: Source,
    }
    #[derive(serde::Deserialize)]
    struct Source {
        commit_lsn: String,
    }
    let Head { id, source } = serde_json::from_slice(event).unwrap();
    (id, lsn(&source.commit_lsn))
}

fn position(status: &Value) -> &Value {
    &status["sources"][0]["checkpoint"]["position"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_destination_that_is_away_holds_the_position_and_loses_nothing() {
    let mut crossing = Crossing::begin(true).await;
    crossing.to_table.shut().await;
    crossing
        .daemon
        .wait_until("the table is missed", |status| lane(status, "table")["connected"] == false)
        .await;
    let files = crossing.files().0.len();
    sleep(outage() / 2).await; // what was stored before is confirmed by now
    let position_then = position(&crossing.daemon.status().await).clone();
    sleep(outage() / 2).await;

    let status = crossing.daemon.status().await;
    assert_eq!(position(&status), &position_then, "the position moved past what the table lacks");
    assert_eq!((&status["ready"], &status["live"]), (&Value::from(false), &Value::from(true)));
    assert!(crossing.files().0.len() > files, "the other destination does not go on");
    let confirmed = crossing.confirmed().await;
    let table = crossing.table().await;
    let stored: BTreeSet<String> = table.0.iter().map(|(_, event)| head(event).0).collect();
    let (mut covered, mut owed) = (0, 0);
    for (_, event) in crossing.files().0 {
        let (id, commit) = head(&event);
        let (is_confirmed, is_stored) = (commit < confirmed, stored.contains(&id));
        assert!(is_stored || !is_confirmed, "the server may forget {id}, and the table lacks it");
        covered += u64::from(is_confirmed);
        owed += u64::from(!is_stored);
    }
    assert!(covered > 0 && owed > 0, "{covered} events are confirmed, {owed} are owed: nothing was proven");

    // The outage ends while no daemon runs: all that is owed comes from the source again.
    crossing.daemon.kill().await;
    crossing.to_table.open().await;
    read_by(&mut crossing.daemon).await;
    crossing.workload.commits(100).await;
    let Crossing { source, workload, copy, mut daemon, .. } = crossing;
    let (ledger, contents) = workload.stop().await;
    let status = settled(&mut daemon, &source).await;
    assert_adds_up(&status, &["files", "table"]);
    let (files, table) =
        (Output::of_folder(&daemon.path("files")), Output::of_table(&copy, "forebay_events").await);
    let in_files = files.judge(Order::Total, &ledger, &contents);
    let in_table = table.judge(Order::Total, &ledger, &contents);
    in_files.expect_at_least_once();
    in_table.expect_exactly_once();
    assert_eq!(in_files.ids, in_table.ids);
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_best_effort_destination_that_is_away_holds_up_nobody_and_its_losses_are_counted() {
    let mut crossing = Crossing::begin(false).await;
    crossing.to_table.shut().await;
    let away_since: String = crossing.source.value("select pg_current_wal_lsn()::text").await;
    crossing
        .daemon
        .wait_until("the table is missed", |status| lane(status, "table")["connected"] == false)
        .await;
    sleep(outage()).await;
    assert!(
        crossing.confirmed().await > lsn(&away_since),
        "the position waits for a best-effort destination"
    );
    assert_eq!(crossing.daemon.status().await["ready"], true);

    crossing.to_table.open().await;
    crossing
        .daemon
        .wait_until("the table is back", |status| lane(status, "table")["connected"] == true)
        .await;
    crossing.workload.commits(100).await;
    let Crossing { source, workload, copy, mut daemon, .. } = crossing;
    let (ledger, contents) = workload.stop().await;
    let status = settled(&mut daemon, &source).await;
    assert_adds_up(&status, &["files", "table"]);
    let (files, table) =
        (Output::of_folder(&daemon.path("files")), Output::of_table(&copy, "forebay_events").await);
    files.judge(Order::Total, &ledger, &contents).expect_exactly_once();
    let in_table = table.judge(Order::Total, &ledger, &contents);
    eprintln!("best effort: {in_table}");
    in_table.expect_best_effort();
    let lost = in_table.count(Defect::Lost);
    let dropped = lane(&status, "table")["dropped"].as_u64().unwrap();
    assert!(lost > 0, "nothing was lost, so nothing was proven");
    // A batch whose commit was cut off may have been stored although nobody said so.
    assert!((lost..=lost + BATCH_RECORDS).contains(&dropped), "{lost} lost, {dropped} counted");
    assert_eq!(daemon.stop().await, 0);
}
