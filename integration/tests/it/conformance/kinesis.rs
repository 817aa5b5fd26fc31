//! The suite against moto's stand-in for Kinesis, behind a fake that refuses and a proxy that cuts.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::destination::{DestinationRig, Disturbance, SOURCE, conform};
use forebay_api::{Destination, DestinationConnector, DestinationSetting};
use forebay_integration::{Kinesis, KinesisFaults, Proxy, Stream};
use forebay_kinesis::KinesisDestination;
use serde_json::json;
use tokio::sync::Mutex;

/// Every so many-th record is refused while the server refuses, so that most calls are written in part.
const REFUSED_EVERY: usize = 5;

/// What a record costs moto grows with those that are there, so that this check is made on the fake alone.
const MANY: &str = "a_hundred_thousand_records_keep_their_order";

/// Each check has a stream of its own.
struct Rig {
    /// `None`: the fake takes the records itself.
    stream: Option<Stream>,
    faults: KinesisFaults,
    proxy: Mutex<Proxy>,
}

impl Rig {
    async fn new(check: &str) -> Rig {
        let (stream, faults) = if check == MANY {
            (None, KinesisFaults::alone().await)
        } else {
            let kinesis = Kinesis::shared().await;
            (Some(kinesis.stream(check, 3).await), KinesisFaults::before(kinesis).await)
        };
        let proxy = Mutex::new(Proxy::to(faults.port()).await);
        Rig { stream, faults, proxy }
    }
}

#[async_trait::async_trait]
impl DestinationRig for Rig {
    async fn build(&self) -> Arc<dyn Destination> {
        let endpoint = format!("http://{}", self.proxy.lock().await.address());
        let config = json!({
            "stream": self.stream.as_ref().map_or("many", Stream::name), "region": "us-east-1", "endpoint": endpoint,
            // the stand-in takes any
            "credentials": {"access_key_id": "test", "secret_access_key": "test"},
        });
        let setting = DestinationSetting {
            name: "stream".to_owned(),
            format: "forebay".to_owned(),
            data_dir: std::env::temp_dir(),
            sources: vec![SOURCE.to_owned()],
        };
        KinesisDestination::build(serde_json::from_value(config).unwrap(), &setting).unwrap()
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        if let Some(stream) = &self.stream {
            return Some(stream.all().await.into_iter().map(|put| put.data).collect());
        }
        let records = self.faults.calls().into_iter().flat_map(|call| call.records);
        Some(records.filter(|(.., code)| code.is_none()).map(|(_, data, _)| data.into_bytes()).collect())
    }

    fn too_large(&self) -> Option<usize> {
        Some(1 << 20)
    }

    fn disturbances(&self) -> &[Disturbance] {
        &[Disturbance::Cut, Disturbance::Refuse, Disturbance::Slow]
    }

    async fn disturb(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => unreachable!("it is not listed"),
            Disturbance::Cut => self.proxy.lock().await.shut().await,
            Disturbance::Refuse => {
                let mut count = 0;
                self.faults.fail_records(move |_| {
                    count += 1;
                    (count % REFUSED_EVERY == 0).then_some("ProvisionedThroughputExceededException")
                });
                for _ in 0..3 {
                    self.faults.answer_next(400, "ProvisionedThroughputExceededException");
                    self.faults.answer_next(500, "InternalFailure");
                }
            }
            Disturbance::Slow => self.proxy.lock().await.delay(Duration::from_millis(150)),
        }
    }

    async fn restore(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => unreachable!("it is not listed"),
            Disturbance::Cut => self.proxy.lock().await.open().await,
            Disturbance::Refuse => self.faults.fail_no_records(),
            Disturbance::Slow => self.proxy.lock().await.delay(Duration::ZERO),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_conforms() {
    let exceptions = [
        ("a_refused_record_is_rejected", "Kinesis looks at no record's content"),
        ("what_is_held_is_struck_off", "Kinesis keeps no mark"),
        ("a_server_that_is_killed_loses_nothing", "the stand-in keeps everything in memory"),
    ];
    conform(&exceptions, async |check| Rig::new(check).await).await;
}
