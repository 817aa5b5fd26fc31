//! The daemon: rows of a table that a contract is for are split by their verdict, without a collector.

use forebay_integration::{Daemon, Database, PATIENCE, Postgres};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");
const ASK_PAUSE: Duration = Duration::from_millis(20);

fn configuration(db: &Database) -> String {
    let (url, slot) = (db.url(), db.name());
    format!(
        "sources:
  shop:
    type: postgres
    vendor: com.acme
    url: {url}
    tables: [public.*]
    publication: {slot}
    slot: {slot}
    snapshot: never
    heartbeat: 200ms
validation:
  registry: [{{type: file, path: ./schemas}}]
  contracts: [{{table: [public.orders], schema: com.acme/order/1-0-0}}]
destinations:
  good: {{type: file, path: good.ndjson, accept: valid, where: {{op: [insert, update]}}}}
  bad: {{type: file, path: bad.ndjson, accept: invalid}}
  keyed: {{type: file, path: keyed.ndjson, where: {{schema_key: ['com.acme/public.notes/*'], op: [insert]}}}}
"
    )
}

fn contract(daemon: &Daemon, schema: &Value) {
    let folder = daemon.path("schemas/com.acme/order");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1-0-0.json"), schema.to_string()).unwrap();
}

fn lines(daemon: &Daemon, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(daemon.path(file)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn expect(daemon: &mut Daemon, file: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = lines(daemon, file);
        if found.len() >= count {
            assert_eq!(found.len(), count, "{found:?}");
            return found;
        }
        assert!(daemon.is_running() && Instant::now() < deadline, "{file}: {found:?}\n{}", daemon.stderr());
        sleep(ASK_PAUSE).await;
    }
}

async fn start(daemon: &mut Daemon) {
    daemon.start().await;
    daemon.wait_until("the source is connected", |status| status["sources"][0]["connected"] == true).await;
}

#[tokio::test]
async fn rows_are_split_by_a_contract_into_two_files() {
    let db = Postgres::shared(17).await.database("contract").await;
    db.execute("create table orders (id int primary key, total numeric, note text); create table notes (id int primary key)")
        .await;
    let mut daemon = Daemon::new(FOREBAY, &configuration(&db));
    contract(
        &daemon,
        &json!({"type": "object", "required": ["total", "note"], "properties": {"total": {"type": "number", "minimum": 0}}}),
    );
    start(&mut daemon).await;
    db.execute(
        "insert into orders values (1, 12345678901234567890.123, 'a'), (2, -1, 'b'), (3, null, 'c');
         insert into notes values (1);
         alter table orders alter note set storage external;
         insert into orders values (4, 1, repeat('long', 2000));",
    )
    .await;
    // the note is not sent again, and is not missing
    db.execute("update orders set total = 5 where id = 4; update orders set total = -5 where id = 4").await;
    let good = expect(&mut daemon, "good.ndjson", 4).await;
    let bad = expect(&mut daemon, "bad.ndjson", 3).await;
    let id = |event: &Value| {
        (event["source"]["table"].as_str().unwrap().to_owned(), event["payload"]["id"].as_i64())
    };
    assert_eq!(
        good.iter().map(id).collect::<Vec<_>>(),
        [("orders", 1), ("notes", 1), ("orders", 4), ("orders", 4)]
            .map(|(table, id)| (table.to_owned(), Some(id)))
    );
    assert!(good.iter().all(|event| event["valid"] == true && event.get("error").is_none()));
    assert_eq!(
        bad.iter().map(|event| event["payload"]["id"].as_i64().unwrap()).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert_eq!(bad[0]["error"]["type"], "invalid_payload");
    let detail = &bad[0]["error"]["details"][0];
    assert_eq!(
        (&detail["path"], &detail["keyword"]),
        (&json!("/total"), &json!("/properties/total/minimum"))
    );
    assert!(
        bad[0]["schema"].as_str().unwrap().starts_with("com.acme/public.orders/"),
        "its own schema stays"
    );
    assert_eq!(expect(&mut daemon, "keyed.ndjson", 1).await[0]["payload"]["id"], 1);
    assert_eq!(daemon.metric("forebay_invalid_events_total", &[("source", "shop")]).await, Some(3.0));
    let (code, served) = daemon.get("/s/com.acme/order/1-0-0").await.unwrap();
    assert!(code == 200 && served.contains("minimum"), "{code} {served}");
    assert_eq!(daemon.get("/s/..%2f..%2fetc/passwd/1-0-0").await.unwrap().0, 404);
    let output = daemon.command(&["schema", "get", "com.acme/order/1-0-0", "-c", "forebay.yaml"]).await;
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("minimum"),
        "{output:?}"
    );
    let output = daemon.command(&["schema", "get", "com.acme/nobody/1-0-0", "-c", "forebay.yaml"]).await;
    assert_eq!(output.status.code(), Some(78), "{output:?}");

    // A changed contract holds from the purge on.
    contract(&daemon, &json!({"type": "object"}));
    let output = daemon.command(&["schema", "purge", "-c", "forebay.yaml"]).await;
    assert!(output.status.success(), "{output:?}");
    db.execute("insert into orders values (6, -6, 'x')").await;
    assert_eq!(expect(&mut daemon, "good.ndjson", 5).await[4]["payload"]["id"], 6);
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test]
async fn a_registry_that_is_down_holds_rows_back_and_makes_none_of_them_invalid() {
    let db = Postgres::shared(17).await.database("down").await;
    db.execute("create table orders (id int primary key, total numeric, note text)").await;
    let mut daemon = Daemon::new(FOREBAY, &configuration(&db));
    // The folder is a mount that is not there yet.
    start(&mut daemon).await;
    db.execute("insert into orders values (1, 5, 'a')").await;
    let waits = |status: &Value| status["problems"].to_string().contains("wait for a schema");
    let status = daemon.wait_until("it says what it waits for", waits).await;
    assert_eq!((&status["ready"], &status["live"]), (&json!(false), &json!(true)));
    assert!(lines(&daemon, "good.ndjson").is_empty() && lines(&daemon, "bad.ndjson").is_empty());
    contract(&daemon, &json!({"type": "object", "required": ["total"]}));
    assert_eq!(expect(&mut daemon, "good.ndjson", 1).await[0]["payload"]["id"], 1);
    daemon.wait_until("it is ready again", |status| status["ready"] == true).await;

    // A schema that was seen is used on.
    std::fs::remove_dir_all(daemon.path("schemas")).unwrap();
    db.execute("insert into orders values (2, 5, 'a')").await;
    assert_eq!(expect(&mut daemon, "good.ndjson", 2).await[1]["payload"]["id"], 2);
    assert_eq!(daemon.stop().await, 0);
}
