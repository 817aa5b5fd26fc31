//! A whole daemon that writes to Kinesis, with credentials as AWS's own tools find them.

use std::time::Duration;

use forebay_integration::{Daemon, PATIENCE, Postgres};
use tokio::time::{sleep, timeout};

use super::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay-under-test");

#[tokio::test]
async fn a_daemon_finds_credentials_in_its_environment_and_in_a_profile_that_runs_a_process() {
    let (faults, stream) = stream("daemon").await;
    let database = Postgres::shared(18).await.database("kinesis").await;
    database.execute("create table orders (id int primary key, note text)").await;
    let yaml = format!(
        "sources:\n  shop: {{type: postgres, url: \"{}\", slot: {}, tables: [public.orders]}}\n\
         destinations:\n  stream: {{type: kinesis, stream: {}, region: us-east-1, endpoint: \"http://127.0.0.1:{}\"}}\n",
        database.url(),
        database.name(),
        stream.name(),
        faults.port()
    );
    let mut daemon = Daemon::new(PROGRAM, &yaml);
    daemon.set_env("AWS_EC2_METADATA_DISABLED", "true");
    daemon.set_env("AWS_CONFIG_FILE", "./aws");
    daemon.set_env("AWS_SHARED_CREDENTIALS_FILE", "./none");
    let expect = async |words: &str| {
        let there = async {
            while !data(&stream.all().await).iter().any(|data| data.contains(words)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(PATIENCE, there).await;
        assert!(found.is_ok(), "no {words} in the stream: {:?}", data(&stream.all().await));
    };

    // Nowhere: said before anything is lost, and by `check` too.
    database.execute("insert into orders values (0, 'before')").await;
    let checked = daemon.command(&["check"]).await;
    let text =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(text.contains("AWS_ACCESS_KEY_ID") && checked.status.code() == Some(78), "{text}");

    daemon.set_env("AWS_ACCESS_KEY_ID", "test");
    daemon.set_env("AWS_SECRET_ACCESS_KEY", "test");
    daemon.start().await;
    database.execute("insert into orders values (1, 'one')").await;
    expect("\"one\"").await;
    daemon.stop().await;

    daemon.unset_env("AWS_ACCESS_KEY_ID");
    daemon.unset_env("AWS_SECRET_ACCESS_KEY");
    let said = r#"{"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "test"}"#;
    std::fs::write(daemon.path("said.json"), said).unwrap();
    std::fs::write(daemon.path("aws"), "[default]\ncredential_process = cat said.json\n").unwrap();
    daemon.start().await;
    database.execute("insert into orders values (2, 'two')").await;
    expect("\"two\"").await;
    daemon.stop().await;
}
