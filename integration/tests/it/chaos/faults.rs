//! Random faults of all kinds at the same time: the daemon, the source, the broker and the network fail, each in its
//! own time, while one destination refuses every third write.

use std::ops::Range;
use std::time::Duration;

use forebay_integration::checker::Order;
use forebay_integration::workload::Workload;
use forebay_integration::{Daemon, Database, Direction, Kafka, Postgres, Proxy, Stop};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::{BATCH_RECORDS, FOREBAY, Output, assert_adds_up, behind, full, load, outage};

/// How often each thing breaks.
struct Plan {
    kills: u32,
    restarts: u32,
    broker_kills: u32,
    network_faults: u32,
}

impl Plan {
    fn of_this_run() -> Plan {
        if full() {
            Plan { kills: 50, restarts: 10, broker_kills: 10, network_faults: 40 }
        } else {
            Plan { kills: 10, restarts: 2, broker_kills: 2, network_faults: 8 }
        }
    }
}

/// Longer than an attempt may take, shorter than the harness waits.
const HANG: Duration = Duration::from_secs(3);

async fn rest(rng: &mut StdRng, millis: Range<u64>) {
    sleep(Duration::from_millis(rng.random_range(millis))).await;
}

/// How long a server stays down: a moment, or, the last time in a long run, an outage.
async fn stay_down(rng: &mut StdRng, last: bool) {
    if last && full() { sleep(outage()).await } else { rest(rng, 0..2_000).await }
}

async fn kill_the_daemon(daemon: &mut Daemon, times: u32, mut rng: StdRng) {
    for _ in 0..times {
        rest(&mut rng, 100..4_000).await;
        assert!(daemon.is_running(), "the daemon ended by itself\n{}", daemon.stderr());
        daemon.kill().await;
        rest(&mut rng, 0..1_000).await;
        daemon.start().await;
    }
}

async fn restart_the_source(postgres: &mut Postgres, times: u32, mut rng: StdRng) {
    for left in (0..times).rev() {
        rest(&mut rng, 3_000..12_000).await;
        postgres.stop(Stop::Immediate).await;
        stay_down(&mut rng, left == 0).await;
        postgres.start_again().await;
    }
}

async fn kill_the_broker(kafka: &mut Kafka, times: u32, mut rng: StdRng) {
    for left in (0..times).rev() {
        rest(&mut rng, 2_000..10_000).await;
        kafka.kill().await;
        stay_down(&mut rng, left == 0).await;
        kafka.start_again().await;
    }
}

async fn disturb_the_network(lines: &mut [Proxy], times: u32, mut rng: StdRng) {
    for _ in 0..times {
        rest(&mut rng, 500..3_000).await;
        let which = rng.random_range(0..lines.len());
        let line = &mut lines[which];
        match rng.random_range(0..5) {
            0 => line.reset_all().await,
            1 => line.cut_after(Direction::ToServer, rng.random_range(0..100_000)),
            // An answer is lost, and perhaps it was that of a COMMIT.
            2 => line.cut_after(Direction::ToClient, rng.random_range(0..2_000)),
            // What was sent meanwhile arrives, when nobody waits for the answer any more.
            3 => {
                line.pause();
                sleep(HANG).await;
                line.resume();
            }
            // What was sent meanwhile never arrives, so these connections must not be used again.
            _ => {
                line.swallow();
                sleep(HANG).await;
                line.shut().await;
                line.resume();
                line.open().await;
            }
        }
    }
}

/// Makes every third write into the table fail as a busy server would make it fail.
async fn fail_every_third_write(copy: &Database) {
    copy.wait_until("select to_regclass('forebay_events') is not null").await;
    copy.execute(
        "create sequence writes;
         create function fail_every_third() returns trigger language plpgsql as $$
         begin
             if nextval('writes') % 3 = 0 then
                 raise 'every third write fails' using errcode = 'serialization_failure';
             end if;
             return null;
         end $$;
         create trigger every_third before insert on forebay_events
             for each statement execute function fail_every_third()",
    )
    .await;
}

