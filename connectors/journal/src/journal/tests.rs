//! A whole journal: what is delivered to it, and what its readers get.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay_api::units::{ByteSize, Period};
use forebay_api::{Fault, Journal, JournalConnector, Op, Position, ReaderSetting, Since, Start};

use crate::config::{DiskConfig, Full};
use crate::folder::Folder;
use crate::journal::DiskJournal;
use crate::model::setting;
use crate::rig::{Reading, batch, deliver, journal, setting_of, stream, until, write};

/// So large that two entries fill a segment.
const HALF: usize = 9000;

fn small(full: Full) -> DiskConfig {
    DiskConfig { segment: ByteSize::kib(24), max_bytes: ByteSize::kib(120), full, retain: Period::seconds(0) }
}

fn roomy() -> DiskConfig {
    DiskConfig { max_bytes: ByteSize::mib(64), ..small(Full::Block) }
}

fn segments(folder: &Path) -> usize {
    Folder::of(&setting(folder)).bases().unwrap().len()
}

fn oldest(name: &str) -> ReaderSetting {
    setting_of(name, true, Start::Oldest)
}

/// Writes until the journal refuses; the first number that it did not take.
async fn fill(journal: &Arc<dyn Journal>, from: u64) -> (u64, Fault) {
    for number in from.. {
        if let Err(fault) = write(journal, number..number + 1, HALF).await {
            return (number, fault);
        }
    }
    unreachable!("a journal has a limit")
}

#[tokio::test]
async fn readers_get_all_that_was_delivered_each_from_its_own_position() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), roomy());
    write(&journal, 1..11, HALF).await.unwrap();
    let mut early = Reading::start(&journal, oldest("early"), None);
    assert_eq!(early.numbers(4).await, [1, 2, 3, 4]);
    let resume = early.position.clone();
    let mut late = Reading::start(&journal, setting_of("late", true, Start::Newest), None);
    late.placed().await;
    write(&journal, 11..13, 5).await.unwrap();
    assert_eq!(early.numbers(8).await, (5..13).collect::<Vec<_>>());
    assert_eq!(late.numbers(2).await, [11, 12]);
    early.stop().await.unwrap();
    let mut early = Reading::start(&journal, oldest("early"), resume);
    assert_eq!(early.numbers(8).await, (5..13).collect::<Vec<_>>());
    late.stop().await.unwrap();
    early.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_instance_holds_what_the_old_one_stored_and_a_reader_keeps_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let first = journal(folder.path(), roomy());
    let mut newest = Reading::start(&first, setting_of("lake", true, Start::Newest), None);
    newest.placed().await;
    write(&first, 1..4, 10).await.unwrap();
    // Killed before its position was ever stored.
    newest.stop().await.unwrap();
    first.writer().close().await.unwrap();
    drop(first);
    let second = journal(folder.path(), roomy());
    let held = second.writer().held(&stream(1)).await.unwrap();
    assert_eq!(held.map(|mark| mark.major.1), Some(3));
    let mut newest = Reading::start(&second, setting_of("lake", true, Start::Newest), None);
    assert_eq!(newest.numbers(3).await, [1, 2, 3]);
    newest.stop().await.unwrap();
}

#[tokio::test]
async fn a_schema_that_is_announced_again_is_stored_and_moves_no_mark() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), roomy());
    let writer = journal.writer();
    write(&journal, 5..6, 10).await.unwrap();
    deliver(&writer, &batch(&stream(1), [3], 10, Op::Schema)).await.unwrap();
    assert_eq!(writer.held(&stream(1)).await.unwrap().map(|mark| mark.major.1), Some(5));
    let fault = deliver(&writer, &batch(&stream(1), [5], 10, Op::Insert)).await.unwrap_err();
    assert!(!fault.is_retryable() && fault.to_string().contains("mark 0:0000000000000005:0 came"), "{fault}");
    let mut reading = Reading::start(&journal, oldest("lake"), None);
    assert_eq!(reading.numbers(2).await, [5, 3]);
}

#[tokio::test]
async fn a_reader_ends_with_success_where_it_was_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), roomy());
    write(&journal, 1..6, HALF).await.unwrap();
    let until = journal.end().await.unwrap();
    write(&journal, 6..9, HALF).await.unwrap();
    let mut replay = Reading::start(&journal, ReaderSetting { until: Some(until), ..oldest("replay") }, None);
    assert_eq!(replay.numbers(99).await, [1, 2, 3, 4, 5]);
    replay.ended().await.unwrap();
}

