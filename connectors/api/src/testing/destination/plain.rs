//! Checks without disturbance.

use std::collections::HashSet;

use super::{Rig, close, judged, lane, stored, unit};
use crate::delivery::Part;
use crate::testing::lane::{Lane, Unit};
use crate::testing::workload::{Text, Wish, Workload, whole};
use crate::testing::{Failure, Outcome, broken, judge};

/// Several batches joined in one delivery, over two tables and many keys.
pub(super) async fn every_record_is_stored(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let destination = rig.build().await;
    let mut lane = Lane::new(destination.clone(), workload.stream.clone());
    for records in [1, 2, 50, 333] {
        lane.run_all([unit(&mut workload, 3, records)]).await?;
    }
    close(&destination).await?;
    judged(rig, &[&workload], &lane).await
}

/// Acceptance means durable now, not after the next flush or at close.
pub(super) async fn accepted_is_there_at_once(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    for _ in 0..5 {
        lane.run_all([unit(&mut workload, 1, 7)]).await?;
        judged(rig, &[&workload], &lane).await?;
    }
    Ok(())
}

/// Texts that have broken something somewhere, in keys and payloads. All are valid JSON strings.
const TEXTS: [&str; 12] = [
    r#""""#,
    r#""grüß Gott, Καλημέρα, こんにちは, 你好, שלום, مرحبا""#,
    r#""👩‍👩‍👧‍👦 🏳️‍🌈 𝒳 🂡""#,
    r#""\ud83d\ude00 as an escape""#,
    r#""combining: e\u0301 é, Å Å""#,
    "\"line\u{2028}and paragraph\u{2029}separators, \u{feff} inside\"",
    r#""\" \\ \/ \b \f \n \r \t \u0001 \u001f""#,
    "\"\u{fffd} \u{fffe} \u{10ffff} \u{80} \u{7f}\"",
    r#""'; DROP TABLE orders; -- \\. \\N $1 {} %s""#,
    r#"{"nested":[1,-0.5,1e10,12345678901234567,true,false,null,{"a":[]}]}"#,
    r#""a\\nb\\tc\\\\.d""#,
    "\"\u{202e}right to left\u{202c}\"",
];

/// Every text in a payload and, where it can stand there, in a key.
pub(super) async fn unicode_is_kept(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    let wishes = TEXTS.iter().zip(0..).flat_map(|(text, n)| {
        let in_key = Wish { key: format!("{{\"id\":{text}}}"), ..Wish::plain(n) };
        [Wish::with_text(n, *text), in_key]
    });
    let batch = workload.batch(wishes);
    lane.run_all([Unit::new(whole(&[batch]))]).await?;
    judged(rig, &[&workload], &lane).await
}

