//! What the destination `postgres` promises beyond what every destination does: rows that can be asked for, one writer,
//! positions that say what is there, and messages that say what to do.

mod check;
mod kill;

use std::sync::{Arc, Mutex};

use forebay_api::{
    Batch, Blame, Delivery, Destination, DestinationConnector, DestinationSetting, Draft, Encoded, Fault,
    Invalid, Mark, Op, Part, Progress, Row, Settled, Span, StreamId, Subject, Verdict,
};
use forebay_integration::{Database, Postgres, Proxy};
use forebay_postgres::PostgresDestination;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The source's stream that the tests write.
fn stream() -> Arc<StreamId> {
    Arc::new(StreamId { source: "web".into(), epoch: 0xf00d })
}

/// One event: its sender's id, if any, and its payload, which is all of its body.
type Made<'a> = (&'a str, &'a str);

/// Events whose marks follow `first`.
fn batch(first: u64, events: &[Made<'_>]) -> Arc<Batch> {
    let mut draft = Draft::default();
    let subject = Arc::new(Subject::new(
        ("com.acme", "public.orders", "1-0-0"),
        (Some("shop"), Some("public"), Some("orders")),
        r#""type":"test","name":"web""#.to_owned(),
    ));
    let (mut bodies, mut ends) = (Vec::new(), Vec::new());
    for (n, (id, payload)) in (first..).zip(events) {
        let mut span = |text: &str| {
            let at = draft.buf.len();
            draft.buf.extend_from_slice(text.as_bytes());
            draft.since(at)
        };
        let (id, key, payload_span) = (span(id), span(r#"{"id":42}"#), span(payload));
        let subject = draft.subject(&subject);
        draft.push(Row {
            mark: Mark { major: (1, n), minor: 0, part: 0 },
            time: 1_795_372_440_123_456,
            xid: 0,
            subject,
            op: if id.is_empty() { Op::Insert } else { Op::Track },
            id,
            key,
            before: Span::default(),
            payload: payload_span,
            unchanged: Span::default(),
            contexts: Span::default(),
            extra: Span::default(),
        });
        bodies.extend_from_slice(payload.as_bytes());
        ends.push(u32::try_from(bodies.len()).unwrap());
    }
    let chunk = draft.finish(&stream(), 1_795_372_440_130_012, false);
    Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(bodies, ends)] })
}

/// A destination named `copy`.
fn copy(database: &Database, config: Value) -> Arc<dyn Destination> {
    named("copy", database, config)
}

fn named(name: &str, database: &Database, config: Value) -> Arc<dyn Destination> {
    let config = with_url(database, config);
    PostgresDestination::build(serde_json::from_value(config).unwrap(), &setting(name)).unwrap()
}

fn with_url(database: &Database, mut config: Value) -> Value {
    config.as_object_mut().unwrap().entry("url").or_insert(json!(database.url()));
    config
}

fn setting(name: &str) -> DestinationSetting {
    DestinationSetting {
        name: name.to_owned(),
        format: "forebay".to_owned(),
        data_dir: std::env::temp_dir(),
        sources: vec!["web".to_owned()],
    }
}

/// What a lane does before it delivers.
async fn prepare(destination: &Arc<dyn Destination>) -> Result<Option<Mark>, Fault> {
    destination.open().await?;
    destination.held(&stream()).await
}

/// Delivers all of a batch; what was said of each record, and the fault.
async fn deliver(destination: &Arc<dyn Destination>, batch: Arc<Batch>) -> (Vec<Settled>, Result<(), Fault>) {
    let count = batch.chunk.rows.len();
    let rows = (0..u32::try_from(count).unwrap()).collect();
    let parts: Arc<[Part]> = Arc::new([Part { batch, rows, range: 0..count }]);
    let (delivery, back) = Delivery::new(parts, 0, Progress::new(count));
    let result = destination.deliver(delivery).await;
    let progress = back.await.unwrap();
    ((0..count).map(|index| progress.of(index)).collect(), result)
}