fn destinations(table: &str, extra: &str, broker: &Proxy, topic: &str) -> String {
    let sql = format!("timeout: 2s, batch: {{records: {BATCH_RECORDS}}}");
    format!(
        "destinations:
  files: {{type: file, path: files/out.ndjson, rotate: {{bytes: 4MiB}}}}
  table: {{type: postgres, url: \"{table}\", {sql}, retry: {{initial: 50ms, max: 1s}}}}
  topic: {{type: kafka, brokers: [\"{}\"], topic: {topic}}}
  extra: {{type: postgres, url: \"{extra}\", table: extra, {sql}, required: false, retry: {{initial: 50ms, max: 200ms, attempts: 3}}}}
",
        broker.address()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_out_of_order_or_stored_twice_under_random_faults() {
    let settings = load();
    let rng = |number: u64| StdRng::seed_from_u64(settings.seed.wrapping_add(1_000 + number));
    let mut postgres = Postgres::start(15, &[]).await;
    let source = postgres.database("chaos").await;
    let server = Postgres::shared(15).await;
    let copy = server.database("copy").await;
    let (mut kafka, to_broker) = Kafka::behind_proxy().await;
    let topic = kafka.topic("chaos", 3).await;
    let (to_table, to_extra) = (Proxy::to(server.server.port()).await, Proxy::to(server.server.port()).await);
    let (table, extra) = (behind(&to_table, server, &copy), behind(&to_extra, server, &copy));
    let config = super::reading(&source, "64MiB") + &destinations(&table, &extra, &to_broker, topic.name());
    let mut daemon = Daemon::new(FOREBAY, &config);
    Workload::create_tables(source.url()).await;
    super::read_by(&mut daemon).await;
    fail_every_third_write(&copy).await;

    let mut workload = Workload::start(source.url(), &settings);
    workload.commits(100).await;
    let plan = Plan::of_this_run();
    let mut lines = [to_table, to_extra, to_broker];
    tokio::join!(
        kill_the_daemon(&mut daemon, plan.kills, rng(0)),
        restart_the_source(&mut postgres, plan.restarts, rng(1)),
        kill_the_broker(&mut kafka, plan.broker_kills, rng(2)),
        disturb_the_network(&mut lines, plan.network_faults, rng(3)),
    );
    workload.commits(100).await;
    let (ledger, contents) = workload.stop().await;

    let status = super::settled(&mut daemon, &source).await;
    assert_adds_up(&status, &["files", "table", "topic"]);
    let files = Output::of_folder(&daemon.path("files"));
    let table = Output::of_table(&copy, "forebay_events").await;
    let messages = Output::of_topic(&topic).await;
    let extra = Output::of_table(&copy, "extra").await;
    let reports = [
        files.judge(Order::Total, &ledger, &contents),
        table.judge(Order::Total, &ledger, &contents),
        messages.judge(Order::PerKey, &ledger, &contents),
        extra.judge(Order::Total, &ledger, &contents),
    ];
    for (name, report) in ["files", "table", "topic", "extra"].iter().zip(&reports) {
        eprintln!("{name}: {report}");
    }
    let [in_files, in_table, in_topic, in_extra] = &reports;
    in_files.expect_at_least_once();
    in_table.expect_exactly_once();
    in_topic.expect_at_least_once();
    in_extra.expect_best_effort();
    assert!(in_files.ids == in_table.ids && in_topic.ids == in_table.ids, "a change has several ids");
    let mut both = in_extra.ids.iter().zip(&in_table.ids);
    assert!(both.all(|(extra, table)| extra.is_none() || extra == table), "a change has several ids");
    let writes: i64 = copy.value("select last_value from writes").await;
    assert!(writes >= 30, "with {writes} writes hardly one in three failed");
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
}