/// No key, an empty one, one of 64 KiB.
pub(super) async fn keys_may_be_anything(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    let huge = format!("{{\"id\":\"{}\"}}", "k".repeat(64 << 10));
    let keys = [String::new(), r#"{"id":""}"#.to_owned(), "{}".to_owned(), r#"{"":null}"#.to_owned(), huge];
    for _ in 0..4 {
        let text = || Text::Raw("\"one of few\"".to_owned());
        let batch =
            workload.batch(keys.iter().cycle().take(60).map(|key| Wish { key: key.clone(), text: text() }));
        lane.run_all([Unit::new(whole(&[batch]))]).await?;
    }
    judged(rig, &[&workload], &lane).await
}

/// A delivery holds some rows of its batches, and of these some are settled already.
pub(super) async fn only_what_is_open_is_written(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    // Every other row is this lane's, and the delivery is a cut out of these.
    let batches = [workload.plain(40), workload.plain(40)];
    let part = |index: usize| Part {
        batch: batches[index].clone(),
        rows: (0..40).filter(|row| row % 2 == 0).collect(),
        range: if index == 0 { 5..20 } else { 0..13 },
    };
    let mut unit = Unit::new([part(0), part(1)].into());
    let settled = unit.settle_where(|index| index % 3 == 1);
    lane.run_all([unit]).await?;
    let bodies = stored(rig).await?;
    let found = judge::find(&[&workload], &bodies)?;
    judge::accepted_is_there(&lane.tally, &found)?;
    let there: HashSet<&str> = found.times.keys().copied().collect();
    judge::none(
        "were settled before, or not in the delivery at all, yet they were written",
        there.iter().filter(|id| !lane.tally.accepted.contains(**id)),
    )?;
    judge::none("were open but not accepted", settled.intersection(&lane.tally.accepted))?;
    if lane.tally.accepted.len() != 28 - settled.len() {
        return broken(format!(
            "{} of {} records were accepted",
            lane.tally.accepted.len(),
            28 - settled.len()
        ));
    }
    Ok(())
}

/// 100,000 records in deliveries of 10,000, as lanes join them by default.
pub(super) async fn many_records(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    let units: Vec<Unit> = (0..10).map(|_| unit(&mut workload, 10, 1000)).collect();
    lane.run_all(units).await?;
    judged(rig, &[&workload], &lane).await
}

/// Two streams with the same marks through one instance at once.
pub(super) async fn two_streams_do_not_mix(rig: &Rig) -> Outcome {
    let destination = rig.build().await;
    let mut workloads = [Workload::new(1), Workload::new(2)];
    let units =
        workloads.each_mut().map(|workload| (0..5).map(|_| unit(workload, 2, 20)).collect::<Vec<_>>());
    let mut lanes = workloads.each_ref().map(|w| Lane::new(destination.clone(), w.stream.clone()));
    let [first, second] = &mut lanes;
    let [mut of_first, of_second] = units;
    // The first is ahead when the second begins.
    first.run_all(of_first.drain(..2)).await?;
    tokio::try_join!(first.run_all(of_first), second.run_all(of_second))?;
    let bodies = stored(rig).await?;
    judge::find(&workloads.each_ref(), &bodies)?;
    // Both streams write the same keys; only the order within a stream is promised.
    for (workload, lane) in workloads.iter().zip(&lanes) {
        let own: Vec<Vec<u8>> = bodies.iter().filter(|body| is_of(workload, body)).cloned().collect();
        judge::judge(&[workload], &lane.tally, &own, rig.keeps_marks() || !lane.tally.repeated)?;
    }
    Ok(())
}

/// Whether a stored record is of the workload's stream.
fn is_of(workload: &Workload, body: &[u8]) -> bool {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    value["id"].as_str().is_some_and(|id| workload.known.contains_key(id))
}

/// A record of the size that the rig says fits, alone and between small ones.
pub(super) async fn a_large_record_is_stored(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    let large = Wish::sized(5, rig.fits());
    let alone = workload.batch([large.clone()]);
    let between = workload.batch([Wish::plain(4), large, Wish::plain(6)]);
    lane.run_all([Unit::new(whole(&[alone])), Unit::new(whole(&[between]))]).await?;
    judge::none("fit but were rejected", lane.tally.rejected.keys())?;
    judged(rig, &[&workload], &lane).await
}

/// Poison by size.
pub(super) async fn a_record_that_is_too_large_is_rejected(rig: &Rig) -> Outcome {
    let bytes = rig.too_large().ok_or(Failure::Missing("size that is too large"))?;
    poison(rig, |n| Wish::sized(n, bytes)).await
}

/// Poison by content.
pub(super) async fn a_refused_record_is_rejected(rig: &Rig) -> Outcome {
    let value = rig.refused().ok_or(Failure::Missing("value that is refused"))?;
    poison(rig, |n| Wish::with_text(n, value)).await
}

/// Poison first, last, alone, twice in a row, between its neighbours: it is rejected with a reason, they are stored.
async fn poison(rig: &Rig, poison: impl Fn(u64) -> Wish) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    let mut poisoned = HashSet::new();
    for places in [&[4u64][..], &[0], &[8], &[0, 1, 5, 8], &[]] {
        let wish = |n: u64| if places.contains(&n) { poison(n) } else { Wish::plain(n) };
        let batch = workload.batch((0..9).map(wish));
        let rows = places.iter().map(|&n| usize::try_from(n).expect("below 9"));
        poisoned.extend(rows.map(|row| batch.chunk.event(row).id()));
        lane.run_all([Unit::new(whole(&[batch]))]).await?;
    }
    let alone = workload.batch([poison(0)]);
    poisoned.insert(alone.chunk.event(0).id());
    lane.run_all([Unit::new(whole(&[alone])), unit(&mut workload, 1, 9)]).await?;
    let rejected: HashSet<String> = lane.tally.rejected.keys().cloned().collect();
    judge::none("should have been rejected but were not", poisoned.difference(&rejected))?;
    judge::none("were rejected though nothing is wrong with them", rejected.difference(&poisoned))?;
    let mute = lane.tally.rejected.iter().filter(|(_, why)| why.reason.is_empty() || why.chain.is_empty());
    judge::none("were rejected without a reason", mute.map(|(id, _)| id))?;
    judged(rig, &[&workload], &lane).await
}

/// Three instances one after the other, each closed before the next, each with events of its own.
pub(super) async fn a_new_instance_goes_on(rig: &Rig) -> Outcome {
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    for _ in 0..3 {
        let destination = rig.build().await;
        lane.restart(destination.clone());
        lane.run_all([unit(&mut workload, 2, 30), unit(&mut workload, 1, 31)]).await?;
        close(&destination).await?;
    }
    judged(rig, &[&workload], &lane).await
}

/// Everything comes again through a new instance, as after a lost checkpoint; `held` strikes it all off.
pub(super) async fn what_is_held_is_struck_off(rig: &Rig) -> Outcome {
    if !rig.keeps_marks() {
        return Err(Failure::Missing("marks stored with the data"));
    }
    let (workload, lane) = delivered_twice(rig).await?;
    let again = workload.known.keys().filter(|id| !lane.tally.struck.contains(*id));
    judge::none("are stored, but `held` does not cover them", again)?;
    judged(rig, &[&workload], &lane).await
}

/// The same for every destination: what is stored twice is in order all the same.
pub(super) async fn what_comes_again_is_followed(rig: &Rig) -> Outcome {
    let (workload, lane) = delivered_twice(rig).await?;
    judged(rig, &[&workload], &lane).await
}

async fn delivered_twice(rig: &Rig) -> Result<(Workload, Lane), Failure> {
    let mut workload = Workload::new(1);
    let units: Vec<Unit> = (0..5).map(|_| unit(&mut workload, 2, 40)).collect();
    let mut lane = lane(rig, &workload).await;
    lane.run_all(units.clone()).await?;
    lane.restart(rig.build().await);
    lane.tally.repeated = true;
    lane.run_all(units).await?;
    Ok((workload, lane))
}
