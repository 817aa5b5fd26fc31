//! The letters in their files: what is there after a crash at any byte, after any sequence of commands, and what comes
//! out of a letter again.

use std::fs;

use forebay_api::{
    Batch, Draft, Encoded, Invalid, InvalidDetail, Mark, Op, Rejection, Row, Span, StreamId, Subject, Verdict,
};
use proptest::prelude::*;

use super::*;

fn letters(folder: &Path, max_bytes: u64) -> Arc<DeadLetters> {
    Arc::new(DeadLetters::new(folder, "lake", max_bytes, DeadLetterFigures::default()))
}

/// The event of row `key` at `lsn`, with every part that an event can have.
fn batch(lsn: u64, key: Option<&str>, id: Option<&str>, verdict: Verdict) -> Batch {
    let mut draft = Draft::default();
    let place = (Some("d"), Some("public"), Some("orders"));
    let source = r#""type":"postgres","name":"shop""#.to_owned();
    let subject = draft.subject(&Arc::new(Subject::new(("v", "public.orders", "1-0-2"), place, source)));
    let mut part = |text: &str| {
        let start = draft.buf.len();
        draft.buf.extend_from_slice(text.as_bytes());
        draft.since(start)
    };
    let row = Row {
        mark: Mark { major: (1, lsn), minor: 2, part: 3 },
        time: 1_795_372_440_123_456,
        xid: 77,
        subject,
        op: Op::Update,
        id: id.map_or(Span::default(), &mut part),
        key: key.map_or(Span::default(), &mut part),
        before: part(r#"{"n": 1.10}"#),
        payload: part(r#"{"n":1.100,"é":"\u0000","big":123456789012345678901234567890}"#),
        unchanged: part(r#"["text"]"#),
        contexts: Span::default(),
        extra: part(&format!(r#""lsn":"0/{lsn:X}","xid":77"#)),
    };
    draft.push(row);
    let stream = Arc::new(StreamId { source: "shop".into(), epoch: 0xfeed_0000_0000_0001 });
    let body = format!(r#"{{"n" : 1.100, "lsn":{lsn}}}"#).into_bytes();
    let end = u32::try_from(body.len()).unwrap();
    Batch {
        chunk: draft.finish(&stream, 1_795_372_441_000_001, false),
        verdicts: vec![verdict],
        encoded: vec![Encoded::new(body, vec![end])],
    }
}

fn letter_of(batch: &Batch) -> Letter {
    let why = Rejection { reason: "too_large".into(), chain: vec!["9 bytes".into(), "limit \"8\"".into()] };
    Letter::new("lake", batch.record(0, 0), why, 1, 0).unwrap()
}

/// A letter of the row `key`.
fn letter(lsn: u64, key: &str) -> Letter {
    letter_of(&batch(lsn, Some(key), None, Verdict::Valid))
}

async fn stored(letters: &Arc<DeadLetters>, all: Vec<Letter>) {
    assert!(matches!(letters.store(all).await.unwrap(), Buried::Stored));
}

/// The ids of the open letters, as a reader beside the daemon sees them.
fn open(folder: &Path) -> Vec<String> {
    let shown = Shown::of(folder, "lake", &Selection::default(), usize::MAX).unwrap();
    shown.letters.into_iter().map(|letter| letter.id).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder.join("dead_letters/lake")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_record_comes_out_of_its_letter_as_it_went_in() {
    let detail = InvalidDetail { path: "/n".into(), keyword: "/type".into(), message: "string".into() };
    let invalid = Verdict::Invalid(Box::new(Invalid {
        kind: "invalid_payload".into(),
        message: "no".into(),
        resolution: Some("yes".into()),
        details: vec![detail],
    }));
    for (key, id, verdict) in
        [(Some(r#"{"id": 7}"#), None, Verdict::Valid), (None, Some("5f0c-é"), invalid.clone())]
    {
        let before = batch(0x16B_3748, key, id, verdict);
        let mut line = Vec::new();
        letter_of(&before).write(&mut line);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let letter: Letter = serde_json::from_slice(&line).unwrap();
        let replay = Arc::new(StreamId { source: "shop".into(), epoch: 9 });
        let mark = Mark { major: (0, 1), minor: 0, part: 0 };
        let after = letter.batch(&replay, mark).unwrap();
        let (one, other) = (before.record(0, 0), after.record(0, 0));
        assert_eq!(one.body(), other.body());
        assert_eq!(one.verdict(), other.verdict());
        let (one, other) = (one.event(), other.event());
        assert_eq!(one.id(), other.id());
        assert_eq!(one.subject(), other.subject());
        assert_eq!(
            (one.op(), one.received(), one.row().time),
            (other.op(), other.received(), other.row().time)
        );
        assert_eq!((one.row().xid, other.mark(), other.stream()), (other.row().xid, mark, &replay));
        assert_eq!((one.key(), one.before(), one.payload()), (other.key(), other.before(), other.payload()));
        assert_eq!(
            (one.unchanged(), one.contexts(), one.extra()),
            (other.unchanged(), other.contexts(), other.extra())
        );
        let partition_key = |event: forebay_api::Event<'_>| {
            let mut out = Vec::new();
            event.write_partition_key(&mut out);
            out
        };
        assert_eq!(partition_key(one), partition_key(other));
        assert_eq!(letter.stream().unwrap(), **one.stream());
    }
}

#[test]
fn a_record_that_is_no_json_is_an_error_and_never_half_a_line() {
    let mut broken = batch(1, None, None, Verdict::Valid);
    broken.encoded = vec![Encoded::new(b"{\"a\":".to_vec(), vec![5])];
    let why = Rejection { reason: "refused".into(), chain: Vec::new() };
    let error = Letter::new("lake", broken.record(0, 0), why, 1, 0).unwrap_err();
    assert!(error.to_string().contains("record of event"), "{error}");
}

#[tokio::test]
async fn a_record_refused_again_after_a_restart_has_one_letter() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = [(1, "1"), (2, "2"), (3, "3")].map(|(lsn, key)| letter(lsn, key));
    for pair in [[a.clone(), b.clone()], [b.clone(), c.clone()]] {
        stored(&letters(folder.path(), 1 << 20), pair.to_vec()).await;
    }
    assert_eq!(open(folder.path()), [a.id, b.id, c.id]);
    let first = fs::read_to_string(&files(folder.path())[0]).unwrap();
    let line: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(line["chain"][1], "limit \"8\"");
    assert_eq!(line["record"]["lsn"], 1);
}

#[tokio::test]
async fn letters_beyond_the_cap_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut line = Vec::new();
    letter(1, "1").write(&mut line);
    let letters = letters(folder.path(), line.len() as u64 + 10);
    stored(&letters, vec![letter(1, "1")]).await;
    let full = letters.store(vec![letter(2, "2"), letter(3, "3")]).await.unwrap();
    let Buried::Full { fault } = full else { panic!("they are stored") };
    assert!(fault.remedy().unwrap().contains("forebay dlq replay lake"), "{fault}");
    assert_eq!(open(folder.path()).len(), 1);
    stored(&letters, vec![letter(1, "1")]).await;
    // what is settled makes room, also at the cap
    assert_eq!(letters.settle(vec![letter(1, "1").id], How::Dropped).await.unwrap(), 1);
    stored(&letters, vec![letter(2, "2")]).await;
    assert_eq!(open(folder.path()), [letter(2, "2").id]);
}

#[tokio::test]
async fn an_unwritable_folder_is_a_fault_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dead_letters"), "a file").unwrap();
    let letters = letters(folder.path(), 1 << 20);
    assert!(letters.store(vec![letter(1, "1")]).await.unwrap_err().remedy().is_some());
}

#[tokio::test]
async fn what_is_settled_stays_settled_and_may_be_refused_anew() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = [letter(1, "1"), letter(2, "2")];
    let first = letters(folder.path(), 1 << 20);
    stored(&first, vec![a.clone(), b.clone()]).await;
    assert_eq!(first.settle(vec![a.id.clone(), "nobody".into()], How::Replayed).await.unwrap(), 1);
    assert_eq!((first.size().0, first.figures.replayed.get()), (1, 1));
    let second = letters(folder.path(), 1 << 20);
    second.load().await.unwrap();
    assert_eq!((second.size().0, open(folder.path())), (1, vec![b.id.clone()]));
    stored(&second, vec![a.clone()]).await;
    assert_eq!(open(folder.path()), [b.id, a.id]);
}

#[tokio::test]
async fn files_in_which_everything_is_settled_are_removed_and_nothing_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = [letter(1, "1"), letter(2, "2"), letter(3, "3")];
    // each process begins a file of its own
    for letter in [&a, &b, &c] {
        stored(&letters(folder.path(), 1 << 20), vec![letter.clone()]).await;
    }
    assert_eq!(files(folder.path()).len(), 3);
    let again = letters(folder.path(), 1 << 20);
    assert_eq!(again.settle(vec![b.id.clone()], How::Dropped).await.unwrap(), 1);
    assert_eq!(open(folder.path()), [a.id.clone(), c.id.clone()]);
    // the file that settles `b` may not go before that of `b`, which has gone already
    assert_eq!(again.settle(vec![c.id.clone()], How::Dropped).await.unwrap(), 1);
    assert_eq!(open(folder.path()), [a.id.as_str()]);
    assert_eq!(again.settle(vec![a.id], How::Dropped).await.unwrap(), 1);
    assert!(files(folder.path()).is_empty());
    assert_eq!(again.size(), (0, 0));
    stored(&again, vec![letter(4, "4")]).await;
    assert_eq!(open(folder.path()), [letter(4, "4").id]);
}

#[tokio::test]
async fn a_letter_that_is_refused_again_has_more_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let first = letters(folder.path(), 1 << 20);
    stored(&first, vec![letter(1, "1")]).await;
    let why = Rejection { reason: "refused".into(), chain: vec!["still".into()] };
    first.refused_again(vec![RefusedAgain { letter: letter(1, "1"), why }]).await.unwrap();
    let shown = Shown::of(folder.path(), "lake", &Selection::default(), 1).unwrap();
    assert_eq!(shown.letters[0].attempts, 2);
    let second = letters(folder.path(), 1 << 20);
    let id = letter(1, "1").id;
    let read = second.with_files("reading", move |files| files.read(&lines::id_digest(&id))).await.unwrap();
    assert_eq!(read.unwrap().attempts, 2);
}

#[tokio::test]
async fn letters_of_the_first_version_are_shown_and_deduplicated_and_not_replayed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("dead_letters/lake")).unwrap();
    let old = r#"{"id":"shop:1","time":"2026-11-23T06:00:00.000000Z","destination":"lake","reason":"too_large","chain":["x"],"attempts":1,"record":{"n":1.10}}"#;
    fs::write(folder.path().join("dead_letters/lake/000001.ndjson"), format!("{old}\n")).unwrap();
    let report = Report::of(folder.path(), "lake").unwrap();
    assert_eq!((report.letters, report.not_replayable), (1, 1));
    let letters = letters(folder.path(), 1 << 20);
    let progress = letters.begin_replay(Selection::default(), None).await.unwrap();
    assert_eq!((progress.left, progress.ended), (1, true));
    assert!(progress.why.iter().next().unwrap().contains("do not say how to deliver them again"));
    assert_eq!(letters.drop_selected(Selection::default()).await.unwrap(), 1);
    assert!(open(folder.path()).is_empty());
}

#[tokio::test]
async fn each_source_has_its_part_and_what_nobody_delivers_is_left_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let letters = letters(folder.path(), 1 << 20);
    let from = |source: &str| {
        let mut batch = batch(1, Some("7"), None, Verdict::Valid);
        batch.chunk.stream = Arc::new(StreamId { source: source.into(), epoch: 1 });
        letter_of(&batch)
    };
    stored(&letters, vec![from("shop"), from("gone"), from("billing")]).await;
    let lanes = ["shop", "billing"].map(str::to_owned);
    let begun = letters.begin_replay(Selection::default(), Some(&lanes)).await.unwrap();
    assert_eq!((begun.selected, begun.left, begun.ended), (3, 1, false));
    assert!(begun.why.iter().next().unwrap().contains("source `gone`"), "{begun:?}");
    assert_eq!(letters.replay_progress().unwrap().waiting, ["billing", "shop"]);
    assert!(letters.take_part("gone").is_none());
    letters.take_part("shop").unwrap().refuse("no");
    assert!(letters.take_part("shop").is_none(), "a part is taken once");
    assert!(!letters.replay_progress().unwrap().ended);
    drop(letters.take_part("billing"));
    let ended = letters.replay_progress().unwrap();
    assert_eq!((ended.left, ended.ended), (3, true));
    assert!(ended.why.contains("no"), "{ended:?}");
}

