//! The collector as a tracker meets it: the real daemon, on a real port, into a real file.

mod kill;
mod trackers;

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_integration::{Daemon, free_ports};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// How long a sender waits for an answer before it takes it that there is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A daemon that collects into `events.ndjson`.
struct World {
    daemon: Daemon,
    port: u16,
}

impl World {
    /// With these further lines at the top of the configuration, and these further keys of the source.
    fn of(top: &str, keys: &str) -> World {
        let port = free_ports(1);
        let config = format!(
            "{top}
sources:
  web: {{type: http, listen: \"127.0.0.1:{port}\"{keys}}}
destinations:
  files: {{type: file, path: events.ndjson}}
"
        );
        World { daemon: Daemon::new(FOREBAY, &config), port }
    }

    /// Starts it and returns when it listens.
    async fn start(&mut self) {
        self.daemon.start().await;
        let listens = |status: &Value| status["sources"][0]["connected"] == true;
        self.daemon.wait_until("the collector listens", listens).await;
    }

    /// The events in the file, by their ids, with how often each is there.
    fn events(&self) -> BTreeMap<String, (usize, Value)> {
        let text = std::fs::read_to_string(self.daemon.path("events.ndjson")).unwrap_or_default(); // none yet
        let mut events = BTreeMap::new();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
            let id = event["id"].as_str().unwrap().to_owned();
            events.entry(id).or_insert((0, event)).0 += 1;
        }
        events
    }

    /// Waits until so many different events are in the file.
    async fn has(&mut self, count: usize) -> BTreeMap<String, (usize, Value)> {
        let path = self.daemon.path("events.ndjson");
        let enough =
            |_: &Value| std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() >= count);
        self.daemon.wait_until(&format!("{count} events in the file"), enough).await;
        self.events()
    }
}

/// Senders that send one event after the other, and note what they were told.
struct Load {
    stop: CancellationToken,
    senders: JoinSet<Vec<String>>,
}

impl Load {
    /// So many senders against a port; their events have other ids in another round.
    fn begin(port: u16, round: u32, senders: u32) -> Load {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for sender in 0..senders {
            tasks.spawn(send(port, round * 1000 + sender, stop.clone()));
        }
        Load { stop, senders: tasks }
    }

    /// Ends it, and gives the ids of all events that were answered 200.
    async fn answered(mut self) -> Vec<String> {
        self.stop.cancel();
        let mut answered = Vec::new();
        while let Some(ids) = self.senders.join_next().await {
            answered.extend(ids.unwrap());
        }
        answered
    }
}

/// One sender: sends until it is stopped or nobody listens, and gives the ids that were answered 200.
async fn send(port: u16, sender: u32, stop: CancellationToken) -> Vec<String> {
    let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).build().unwrap();
    let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
    let url = format!("http://127.0.0.1:{port}/com.snowplowanalytics.snowplow/tp2");
    let mut answered = Vec::new();
    for number in 0u32.. {
        if stop.is_cancelled() {
            break;
        }
        let ids: Vec<String> =
            (0..3).map(|at| format!("{sender:08x}-0000-4000-800{at}-{number:012x}")).collect();
        let items: Vec<Value> = ids.iter().map(|id| serde_json::json!({ "e": "pv", "eid": id })).collect();
        let body = serde_json::json!({ "schema": schema, "data": items }).to_string();
        match client.post(&url).body(body).send().await {
            Ok(answer) if answer.status() == 200 => answered.extend(ids),
            Ok(answer) => assert_eq!(answer.status(), 503),
            Err(_) => break,
        }
    }
    answered
}