#[tokio::test]
async fn a_time_and_a_log_position_are_found_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), roomy());
    write(&journal, 1..20, HALF).await.unwrap();
    for (since, first) in [
        (Since::Oldest, 1),
        (Since::Time(0), 1),
        (Since::Time(11_000_000), 11),
        (Since::Time(10_000_001), 11),
        (Since::Major(7), 7),
        (Since::Major(19), 19),
    ] {
        let at = journal.locate(&since).await.unwrap();
        let name = format!("{since:?}");
        let mut reading = Reading::start(&journal, setting_of(&name, true, Start::At(at)), None);
        assert_eq!(reading.numbers(1).await, [first], "{since:?}");
        reading.stop().await.unwrap();
    }
    assert_eq!(journal.locate(&Since::Time(i64::MAX)).await.unwrap(), journal.end().await.unwrap());
}

#[tokio::test]
async fn what_every_reader_has_stored_is_deleted_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), roomy());
    write(&journal, 1..11, HALF).await.unwrap();
    assert_eq!(segments(folder.path()), 5);
    let (mut fast, mut slow) =
        (Reading::start(&journal, oldest("fast"), None), Reading::start(&journal, oldest("slow"), None));
    // Whoever has no place yet holds nothing.
    slow.placed().await;
    assert_eq!(fast.numbers(10).await.len(), 10);
    fast.commit();
    assert_eq!(slow.numbers(4).await.len(), 4);
    slow.commit();
    until("two segments are deleted", || segments(folder.path()) == 3).await;
    let inside = Folder::of(&setting(folder.path()));
    let written = crate::readers::Readers::load(&inside).unwrap().lowest();
    assert!(written >= inside.bases().unwrap().first().copied(), "places are written down before files go");
    assert_eq!(slow.numbers(6).await, [5, 6, 7, 8, 9, 10]);
    let place = |name: &str| {
        journal.status().readers.into_iter().find(|reader| reader.name == name).unwrap().behind.unwrap()
    };
    until("the fast one is known to be at the end", || place("fast") == 0).await;
    assert!(place("slow") > 0, "what is not stored does not count");
    // One that is taken out of the configuration keeps its place until it is forgotten.
    slow.stop().await.unwrap();
    fast.stop().await.unwrap();
    journal.forget("slow").await.unwrap();
    assert_eq!(segments(folder.path()), 1);
    journal.forget("slow").await.unwrap();
    assert!(journal.forget("fast").await.is_ok() && journal.status().readers.is_empty());
}

/// Destinations start at the same time: a fast one must not have deleted what a slow one has not begun to read.
#[tokio::test]
async fn a_reader_that_was_built_has_its_place_before_the_journal_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), roomy());
    let _late = journal.reader(setting_of("late", true, Start::Newest));
    let mut fast = Reading::start(&journal, oldest("fast"), None);
    write(&journal, 1..9, HALF).await.unwrap();
    assert_eq!(fast.numbers(8).await.len(), 8);
    fast.commit();
    until("it is stored", || journal.status().readers[0].behind == Some(0)).await;
    let mut late = Reading::start(&journal, setting_of("late", true, Start::Newest), None);
    assert_eq!(late.numbers(8).await.len(), 8);
}

#[tokio::test]
async fn a_journal_that_nobody_reads_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), small(Full::Park));
    let (_, fault) = fill(&journal, 1).await;
    assert!(fault.is_retryable() && fault.to_string().contains("it is full, and nobody reads it"), "{fault}");
    let mut reading = Reading::start(&journal, oldest("lake"), None);
    assert_eq!(reading.numbers(2).await, [1, 2]);
}

#[tokio::test]
async fn what_was_read_is_kept_for_replays_but_not_beyond_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let config = DiskConfig { retain: Period::seconds(3600), ..small(Full::Block) };
    let journal = journal(folder.path(), config);
    let mut reading = Reading::start(&journal, oldest("lake"), None);
    reading.placed().await;
    let writer = journal.writer();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    writer.held(&stream(1)).await.unwrap();
    for number in 1..40 {
        let mut batch = Arc::into_inner(batch(&stream(1), [number], HALF, Op::Insert)).unwrap();
        batch.chunk.received = i64::try_from(now.as_micros()).unwrap();
        deliver(&writer, &Arc::new(batch)).await.unwrap();
        assert_eq!(reading.numbers(1).await, [number]);
        reading.commit();
        until("it is stored", || journal.status().readers[0].behind == Some(0)).await;
        if number == 5 {
            assert_eq!(segments(folder.path()), 3, "all is kept while there is room");
        }
    }
    assert_eq!(segments(folder.path()), 4);
    assert!(journal.status().bytes <= Some(config.max_bytes.get()));
}

