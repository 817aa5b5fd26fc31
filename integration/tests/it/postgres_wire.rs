//! The replication client against real servers: logins, commands, the stream, and what it does when things go wrong.

use std::time::Duration;

use forebay_integration::{Database, Postgres, Stop, with_causes};
use forebay_postgres::connect::Server;
use forebay_postgres::lsn::Lsn;
use forebay_postgres::protocol::{self, Frame, Message};
use forebay_postgres::url::UrlSetting;
use forebay_postgres::wire::{Connection, NewSlot, Read, ReadHalf, Start, Status, WireError, WriteHalf};
use tokio::task::spawn_blocking;
use tokio_postgres::error::SqlState;

mod logins;
mod values;

const PATIENCE: Duration = Duration::from_secs(30);

fn server(url: &str) -> Server {
    Server::new(UrlSetting::Text(url.to_owned()).parse().unwrap()).unwrap()
}

async fn replication(url: &str) -> Connection {
    server(url).replication().await.unwrap_or_else(|error| panic!("{}", with_causes(&error)))
}

/// Creates a publication of all tables and a slot, and begins to stream.
async fn stream(database: &Database, url: &str) -> (ReadHalf, WriteHalf) {
    let name = database.name();
    database.execute(&format!("create publication {name} for all tables")).await;
    let mut connection = replication(url).await;
    let slot = NewSlot { name, temporary: false, failover: false };
    let from = connection.create_slot(slot, PATIENCE).unwrap();
    let start = Start { slot: name, from, publications: &[name], messages: false, origin_none: false };
    connection.start(start).unwrap()
}

