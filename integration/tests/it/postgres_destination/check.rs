//! What `forebay check` finds, and what keeps a daemon from writing: the same, with the same remedy.

use forebay_api::{Blame, DestinationConnector, Finding};
use forebay_integration::{Database, Postgres};
use forebay_postgres::PostgresDestination;
use serde_json::{Value, json};

use super::{batch, copy, delivered, prepare, said, setting, with_url};

async fn check(database: &Database, config: Value) -> Vec<Finding> {
    let config = serde_json::from_value(with_url(database, config)).unwrap();
    PostgresDestination::check(config, &setting("copy")).await
}

/// The first bad finding: fact, blame, remedy.
fn first_bad(findings: &[Finding]) -> (String, Option<Blame>, String) {
    let bad = findings.iter().find_map(|finding| Some((finding, finding.trouble.as_ref()?)));
    let (finding, trouble) = bad.unwrap_or_else(|| panic!("nothing is wrong: {findings:?}"));
    (finding.fact.clone(), trouble.blame, trouble.remedy.clone())
}

#[tokio::test]
async fn check_changes_nothing_and_says_that_all_is_well() {
    let database = Postgres::shared(18).await.database("well").await;
    for _ in 0..2 {
        let findings = check(&database, json!({})).await;
        assert!(findings.iter().all(|finding| finding.trouble.is_none()), "{findings:?}");
        assert!(!database.value::<bool>("select to_regclass('forebay_events') is not null").await);
    }
    prepare(&copy(&database, json!({}))).await.unwrap();
    let findings = check(&database, json!({})).await;
    assert!(findings.iter().all(|finding| finding.trouble.is_none()), "{findings:?}");
    assert!(
        findings.iter().any(|finding| finding.fact == "table `public.forebay_events` can be written"),
        "{findings:?}"
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_statement_that_mends_it_and_then_it_is_mended() {
    let database = Postgres::shared(13).await.database("wrong").await;
    let role = format!("{}_writer", database.name());
    database.execute(&format!("create role {role} login; revoke all on schema public from public")).await;
    database.execute(&format!("revoke temporary on database {} from public", database.name())).await;
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let config = json!({"url": url, "table": "lake.events"});
    let mended = async |fact: &str, blame: Blame| {
        let (found, by, remedy) = first_bad(&check(&database, config.clone()).await);
        assert!(found.contains(fact), "{found}");
        assert_eq!(by, Some(blame), "{found}");
        let fault = prepare(&copy(&database, config.clone())).await.unwrap_err();
        assert!(!fault.is_retryable() && said(&fault).contains(fact), "{}", said(&fault));
        database.execute(&remedy).await;
    };
    mended("schema `lake` does not exist", Blame::Configuration).await;
    mended("may not make temporary tables", Blame::Outside).await;
    database
        .execute(&format!("alter schema lake owner to postgres; revoke all on schema lake from {role}"))
        .await;
    mended("table `lake.events` does not exist, and role", Blame::Outside).await;
    prepare(&copy(&database, config.clone())).await.unwrap();
    database
        .execute(
            "alter table lake.events owner to postgres; alter table lake.forebay_positions owner to postgres",
        )
        .await;
    database.execute(&format!("revoke all on all tables in schema lake from {role}")).await;
    mended("lacks SELECT, INSERT on table `lake.events`", Blame::Outside).await;
    mended("lacks SELECT, INSERT, UPDATE on table `lake.forebay_positions`", Blame::Outside).await;
    mended("may not use sequence `lake.events_seq_seq`", Blame::Outside).await;
    database.execute("alter table lake.events add who text not null default ''").await;
    database.execute("alter table lake.events alter who drop default").await;
    mended("column `who` of table `lake.events` demands a value", Blame::Configuration).await;
    database.execute("alter table lake.events drop constraint events_pkey").await;
    mended("has no unique index on (id)", Blame::Configuration).await;
    database.execute("alter table lake.events set unlogged").await;
    mended("is emptied by a crash", Blame::Configuration).await;
    database.execute("drop table lake.events").await;
    let destination = copy(&database, config.clone());
    prepare(&destination).await.expect("the positions may be somebody else's");
    delivered(&destination, batch(1, &[("", "1")])).await;
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused() {
    let database = Postgres::shared(15).await.database("shape").await;
    database
        .execute("create table other (id text primary key, seq bigint); create view seen as select 1 as id")
        .await;
    for (table, fact) in [
        ("other", "table `public.other` has no column `source text`"),
        ("seen", "`public.seen` is not a table"),
    ] {
        let (found, blame, remedy) = first_bad(&check(&database, json!({"table": table})).await);
        assert_eq!((found.as_str(), blame), (fact, Some(Blame::Configuration)));
        assert_eq!(remedy, "name another table with `table:`, or drop this one");
        assert!(!prepare(&copy(&database, json!({"table": table}))).await.unwrap_err().is_retryable());
    }
}