/// Received times come from a clock that may jump; they only decide how long what was read is kept.
#[tokio::test]
async fn a_clock_that_jumps_deletes_nothing_that_was_not_read_and_keeps_nothing_beyond_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let config = DiskConfig { retain: Period::seconds(3600), ..small(Full::Block) };
    let journal = journal(folder.path(), config);
    let mut reading = Reading::start(&journal, oldest("lake"), None);
    reading.placed().await;
    let writer = journal.writer();
    writer.held(&stream(1)).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_micros()).unwrap();
    const YEAR: i64 = 365 * 86_400_000_000;
    // Long ago, then in the future, then now again.
    for (number, received) in [(1, 0), (2, 0), (3, 0), (4, now + YEAR), (5, now), (6, now), (7, now)] {
        let mut batch = Arc::into_inner(batch(&stream(1), [number], HALF, Op::Insert)).unwrap();
        batch.chunk.received = received;
        deliver(&writer, &Arc::new(batch)).await.unwrap();
    }
    assert_eq!(segments(folder.path()), 4, "what is old but not read stays");
    assert_eq!(reading.numbers(7).await, [1, 2, 3, 4, 5, 6, 7]);
    reading.commit();
    // The first segment is old and read; times never fall, so the others wait for the one from the future.
    until("the old one is deleted", || segments(folder.path()) == 3).await;
    for number in 8..20 {
        write(&journal, number..number + 1, HALF).await.unwrap();
        assert_eq!(reading.numbers(1).await, [number]);
        reading.commit();
        until("it is stored", || journal.status().readers[0].behind == Some(0)).await;
    }
    assert!(journal.status().bytes <= Some(config.max_bytes.get()));
}

#[tokio::test]
async fn a_full_journal_blocks_until_the_slowest_reader_has_stored_more() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), small(Full::Block));
    let mut reading = Reading::start(&journal, oldest("lake"), None);
    reading.placed().await;
    let (refused, fault) = fill(&journal, 1).await;
    assert!(
        fault.is_retryable() && fault.to_string().contains("full of what `lake` has not read"),
        "{fault}"
    );
    assert!(fault.remedy().unwrap().contains("max_bytes"));
    let status = journal.status();
    assert!(status.trouble.unwrap().contains("it is full") && status.bytes <= status.max_bytes);
    let read = usize::try_from(refused - 1).unwrap();
    assert_eq!(reading.numbers(read).await.len(), read);
    assert!(write(&journal, refused..refused + 1, HALF).await.is_err(), "read is not stored");
    reading.commit();
    until("it is stored", || journal.status().readers[0].behind == Some(0)).await;
    write(&journal, refused..refused + 1, HALF).await.unwrap();
    assert_eq!(journal.status().trouble, None);
    assert_eq!(reading.numbers(1).await, [refused]);
}

#[tokio::test]
async fn a_slow_reader_that_is_not_required_is_cut_off_and_can_be_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), small(Full::Park));
    let mut lake = Reading::start(&journal, oldest("lake"), None);
    let optional = setting_of("search", false, Start::Oldest);
    let mut search = Reading::start(&journal, optional.clone(), None);
    search.placed().await;
    write(&journal, 1..3, HALF).await.unwrap();
    assert_eq!(search.numbers(1).await, [1]);
    search.commit();
    let stored = search.position.clone();
    for number in 3..30 {
        write(&journal, number..number + 1, HALF).await.unwrap();
        lake.numbers(if number == 3 { 3 } else { 1 }).await;
        lake.commit();
        until("it is stored", || journal.status().readers[0].behind == Some(0)).await;
    }
    let parked = journal.status().readers.into_iter().find(|reader| reader.name == "search").unwrap();
    assert!(parked.parked);
    let fault = search.ended().await.unwrap_err();
    assert!(!fault.is_retryable() && fault.remedy().unwrap().contains("journal forget"), "{fault}");
    let fault = Reading::start(&journal, optional.clone(), stored.clone()).ended().await.unwrap_err();
    assert!(fault.to_string().contains("cut off"), "{fault}");
    journal.forget("search").await.unwrap();
    let fault = Reading::start(&journal, optional.clone(), stored).ended().await.unwrap_err();
    assert!(fault.to_string().contains("was deleted"), "a stored position is never moved: {fault}");
    let mut search = Reading::start(&journal, optional, None);
    assert!(search.numbers(1).await[0] > 1);
}

#[tokio::test]
async fn a_required_reader_is_never_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), small(Full::Park));
    let mut lake = Reading::start(&journal, oldest("lake"), None);
    let mut search = Reading::start(&journal, setting_of("search", false, Start::Oldest), None);
    lake.placed().await;
    search.placed().await;
    let (refused, fault) = fill(&journal, 1).await;
    assert!(fault.to_string().contains("full"), "{fault}");
    assert!(journal.status().readers.iter().all(|reader| !reader.parked));
    let all = usize::try_from(refused - 1).unwrap();
    assert_eq!(lake.numbers(all).await.len(), all);
}

