//! The suite against an HTTP receiver, a server of the harness's own; once for each way to write a body.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::destination::{DestinationRig, Disturbance, SOURCE, conform};
use forebay_api::{Destination, DestinationConnector, DestinationSetting};
use forebay_http::HttpDestination;
use forebay_integration::{Proxy, Receiver, Reply};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// What the receiver takes in one request. Batches of the suite are larger, so that they are cut.
const MOST: usize = 1 << 20;

/// A hundred thousand requests take long enough without a proxy in between.
const MANY: &str = "a_hundred_thousand_records_keep_their_order";

/// Each check has a receiver of its own, behind a proxy.
struct Rig {
    config: Value,
    straight: bool,
    receiver: Mutex<Receiver>,
    proxy: Mutex<Proxy>,
}

impl Rig {
    async fn new(check: &str, config: Value) -> Rig {
        let receiver = Receiver::start().await;
        receiver.take_at_most(MOST);
        receiver.dislike("a word that is disliked");
        let proxy = Proxy::to(receiver.port()).await;
        Rig { config, straight: check == MANY, receiver: Mutex::new(receiver), proxy: Mutex::new(proxy) }
    }
}

#[async_trait::async_trait]
impl DestinationRig for Rig {
    async fn build(&self) -> Arc<dyn Destination> {
        let mut config = self.config.clone();
        config["url"] = json!(if self.straight {
            self.receiver.lock().await.url("/events")
        } else {
            format!("http://{}/events", self.proxy.lock().await.address())
        });
        let setting = DestinationSetting {
            name: "hook".to_owned(),
            format: "forebay".to_owned(),
            data_dir: std::env::temp_dir(),
            sources: vec![SOURCE.to_owned()],
        };
        HttpDestination::build(serde_json::from_value(config).unwrap(), &setting).unwrap()
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        Some(self.receiver.lock().await.taken().into_iter().map(String::into_bytes).collect())
    }

    fn too_large(&self) -> Option<usize> {
        Some(MOST + 1000)
    }

    fn refused(&self) -> Option<&'static str> {
        Some(r#""a word that is disliked""#)
    }

    fn disturbances(&self) -> &[Disturbance] {
        &[Disturbance::Kill, Disturbance::Cut, Disturbance::Refuse, Disturbance::Slow]
    }

    async fn disturb(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.receiver.lock().await.kill(),
            Disturbance::Cut => self.proxy.lock().await.shut().await,
            Disturbance::Refuse => {
                let full = Reply::new(503, "the disk is full");
                self.receiver.lock().await.answer_always(Some(full));
            }
            Disturbance::Slow => self.proxy.lock().await.delay(Duration::from_millis(150)),
        }
    }

    async fn restore(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.receiver.lock().await.start_again().await,
            Disturbance::Cut => self.proxy.lock().await.open().await,
            Disturbance::Refuse => self.receiver.lock().await.answer_always(None),
            Disturbance::Slow => self.proxy.lock().await.delay(Duration::ZERO),
        }
    }
}

async fn conforms(config: Value) {
    let exceptions = [("what_is_held_is_struck_off", "a receiver keeps no mark")];
    conform(&exceptions, async |check| Rig::new(check, config.clone()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_conform() {
    conforms(json!({"body": "ndjson"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_and_compressed_arrays_conform() {
    conforms(json!({"body": "array", "compression": "gzip", "signature": {"secret": "s"}, "method": "PUT"}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_events_conform() {
    conforms(json!({"body": "single"})).await;
}
