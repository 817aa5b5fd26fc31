//! Trackers as their users install them.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use super::World;

/// Sends one event of each kind by GET and by POST, with base64 and without, and waits until all are sent.
const PROGRAM: &str = r#"
import sys
from snowplow_tracker import (Emitter, Tracker, Subject, SelfDescribingJson, PageView, PagePing, StructuredEvent,
                              SelfDescribing, ScreenView)
failed = []
for method in ("get", "post"):
    for base64 in (True, False):
        emitter = Emitter("127.0.0.1", protocol="http", port=int(sys.argv[1]), method=method, batch_size=1,
                          on_failure=lambda sent, events: failed.append(events))
        subject = Subject().set_user_id("user \"ü\"").set_screen_resolution(100, 200).set_lang("en")
        tracker = Tracker("ns", emitter, app_id="app", subject=subject, encode_base64=base64)
        entity = [SelfDescribingJson("iglu:com.acme/ctx/jsonschema/1-0-0", {"k": ">>>???"})]
        tracker.track(PageView(page_url="http://a.com/x?q=1", page_title="T ü", context=entity))
        tracker.track(PagePing(page_url="http://a.com", min_x=1, max_x=2, min_y=3, max_y=4))
        tracker.track(StructuredEvent(category="c", action="a", value=1.5))
        tracker.track(SelfDescribing(event_json=SelfDescribingJson("iglu:com.acme/ev/jsonschema/1-0-0", {"k": "~~~ü"})))
        tracker.track(ScreenView(id_="i", name="n"))
        tracker.flush()
print(len(failed))
"#;

/// Where the tracker is.
async fn python_tracker() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/trackers.sh");
    let output = Command::new("bash").arg(script).arg("fetch").output().await.unwrap();
    assert!(
        output.status.success(),
        "no tracker for Python; `integration/run --bring` brings it: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tracker_for_python_is_understood_whole() {
    let folder = python_tracker().await;
    let mut world = World::of("validation: {registry: [{type: file, path: schemas}]}", "");
    for (key, properties) in [
        ("com.acme/ctx", json!({ "k": { "const": ">>>???" } })),
        ("com.acme/ev", json!({ "k": { "const": "~~~ü" } })),
        ("com.snowplowanalytics.mobile/screen_view", json!({ "name": { "const": "n" } })),
    ] {
        let path = world.daemon.path(&format!("schemas/{key}/jsonschema/1-0-0"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
        let schema = json!({ "type": "object", "properties": properties, "required": required });
        std::fs::write(path, schema.to_string()).unwrap();
    }
    world.start().await;
    let port = world.port.to_string();
    let output = Command::new("python3")
        .args(["-c", PROGRAM, &port])
        .env("PYTHONPATH", folder)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{said}");
    let events: Vec<Value> = world.has(20).await.into_values().map(|(_, event)| event).collect();
    assert_eq!(events.len(), 20);
    for event in &events {
        assert_eq!((&event["valid"], &event["op"]), (&json!(true), &json!("track")), "{event}");
        assert_eq!(event["source"], json!({ "type": "http", "name": "web", "input": "snowplow" }));
        let common = &event["contexts"][0]["data"];
        assert_eq!(
            (&common["user_id"], &common["dvce_screenwidth"]),
            (&json!("user \"ü\""), &json!(100)),
            "{event}"
        );
    }
    for (schema, payload) in [
        ("io.forebay/page_ping/1-0-0", ("pp_xoffset_min", json!(1))),
        ("io.forebay/page_view/1-0-0", ("page_title", json!("T ü"))),
        ("io.forebay/structured_event/1-0-0", ("se_value", json!(1.5))),
        ("com.acme/ev/1-0-0", ("k", json!("~~~ü"))),
        ("com.snowplowanalytics.mobile/screen_view/1-0-0", ("name", json!("n"))),
    ] {
        let of: Vec<&Value> = events.iter().filter(|event| event["schema"] == schema).collect();
        assert_eq!(of.len(), 4, "{schema}");
        assert!(of.iter().all(|event| event["payload"][payload.0] == payload.1), "{of:?}");
        if schema == "io.forebay/page_view/1-0-0" {
            let entity = json!({ "schema": "com.acme/ctx/1-0-0", "data": { "k": ">>>???" } });
            assert!(of.iter().all(|event| event["contexts"][1] == entity), "{of:?}");
        }
    }
    assert_eq!(world.daemon.stop().await, 0);
}
