//! Position and restart: whatever is killed, cut or promoted, nothing is lost and ids stay what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_integration::{Daemon, Database, Postgres, Proxy, Stop};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{FOREBAY, Reading, lines, orders};

/// The ids of events by the row that they are about, and that each row has one.
fn ids(events: &[Value]) -> BTreeMap<i64, String> {
    let mut ids = BTreeMap::new();
    for event in events {
        let (row, id) = (event["key"]["id"].as_i64().unwrap(), event["id"].as_str().unwrap().to_owned());
        if let Some(before) = ids.insert(row, id.clone()) {
            assert_eq!(before, id, "row {row} came again under another id");
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_daemon_was_down_arrives_after_its_start() {
    for major in super::MAJORS {
        let db = orders(major, "down").await;
        let mut reading = Reading::of(&db, "public.orders", "");
        reading.start().await;
        db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
        reading.exactly(1).await;
        assert_eq!(reading.daemon.stop().await, 0);
        db.execute("INSERT INTO orders VALUES (2, 'b', 1), (3, 'c', 1)").await;
        reading.start().await;
        let events = reading.exactly(3).await;
        assert_eq!(ids(&events).len(), 3, "a stop in order repeats nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_every_step_loses_nothing_and_repeats_under_the_same_ids() {
    const STEPS: [&str; 16] = [
        "slot-intended",
        "slot-created",
        "slot-position-stored",
        "slot-started",
        "read",
        "sent",
        "received",
        "staged",
        "file-written",
        "file-synced",
        "delivered",
        "accepted",
        "before-save",
        "saved",
        "published",
        "confirmed",
    ];
    let rounds = if std::env::var_os("FOREBAY_FULL").is_some() { 20 } else { 1 };
    for round in 0..rounds {
        for step in STEPS {
            let db = orders(15, "steps").await;
            let mut reading = Reading::of(&db, "public.orders", "");
            let early = step.starts_with("slot-");
            if !early {
                // The slot is there, so that the killed daemon has something to read.
                reading.start().await;
                assert_eq!(reading.daemon.stop().await, 0);
            }
            let times = if early { 1 } else { 1 + round };
            reading.daemon.set_env("FOREBAY_STEP", &format!("{step}:{times}"));
            reading.daemon.spawn();
            let mut rows = 0;
            // A step that is not reached in time is not there any more, and the test is wrong.
            let deadline = Instant::now() + Duration::from_secs(30);
            while reading.daemon.is_running() {
                assert!(
                    Instant::now() < deadline,
                    "step `{step}` was never reached\n{}",
                    reading.daemon.stderr()
                );
                if !early {
                    rows += 3;
                    db.execute(&format!(
                        "INSERT INTO orders SELECT n, 'x', 1 FROM generate_series({}, {rows}) n",
                        rows - 2
                    ))
                    .await;
                }
                sleep(Duration::from_millis(20)).await;
            }
            reading.daemon.ended().await;
            reading.daemon.unset_env("FOREBAY_STEP");
            reading.start().await;
            db.execute(&format!("INSERT INTO orders VALUES ({}, 'last', 1)", rows + 1)).await;
            let found = reading.events(usize::try_from(rows).unwrap() + 1).await;
            let mut found = ids(&found);
            let deadline = Instant::now() + Duration::from_secs(20);
            while found.len() != usize::try_from(rows).unwrap() + 1 {
                assert!(Instant::now() < deadline, "after `{step}`: {} of {} rows", found.len(), rows + 1);
                sleep(Duration::from_millis(50)).await;
                found = ids(&lines(&reading.daemon.path("out.ndjson")));
            }
            assert_eq!(reading.daemon.stop().await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_without_a_checkpoint_is_taken_over_where_it_stands() {
    let db = orders(15, "takeover").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
    let before = ids(&reading.exactly(1).await);
    reading.confirmed(&db).await;
    assert_eq!(reading.daemon.stop().await, 0);
    db.execute("INSERT INTO orders VALUES (2, 'b', 1)").await;
    std::fs::remove_dir_all(reading.daemon.path("data")).unwrap();
    reading.start().await;
    let after = ids(&reading.events(2).await);
    assert_eq!(after.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    assert_eq!(after[&1], before[&1]);
    assert!(reading.daemon.stderr().contains("taking it over"), "it says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_moved_by_somebody_else_is_refused_and_the_gap_can_be_accepted() {
    let db = orders(15, "gap").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
    reading.exactly(1).await;
    assert_eq!(reading.daemon.stop().await, 0);
    db.execute("INSERT INTO orders VALUES (2, 'lost', 1)").await;
    db.query(&format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", db.name()), &[])
        .await;
    let (code, said) = reading.refused().await;
    assert_eq!(code, 69, "{said}");
    let accept = said.split("forebay checkpoint set db ").nth(1).expect("it says what to do");
    let lsn: String = accept.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '/').collect();
    let set = reading.daemon.command(&["checkpoint", "set", "db", &lsn, "--yes", "-c", "forebay.yaml"]).await;
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (3, 'c', 1)").await;
    let found = ids(&reading.exactly(2).await);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_is_refused() {
    let db = orders(15, "gone").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    assert_eq!(reading.daemon.stop().await, 0);
    db.query(&format!("SELECT pg_drop_replication_slot('{}')", db.name()), &[]).await;
    let (code, said) = reading.refused().await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("does not exist any more") && said.contains("forebay checkpoint reset"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_position_is_not_used_with_another_cluster() {
    let db = orders(15, "fence").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    assert_eq!(reading.daemon.stop().await, 0);
    let other = Postgres::shared(18).await.database("fence").await;
    other.execute("CREATE TABLE orders (id int PRIMARY KEY)").await;
    let elsewhere = Reading::of_url(other.url(), db.name(), "public.orders", "");
    let config = std::fs::read_to_string(elsewhere.daemon.path("forebay.yaml")).unwrap();
    let config: String =
        config.lines().filter(|line| !line.starts_with("admin:")).map(|l| format!("{l}\n")).collect();
    reading.daemon.configure(&config);
    let (code, said) = reading.refused().await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("of cluster"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_of_our_own_is_ended_and_the_slot_read_again() {
    let db = orders(15, "zombie").await;
    let port: i32 = db.value("SELECT inet_server_port()").await;
    let proxy = Proxy::to(u16::try_from(port).unwrap()).await;
    let url = db.url().replace(&format!(":{port}"), &format!(":{}", proxy.port()));
    let mut reading = Reading::of_url(&url, db.name(), "public.orders", "");
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
    reading.exactly(1).await;
    // The server's side stays open: it believes that the reader is still there.
    proxy.pause();
    reading.daemon.kill().await;
    db.execute("INSERT INTO orders VALUES (2, 'b', 1)").await;
    let direct = Reading::of(&db, "public.orders", "");
    let config = std::fs::read_to_string(direct.daemon.path("forebay.yaml")).unwrap();
    let config: String =
        config.lines().filter(|line| !line.starts_with("admin:")).map(|l| format!("{l}\n")).collect();
    reading.daemon.configure(&config);
    reading.start().await;
    let found = ids(&reading.events(2).await);
    assert_eq!(found.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_made_again() {
    let db = orders(15, "cut").await;
    let port: i32 = db.value("SELECT inet_server_port()").await;
    let proxy = Proxy::to(u16::try_from(port).unwrap()).await;
    let url = db.url().replace(&format!(":{port}"), &format!(":{}", proxy.port()));
    let mut reading = Reading::of_url(&url, db.name(), "public.orders", "");
    reading.start().await;
    for n in 1..=5 {
        db.execute(&format!("INSERT INTO orders VALUES ({n}, 'a', 1)")).await;
        if n % 2 == 0 {
            proxy.reset_all().await;
        }
        let found = reading.events(n).await;
        assert_eq!(ids(&found).len(), n);
    }
    assert_eq!(reading.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_restart_in_any_way() {
    let mut server = Postgres::start(15, &[]).await;
    let db = server.database("restarts").await;
    db.execute("CREATE TABLE orders (id int PRIMARY KEY)").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    for (n, how) in [Stop::Fast, Stop::Immediate, Stop::Kill].into_iter().enumerate() {
        db.execute(&format!("INSERT INTO orders VALUES ({n})")).await;
        server.restart(how).await;
        let found = reading.events(n + 1).await;
        assert_eq!(ids(&found).len(), n + 1);
    }
    assert_eq!(reading.daemon.stop().await, 0);
}

/// A required destination that nobody listens for: everything read stays unsettled.
fn held_up(db: &Database) -> Daemon {
    let config = format!(
        "sources:
  db:
    type: postgres
    url: {}
    tables: [public.orders]
    publication: {name}
    slot: {name}
    snapshot: never
    heartbeat: 1s
destinations:
  copy:
    type: postgres
    url: {}
limits: {{memory: 64MiB}}
",
        db.url(),
        db.url().replace(db.name(), "nobody_home"),
        name = db.name()
    );
    Daemon::new(FOREBAY, &config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_of_the_server_is_not_held_up_by_a_destination_that_is_down() {
    for rows in [10, 120_000] {
        let mut server = Postgres::start(15, &[]).await;
        let db = server.database("shutdown").await;
        db.execute("CREATE TABLE orders (id int PRIMARY KEY, body text)").await;
        let mut target = Postgres::start(15, &[]).await;
        let copy = target.database("copy").await;
        let mut daemon = held_up(&db);
        let config = std::fs::read_to_string(daemon.path("forebay.yaml")).unwrap();
        let nobody = db.url().replace(db.name(), "nobody_home");
        daemon.configure(&config.replace(&nobody, copy.url()));
        daemon.start().await;
        daemon.wait_until("both ends are connected", |status| status["ready"] == true).await;
        target.stop(Stop::Kill).await;
        // A few rows leave the reader idle; many fill the memory, and it waits for room.
        db.execute(&format!(
            "INSERT INTO orders SELECT n, repeat('x', 200) FROM generate_series(1, {rows}) n"
        ))
        .await;
        daemon
            .wait_until("rows were read", |status| status["sources"][0]["events"].as_u64().unwrap() >= 10)
            .await;
        sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        server.stop(Stop::Fast).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "with {rows} rows it took {:?}\n{}",
            begun.elapsed(),
            daemon.stderr()
        );
        server.start_again().await;
        target.start_again().await;
        copy.wait_until(&format!("SELECT count(*) = {rows} FROM forebay_events WHERE op <> 'schema'")).await;
        let twice: i64 = copy.value("SELECT count(*) - count(DISTINCT id) FROM forebay_events").await;
        assert_eq!(twice, 0);
        daemon.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_server_goes_on_where_the_old_timeline_ended_and_a_lost_end_is_refused() {
    let mut server = Postgres::start(15, &[]).await;
    let db = server.database("promoted").await;
    db.execute("CREATE TABLE orders (id int PRIMARY KEY)").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (1)").await;
    reading.exactly(1).await;
    assert_eq!(reading.daemon.stop().await, 0);
    db.execute("INSERT INTO orders VALUES (2)").await;
    server.stop(Stop::Fast).await;
    std::fs::write(server.server.data_dir().join("standby.signal"), "").unwrap();
    server.start_again().await;
    db.wait_until("SELECT pg_promote()").await;
    db.execute("INSERT INTO orders VALUES (3)").await;
    reading.start().await;
    let found = ids(&reading.exactly(3).await);
    let timelines: Vec<&str> = found.values().map(|id| id.split(':').nth(2).unwrap()).collect();
    assert_eq!(timelines, ["1", "1", "2"], "a commit keeps the timeline that it was made on: {found:?}");
    assert_eq!(reading.daemon.stop().await, 0);

    // A position of timeline 1 behind the place where timeline 2 left it: that part of the log was lost.
    let shown = reading.daemon.command(&["checkpoint", "show", "--json", "-c", "forebay.yaml"]).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    let slot = db.name();
    let system: String = db.value("SELECT system_identifier::text FROM pg_control_system()").await;
    let lost = format!(
        r#"{{"v":1,"system":"{system}","timeline":1,"database":"{}","slot":"{slot}","owner":"ab12cd34","lsn":"F/0"}}"#,
        db.name()
    );
    let set =
        reading.daemon.command(&["checkpoint", "set", "db", &lost, "--yes", "-c", "forebay.yaml"]).await;
    assert!(set.status.success(), "{}\n{shown}", String::from_utf8_lossy(&set.stderr));
    let (code, said) = reading.refused().await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("a failover lost the end of the log"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_set_back_in_time_is_refused() {
    let db = orders(15, "setback").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    assert_eq!(reading.daemon.stop().await, 0);
    // As after a snapshot of the disk was restored: our position is beyond the end of the server's log.
    let set =
        reading.daemon.command(&["checkpoint", "set", "db", "FFFF/0", "--yes", "-c", "forebay.yaml"]).await;
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let (code, said) = reading.refused().await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("set back to an earlier state") && said.contains("incarnation"), "{said}");
}
