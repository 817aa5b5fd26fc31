//! Tables and publications: what a role may do with them, and what is in them.

use forebay_integration::{Daemon, unique};

use super::*;

/// Names that break out of whatever does not quote them.
const ODD: [&str; 6] =
    ["Orders", "a.b", "say \"hi\"", "star*? [x]{y,z}", "two\nlines; drop", r"back\\slash $${x}"];

fn id(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[tokio::test]
async fn a_role_that_may_nothing_may_everything_after_what_check_prints_and_then_it_runs() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("nothing").await;
        let owner = unique("Owner of it");
        db.execute(&format!("create role {} nologin; create schema {}", id(&owner), id("Odd \"one\""))).await;
        for name in ODD {
            let name = format!("{}.{}", id("Odd \"one\""), id(name));
            db.execute(&format!("create table {name} (id int primary key); insert into {name} values (1)"))
                .await;
        }
        let hidden = format!("{}.{}", id("Odd \"one\""), id(ODD[0]));
        db.execute(&format!("alter table {hidden} owner to {}", id(&owner))).await;
        db.execute(&format!("alter table {hidden} enable row level security, force row level security"))
            .await;
        db.execute(
            "create table public.parts (id int, day date, primary key (id, day)) partition by range (day)",
        )
        .await;
        db.execute("create table public.\"Part *1\" partition of parts for values from ('2026-01-01') to ('2027-01-01')").await;
        db.execute("insert into parts values (1, '2026-05-05'); create table public.log (line text)").await;
        db.execute("create table lines (line text) partition by list (line)").await;
        db.execute("create table lines_1 partition of lines for values in ('a')").await;
        let everything = json!({"tables": ["Odd \"one\".*", "public.*"]});
        let (source, _) = Source::of(&db, everything).with_role(&db).await;
        source.mended("may not replicate", Some(Blame::Outside), &db).await;
        source.mended("may not use the schemas", Some(Blame::Outside), &db).await;
        source.mended("may not read tables to copy", Some(Blame::Outside), &db).await;
        source.mended("may not create it, nor owns", Some(Blame::Outside), &db).await;
        source.mended("row-level security may hide rows", Some(Blame::Outside), &db).await;
        // What the others print holds for these tables already.
        source
            .mended("without a replica identity: public.lines, public.log", Some(Blame::Outside), &db)
            .await;
        source.is_ready().await;

        let rest: BTreeSet<String> = runs(&source).await;
        let read = ODD.iter().map(|name| (*name).to_owned()).chain(["Part *1".to_owned()]);
        assert_eq!(rest, read.collect(), "PostgreSQL {major}: every table that has a row is copied");
        db.query("select pg_drop_replication_slot($1)", &[&db.name()]).await;
    }
}

