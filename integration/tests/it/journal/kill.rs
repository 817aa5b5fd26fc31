//! A process dies at every step of the journal whose order the promises depend on, and another one goes on.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use forebay_api::{ReaderSetting, Start};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::rig::{INSIDE, again, batch, deliver, held, journal, numbers, read_all, reading};
use crate::chaos::steps::JOURNAL;

/// So many numbers are written in one life at most.
const LIFE: u64 = 400;

/// What a life writes down of what it was told, so that the next one can hold it against the journal.
fn note(folder: &Path, what: &str, number: u64) {
    let mut file = File::options().append(true).create(true).open(folder.join(what)).unwrap();
    writeln!(file, "{number}").unwrap();
}

fn noted(folder: &Path, what: &str) -> Vec<u64> {
    let mut text = String::new();
    if let Ok(mut file) = File::open(folder.join(what)) {
        file.read_to_string(&mut text).unwrap();
    }
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Writes numbers, and reads and stores them, until it dies or has done enough.
async fn live(folder: &Path) {
    let journal = journal(folder, "3MiB");
    let setting = ReaderSetting { name: "lake".into(), required: true, start: Start::Oldest, until: None };
    let stored = fs::read(folder.join("position")).ok().map(|text| forebay_api::Position(text.into()));
    let (mut inlet, committed, reader) = reading(&journal, setting, stored);
    let writing = async {
        let writer = journal.writer();
        let mut next = held(&writer).await.unwrap().map_or(0, |held| held + 1);
        let end = next + LIFE;
        while next < end {
            match deliver(&writer, &batch([next], 9000)).await {
                Ok(()) => {
                    note(folder, "accepted", next);
                    next += 1;
                }
                // Full: the reader makes room.
                Err(fault) => {
                    assert!(fault.is_retryable(), "{fault}");
                    tokio::task::yield_now().await;
                    next = held(&writer).await.unwrap().map_or(0, |held| held + 1);
                }
            }
        }
        end
    };
    let taking = async {
        loop {
            let (chunk, claim) = inlet.receive().await.expect("the reader goes on");
            for event in chunk.events() {
                note(folder, "read", event.mark().major.1 - 1);
            }
            if let Some(position) = claim.position.clone() {
                // As the checkpoint does: stored first, then told.
                fs::write(folder.join("position.tmp"), &position.0).unwrap();
                fs::rename(folder.join("position.tmp"), folder.join("position")).unwrap();
                committed.send_replace(Some(position));
            }
        }
    };
    tokio::select! {
        _ = writing => {}
        _ = taking => {}
        ended = reader => panic!("the reader ended: {ended:?}"),
    }
    journal.writer().close().await.unwrap();
}

/// What was accepted is held and was read or can be, in order, without a hole.
async fn judge(folder: &Path) {
    let journal = journal(folder, "3MiB");
    let held = held(&journal.writer()).await.unwrap();
    let accepted = noted(folder, "accepted");
    assert!(accepted.last().copied() <= held, "{:?} was accepted, but {held:?} is held", accepted.last());
    let there = numbers(&read_all(&journal, "judge").await);
    let first = there.first().copied().unwrap_or(held.map_or(0, |held| held + 1));
    assert_eq!(there, (first..first + there.len() as u64).collect::<Vec<_>>(), "in order, without a hole");
    assert_eq!(there.last().copied().or(held), held);
    let read: BTreeSet<u64> = noted(folder, "read").into_iter().collect();
    let lost: Vec<u64> = (0..first).filter(|number| !read.contains(number)).collect();
    assert!(lost.is_empty(), "deleted before they were read: {lost:?}");
}

#[tokio::test]
async fn a_death_at_any_step_of_the_journal_loses_nothing() {
    const TEST: &str = "a_death_at_any_step_of_the_journal_loses_nothing";
    if let Ok(place) = std::env::var(INSIDE) {
        return live(Path::new(&place)).await;
    }
    let seed = std::env::var("FOREBAY_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    eprintln!("FOREBAY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    for (step, most) in JOURNAL {
        for _ in 0..2 {
            let at = format!("FOREBAY_STEP={step}:{}", random.random_range(1..=most));
            let (passed, said) = again(module_path!(), TEST, &["env", &at], place);
            assert!(!passed && said.contains(&format!("step `{step}` reached: aborting")), "{at}: {said}");
            judge(folder.path()).await;
        }
        // A life without a death, so that there is something to delete.
        let (passed, said) = again(module_path!(), TEST, &["env"], place);
        assert!(passed, "{said}");
        judge(folder.path()).await;
    }
}
