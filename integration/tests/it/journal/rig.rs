//! Events to deliver to a journal, and its readers driven as the core drives them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use forebay_api::testing::source::{NothingToCopy, SchemasInMemory};
use forebay_api::{
    Batch, Budget, Chunk, Committed, Delivery, Destination, Draft, Fault, Inlet, Journal, JournalConnector,
    JournalSetting, Mark, Op, Outlet, Part, Position, Progress, ReaderSetting, Report, Row, SourceContext,
    Span, Start, StreamId, Subject,
};
use forebay_journal::DiskJournal;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Tells a test that started itself again where it shall work.
pub(crate) const INSIDE: &str = "FOREBAY_TEST_INSIDE";

/// A journal with small segments in a folder.
pub(crate) fn journal(folder: &Path, max_bytes: &str) -> Arc<dyn Journal> {
    let config = serde_json::from_value(json!({"segment": "512KiB", "max_bytes": max_bytes})).unwrap();
    DiskJournal::build(config, &setting(folder)).unwrap()
}

pub(crate) fn setting(folder: &Path) -> JournalSetting {
    JournalSetting {
        source: "conformance".to_owned(),
        instance: "test".to_owned(),
        data_dir: folder.to_owned(),
    }
}

pub(crate) fn stream() -> Arc<StreamId> {
    Arc::new(StreamId { source: "conformance".into(), epoch: 1 })
}

/// One event for each number, which is its mark and stands in its payload, filled up with `size` bytes.
pub(crate) fn batch(numbers: impl IntoIterator<Item = u64>, size: usize) -> Arc<Batch> {
    let mut draft = Draft::default();
    let place = (Some("db"), Some("public"), Some("numbered"));
    let subject =
        draft.subject(&Arc::new(Subject::new(("v", "public.numbered", "1-0-0"), place, String::new())));
    for number in numbers {
        let at = draft.buf.len();
        draft.buf.extend_from_slice(format!("{{\"number\":{number},\"text\":\"").as_bytes());
        draft.buf.resize(draft.buf.len() + size, b'x');
        draft.buf.extend_from_slice(b"\"}");
        let payload = draft.since(at);
        let none = Span::default();
        draft.push(Row {
            mark: Mark { major: (0, number + 1), minor: 0, part: 0 },
            time: 0,
            xid: 0,
            subject,
            op: Op::Insert,
            id: none,
            key: none,
            before: none,
            payload,
            unchanged: none,
            contexts: none,
            extra: none,
        });
    }
    let chunk = draft.finish(&stream(), 1, false);
    Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: Vec::new() })
}

/// Delivers one batch; whether all of it was accepted.
pub(crate) async fn deliver(writer: &Arc<dyn Destination>, batch: &Arc<Batch>) -> Result<(), Fault> {
    let rows = batch.chunk.rows.len();
    let part =
        Part { batch: batch.clone(), rows: (0..u32::try_from(rows).unwrap()).collect(), range: 0..rows };
    let (delivery, back) = Delivery::new([part].into(), 0, Progress::new(rows));
    let answer = writer.deliver(delivery).await;
    let open = back.await.unwrap().open();
    assert_eq!(open, if answer.is_ok() { 0 } else { rows }, "{answer:?}");
    answer
}

/// What is held, as the number of the last event.
pub(crate) async fn held(writer: &Arc<dyn Destination>) -> Result<Option<u64>, Fault> {
    writer.open().await?;
    Ok(writer.held(&stream()).await?.map(|mark| mark.major.1 - 1))
}

/// All that a new reader gets, up to what is durable now.
pub(crate) async fn read_all(journal: &Arc<dyn Journal>, name: &str) -> Vec<Chunk> {
    let until = Some(journal.end().await.unwrap());
    let setting = ReaderSetting { name: name.into(), required: false, start: Start::Oldest, until };
    let chunks = read(journal, setting, None).await.unwrap();
    journal.forget(name).await.unwrap();
    chunks
}

/// All that a reader gets until it ends.
pub(crate) async fn read(
    journal: &Arc<dyn Journal>,
    setting: ReaderSetting,
    resume: Option<Position>,
) -> Result<Vec<Chunk>, Fault> {
    let (mut inlet, _committed, running) = reading(journal, setting, resume);
    let taking = async {
        let mut chunks = Vec::new();
        while let Some((chunk, _)) = inlet.receive().await {
            chunks.push(chunk);
        }
        chunks
    };
    let (ended, mut chunks) = tokio::join!(running, taking);
    chunks.retain(|chunk| !chunk.rows.is_empty());
    ended.map(|()| chunks)
}

/// A run of a reader: what it sends, where it is told what is stored, and the run itself.
pub(crate) fn reading(
    journal: &Arc<dyn Journal>,
    setting: ReaderSetting,
    resume: Option<Position>,
) -> (Inlet, watch::Sender<Option<Position>>, impl Future<Output = Result<(), Fault>> + use<>) {
    let stop = CancellationToken::new();
    let (outlet, inlet) = Outlet::new(Budget::new(16 << 20), stop.clone());
    let (committed, receiver) = watch::channel(resume.clone());
    let context = SourceContext {
        resume,
        outlet,
        committed: Committed::new(receiver),
        stop,
        abort: CancellationToken::new(),
        report: Report::default(),
        snapshots: Arc::new(NothingToCopy),
        schemas: Arc::new(SchemasInMemory::default()),
    };
    let mut source = journal.reader(setting);
    (inlet, committed, async move { source.run(context).await })
}

/// The numbers of all events, in order.
pub(crate) fn numbers(chunks: &[Chunk]) -> Vec<u64> {
    chunks.iter().flat_map(|chunk| chunk.events().map(|event| event.mark().major.1 - 1)).collect()
}

/// Runs a test of `module` again, below `wrapper`: whether it passed, and what it said on stderr.
pub(crate) fn again(module: &str, test: &str, wrapper: &[&str], inside: &str) -> (bool, String) {
    let name = format!("{}::{test}", module.split_once("::").unwrap().1);
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, inside)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("`{}` cannot be started ({error}): apt-get install util-linux strace", wrapper[0])
        });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    (output.status.success() && ran, said)
}