/// Runs a daemon until everything is copied; gives the tables that rows came from.
async fn runs(source: &Source) -> BTreeSet<String> {
    let mut config = source.config.clone();
    config["type"] = "postgres".into();
    config["heartbeat"] = "0s".into();
    let config =
        format!("sources: {{shop: {config}}}\ndestinations: {{out: {{type: file, path: out.ndjson}}}}\n");
    let mut daemon = Daemon::new(env!("CARGO_BIN_EXE_forebay-under-test"), &config);
    daemon.start().await;
    daemon
        .wait_until("everything is copied", |status| {
            let snapshot = &status["sources"][0]["snapshot"];
            snapshot["state"] == "idle"
                && snapshot["tables"].as_array().is_some_and(|tables| !tables.is_empty())
        })
        .await;
    assert_eq!(daemon.stop().await, 0);
    let lines = std::fs::read_to_string(daemon.path("out.ndjson")).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let copied = events.filter(|event| event["op"] == "snapshot");
    copied.map(|event| event["source"]["table"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_publication_that_lacks_tables_holds_them_after_what_check_prints() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("lacks").await;
        for name in ODD {
            db.execute(&format!("create table {} (id int primary key)", id(name))).await;
        }
        db.execute("create table parts (id int primary key) partition by range (id)").await;
        db.execute("create table part_1 partition of parts for values from (1) to (9)").await;
        let source = Source::of(&db, json!({"publication_mode": "existing", "publication": "Their \"own\""}));
        source.mended("there is no publication `Their \"own\"`", Some(Blame::Outside), &db).await;
        source.is_ready().await;
        let missing = format!(
            "alter publication \"Their \"\"own\"\"\" drop table {}, {}, parts",
            id(ODD[1]),
            id(ODD[4])
        );
        db.execute(&missing).await;
        source.mended("lacks tables, and nothing of them is read", None, &db).await;
        assert!(source.finding("7 of 7 tables are read").await.trouble.is_none());
    }
}

#[tokio::test]
async fn a_publication_of_ours_that_somebody_else_owns_is_changed_by_what_check_prints() {
    let db = Postgres::shared(15).await.database("kept").await;
    db.execute("create table a (id int primary key); create table b (id int primary key); create table c (id int primary key)").await;
    let (source, role) = Source::of(&db, json!({"tables": ["public.a", "public.b"]})).with_role(&db).await;
    db.execute(&format!(
        "alter role \"{role}\" replication; grant select on all tables in schema public to \"{role}\""
    ))
    .await;
    let remedy = source.finding("there is no publication").await.trouble.unwrap().remedy;
    let by_hand: Vec<&str> = remedy.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
    assert_eq!(by_hand[0], "or, as somebody who owns the tables:", "{remedy}");
    paste(&db.connect().await, &by_hand[1..].join("\n")).await;
    source.is_ready().await;
    db.execute(&format!("alter publication {} drop table b", db.name())).await;
    db.execute(&format!("alter publication {} add table c", db.name())).await;
    source.mended("lacks public.b, and has 1 too many", Some(Blame::Outside), &db).await;
    source.is_ready().await;
}

#[tokio::test]
async fn publications_that_take_tables_in_by_themselves_are_made_by_a_superuser_with_what_check_prints() {
    for (major, mode) in [(13, "all"), (15, "schemas"), (18, "schemas")] {
        let db = Postgres::shared(major).await.database("wide").await;
        db.execute("create table a (id int primary key); create table log (line text)").await;
        let (source, role) = Source::of(&db, json!({"publication_mode": mode})).with_role(&db).await;
        db.execute(&format!(
            "alter role \"{role}\" replication; grant select on all tables in schema public to \"{role}\""
        ))
        .await;
        source.mended("without a replica identity: public.log", Some(Blame::Outside), &db).await;
        source.mended("which only a superuser can create", Some(Blame::Outside), &db).await;
        source.is_ready().await;
    }
}

#[tokio::test]
async fn somebody_elses_publication_is_neither_taken_nor_changed() {
    let db = Postgres::shared(18).await.database("foreign").await;
    db.execute("create table a (id int primary key)").await;
    db.execute(&format!("create publication {} for table a", db.name())).await;
    let trouble = Source::of(&db, json!({})).finding("was not made by Forebay").await.trouble.unwrap();
    assert_eq!(trouble.blame, Some(Blame::Outside));
    Source::of(&db, json!({"publication_mode": "existing"})).is_ready().await;
}

#[tokio::test]
async fn names_and_patterns_that_match_nothing_are_told_with_what_there_is() {
    let db = Postgres::shared(18).await.database("names").await;
    let empty = Source::of(&db, json!({}));
    let said = empty.finding("there is no table in database").await;
    assert_eq!(said.trouble.unwrap().blame, Some(Blame::Outside));
    db.execute("create table \"Orders\" (id int primary key); create table line (id int primary key)").await;
    let source = Source::of(&db, json!({"tables": ["public.orders", "audit.*", "public.l*"]}));
    let missing = source.finding("there is no table `public.orders`").await.trouble.unwrap();
    assert_eq!(missing.blame, Some(Blame::Configuration));
    assert!(missing.remedy.contains("there is `public.Orders`"), "{}", missing.remedy);
    assert_eq!(source.finding("no table matches `audit.*`").await.trouble.unwrap().blame, None);
    let none = Source::of(&db, json!({"tables": ["audit.*"]})).finding("no table matches `tables`").await;
    assert!(none.trouble.unwrap().remedy.contains("public.Orders, public.line"));
    let column = Source::of(&db, json!({"columns": {"exclude": ["public.line.nr"]}}));
    assert_eq!(column.bad().await.len(), 1, "a column that is not there");
}

#[tokio::test]
async fn without_a_copy_nothing_needs_to_be_readable() {
    let db = Postgres::shared(17).await.database("never").await;
    db.execute("create table a (id int primary key)").await;
    db.execute(&format!("create publication {} for table a", db.name())).await;
    let never = json!({"publication_mode": "existing", "snapshot": "never"});
    let (source, role) = Source::of(&db, never).with_role(&db).await;
    db.execute(&format!("alter role \"{role}\" replication")).await;
    source.is_ready().await;
}
