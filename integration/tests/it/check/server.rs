//! Settings of the server, the room that is left on it, and what the role may do.

use forebay_integration::Standby;

use super::*;

/// The settings of the command line go before those of `ALTER SYSTEM`, so they are set there as well.
async fn take_over(server: &mut Postgres, remedies: &[String]) {
    for line in remedies.iter().flat_map(|remedy| remedy.lines()) {
        let setting = line.strip_prefix("ALTER SYSTEM SET ").and_then(|rest| rest.split_once(" = "));
        if let Some((name, value)) = setting {
            server.server.set(name, value.trim_end_matches(';').trim_matches('\''));
        }
    }
    server.restart(Stop::Fast).await;
}

#[tokio::test]
async fn a_server_without_room_has_it_after_what_check_prints() {
    let full = [
        ("wal_level", "replica"),
        ("max_replication_slots", "1"),
        ("max_wal_senders", "0"),
        ("max_connections", "8"),
        ("superuser_reserved_connections", "3"),
    ];
    let mut server = Postgres::start(15, &full).await;
    let db = server.database("full").await;
    db.execute("create table orders (id int primary key)").await;
    db.query("select pg_create_physical_replication_slot('old_one')", &[]).await;
    let (source, role) = Source::of(&db, json!({})).with_role(&db).await;
    db.execute(&format!(
        "alter role \"{role}\" connection limit 2; alter database {} connection limit 4",
        db.name()
    ))
    .await;
    let words = [
        "`wal_level` is `replica`",
        "may not replicate",
        "0 replication connections are left of 0",
        "connections are left of 8",
        "2 connections of the role are left of 2",
        "connections to the database are left of 4",
        "and all 1 are taken",
        "`max_slot_wal_keep_size` is -1",
    ];
    let client = db.connect().await;
    let mut remedies = Vec::new();
    for words in words {
        let trouble =
            source.finding(words).await.trouble.unwrap_or_else(|| panic!("`{words}` is no trouble"));
        remedies.push(trouble.remedy);
    }
    let slots = &remedies[6];
    assert!(slots.contains("-- or drop those that nobody needs any more; nobody reads `old_one`"), "{slots}");
    for remedy in &remedies {
        paste(&client, remedy).await;
    }
    drop(client);
    take_over(&mut server, &remedies).await;
    let after = source.check().await;
    for finding in after.iter().filter(|finding| finding.trouble.is_some()) {
        assert!(!words.iter().any(|words| finding.fact.contains(words)), "{finding:#?}");
    }
    assert!(
        after.iter().any(|finding| finding.fact == "a replication connection can be opened"),
        "{after:#?}"
    );
}

#[tokio::test]
async fn on_amazon_the_role_is_given_membership() {
    let server = Postgres::start(17, &[]).await;
    let db = server.database("rds").await;
    db.execute("create table orders (id int primary key); create role rds_replication").await;
    let (source, _) = Source::of(&db, json!({})).with_role(&db).await;
    let remedy = source.finding("may not replicate").await.trouble.unwrap().remedy;
    assert!(remedy.starts_with("GRANT rds_replication TO "), "{remedy}");
    paste(&db.connect().await, &remedy).await;
    assert!(source.finding("may replicate").await.trouble.is_none());
}

#[tokio::test]
async fn a_slot_that_would_be_given_up_while_idle_is_not_given_up_after_what_check_prints() {
    let server = Postgres::start(18, &[]).await;
    let db = server.database("idle").await;
    db.execute("create table orders (id int primary key)").await;
    db.execute("alter system set idle_replication_slot_timeout = '2d'").await;
    db.query("select pg_reload_conf()", &[]).await;
    let source = Source::of(&db, json!({}));
    source.mended("`idle_replication_slot_timeout` is 2d", None, &db).await;
    source.mended("`max_slot_wal_keep_size` is -1", None, &db).await;
    assert!(source.check().await.iter().all(|finding| finding.trouble.is_none()), "nothing is left");
}

#[tokio::test]
async fn what_a_server_is_too_old_for_is_taken_out_of_the_configuration() {
    let db = Postgres::shared(13).await.database("old").await;
    db.execute("create table orders (id int primary key)").await;
    let source = Source::of(&db, json!({"origin": "none", "failover": true, "publication_mode": "schemas"}));
    for words in ["`publication_mode: schemas` needs", "`origin: none` needs", "`failover: true` needs"] {
        let trouble = source.finding(words).await.trouble.unwrap();
        assert_eq!(trouble.blame, Some(Blame::Configuration), "{words}");
    }
}

#[tokio::test]
async fn a_standby_is_read_from_16_on_without_a_copy_with_what_was_made_on_the_primary() {
    let mut primary = Postgres::start(17, &[]).await;
    let standby = Standby::synchronous(&mut primary).await;
    let db = primary.database("standby").await;
    db.execute("create table orders (id int primary key)").await;
    standby.wait_until_it_has_all().await;
    let url = standby.url(db.name());
    let copied = Source::of(&db, json!({"url": url})).finding("the server is a standby").await;
    assert_eq!(copied.trouble.unwrap().blame, Some(Blame::Configuration));
    let source = Source::of(&db, json!({"url": url, "snapshot": "never"}));
    let remedy = source.finding("a standby can create none").await.trouble.unwrap().remedy;
    paste(&db.connect().await, &remedy).await;
    standby.wait_until_it_has_all().await;
    source.is_ready().await;
    let own = source.finding("`hot_standby_feedback` is off").await.trouble.unwrap().remedy;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    paste(&client, &own).await;
    let after = source.check().await;
    assert!(!after.iter().any(|finding| finding.fact.contains("hot_standby_feedback")), "{after:#?}");

    let mut primary = Postgres::start(15, &[]).await;
    let standby = Standby::synchronous(&mut primary).await;
    let source = Source::of(&db, json!({"url": standby.url("postgres"), "snapshot": "never"}));
    let too_old = source.finding("the server is a standby").await.trouble.unwrap();
    assert_eq!(too_old.blame, Some(Blame::Outside));
}