/// Reads until a transaction is complete, handing each of its messages over.
fn one_transaction(reader: &mut ReadHalf, mut each: impl FnMut(Message<'_>)) -> Lsn {
    loop {
        let Read::Frame(frame) = reader.read().unwrap() else { continue };
        let Frame::Data { message, .. } = protocol::frame(frame).unwrap() else { continue };
        match protocol::message(message).unwrap() {
            Message::Commit(commit) => return commit.end_lsn,
            message => each(message),
        }
    }
}

#[tokio::test]
async fn commands_are_answered_by_every_version() {
    for major in [13, 15, 18] {
        let postgres = Postgres::shared(major).await;
        let database = postgres.database("commands").await;
        let mut connection = replication(database.url()).await;
        assert_eq!(connection.major_version().unwrap(), u32::from(major));
        assert_eq!(connection.show("wal_level").unwrap(), "logical");
        for (setting, value) in
            [("datestyle", "ISO, MDY"), ("timezone", "UTC"), ("application_name", "forebay")]
        {
            assert_eq!(connection.show(setting).unwrap(), value);
        }
        let system = connection.identify().unwrap();
        let identifier: i64 = database.value("select system_identifier from pg_control_system()").await;
        assert_eq!(system.identifier, u64::try_from(identifier).unwrap());
        assert_eq!((system.timeline, connection.timeline_history(1).unwrap().len()), (1, 0));
        let name = database.name();
        let slot = NewSlot { name, temporary: false, failover: major >= 17 };
        assert!(connection.create_slot(slot, PATIENCE).unwrap() > Lsn(0));
        let twice = connection.create_slot(slot, PATIENCE).unwrap_err();
        assert_eq!(twice.sql_state(), Some(&SqlState::DUPLICATE_OBJECT), "{twice}");
        let temporary = NewSlot { name: &format!("{name}_gone"), temporary: true, failover: false };
        connection.create_slot(temporary, PATIENCE).unwrap();
        connection.drop_slot(name).unwrap();
        let gone = connection.drop_slot(name).unwrap_err();
        assert_eq!(gone.sql_state(), Some(&SqlState::UNDEFINED_OBJECT), "{gone}");
        connection.close().unwrap();
    }
}

#[tokio::test]
async fn a_promotion_begins_a_timeline_and_its_history_says_where() {
    let mut postgres = Postgres::start(15, &[]).await;
    let database = postgres.database("promoted").await;
    postgres.stop(Stop::Fast).await;
    std::fs::write(postgres.server.data_dir().join("standby.signal"), "").unwrap();
    postgres.start_again().await;
    database.wait_until("select pg_promote()").await;
    let mut connection = replication(database.url()).await;
    let system = connection.identify().unwrap();
    assert_eq!(system.timeline, 2);
    let history = connection.timeline_history(2).unwrap();
    assert_eq!(history.len(), 1);
    assert!(history[0].timeline == 1 && history[0].at > Lsn(0) && history[0].at <= system.flushed);
}

#[tokio::test]
async fn every_committed_row_arrives_in_order_and_what_was_rolled_back_does_not() {
    for major in [13, 15, 18] {
        let database = Postgres::shared(major).await.database("rows").await;
        database.execute("create table orders (id int primary key, note text)").await;
        let (mut reader, writer) = stream(&database, database.url()).await;
        database
            .execute("insert into orders select i, repeat('x', i % 100) from generate_series(1, 20000) i")
            .await;
        database.execute("begin; insert into orders values (0); rollback").await;
        database.execute("delete from orders where id = 7").await;
        let (ids, last) = spawn_blocking(move || {
            let mut ids = Vec::new();
            one_transaction(&mut reader, |message| {
                if let Message::Insert(insert) = message {
                    let value = insert.new.values().next().unwrap();
                    ids.push(format!("{value:?}"));
                }
            });
            let mut deleted = 0;
            let end = one_transaction(&mut reader, |message| {
                deleted += u32::from(matches!(message, Message::Delete(_)))
            });
            assert_eq!(deleted, 1);
            (ids, end)
        })
        .await
        .unwrap();
        let expected: Vec<String> = (1..=20_000)
            .map(|id: u32| format!("{:?}", protocol::Value::Text(id.to_string().as_bytes())))
            .collect();
        assert!(ids == expected, "{} rows on {major}", ids.len());
        writer.status(Status { written: last, flushed: last, reply: false }).unwrap();
        let confirmed = format!(
            "select confirmed_flush_lsn = '{last}' from pg_replication_slots where slot_name = '{}'",
            database.name()
        );
        database.wait_until(&confirmed).await;
    }
}

#[tokio::test]
async fn a_value_of_many_megabytes_passes() {
    let database = Postgres::shared(15).await.database("large").await;
    database.execute("create table docs (id int primary key, body text)").await;
    let (mut reader, _writer) = stream(&database, database.url()).await;
    database.execute("insert into docs select i, repeat('é', 10000000) from generate_series(1, 3) i").await;
    let lengths = spawn_blocking(move || {
        let mut lengths = Vec::new();
        one_transaction(&mut reader, |message| {
            if let Message::Insert(insert) = message {
                let body = insert.new.values().nth(1).unwrap();
                let protocol::Value::Text(text) = body else { panic!("no text") };
                lengths.push(text.len());
            }
        });
        lengths
    });
    assert_eq!(lengths.await.unwrap(), [20_000_000; 3]);
}

#[tokio::test]
async fn an_abort_wakes_a_reader_that_waits() {
    let database = Postgres::shared(15).await.database("abort").await;
    let (mut reader, writer) = stream(&database, database.url()).await;
    let reading = spawn_blocking(move || {
        loop {
            if let Err(error) = reader.read() {
                return error;
            }
        }
    });
    writer.abort();
    let error = reading.await.unwrap();
    assert!(matches!(error, WireError::Closed { .. }), "{error:?}");
    assert!(writer.status(Status { written: Lsn(0), flushed: Lsn(0), reply: false }).is_err());
}

#[tokio::test]
async fn a_server_that_is_stopped_lets_go_of_us_once_we_have_said_goodbye() {
    let mut postgres = Postgres::start(18, &[]).await;
    let database = postgres.database("stopped").await;
    database.execute("create table orders (id int primary key)").await;
    let (mut reader, writer) = stream(&database, database.url()).await;
    database.execute("insert into orders values (1)").await;
    // nothing is ever confirmed, so the server waits for us until we leave
    let reading = spawn_blocking(move || {
        one_transaction(&mut reader, |_| {});
        let mut requests = 0;
        loop {
            match reader.read().unwrap() {
                Read::Frame(frame) => {
                    if let Frame::Keepalive { reply: true, .. } = protocol::frame(frame).unwrap() {
                        requests += 1;
                        writer.status(Status { written: Lsn(1), flushed: Lsn(1), reply: false }).unwrap();
                        if requests == 3 {
                            writer.done().unwrap();
                        }
                    }
                }
                Read::Empty => {}
                Read::Done => return,
            }
        }
    });
    let stopping = tokio::time::Instant::now();
    postgres.stop(Stop::Fast).await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    reading.await.unwrap();
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_cancelled_on_the_server() {
    let database = Postgres::shared(15).await.database("cancel").await;
    database.execute("create table orders (id int)").await;
    let blocker = database.connect().await;
    blocker.batch_execute("begin; insert into orders values (1)").await.unwrap();
    let mut connection = replication(database.url()).await;
    let name = database.name().to_owned();
    let created = spawn_blocking(move || {
        let slot = NewSlot { name: &name, temporary: false, failover: false };
        connection.create_slot(slot, Duration::from_millis(300))
    });
    let error = created.await.unwrap().unwrap_err();
    assert!(matches!(error, WireError::Timeout { .. }), "{error}");
    let left = format!(
        "select not exists (select from pg_stat_activity where datname = '{}' and backend_type = 'walsender')",
        database.name()
    );
    database.wait_until(&left).await;
}

#[tokio::test]
async fn a_slot_in_use_is_an_error_that_says_by_whom() {
    let database = Postgres::shared(15).await.database("in_use").await;
    let (_reader, _writer) = stream(&database, database.url()).await;
    let name = database.name();
    let start =
        Start { slot: name, from: Lsn(0), publications: &[name], messages: false, origin_none: false };
    let error = replication(database.url()).await.start(start).unwrap_err();
    assert_eq!(error.sql_state(), Some(&SqlState::OBJECT_IN_USE));
    assert!(error.to_string().contains("is active for PID"), "{error}");
}
