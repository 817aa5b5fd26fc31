//! `forebay init`: what it writes is a configuration that `check` takes as it is.

use std::process::Output;

use forebay_integration::{Daemon, Database, Postgres, unique};

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// The servers that what is written is checked against.
const MAJORS: [u16; 4] = [13, 15, 17, 18];

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("it died: {output:?}"))
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// An empty folder to work in, whose admin port is nobody else's.
fn folder() -> Daemon {
    let mut daemon = Daemon::new(PROGRAM, "");
    std::fs::remove_file(daemon.path("forebay.yaml")).unwrap();
    daemon.set_env("FOREBAY__ADMIN__LISTEN", &format!("127.0.0.1:{}", daemon.admin_port()));
    daemon.set_env("DATABASE_URL", "");
    daemon
}

fn written(folder: &Daemon) -> String {
    std::fs::read_to_string(folder.path("forebay.yaml")).unwrap()
}

/// Runs `init` and then `check` on what it wrote, as it is; gives what is written.
async fn accepted(folder: &mut Daemon, url: &str) -> String {
    let init = folder.command(&["init", "--source", url]).await;
    assert_eq!(code(&init), 0, "{}", stderr(&init));
    assert_eq!(stdout(&init), "");
    assert!(stderr(&init).contains("note: set `DATABASE_URL`"), "{}", stderr(&init));
    folder.set_env("DATABASE_URL", url);
    let check = folder.command(&["check"]).await;
    assert_eq!(code(&check), 0, "{}{}\n{}", stdout(&check), stderr(&check), written(folder));
    written(folder)
}

/// Tables of all kinds under names of all kinds.
async fn fill(db: &Database) {
    db.execute(
        "create table orders (id int, shop int, note text, primary key (shop, id)); \
         insert into orders select n, 1, repeat('x', 100) from generate_series(1, 2500) n; \
         create table log (line text); \
         create table whole (a int, b int); alter table whole replica identity full; \
         create table parts (id int, day date, primary key (id, day)) partition by range (day); \
         create table part_1 partition of parts for values from ('2026-01-01') to ('2027-01-01'); \
         insert into parts values (1, '2026-05-05'); \
         create schema \"Odd.\"\"one\"\"\"; \
         create table \"Odd.\"\"one\"\"\".\"star*?[x]{y,z}\" (id int primary key); \
         create table \"Odd.\"\"one\"\"\".\"two\nlines # ${HOME}\" (\"the\n key\" int primary key); \
         create table \"Odd.\"\"one\"\"\".\"back\\slash\" (id int primary key)",
    )
    .await;
    db.execute("analyze").await;
}

#[tokio::test]
async fn what_init_writes_is_accepted_by_check_as_it_is() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("init").await;
        fill(&db).await;
        let mut folder = folder();
        let text = accepted(&mut folder, db.url()).await;
        assert_eq!(text.lines().next(), Some("# yaml-language-server: $schema=./forebay.schema.json"));
        assert!(folder.path("forebay.schema.json").exists(), "the schema that the first line names is there");
        assert!(
            !text.contains("127.0.0.1:") || !text.contains("postgres@"),
            "nothing of the URL is written: {text}"
        );
        for line in [
            "# public.orders: about 2,500 rows, ",
            "; key: shop, id; replica identity: the key; copied in about 1 s",
            "- \"public.orders\"",
            "# public.parts: ",
            "; in 1 partitions; replica identity: that of its partitions",
            "# public.whole: empty, 0 B; no primary key; replica identity: the whole row",
            "# Left out: it has neither a primary key nor another replica identity",
            "#     ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;",
            "# - \"public.log\"",
        ] {
            assert!(text.contains(line), "PostgreSQL {major}: `{line}` is not in\n{text}");
        }
        let check = folder.command(&["check"]).await;
        assert!(stdout(&check).contains("✓ 6 of 7 tables are selected"), "{}\n{text}", stdout(&check));
    }
}

#[tokio::test]
async fn what_a_role_cannot_read_is_left_out_until_the_statement_beside_it_was_run() {
    let db = Postgres::shared(17).await.database("init_role").await;
    let role = unique("init_reader");
    db.execute(&format!(
        "create role {role} login replication; grant create on database {} to {role}; \
         create schema closed; create table closed.secrets (id int primary key); \
         create table orders (id int primary key); alter table orders owner to {role}",
        db.name()
    ))
    .await;
    let url = db.url().replace("postgres@", &format!("{role}:not-asked-for@"));
    let mut folder = folder();
    let text = accepted(&mut folder, &url).await;
    assert!(!text.contains("not-asked-for"), "a password is written: {text}");
    assert!(text.contains("  - \"public.orders\"") && text.contains("  # - \"closed.secrets\""), "{text}");
    let statements: Vec<&str> =
        text.lines().filter_map(|line| line.trim_start().strip_prefix("#     ")).collect();
    assert!(statements.len() >= 3, "{text}");
    for statement in statements {
        db.execute(statement).await;
    }
    std::fs::write(folder.path("forebay.yaml"), text.replace("  # - ", "  - ")).unwrap();
    let check = folder.command(&["check"]).await;
    assert_eq!(code(&check), 0, "{}", stdout(&check));
    assert!(stdout(&check).contains("✓ 2 of 2 tables are selected"), "{}", stdout(&check));
}

