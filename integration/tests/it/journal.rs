//! A journal as its operator meets it: destinations that come, go, stand still and begin anew, beside others that are not
//! disturbed by that. And on real disks that are full, fail, and lose their daemon (`faults`, `kill`): through the contract of
//! a journal, without the rest of a daemon. A full and a failing disk need a mount or a tracer of their own, and a death a
//! process of its own: such a test starts itself again inside what it needs.

mod faults;
mod hour;
mod kill;
mod limits;
mod reload;
mod replay;
pub(crate) mod rig;

use forebay_integration::{Daemon, Database, Postgres};
use serde_json::Value;
use tokio::process::Command;

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// A database with a table `items`, and a daemon with a journal between it and some destinations.
struct World {
    db: Database,
    daemon: Daemon,
}

impl World {
    /// With these destinations, a line each, and these further lines at the top of the configuration.
    async fn of(name: &str, top: &str, destinations: &[&str]) -> World {
        let db = Postgres::shared(15).await.database(name).await;
        db.execute("CREATE TABLE items (id int PRIMARY KEY, name text)").await;
        let world = World { daemon: Daemon::new(FOREBAY, ""), db };
        world.configure(top, destinations);
        world
    }

    fn configure(&self, top: &str, destinations: &[&str]) {
        let name = self.db.name();
        let journal = if top.contains("journal:") { "" } else { "journal: disk\n" };
        self.daemon.configure(&format!(
            "{journal}{top}
sources:
  db: {{type: postgres, url: \"{}\", tables: [\"public.*\"], slot: {name}, publication: {name}, snapshot: never, heartbeat: 200ms}}
destinations:
{}",
            self.db.url(),
            destinations.iter().map(|line| format!("  {line}\n")).collect::<String>()
        ));
    }

    async fn start(&mut self) {
        self.daemon.start().await;
        let connected = |status: &Value| status["sources"][0]["connected"] == true;
        self.daemon.wait_until("the source is connected", connected).await;
    }

    /// Inserts rows with these ids, each in a transaction of its own.
    async fn insert(&self, ids: std::ops::Range<u32>) {
        let inserts = format!(
            "DO $$ BEGIN FOR n IN {}..{} LOOP INSERT INTO items VALUES (n, 'item ' || n); COMMIT; END LOOP; END $$",
            ids.start,
            ids.end - 1
        );
        self.db.execute(&inserts).await;
    }

    /// Waits until a destination has so many rows' events, schemas aside.
    async fn has(&mut self, file: &str, count: usize) {
        let path = self.daemon.path(file);
        let enough = |_: &Value| ids_in(&path).len() >= count;
        self.daemon.wait_until(&format!("{count} events in {file}"), enough).await;
    }

    fn ids(&self, file: &str) -> Vec<u64> {
        ids_in(&self.daemon.path(file))
    }

    /// Runs a command of the program and gives what it prints; it must succeed.
    async fn command(&self, arguments: &[&str]) -> String {
        let output = self.daemon.command(arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}\n{}", self.daemon.stderr());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for one that must fail with a code; gives what it says.
    async fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.daemon.command(arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        stderr
    }
}

/// The ids of the rows in a file of events, in order; lines that are not whole yet are not there yet.
fn ids_in(path: &std::path::Path) -> Vec<u64> {
    events_in(path).iter().filter_map(|event| event["key"]["id"].as_u64()).collect()
}

fn events_in(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default(); // nothing was written yet
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

const A: &str = "a: {type: file, path: a.ndjson}";
const B: &str = "b: {type: file, path: b.ndjson}";

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_added_later_gets_what_the_journal_has_without_a_second_slot() {
    let mut world = World::of("late", "journal: {type: disk, retain: 1h}\n", &[A]).await;
    world.start().await;
    world.insert(0..50).await;
    world.has("a.ndjson", 50).await;
    assert_eq!(world.daemon.stop().await, 0);
    world.configure("journal: {type: disk, retain: 1h}\n", &[A, B]);
    world.start().await;
    world.has("b.ndjson", 50).await;
    world.insert(50..60).await;
    world.has("a.ndjson", 60).await;
    world.has("b.ndjson", 60).await;
    assert_eq!(world.ids("b.ndjson"), (0..60).collect::<Vec<_>>());
    assert_eq!(world.ids("a.ndjson"), (0..60).collect::<Vec<_>>());
    let slots: i64 =
        world.db.value("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()").await;
    assert_eq!(slots, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_journal_holds_is_not_left_behind_by_a_start_without_it() {
    let copy = Postgres::shared(15).await.database("copy").await;
    let table = format!("b: {{type: postgres, url: \"{}\"}}", copy.url().replace(copy.name(), "nowhere"));
    let mut world = World::of("without", "", &[A, &table]).await;
    world.start().await;
    world.insert(0..50).await;
    world.has("a.ndjson", 50).await;
    assert_eq!(world.daemon.stop().await, 0);
    world.configure("journal: none\n", &[A, &table]);
    world.daemon.spawn();
    assert_eq!(world.daemon.exit_code().await, 78);
    let said = world.daemon.stderr();
    assert!(said.contains("without the journal that it had") && said.contains("`b`"), "{said}");
    // With the journal it goes on, until all is delivered.
    let table = format!("b: {{type: postgres, url: \"{}\"}}", copy.url());
    world.configure("", &[A, &table]);
    world.start().await;
    copy.wait_until("SELECT to_regclass('forebay_events') IS NOT NULL").await;
    copy.wait_until("SELECT count(*) = 50 FROM forebay_events WHERE op = 'insert'").await;
    assert_eq!(world.daemon.stop().await, 0);
    world.configure("journal: none\n", &[A, &table]);
    world.start().await;
    world.insert(50..60).await;
    copy.wait_until("SELECT count(*) = 60 FROM forebay_events WHERE op = 'insert'").await;
    assert_eq!(world.ids("a.ndjson"), (0..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_comes_between_leaves_ids_and_what_is_held_as_they_were() {
    let copy = Postgres::shared(15).await.database("copy").await;
    let table = format!("b: {{type: postgres, url: \"{}\"}}", copy.url());
    let mut world = World::of("between", "journal: none\n", &[&table]).await;
    world.start().await;
    world.insert(0..50).await;
    copy.wait_until("SELECT to_regclass('forebay_events') IS NOT NULL").await;
    copy.wait_until("SELECT count(*) = 50 FROM forebay_events WHERE op = 'insert'").await;
    world.daemon.kill().await;
    world.configure("", &[&table]);
    world.start().await;
    world.insert(50..60).await;
    copy.wait_until("SELECT count(*) = 60 FROM forebay_events WHERE op = 'insert'").await;
    let doubled: i64 = copy.value("SELECT count(*) - count(DISTINCT id) FROM forebay_events").await;
    assert_eq!(doubled, 0);
    let streams: i64 = copy.value("SELECT count(DISTINCT stream) FROM forebay_positions").await;
    assert_eq!(streams, 1, "the journal made a stream of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_fails_for_good_stops_alone_and_is_named() {
    let copy = Postgres::shared(15).await.database("copy").await;
    let table = format!("b: {{type: postgres, url: \"{}\"}}", copy.url());
    let mut world = World::of("alone", "", &[A, &table]).await;
    world.start().await;
    world.insert(0..10).await;
    copy.wait_until("SELECT to_regclass('forebay_events') IS NOT NULL").await;
    copy.wait_until("SELECT count(*) = 10 FROM forebay_events WHERE op = 'insert'").await;
    copy.execute("ALTER TABLE forebay_events DROP COLUMN body").await;
    world.insert(10..50).await;
    world.has("a.ndjson", 50).await;
    let named = |status: &Value| {
        let problems = status["problems"].as_array().unwrap();
        problems.iter().any(|problem| problem.as_str().unwrap().contains("`db/b` has stopped"))
    };
    let status = world.daemon.wait_until("the problem is named", named).await;
    assert_eq!((&status["ready"], &status["live"]), (&true.into(), &true.into()), "{status:#}");
    world.insert(50..60).await;
    world.has("a.ndjson", 60).await;
    assert_eq!(world.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_ends_its_daemon_ends_it_when_all_that_is_in_the_journal_is_delivered() {
    let mut world = World::of("only", "", &[A, B]).await;
    world.insert(0..5_000).await;
    let text = std::fs::read_to_string(world.daemon.path("forebay.yaml")).unwrap();
    std::fs::write(world.daemon.path("forebay.yaml"), text.replace("snapshot: never", "snapshot: only"))
        .unwrap();
    world.daemon.spawn();
    assert_eq!(world.daemon.exit_code().await, 0, "{}", world.daemon.stderr());
    for file in ["a.ndjson", "b.ndjson"] {
        assert_eq!(world.ids(file), (0..5_000).collect::<Vec<_>>(), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_source_or_a_newer_version_is_refused() {
    let mut world = World::of("identity", "", &[A]).await;
    world.start().await;
    world.insert(0..5).await;
    world.has("a.ndjson", 5).await;
    assert_eq!(world.daemon.stop().await, 0);
    let path = world.daemon.path("data/journal/db/journal.json");
    let before = std::fs::read_to_string(&path).unwrap();
    for (from, to, code) in [("\"db\"", "\"other\"", 78), ("\"version\":1", "\"version\":99", 69)] {
        assert!(before.replace(' ', "").contains(from), "{before}");
        std::fs::write(&path, before.replace(' ', "").replace(from, to)).unwrap();
        world.daemon.spawn();
        assert_eq!(world.daemon.exit_code().await, code, "{}", world.daemon.stderr());
    }
    std::fs::write(&path, before).unwrap();
    world.start().await;
    world.insert(5..10).await;
    world.has("a.ndjson", 10).await;
}

/// Sends SIGHUP as a service manager does.
async fn hang_up(daemon: &Daemon) {
    let sent = Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().await.unwrap();
    assert!(sent.success());
}
