//! The command line as somebody meets it who types it: what it prints where, and what it ends with.

use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::Duration;

use forebay_integration::{Daemon, Database, PATIENCE, Postgres, Signal};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// A configuration that holds, of a server that is not there.
const NOWHERE: &str = "\
startup: {wait: 1s}
sources:
  shop: {type: postgres, url: 'postgres://postgres@127.0.0.1:1/shop', tables: [public.orders], snapshot: never}
destinations:
  files: {type: file, path: ./events.ndjson}
";

/// A configuration of a database that is there, with a slot of its own.
fn of(database: &Database) -> String {
    reading(database.url()).replace("snapshot:", &format!("slot: {}, snapshot:", database.name()))
}

fn reading(url: &str) -> String {
    NOWHERE.replace("postgres://postgres@127.0.0.1:1/shop", url)
}

/// Waits until a daemon reads the database.
async fn is_read(database: &Database) {
    let streaming = "select count(*) = 1 from pg_replication_slots join pg_stat_replication on active_pid = pid \
                     where database = current_database() and state = 'streaming'";
    database.wait_until(streaming).await;
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("it died: {output:?}"))
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Starts a command in the daemon's folder whose events are read while it runs.
fn begin(daemon: &Daemon, arguments: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(daemon.path("")).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn the_help_lists_every_command_and_each_has_help_of_its_own() {
    let daemon = Daemon::new(PROGRAM, NOWHERE);
    let help = daemon.command(&["--help"]).await;
    assert_eq!(code(&help), 0);
    let commands = [
        "init",
        "run",
        "check",
        "demo",
        "tail",
        "status",
        "checkpoint",
        "list",
        "schema",
        "completions",
        "man",
    ];
    for command in commands {
        assert!(stdout(&help).contains(&format!("\n  {command} ")), "`{command}` is not in the help");
        let own = daemon.command(&[command, "--help"]).await;
        assert_eq!(code(&own), 0, "{command}");
    }
    assert!(stdout(&help).contains("Exit codes"), "{}", stdout(&help));
}

#[tokio::test]
async fn the_version_says_what_is_built_in() {
    let version = Daemon::new(PROGRAM, NOWHERE).command(&["--version"]).await;
    for part in ["sources: http, kafka, postgres", "journals: disk, kafka", "debezium", "demo"] {
        assert!(stdout(&version).contains(part), "{}", stdout(&version));
    }
}

#[tokio::test]
async fn arguments_that_are_wrong_end_with_78() {
    let daemon = Daemon::new(PROGRAM, NOWHERE);
    let wrong: [&[&str]; 5] = [
        &[],
        &["rum"],
        &["run", "--configuration", "x"],
        &["run", "--format", "debezium"],
        &["tail", "--source", "shap"],
    ];
    for arguments in wrong {
        let output = daemon.command(arguments).await;
        assert_eq!(code(&output), 78, "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn an_unknown_key_ends_with_78_and_is_shown_where_it_stands() {
    let daemon = Daemon::new(PROGRAM, &NOWHERE.replace("path:", "paht:"));
    let output = daemon.command(&["run"]).await;
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("unknown key `paht` in `destinations.files`"), "{}", stderr(&output));
    assert!(stderr(&output).contains("./forebay.yaml:"), "{}", stderr(&output));
    assert!(!daemon.path("data").exists(), "a configuration that is refused touches nothing");
}

#[tokio::test]
async fn a_file_that_is_not_there_ends_with_78() {
    let daemon = Daemon::new(PROGRAM, NOWHERE);
    for command in ["run", "check", "tail"] {
        let output = daemon.command(&[command, "elsewhere.yaml"]).await;
        assert_eq!(code(&output), 78, "{command}");
        assert!(stderr(&output).contains("elsewhere.yaml"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn a_variable_that_is_missing_is_fatal_to_run_and_a_remark_to_check_offline() {
    let daemon = Daemon::new(PROGRAM, &reading("${FOREBAY_TEST_NOT_SET}"));
    let run = daemon.command(&["run"]).await;
    assert_eq!(code(&run), 78);
    assert!(stderr(&run).contains("`FOREBAY_TEST_NOT_SET` is not set"), "{}", stderr(&run));
    let check = daemon.command(&["check", "--offline"]).await;
    assert_eq!(code(&check), 0, "{}", stderr(&check));
    assert!(stdout(&check).contains("FOREBAY_TEST_NOT_SET"), "{}", stdout(&check));
    // what needs no secret does not ask for one
    let show = daemon.command(&["checkpoint", "show"]).await;
    assert_eq!(code(&show), 0, "{}", stderr(&show));
}

#[tokio::test]
async fn a_port_that_is_taken_ends_with_69_and_says_what_to_do() {
    let mut daemon = Daemon::new(PROGRAM, NOWHERE);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    daemon.set_env("FOREBAY__ADMIN__LISTEN", &taken.local_addr().unwrap().to_string());
    let output = daemon.command(&["run"]).await;
    assert_eq!(code(&output), 69);
    assert!(stderr(&output).contains("remedy: set `admin.listen`"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_server_that_is_down_ends_with_69_once_the_start_has_waited_for_it() {
    let output = Daemon::new(PROGRAM, NOWHERE).command(&["run"]).await;
    assert_eq!(code(&output), 69);
    assert!(stderr(&output).contains("127.0.0.1:1"), "{}", stderr(&output));
    assert!(stderr(&output).contains("remedy: "), "{}", stderr(&output));
}

#[tokio::test]
async fn with_json_every_line_on_stderr_is_an_object_also_the_last() {
    let mut daemon = Daemon::new(PROGRAM, NOWHERE);
    let failed = daemon.command(&["run", "--log", "json"]).await;
    let lines: Vec<Value> = stderr(&failed).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(last["remedy"].is_string(), "{last}");
    daemon.set_env("FOREBAY_LOG", "off");
    daemon.configure(&NOWHERE.replace("path:", "paht:"));
    let refused = daemon.command(&["run", "--log", "json"]).await;
    let line: Value = serde_json::from_str(stderr(&refused)).unwrap();
    assert_eq!(line["error"], "unknown key `paht` in `destinations.files`", "no filter hides why it ended");
}

#[tokio::test]
async fn completions_and_man_pages_are_made_for_every_shell_and_command() {
    let daemon = Daemon::new(PROGRAM, NOWHERE);
    for shell in ["bash", "zsh", "fish"] {
        let output = daemon.command(&["completions", shell]).await;
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("checkpoint"), "{shell}");
    }
    let man = daemon.command(&["man"]).await;
    assert!(stdout(&man).contains(".TH forebay"), "{}", stdout(&man));
    std::fs::create_dir(daemon.path("man1")).unwrap();
    assert_eq!(code(&daemon.command(&["man", "--to", "man1"]).await), 0);
    for page in ["forebay.1", "forebay-run.1", "forebay-checkpoint-set.1"] {
        assert!(daemon.path("man1").join(page).exists(), "{page}");
    }
    assert_eq!(code(&daemon.command(&["man", "--to", "nowhere"]).await), 69);
}

#[tokio::test]
async fn schemas_and_lists_go_to_stdout_as_a_whole() {
    let daemon = Daemon::new(PROGRAM, NOWHERE);
    for of in ["config", "envelope"] {
        let output = daemon.command(&["schema", of]).await;
        let schema: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
    let list = daemon.command(&["list"]).await;
    for name in ["postgres", "kafka", "file", "stdout", "blackhole", "cloudevents"] {
        assert!(stdout(&list).contains(&format!("\n  {name} ")), "{}", stdout(&list));
    }
}

#[tokio::test]
async fn the_status_of_no_daemon_ends_with_69() {
    let output = Daemon::new(PROGRAM, NOWHERE).command(&["status"]).await;
    assert_eq!(code(&output), 69);
    assert!(stderr(&output).contains("start the daemon"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_daemon_shows_its_status_and_guards_its_checkpoints_until_it_is_stopped() {
    let database = Postgres::shared(15).await.database("checkpoints").await;
    database.execute("create table orders (id int primary key)").await;
    let mut daemon = Daemon::new(PROGRAM, &of(&database));
    daemon.start().await;
    is_read(&database).await;
    database.insert("orders", json!({"id": 1})).await;
    daemon
        .wait_until("the event and the schema before it are delivered", |status| {
            status["sources"][0]["destinations"][0]["delivered"] == 2
        })
        .await;

    let status = daemon.command(&["status"]).await;
    assert!(stdout(&status).contains("source shop (postgres), connected, 2 events"), "{}", stdout(&status));
    let status = daemon.command(&["status", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(stdout(&status)).unwrap()["ready"], true);
    let show = daemon.command(&["checkpoint", "show"]).await;
    assert_eq!(code(&show), 0, "the daemon is asked: {}", stderr(&show));
    for change in
        [&["checkpoint", "set", "shop", "0/1", "--yes"][..], &["checkpoint", "reset", "shop", "--yes"]]
    {
        let refused = daemon.command(change).await;
        assert_eq!(code(&refused), 69, "{}", stdout(&refused));
        assert!(stderr(&refused).contains("another daemon has it open"), "{}", stderr(&refused));
    }
    let mut second = Daemon::new(PROGRAM, &of(&database));
    second.set_env("FOREBAY__DATA_DIR", daemon.path("data").to_str().unwrap());
    assert_eq!(code(&second.command(&["run"]).await), 69, "two daemons do not share a `data_dir`");
    let check = daemon.command(&["check"]).await;
    assert_eq!(code(&check), 0, "a daemon that runs is no mistake: {}", stdout(&check));

    assert_eq!(daemon.stop().await, 0);
    let stored = daemon.command(&["checkpoint", "show"]).await;
    let (name, position) = stdout(&stored).trim().split_once(' ').unwrap();
    let position = position.trim();
    assert_eq!(name, "shop");
    let unasked = daemon.command(&["checkpoint", "set", "shop", "0/1"]).await;
    assert_eq!(code(&unasked), 78, "without a terminal nobody can say yes");
    let nonsense = daemon.command(&["checkpoint", "set", "shop", "nonsense", "--yes"]).await;
    assert_eq!(code(&nonsense), 78, "{}", stderr(&nonsense));
    let stays = daemon.command(&["checkpoint", "show"]).await;
    assert_eq!(stdout(&stays), stdout(&stored), "what was refused changed nothing");
    assert_eq!(code(&daemon.command(&["checkpoint", "set", "shop", "0/1", "--yes"]).await), 0);
    let moved = daemon.command(&["checkpoint", "show", "--json"]).await;
    let moved: Value = serde_json::from_str(stdout(&moved)).unwrap();
    assert_eq!(moved["shop"]["lsn"], "0/1");
    assert_eq!(code(&daemon.command(&["checkpoint", "set", "shop", position, "--yes"]).await), 0);
    let back = daemon.command(&["checkpoint", "show"]).await;
    assert_eq!(stdout(&back), stdout(&stored), "a position is set in the form in which it is shown");
    assert_eq!(code(&daemon.command(&["checkpoint", "reset", "shop", "--yes"]).await), 0);
    let gone = daemon.command(&["checkpoint", "show"]).await;
    assert!(stdout(&gone).contains("no checkpoint is stored"), "{}", stdout(&gone));
    assert_eq!(code(&daemon.command(&["checkpoint", "reset", "shop", "--yes"]).await), 78);
}

/// The next event that a command prints.
async fn printed(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn a_dry_run_prints_events_and_leaves_nothing_behind() {
    let database = Postgres::shared(15).await.database("dry").await;
    database.execute("create table orders (id int primary key)").await;
    let daemon = Daemon::new(PROGRAM, &of(&database));
    let mut run = begin(&daemon, &["run", "--dry-run", "--format", "debezium"]);
    is_read(&database).await;
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    for id in 1..=3 {
        database.insert("orders", json!({"id": id})).await;
        if id == 1 {
            assert_eq!(printed(&mut lines).await["op"], "schema");
        }
        assert_eq!(printed(&mut lines).await["after"]["id"], id);
    }
    let pid = run.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let output = timeout(PATIENCE, run.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(lines.next_line().await.unwrap(), None, "only events go to stdout");
    let left = "select (select count(*) from pg_publication) + \
                (select count(*) from pg_replication_slots where database = current_database())";
    // The server drops a temporary slot when it notices that the connection is gone.
    database.wait_until(&format!("select ({left}) = 0")).await;
    assert!(!daemon.path("data").exists() && !daemon.path("events.ndjson").exists());
}

#[tokio::test]
async fn a_tail_whose_reader_has_seen_enough_ends_without_complaint() {
    let database = Postgres::shared(15).await.database("tail").await;
    database.execute("create table orders (id int primary key)").await;
    // a secret of a destination is none of its business
    let config = of(&database).replace("./events.ndjson", "'${FOREBAY_TEST_NOT_SET}'");
    let daemon = Daemon::new(PROGRAM, &config);
    let mut tail = begin(&daemon, &["tail", "--source", "shop"]);
    is_read(&database).await;
    database.insert("orders", json!({"id": 1})).await;
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(printed(&mut lines).await["op"], "schema");
    assert_eq!(printed(&mut lines).await["op"], "insert");
    drop(lines);
    database.insert("orders", json!({"id": 2})).await;
    let output = timeout(PATIENCE, tail.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[tokio::test]
async fn check_says_what_mends_a_server_and_ends_with_whose_turn_it_is() {
    let postgres = Postgres::start(15, &[("wal_level", "replica")]).await;
    let database = postgres.database("unready").await;
    database.execute("create table orders (id int primary key)").await;
    let daemon = Daemon::new(PROGRAM, &of(&database));
    let check = daemon.command(&["check"]).await;
    assert_eq!(code(&check), 69, "{}", stdout(&check));
    assert!(stdout(&check).contains("✗ `wal_level` is `replica`"), "{}", stdout(&check));
    assert!(stdout(&check).contains("ALTER SYSTEM SET wal_level"), "{}", stdout(&check));
    assert!(!daemon.path("data").exists(), "a check changes nothing");

    let database = Postgres::shared(15).await.database("missing").await;
    database.execute("create table customers (id int primary key)").await;
    daemon.configure(&of(&database));
    let check = daemon.command(&["check"]).await;
    assert_eq!(code(&check), 78, "the table is not there: {}", stdout(&check));
    database.execute("create table orders (id int primary key)").await;
    let check = daemon.command(&["check"]).await;
    assert_eq!(code(&check), 0, "{}", stdout(&check));
}

#[tokio::test]
async fn a_second_signal_ends_a_run_that_has_work_left_with_75() {
    let database = Postgres::shared(15).await.database("aborted").await;
    database.execute("create table orders (id int primary key)").await;
    let copy = format!("type: postgres, url: '{}'", database.url());
    let mut daemon = Daemon::new(PROGRAM, &of(&database).replace("type: file, path: ./events.ndjson", &copy));
    daemon.start().await;
    is_read(&database).await;
    let lane = |status: &Value| status["sources"][0]["destinations"][0].clone();
    database.insert("orders", json!({"id": 0})).await;
    let delivered = |status: &Value| lane(status)["delivered"] == 2;
    daemon.wait_until("the first event and the schema before it are delivered", delivered).await;
    let other = database.connect().await;
    other.batch_execute("begin; lock table forebay_events").await.unwrap();
    database.execute("insert into orders select generate_series(1, 100)").await;
    daemon.wait_until("the others wait", |status| lane(status)["queue_records"] == 100).await;
    daemon.signal(Signal::TERM);
    while !daemon.stderr().contains("stopping: draining what was read") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code().await, 75);
}