#[tokio::test]
async fn what_keeps_it_from_running_is_noted_with_the_statement() {
    let db = Postgres::shared(15).await.database("init_notes").await;
    let role = unique("init_nobody");
    db.execute(&format!("create role {role} login; create table orders (id int primary key)")).await;
    let folder = folder();
    let url = db.url().replace("postgres@", &format!("{role}@"));
    let init = folder.command(&["init", "--source", &url]).await;
    assert_eq!(code(&init), 0, "{}", stderr(&init));
    for part in ["before it can run: role", "REPLICATION;", "GRANT SELECT ON \"public\".\"orders\" TO "] {
        assert!(stderr(&init).contains(part), "`{part}` is not in: {}", stderr(&init));
    }
    assert!(written(&folder).contains("  - \"public.orders\""), "nothing could be read, so all is selected");
}

#[tokio::test]
async fn a_table_that_somebody_locks_holds_nothing_up() {
    let db = Postgres::shared(15).await.database("init_locked").await;
    db.execute(
        "create table orders (id int primary key); insert into orders select generate_series(1, 5000)",
    )
    .await;
    db.execute("vacuum orders").await;
    let other = db.connect().await;
    other.batch_execute("begin; lock table orders in access exclusive mode").await.unwrap();
    let text = accepted(&mut folder(), db.url()).await;
    assert!(text.contains("# public.orders: about 5,000 rows, "), "{text}");
}

#[tokio::test]
async fn an_empty_database_has_a_configuration_that_says_so() {
    let db = Postgres::shared(18).await.database("init_empty").await;
    let mut folder = folder();
    let init = folder.command(&["init", "--source", db.url()]).await;
    assert_eq!(code(&init), 0, "{}", stderr(&init));
    assert!(written(&folder).contains("has no table yet"), "{}", written(&folder));
    folder.set_env("DATABASE_URL", db.url());
    let check = folder.command(&["check"]).await;
    assert_eq!(code(&check), 69, "{}", stdout(&check));
    assert!(stdout(&check).contains("there is no table in database"), "{}", stdout(&check));
    db.execute("create table orders (id int primary key)").await;
    let check = folder.command(&["check"]).await;
    assert_eq!(code(&check), 0, "{}", stdout(&check));
}

#[tokio::test]
async fn a_name_that_another_database_of_the_cluster_has_is_not_taken_again() {
    let postgres = Postgres::shared(13).await;
    let (db, other) = (postgres.database("init_twice").await, postgres.database("init_other").await);
    db.execute("create table orders (id int primary key)").await;
    let slot = format!("forebay_{}", db.name());
    other.query("select pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await;
    let text = accepted(&mut folder(), db.url()).await;
    assert!(text.contains(&format!("  {}-2:", db.name())), "{text}");
    other.query("select pg_drop_replication_slot($1)", &[&slot]).await;
}

#[tokio::test]
async fn a_file_that_is_there_stays_unless_it_is_said() {
    let mut folder = folder();
    std::fs::write(folder.path("forebay.yaml"), "mine").unwrap();
    let refused = folder.command(&["init"]).await;
    assert_eq!(code(&refused), 78);
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(written(&folder), "mine");
    let forced = folder.command(&["init", "--force"]).await;
    assert_eq!(code(&forced), 0, "{}", stderr(&forced));
    folder.unset_env("DATABASE_URL");
    let offline = folder.command(&["check", "--offline"]).await;
    assert_eq!(code(&offline), 0, "without a database a template is written: {}", stderr(&offline));
    let nowhere = folder.command(&["init", "--output", "missing/forebay.yaml"]).await;
    assert_eq!(code(&nowhere), 69, "{}", stderr(&nowhere));
}

#[tokio::test]
async fn on_stdout_there_is_the_configuration_and_nothing_else() {
    let db = Postgres::shared(18).await.database("init_stdout").await;
    db.execute("create table orders (id int primary key)").await;
    let mut folder = folder();
    folder.set_env("DATABASE_URL", db.url());
    let init = folder.command(&["init", "--output", "-", "--destination", "stdout"]).await;
    assert_eq!(code(&init), 0, "{}", stderr(&init));
    assert!(!folder.path("forebay.yaml").exists() && !folder.path("forebay.schema.json").exists());
    std::fs::write(folder.path("forebay.yaml"), stdout(&init)).unwrap();
    let check = folder.command(&["check"]).await;
    assert_eq!(code(&check), 0, "{}{}", stdout(&check), stderr(&check));
    assert!(stdout(&check).contains("destination stdout (stdout)"), "{}", stdout(&check));
}

#[tokio::test]
async fn what_cannot_be_reached_ends_with_whose_turn_it_is() {
    let folder = folder();
    for (url, wanted, said) in [
        ("mysql://root:secret@h/d", 78, "`postgres://…`"),
        ("shop", 78, "`postgres://…`"),
        ("postgres://u:secret@127.0.0.1/d?sslmode=maybe", 78, "sslmode"),
        ("postgres://u:secret@127.0.0.1:1/d", 69, "start the server"),
    ] {
        let init = folder.command(&["init", "--source", url]).await;
        assert_eq!(code(&init), wanted, "{url}: {}", stderr(&init));
        assert!(
            stderr(&init).contains(said) && !stderr(&init).contains("secret"),
            "{url}: {}",
            stderr(&init)
        );
        assert!(!folder.path("forebay.yaml").exists(), "{url}");
    }
    let unknown = folder.command(&["init", "--destination", "lake"]).await;
    assert_eq!(code(&unknown), 78);
    assert!(
        stderr(&unknown).contains("`file`, `http`, `kafka`, `kinesis`, `postgres`, `stdout`"),
        "{}",
        stderr(&unknown)
    );
}
