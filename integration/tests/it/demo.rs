//! `forebay demo`, as a newcomer runs it. Each test has a server to itself or shares one of another major version,
//! because the demo's slot has one name on a whole server.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use forebay_integration::{Database, PATIENCE, Postgres};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What the demo leaves in a database, were it to leave something.
const LEFT: &str = "select (select count(*) from pg_namespace where nspname = 'forebay_demo')
    + (select count(*) from pg_publication)
    + (select count(*) from pg_replication_slots where database = current_database())";

/// The demo, with a temporary folder of its own, which its server's user can enter.
fn demo(folder: &TempDir, arguments: &[&str]) -> Command {
    demo_of(folder, 1_000, arguments)
}

/// The same, in a shop that has so many orders at first.
fn demo_of(folder: &TempDir, orders: u32, arguments: &[&str]) -> Command {
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-under-test"));
    let orders = orders.to_string();
    command
        .args(["demo", "--seconds", "4", "--orders", &orders])
        .args(arguments)
        .env("TMPDIR", folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn end(child: Child) -> (Option<i32>, String) {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends within a minute");
    let Output { status, stdout, stderr } = output.unwrap();
    assert!(stdout.is_empty(), "only events go to stdout: {}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// All files below a folder, by their names.
fn files(folder: &TempDir) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    found.sort();
    found
}

async fn running(database: &Database) {
    database.wait_until("select to_regclass('forebay_demo.events') is not null").await;
    database.wait_until("select count(*) > 100 from forebay_demo.events").await;
}

#[tokio::test]
async fn a_demo_brings_a_server_and_leaves_only_its_events() {
    let folder = tempfile::tempdir().unwrap();
    // so many that the copy has a middle
    let (code, said) = end(demo_of(&folder, 40_000, &[]).spawn().unwrap()).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("58,400 of 58,400 rows:"), "{said}");
    assert!(
        said.contains("rows were copied (it went on at row "),
        "killed in the middle of the copy: {said}"
    );
    assert!(said.contains("that are in the tables now, value by value"), "{said}");
    assert!(said.contains("Nothing was lost, nothing is out of order for any row"), "{said}");
    assert!(files(&folder).iter().all(|name| name.ends_with(".ndjson")), "{:?}", files(&folder));
}

#[tokio::test]
async fn a_demo_on_a_given_database_leaves_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let database = Postgres::shared(13).await.database("demo").await;
    let (code, said) = end(demo(&folder, &["--keep", "--url", database.url()]).spawn().unwrap()).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.value::<i64>(LEFT).await, 0);
    for kept in ["forebay.yaml", "daemon.log", "checkpoints.redb", "shop.ndjson"] {
        assert!(files(&folder).iter().any(|name| name == kept), "{kept} in {:?}", files(&folder));
    }
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let database = Postgres::shared(15).await.database("demo").await;
    let child = demo(&folder, &["--url", database.url()]).spawn().unwrap();
    running(&database).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let (code, said) = end(child).await;
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(database.value::<i64>(LEFT).await, 0);
    assert_eq!(files(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_killed_demo_has_left_is_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let database = Postgres::shared(18).await.database("demo").await;
    let mut child = demo(&folder, &["--url", database.url()]).spawn().unwrap();
    running(&database).await;
    child.kill().await.unwrap();
    assert!(database.value::<i64>(LEFT).await > 0);
    let (code, said) = end(demo(&folder, &["--url", database.url()]).spawn().unwrap()).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("removing what a demo that was killed has left"), "{said}");
    assert_eq!(database.value::<i64>(LEFT).await, 0);
}

#[tokio::test]
async fn a_schema_that_is_not_the_demos_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = Postgres::shared(18).await.database("demo").await;
    database.execute("create schema forebay_demo; create table forebay_demo.mine (id int)").await;
    let (code, said) = end(demo(&folder, &["--url", database.url()]).spawn().unwrap()).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("exists and is not ours"), "{said}");
    assert_eq!(database.value::<i64>("select count(*) from forebay_demo.mine").await, 0);
}

#[tokio::test]
async fn offline_a_demo_says_what_it_needs() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::set_permissions(cache.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = demo(&folder, &[]);
    // port 1 stands for a network that is not there
    command.env("FOREBAY_PG_CACHE", cache.path()).env("HTTPS_PROXY", "http://127.0.0.1:1");
    command.env("https_proxy", "http://127.0.0.1:1");
    let (code, said) = end(command.spawn().unwrap()).await;
    assert_eq!(code, Some(69), "{said}");
    for needed in ["connect this machine to the internet", "FOREBAY_PG_CACHE", "forebay demo --url"] {
        assert!(said.contains(needed), "`{needed}` in: {said}");
    }
}