/// Delivers and sees everything accepted.
async fn delivered(destination: &Arc<dyn Destination>, batch: Arc<Batch>) {
    let (said, result) = deliver(destination, batch).await;
    result.unwrap();
    assert!(said.iter().all(|settled| *settled == Settled::Accepted), "{said:?}");
}

fn mark(n: u64) -> Option<Mark> {
    Some(Mark { major: (1, n), minor: 0, part: 0 })
}

/// A fault's words and its remedy.
fn said(fault: &Fault) -> String {
    format!("{fault} | {}", fault.remedy().unwrap_or("no remedy"))
}

#[tokio::test]
async fn an_event_is_a_row_that_can_be_asked_for() {
    let database = Postgres::shared(15).await.database("rows").await;
    let destination = copy(&database, json!({}));
    assert_eq!(prepare(&destination).await.unwrap(), None);
    let mut events =
        Arc::into_inner(batch(7, &[("", r#"{"total":1.50}"#), ("a-b", r#"{"big":12345678901234567890}"#)]))
            .unwrap();
    let invalid = Invalid { kind: "x".into(), message: "x".into(), resolution: None, details: Vec::new() };
    events.verdicts = vec![Verdict::Valid, Verdict::Invalid(Box::new(invalid))];
    delivered(&destination, Arc::new(events)).await;
    let rows = database
        .query(
            "select to_json(e)::text from (
                 select id, source, schema, name, op, time, received, valid, key, body, length(digest)
                 from forebay_events order by seq) e",
            &[],
        )
        .await;
    let rows: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect();
    let common = |id: &str, op: &str, valid: bool, body: Value, length: Value| {
        json!({
            "id": id, "source": "web", "schema": "com.acme/public.orders/1-0-0", "name": "public.orders", "op": op,
            "time": "2026-11-22T18:34:00.123456+00:00", "received": "2026-11-22T18:34:00.130012+00:00",
            "valid": valid, "key": {"id": 42}, "body": body, "length": length,
        })
    };
    let first = common(
        "web:000000000000f00d:1:0000000000000007:0",
        "insert",
        true,
        json!({"total": 1.50}),
        Value::Null,
    );
    let second = common("a-b", "track", false, json!({"big": 12_345_678_901_234_567_890_u64}), json!(16));
    assert_eq!(rows, [first, second]);
    let held: String = database.value("select stream || ' ' || position from forebay_positions").await;
    assert_eq!(held, "web:000000000000f00d 1:0000000000000008:0");
    assert_eq!(prepare(&destination).await.unwrap(), mark(8));
}

#[tokio::test]
async fn rows_are_numbered_in_the_order_of_their_stream_not_of_their_ids() {
    let database = Postgres::shared(15).await.database("order").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    delivered(&destination, batch(1, &[("z", "1"), ("m", "2"), ("a", "3")])).await;
    delivered(&destination, batch(4, &[("y", "4"), ("b", "5")])).await;
    assert_eq!(bodies(&database).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn the_daemon_that_took_a_stream_over_last_writes_it_alone() {
    let database = Postgres::shared(15).await.database("fence").await;
    let (first, second) = (copy(&database, json!({})), copy(&database, json!({})));
    prepare(&first).await.unwrap();
    delivered(&first, batch(1, &[("", "1")])).await;
    assert_eq!(prepare(&second).await.unwrap(), mark(1));
    let (settled, result) = deliver(&first, batch(2, &[("", "2")])).await;
    let fault = result.unwrap_err();
    assert!(!fault.is_retryable());
    assert!(said(&fault).contains("another daemon has taken it over (lease 2 since "), "{}", said(&fault));
    assert_eq!(settled, [Settled::Open]);
    assert!(
        !prepare(&first).await.unwrap_err().is_retryable(),
        "a fenced daemon does not come back by itself"
    );
    delivered(&second, batch(2, &[("", "2")])).await;
    let bodies: Vec<String> = bodies(&database).await;
    assert_eq!(bodies, ["1", "2"]);
}

async fn bodies(database: &Database) -> Vec<String> {
    let rows = database.query("select body::text from forebay_events order by seq", &[]).await;
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn all_who_start_at_once_find_or_make_the_same_tables() {
    let database = Arc::new(Postgres::shared(15).await.database("together").await);
    let mut starting = JoinSet::new();
    for _ in 0..8 {
        let destination = copy(&database, json!({}));
        starting.spawn(async move { prepare(&destination).await.map(drop) });
    }
    while let Some(started) = starting.join_next().await {
        started.unwrap().unwrap();
    }
    assert_eq!(database.value::<i64>("select lease from forebay_positions").await, 8);
}

#[tokio::test]
async fn an_id_that_comes_again_with_another_body_keeps_the_first_and_is_told() {
    let database = Postgres::shared(15).await.database("ids").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    let log = Log::default();
    let _here = log.listen();
    delivered(&destination, batch(1, &[("a", r#"{"n":1}"#), ("b", r#"{"n":2}"#), ("a", r#"{"n":3}"#)])).await;
    let told = log.taken();
    assert!(told.contains("WARN") && told.contains("events=1 total=1 first=\"a\""), "{told}");
    // the same again is the same event; and nothing is told of change events, whose bodies differ in times only
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    delivered(&destination, batch(4, &[("a", r#"{"n":1}"#), ("b", r#"{"n":2}"#), ("c", "4")])).await;
    assert_eq!(log.taken(), "");
    assert_eq!(bodies(&database).await, [r#"{"n": 1}"#, r#"{"n": 2}"#, "4"]);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_waited_for_and_found() {
    let database = Postgres::shared(15).await.database("lost_answer").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    // commits only once the test lets go of its lock
    database
        .execute(
            "create function wait() returns trigger language plpgsql as
             $$ begin perform pg_advisory_xact_lock(42); return null; end $$;
             create constraint trigger wait after insert on forebay_events deferrable initially deferred
             for each row execute function wait()",
        )
        .await;
    let lock = database.connect().await;
    lock.execute("select pg_advisory_lock(42)", &[]).await.unwrap();
    let committing = "select count(*) = 1 from pg_stat_activity
                      where datname = current_database() and query = 'COMMIT' and wait_event = 'advisory'";
    tokio::select! {
        (settled, result) = deliver(&destination, batch(1, &[("", "1")])) => panic!("{settled:?} {result:?}"),
        () = database.wait_until(committing) => {}
    }
    let waiting = "select count(*) = 1 from pg_stat_activity
                   where datname = current_database() and query ~ 'FOR UPDATE$' and wait_event_type = 'Lock'";
    let answered = async {
        database.wait_until(waiting).await;
        lock.execute("select pg_advisory_unlock(42)", &[]).await.unwrap();
    };
    let (held, ()) = tokio::join!(prepare(&destination), answered);
    assert_eq!(held.unwrap(), mark(1), "the commit went through after all");
    delivered(&destination, batch(2, &[("", "2")])).await;
    assert_eq!(bodies(&database).await, ["1", "2"]);
}

#[tokio::test]
async fn an_attempt_that_was_given_up_and_stored_after_all_is_no_reason_to_stop() {
    let database = Postgres::shared(15).await.database("twice").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    delivered(&destination, batch(1, &[("", "1")])).await;
    let (_, result) = deliver(&destination, batch(1, &[("", "1")])).await;
    assert!(result.unwrap_err().is_retryable());
    assert_eq!(bodies(&database).await, ["1"]);
}

#[tokio::test]
async fn no_mark_covers_a_refused_record_before_its_dead_letter_is_stored() {
    let database = Postgres::shared(15).await.database("poison").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    let nul = r#""\u0000""#;
    let (settled, result) =
        deliver(&destination, batch(1, &[("", "1"), ("", "2"), ("", nul), ("", "4"), ("", nul), ("", "6")]))
            .await;
    result.unwrap();
    use Settled::{Accepted, Rejected};
    assert_eq!(settled, [Accepted, Accepted, Rejected, Accepted, Rejected, Accepted]);
    assert_eq!(bodies(&database).await, ["1", "2", "4", "6"]);
    assert_eq!(prepare(&destination).await.unwrap(), mark(2));
    // killed before the dead letters were stored: all behind the mark comes again, and is there once
    let again = copy(&database, json!({}));
    assert_eq!(prepare(&again).await.unwrap(), mark(2));
    let (settled, result) =
        deliver(&again, batch(3, &[("", nul), ("", "4"), ("", nul), ("", "6"), ("", "7")])).await;
    result.unwrap();
    assert_eq!(settled, [Rejected, Accepted, Rejected, Accepted, Accepted]);
    delivered(&again, batch(8, &[("", "8")])).await;
    assert_eq!(bodies(&database).await, ["1", "2", "4", "6", "7", "8"]);
    assert_eq!(prepare(&again).await.unwrap(), mark(8));
}

#[tokio::test]
async fn what_a_tables_own_rules_refuse_goes_to_the_dead_letters() {
    let database = Postgres::shared(15).await.database("rules").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    database.execute("alter table forebay_events add check (body <> '13')").await;
    // an index holds no text of this length that cannot be compressed
    let noise =
        std::iter::successors(Some(1u64), |n| Some(n.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1)));
    let noise: String =
        noise.map(|n| char::from(b'!' + u8::try_from((n >> 33) % 89).unwrap())).take(9000).collect();
    let (settled, result) = deliver(&destination, batch(1, &[(&noise, "1"), ("", "13"), ("", "14")])).await;
    result.unwrap();
    assert_eq!(settled, [Settled::Rejected, Settled::Rejected, Settled::Accepted]);
    assert_eq!(bodies(&database).await, ["14"]);
}

#[tokio::test]
async fn a_table_that_is_made_anew_is_filled_anew() {
    let database = Postgres::shared(15).await.database("anew").await;
    let old = copy(&database, json!({}));
    prepare(&old).await.unwrap();
    delivered(&old, batch(1, &[("", "1"), ("", "2")])).await;
    database.execute("drop table forebay_events").await;
    let (_, result) = deliver(&old, batch(3, &[("", "3")])).await;
    let fault = result.unwrap_err();
    assert!(!fault.is_retryable() && said(&fault).contains("a new start makes it again"), "{}", said(&fault));
    let new = copy(&database, json!({}));
    assert_eq!(prepare(&new).await.unwrap(), None, "a mark does not speak of a table that is gone");
    delivered(&new, batch(1, &[("", "1"), ("", "2"), ("", "3")])).await;
    assert_eq!(bodies(&database).await, ["1", "2", "3"]);
    assert!(!prepare(&old).await.unwrap_err().is_retryable(), "and neither does an old lease");
}

#[tokio::test]
async fn two_destinations_of_one_table_have_positions_of_their_own() {
    let database = Postgres::shared(15).await.database("two").await;
    let (inserts, deletes) = (named("inserts", &database, json!({})), named("deletes", &database, json!({})));
    prepare(&inserts).await.unwrap();
    delivered(&inserts, batch(2, &[("", "2")])).await;
    assert_eq!(prepare(&deletes).await.unwrap(), None, "what one has is not what the other has");
    delivered(&deletes, batch(1, &[("", "1"), ("", "2")])).await;
    delivered(&inserts, batch(3, &[("", "3")])).await;
    assert_eq!(bodies(&database).await, ["2", "1", "3"]);
}

#[tokio::test]
async fn a_locked_table_makes_an_attempt_fail_and_the_next_one_work() {
    let database = Postgres::shared(15).await.database("locked").await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    let other = database.connect().await;
    other.batch_execute("begin; lock table forebay_events in access exclusive mode").await.unwrap();
    let (settled, result) = deliver(&destination, batch(1, &[("", "1")])).await;
    let fault = result.unwrap_err();
    assert!(fault.is_retryable() && said(&fault).contains("`pg_locks`"), "{}", said(&fault));
    assert_eq!(settled, [Settled::Open]);
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(prepare(&destination).await.unwrap(), None);
    delivered(&destination, batch(1, &[("", "1")])).await;
    assert_eq!(bodies(&database).await, ["1"]);
}

#[tokio::test]
async fn any_name_can_be_a_table_and_any_schema_its_place() {
    let database = Postgres::shared(15).await.database("names").await;
    database.execute(r##"create schema "Weird ""one"". '""##).await;
    let destination = copy(&database, json!({"table": r##""Weird ""one"". '".Ev'ents"##}));
    prepare(&destination).await.unwrap();
    delivered(&destination, batch(1, &[("", "1")])).await;
    let count = r#"select count(*) from "Weird ""one"". '"."Ev'ents""#;
    assert_eq!(database.value::<i64>(count).await, 1);
    let positions =
        r#"select count(*) from "Weird ""one"". '".forebay_positions where table_name = 'Ev''ents'"#;
    assert_eq!(database.value::<i64>(positions).await, 1);
}

#[tokio::test]
async fn a_table_is_found_where_the_search_path_finds_it() {
    let database = Postgres::shared(15).await.database("path").await;
    database.execute("create schema lake").await;
    prepare(&copy(&database, json!({"table": "lake.events"}))).await.unwrap();
    database.execute(&format!("alter database {} set search_path = public, lake", database.name())).await;
    let destination = copy(&database, json!({"table": "events"}));
    prepare(&destination).await.unwrap();
    delivered(&destination, batch(1, &[("", "1")])).await;
    assert_eq!(database.value::<i64>("select count(*) from lake.events").await, 1);
}

#[tokio::test]
async fn a_role_whose_commits_are_not_durable_is_made_to_wait() {
    let database = Postgres::shared(15).await.database("durable").await;
    database.execute(&format!("alter database {} set synchronous_commit = off", database.name())).await;
    let destination = copy(&database, json!({}));
    prepare(&destination).await.unwrap();
    database
        .execute("alter table forebay_events add durable text default current_setting('synchronous_commit')")
        .await;
    delivered(&destination, batch(1, &[("", "1")])).await;
    assert_eq!(database.value::<String>("select durable from forebay_events").await, "on");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again_and_a_database_that_is_not_there_is_not() {
    let database = Postgres::shared(15).await.database("there").await;
    let nobody =
        json!({"url": format!("postgres://postgres@127.0.0.1:{}/x", forebay_integration::free_ports(1))});
    let fault = prepare(&copy(&database, nobody)).await.unwrap_err();
    assert!(fault.is_retryable() && fault.remedy().is_some(), "{}", said(&fault));
    let elsewhere = json!({"url": database.url().replace(database.name(), "nowhere")});
    let fault = prepare(&copy(&database, elsewhere)).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{}", said(&fault));
    assert!(said(&fault).contains("database \"nowhere\" does not exist"), "{}", said(&fault));
}

#[tokio::test]
async fn a_server_that_has_vanished_without_a_word_is_given_up() {
    let server = Postgres::shared(15).await;
    let database = server.database("vanished").await;
    let proxy = Proxy::to(server.server.port()).await;
    let url = format!("postgres://postgres@{}/{}", proxy.address(), database.name());
    let destination = copy(&database, json!({"url": url}));
    prepare(&destination).await.unwrap();
    proxy.swallow();
    let fault = prepare(&destination).await.unwrap_err();
    assert!(fault.is_retryable() && said(&fault).contains("within 10s"), "{}", said(&fault));
    proxy.resume();
    prepare(&destination).await.unwrap();
    delivered(&destination, batch(1, &[("", "1")])).await;
}
