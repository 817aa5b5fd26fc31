//! moto's stand-in for Kinesis, started by `integration/servers/moto.sh`. It keeps everything in memory, never throttles
//! and looks at no signature; what AWS itself does beyond that is in [`KinesisFaults`](crate::KinesisFaults), a fake.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay::demo::process::{Process, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, free_ports, unique};

/// How often we look whether it serves.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How much one read may give; the service's own limit.
const READ_LIMIT: u32 = 10_000;
/// What tells the stand-in which service and region is meant.
pub(crate) const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=test/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=none";

/// The server.
#[derive(Debug)]
pub struct Kinesis {
    _process: Process,
    port: u16,
    client: reqwest::Client,
    _dir: TempDir,
}

impl Kinesis {
    /// The one that all tests of this binary share. It ends with the binary.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kinesis> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        // An error says that another test was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("forebay-moto-").tempdir();
        let dir = dir.expect("the temporary folder is writable");
        let port = free_ports(1);
        let log = dir.path().join("log");
        let output = File::create(&log).expect("its folder is writable");
        let errors = output.try_clone().expect("a file can be shared");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/moto.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg("run").arg(port.to_string()).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut process =
            Process::spawn(&mut command, Signal::KILL, Some(dir.path())).expect("bash is there");
        let client = reqwest::Client::new();
        let deadline = Instant::now() + PATIENCE;
        while client.get(format!("http://127.0.0.1:{port}/moto-api/")).send().await.is_err() {
            let ended = process.ended().expect("a child can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "moto did not start (`integration/run` brings what it needs); ended: {ended:?}\n{}",
                std::fs::read_to_string(&log).expect("the log was created above")
            );
            sleep(LOOK_PAUSE).await;
        }
        Self { _process: process, port, client, _dir: dir }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new stream, whose name begins with `name`.
    pub async fn stream(&self, name: &str, shards: u32) -> Stream {
        self.stream_named(&unique(name), shards).await
    }

    /// A new stream of exactly this name.
    pub async fn stream_named(&self, name: &str, shards: u32) -> Stream {
        let stream = Stream { port: self.port, client: self.client.clone(), name: name.to_owned() };
        stream.ask("CreateStream", json!({"StreamName": name, "ShardCount": shards})).await;
        stream
    }
}

/// One stream.
#[derive(Clone, Debug)]
pub struct Stream {
    port: u16,
    client: reqwest::Client,
    name: String,
}

/// One record as it stands in its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Which shard.
    pub shard: String,
    /// What decides about the shard.
    pub key: String,
    /// What was put.
    pub data: Vec<u8>,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that stands in it, shard after shard, each in its order.
    pub async fn all(&self) -> Vec<Put> {
        let listed = self.ask("ListShards", json!({"StreamName": self.name})).await;
        let shards = listed["Shards"].as_array().expect("shards are listed");
        let mut all = Vec::new();
        for shard in shards.iter().map(|shard| shard["ShardId"].as_str().expect("a shard has an id")) {
            let begin =
                json!({"StreamName": self.name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
            let mut iterator = self.ask("GetShardIterator", begin).await["ShardIterator"].take();
            loop {
                let mut read =
                    self.ask("GetRecords", json!({"ShardIterator": iterator, "Limit": READ_LIMIT})).await;
                let records = read["Records"].as_array().expect("records are given");
                if records.is_empty() && read["MillisBehindLatest"] == 0 {
                    break;
                }
                all.extend(records.iter().map(|record| put(shard, record)));
                iterator = read["NextShardIterator"].take();
            }
        }
        all
    }

    async fn ask(&self, action: &str, body: Value) -> Value {
        let request = self
            .client
            .post(format!("http://127.0.0.1:{}/", self.port))
            .header("x-amz-target", format!("Kinesis_20131202.{action}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", AUTHORIZATION)
            .body(body.to_string());
        let answer = request.send().await.expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("moto answers");
        assert!(status.is_success(), "{action}: {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("moto answers JSON") }
    }
}

fn put(shard: &str, record: &Value) -> Put {
    let text = |name: &str| record[name].as_str().expect("a record has text").to_owned();
    let data = STANDARD.decode(text("Data")).expect("data is base64");
    Put { shard: shard.to_owned(), key: text("PartitionKey"), data }
}