#[tokio::test]
async fn a_damaged_line_is_an_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    stored(&letters(folder.path(), 1 << 20), vec![letter(1, "1"), letter(2, "2")]).await;
    let file = &files(folder.path())[0];
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replacen("\"id\"", "\"di\"", 1)).unwrap();
    let fault = letters(folder.path(), 1 << 20).load().await.unwrap_err();
    assert!(!fault.is_retryable() && fault.to_string().contains("line 1 of"), "{fault}");
    assert!(Report::of(folder.path(), "lake").is_err());
}

#[test]
fn a_selection_means_what_it_says() {
    let letter = letter(1, r#"{"id":7}"#);
    let by = |key: &str| Selection { key: Some(key.into()), ..Selection::default() };
    assert!(Selection::default().takes(&letter) && Selection::default().is_all());
    for key in [r#"{"id":7}"#, r#"{ "id": 7 }"#, r#"public.orders {"id":7}"#] {
        assert!(by(key).takes(&letter), "{key}");
    }
    assert!(!by("7").takes(&letter) && !by("public.orders").takes(&letter));
    let reason = |reason: &str| Selection { reason: Some(reason.into()), ..by(r#"{"id":7}"#) };
    assert!(reason("too_large").takes(&letter) && !reason("refused").takes(&letter));
    assert!(!Selection { id: vec!["x".into()], ..Selection::default() }.takes(&letter));
}

/// What is done to the letters.
#[derive(Clone, Debug)]
enum Act {
    Store(Vec<u64>),
    Settle(Vec<u64>),
    Retry(u64),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let some = || prop::collection::vec(0u64..12, 1..4);
    let act = prop_oneof![
        3 => some().prop_map(Act::Store),
        3 => some().prop_map(Act::Settle),
        1 => (0u64..12).prop_map(Act::Retry),
        2 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..24)
}

/// Every file that there is, to be put back.
fn image(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

async fn perform(folder: &Path, acts: &[Act]) -> Vec<String> {
    let (mut kept, mut model) = (letters(folder, 1 << 24), Vec::<String>::new());
    for act in acts {
        match act {
            Act::Store(numbers) => {
                let all: Vec<Letter> = numbers.iter().map(|n| letter(*n, &n.to_string())).collect();
                for letter in &all {
                    if !model.contains(&letter.id) {
                        model.push(letter.id.clone());
                    }
                }
                stored(&kept, all).await;
            }
            Act::Settle(numbers) => {
                let ids: Vec<String> = numbers.iter().map(|n| letter(*n, &n.to_string()).id).collect();
                model.retain(|id| !ids.contains(id));
                kept.settle(ids, How::Dropped).await.unwrap();
            }
            Act::Retry(n) => {
                let why = Rejection { reason: "refused".into(), chain: Vec::new() };
                let again = RefusedAgain { letter: letter(*n, &n.to_string()), why };
                kept.refused_again(vec![again]).await.unwrap();
            }
            Act::Restart => kept = letters(folder, 1 << 24),
        }
        assert_eq!(kept.size().0, if matches!(act, Act::Restart) { 0 } else { model.len() as u64 });
        assert_eq!(open(folder), model, "{acts:?}");
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_of_commands_and_restarts_leaves_what_is_not_settled_in_its_order(acts in acts()) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("dead_letters/lake")).unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(perform(folder.path(), &acts));
    }
}

#[tokio::test]
async fn a_crash_at_any_byte_of_a_line_leaves_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let first = letters(folder.path(), 1 << 20);
    let [a, b] = [letter(1, "1"), letter(2, "2")];
    stored(&first, vec![a.clone()]).await;
    let before = image(folder.path());
    for torn_is_a_settlement in [false, true] {
        let kept = letters(folder.path(), 1 << 20);
        let (path, whole) = if torn_is_a_settlement {
            stored(&kept, vec![b.clone()]).await;
            kept.settle(vec![a.id.clone()], How::Dropped).await.unwrap();
            // the settled letter's own file is gone: put the image from before the crash back
            before.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
            let path = files(folder.path()).pop().unwrap();
            (path.clone(), fs::read(path).unwrap())
        } else {
            stored(&kept, vec![b.clone()]).await;
            let path = files(folder.path()).pop().unwrap();
            (path.clone(), fs::read(path).unwrap())
        };
        let last_line =
            whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for cut in last_line..whole.len() {
            before.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
            fs::write(&path, &whole[..cut]).unwrap();
            let seen = open(folder.path());
            let again = letters(folder.path(), 1 << 20);
            again.load().await.unwrap();
            let expected: &[&String] = if torn_is_a_settlement { &[&a.id, &b.id] } else { &[&a.id] };
            assert_eq!(seen.iter().collect::<Vec<_>>(), expected, "cut at {cut}");
            assert_eq!((open(folder.path()), again.size().0), (seen, expected.len() as u64), "cut at {cut}");
            assert!(
                path.metadata().map_or(0, |file| file.len()) <= last_line as u64,
                "the torn line is still there"
            );
        }
        fs::remove_file(&path).ok();
    }
}

#[tokio::test]
async fn keys_are_blocked_from_the_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    stored(&letters(folder.path(), 1 << 20), vec![letter(5, "1")]).await;
    let waiting = |lsn, key| Waiting::of(batch(lsn, Some(key), None, Verdict::Valid).record(0, 0).event());
    let events = vec![waiting(6, "1"), waiting(4, "1"), waiting(6, "2")];
    let kept = letters(folder.path(), 1 << 20);
    assert_eq!(kept.blocked(events.clone()).await.unwrap(), [true, false, false]);
    kept.settle(vec![letter(5, "1").id], How::Replayed).await.unwrap();
    assert_eq!(kept.blocked(events).await.unwrap(), [false, false, false]);
}
