//! A collector that runs in the test's process, with a pipeline that the test plays.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use forebay_api::testing::source::{NothingToCopy, SchemasInMemory};
use forebay_api::{
    Budget, Chunk, Claim, Committed, Fault, Inlet, Mark, Outlet, Report, SourceConnector, SourceContext,
    SourceSetting,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::HttpSource;

/// How long something may take that takes a moment on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the pipeline makes durable what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipeline {
    Durable,
    /// It keeps what it owes.
    Holding,
    /// It drops what it owes: nothing is durable.
    Failing,
}

/// See the module.
pub(crate) struct Rig {
    pub(crate) address: String,
    pub(crate) stop: CancellationToken,
    pub(crate) pipeline: watch::Sender<Pipeline>,
    pub(crate) chunks: Arc<Mutex<Vec<Chunk>>>,
    run: JoinHandle<Result<(), Fault>>,
}

impl Rig {
    /// A collector with these keys besides `listen`.
    pub(crate) async fn start(keys: Value) -> Rig {
        let mut config = keys;
        config["listen"] = "127.0.0.1:0".into();
        Rig::with(config).await
    }

    /// A collector with these keys.
    pub(crate) async fn with(config: Value) -> Rig {
        let setting =
            SourceSetting { name: "web".to_owned(), vendor: "local.web".to_owned(), dry_run: false };
        let config = serde_json::from_value(config).unwrap();
        let mut source =
            HttpSource::build(config, &setting).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let stop = CancellationToken::new();
        let (outlet, inlet) = Outlet::new(Budget::new(8 << 20), stop.clone());
        let (_, receiver) = watch::channel(None);
        let report = Report::default();
        let context = SourceContext {
            resume: None,
            outlet,
            committed: Committed::new(receiver),
            stop: stop.clone(),
            abort: CancellationToken::new(),
            report: report.clone(),
            snapshots: Arc::new(NothingToCopy),
            schemas: Arc::new(SchemasInMemory::default()),
        };
        let run = tokio::spawn(async move { source.run(context).await });
        let (pipeline, orders) = watch::channel(Pipeline::Durable);
        let chunks = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(play(inlet, orders, chunks.clone()));
        let address = wait(|| report.details().get("listen").cloned()).await;
        Rig { address, stop, pipeline, chunks, run }
    }

    /// Sends a request, closes that half, and gives all that comes back.
    pub(crate) async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await
    }

    /// A GET of a target.
    pub(crate) async fn get(&self, target: &str) -> String {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")).await
    }

    /// The ids of all events that the pipeline got.
    pub(crate) fn ids(&self) -> Vec<String> {
        let chunks = self.chunks.lock().unwrap();
        chunks.iter().flat_map(|chunk| chunk.events().map(|event| event.id()).collect::<Vec<_>>()).collect()
    }

    /// Waits for the end of the run.
    pub(crate) async fn ended(self) {
        timeout(PATIENCE, self.run).await.expect("it ends").unwrap().unwrap();
    }
}

/// Waits until there is something.
pub(crate) async fn wait<T>(look: impl Fn() -> Option<T>) -> T {
    let until = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, until).await.expect("it comes")
}

/// All that comes until the other side closes.
pub(crate) async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    // A reset after an answer is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The pipeline: marks must ascend, as the stage demands.
async fn play(mut inlet: Inlet, mut orders: watch::Receiver<Pipeline>, chunks: Arc<Mutex<Vec<Chunk>>>) {
    let mut newest = Mark::MIN;
    let mut held: Vec<Claim> = Vec::new();
    let mut streams = BTreeSet::new();
    loop {
        let received = tokio::select! {
            received = inlet.receive() => received,
            changed = orders.changed() => {
                match *orders.borrow_and_update() {
                    Pipeline::Durable => held.drain(..).for_each(|mut claim| claim.fulfil()),
                    Pipeline::Failing => held.clear(),
                    Pipeline::Holding => {}
                }
                if changed.is_err() { inlet.receive().await } else { continue }
            }
        };
        let Some((chunk, mut claim)) = received else { return };
        streams.insert(chunk.stream.epoch);
        assert_eq!(streams.len(), 1, "one run has one stream");
        for row in &chunk.rows {
            assert!(row.mark > newest, "{} after {newest}", row.mark);
            newest = row.mark;
        }
        let events: Vec<_> = chunk.events().collect();
        for (at, event) in events.into_iter().enumerate() {
            serde_json::from_slice::<Value>(event.payload())
                .unwrap_or_else(|error| panic!("{error} in event {at}"));
        }
        chunks.lock().unwrap().push(chunk);
        match *orders.borrow() {
            Pipeline::Durable => claim.fulfil(),
            Pipeline::Holding => held.push(claim),
            Pipeline::Failing => drop(claim),
        }
    }
}