#[tokio::test]
async fn an_entry_larger_than_a_segment_passes_even_one_larger_than_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), small(Full::Block));
    let mut reading = Reading::start(&journal, oldest("lake"), None);
    reading.placed().await;
    for (number, size) in [(1, 10), (2, 60_000), (3, 10), (4, 300_000), (5, 10), (6, 300_000), (7, 10)] {
        let mut attempts = 0;
        while let Err(fault) = write(&journal, number..number + 1, size).await {
            assert!(fault.is_retryable() && attempts < 100, "{number}: {fault}");
            attempts += 1;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let chunk = reading.next().await.unwrap();
        assert_eq!(chunk.rows[0].mark.major.1, number);
        assert!(chunk.rows[0].payload.len as usize > size);
        reading.commit();
        until("it is stored", || journal.status().readers[0].behind == Some(0)).await;
    }
}

#[tokio::test]
async fn a_position_of_another_journal_or_past_the_end_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (journal(folder.path(), roomy()), journal(other.path(), roomy()));
    write(&ours, 1..3, 10).await.unwrap();
    let end = ours.end().await.unwrap();
    let elsewhere = theirs.end().await.unwrap();
    let past = String::from_utf8(end.0.to_vec()).unwrap().replace("\"at\":", "\"at\":9");
    let inside = String::from_utf8(end.0.to_vec()).unwrap().replace("\"at\":", "\"at\":1,\"was\":");
    for (position, why) in [
        (elsewhere, "is of the journal"),
        (Position(past.into_bytes().into()), "past the end"),
        (Position(inside.into_bytes().into()), "not one of a journal on disk"),
    ] {
        let fault = Reading::start(&ours, oldest("lake"), Some(position)).ended().await.unwrap_err();
        assert!(!fault.is_retryable() && fault.remedy().is_some(), "{fault}");
        assert!(fault.to_string().contains(why), "{fault}");
    }
    assert!(ours.status().readers.is_empty(), "what is refused gets no place");
}

#[tokio::test]
async fn what_would_be_left_behind_is_told_without_opening_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let setting = setting(folder.path());
    assert_eq!(DiskJournal::left_behind(&setting, &BTreeMap::new()).unwrap(), None);
    let journal = journal(folder.path(), roomy());
    let mut lake = Reading::start(&journal, oldest("lake"), None);
    lake.placed().await;
    write(&journal, 1..3, 10).await.unwrap();
    lake.numbers(2).await;
    lake.stop().await.unwrap();
    journal.writer().close().await.unwrap();
    let told = DiskJournal::left_behind(&setting, &BTreeMap::new()).unwrap().unwrap();
    assert!(told.contains("`lake` ("), "{told}");
}

#[tokio::test]
async fn damage_is_an_error_for_the_operator_until_it_is_put_aside() {
    use std::os::unix::fs::FileExt;

    let folder = tempfile::tempdir().unwrap();
    let first = journal(folder.path(), roomy());
    let mut lake = Reading::start(&first, oldest("lake"), None);
    write(&first, 1..9, HALF).await.unwrap();
    let mut positions = Vec::new();
    for _ in 0..8 {
        lake.numbers(1).await;
        positions.push(lake.position.clone());
    }
    lake.stop().await.unwrap();
    let file = Folder::of(&setting(folder.path())).file(&crate::segment::Segment::name(0));
    let open = std::fs::File::options().write(true).open(&file).unwrap();
    open.write_all_at(b"?????", 4096 + 10).unwrap();
    open.write_all_at(b"?????", 4096 + 9999).unwrap();
    let mut search = Reading::start(&first, oldest("search"), None);
    let fault = search.ended().await.unwrap_err();
    assert!(fault.to_string().contains("from address 0 to"), "{fault}");
    assert!(fault.remedy().unwrap().contains("journal salvage shop"));
    first.writer().close().await.unwrap();
    drop((first, search));

    let gaps = crate::salvage(&setting(folder.path())).unwrap();
    assert_eq!(gaps.len(), 1);
    let second = journal(folder.path(), roomy());
    // A position that was stored inside of what is a gap now, and one before it.
    for resume in [positions[0].clone(), None] {
        let mut search = Reading::start(&second, oldest("search"), resume);
        assert_eq!(search.numbers(6).await, [3, 4, 5, 6, 7, 8]);
        search.stop().await.unwrap();
    }
}
