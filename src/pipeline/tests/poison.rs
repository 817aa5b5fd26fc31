//! What becomes of records that a destination refuses, by `on_poison`, and of their letters when they are replayed.

use super::*;
use crate::dead_letters::{Courier, How, Replay, ReplayProgress, Selection, Shown};

/// A pipeline of one destination that refuses `poison`. Event n has the key n % 5.
fn world(events: u64, poison: &[u64], on_poison: OnPoison) -> (World, Arc<Memory>) {
    let memory = Arc::new(Memory { poison: poison.to_vec(), ..Memory::default() });
    let mut world = World::new(all(events), vec![(memory.clone(), true)]);
    world.pipeline.lanes[0].settings.on_poison = on_poison;
    (world, memory)
}

impl World {
    fn letters(&self) -> Arc<DeadLetters> {
        self.pipeline.lanes[0].dead_letters.clone()
    }

    /// Reason and number of each open letter.
    fn shown(&self) -> Vec<(String, u64)> {
        let shown = Shown::of(self._folder.path(), "d0", &Selection::default(), usize::MAX).unwrap();
        let number = |record: &str| {
            serde_json::from_str::<serde_json::Value>(record).unwrap()["payload"]["n"].as_u64()
        };
        shown.letters.iter().map(|l| (l.reason.clone(), number(l.record.get()).unwrap())).collect()
    }

    /// Runs one generation in which there are `events` events in all, until they are settled and `selection` is
    /// replayed.
    async fn replay_of(&mut self, selection: Selection, events: u64) -> ReplayProgress {
        let source = Scripted { wait: true, ..all(events) };
        self.pipeline.source = Arc::new(tokio::sync::Mutex::new(Box::new(source)));
        self.letters().begin_replay(selection, Some(&["s".to_owned()])).await.unwrap();
        let shutdown = Shutdown::default();
        let done = async {
            let ended = || self.letters().replay_progress().unwrap().ended;
            while !ended() || self.stored() != Some(events) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            shutdown.stop.cancel();
        };
        let both = async { tokio::join!(self.pipeline.generation(&shutdown), done).0 };
        let ended = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends");
        assert!(ended.drained, "{:?}", ended.result);
        self.letters().replay_progress().unwrap()
    }

    async fn replay(&mut self, events: u64) -> ReplayProgress {
        self.replay_of(Selection::default(), events).await
    }
}

fn of_key(numbers: &[u64], key: u64) -> Vec<u64> {
    numbers.iter().copied().filter(|n| n % 5 == key).collect()
}

fn named(reason: &str, numbers: &[u64]) -> Vec<(String, u64)> {
    numbers.iter().map(|n| (reason.to_owned(), *n)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_blocked_key_waits_while_its_neighbours_flow_and_goes_on_in_its_order_after_a_replay() {
    let (mut world, memory) = world(30, &[7], OnPoison::BlockKey);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(of_key(&memory.numbers(), 2), [2], "nothing of the key is delivered behind what was refused");
    assert_eq!(memory.numbers().len(), 25, "all of the other keys is");
    let waiting = [named("too_large", &[7]), named("blocked", &[12, 17, 22, 27])].concat();
    assert_eq!(world.shown(), waiting);
    assert_eq!(world.stored(), Some(30));
    world.assert_adds_up();

    memory.mended.store(true, Ordering::SeqCst);
    let progress = world.replay(40).await;
    assert_eq!((progress.replayed, progress.refused, progress.left, progress.ended), (5, 0, 0, true));
    assert_eq!(of_key(&memory.numbers(), 2), [2, 7, 12, 17, 22, 27, 32, 37]);
    assert!(world.shown().is_empty());
    world.assert_adds_up();
    assert_eq!(world.letters().figures.replayed.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_refused_again_stays_and_keeps_its_key_blocked() {
    let (mut world, memory) = world(30, &[7], OnPoison::BlockKey);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    let progress = world.replay(40).await;
    assert_eq!((progress.selected, progress.replayed, progress.refused, progress.left), (5, 0, 1, 4));
    assert!(progress.why.iter().next().unwrap().contains("older letter"), "{progress:?}");
    assert_eq!(of_key(&memory.numbers(), 2), [2]);
    assert_eq!(world.shown().len(), 7, "live events of the key are letters too");
    let shown = Shown::of(world._folder.path(), "d0", &Selection::default(), 1).unwrap();
    assert_eq!(shown.letters[0].attempts, 2);
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_letter_in_the_middle_of_a_blocked_key_is_not_replayed_before_the_older_ones() {
    let (mut world, memory) = world(20, &[7], OnPoison::BlockKey);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    memory.mended.store(true, Ordering::SeqCst);
    let shown = Shown::of(world._folder.path(), "d0", &Selection::default(), 9).unwrap();
    let second = Selection { id: vec![shown.letters[1].id.clone()], ..Selection::default() };
    assert_eq!(world.replay_of(second, 20).await.left, 2);
    assert_eq!(of_key(&memory.numbers(), 2), [2]);
    // a letter that is given up lets the next one go first
    world.letters().settle(vec![shown.letters[0].id.clone()], How::Dropped).await.unwrap();
    assert_eq!(world.replay(20).await.replayed, 2);
    assert_eq!(of_key(&memory.numbers(), 2), [2, 12, 17]);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_again_keeps_a_blocked_key_blocked_and_makes_no_second_letter() {
    let (mut world, memory) = world(30, &[7], OnPoison::BlockKey);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    world.store.saved.lock().unwrap().clear(); // the daemon died before it stored a position
    world.pipeline.source = Arc::new(tokio::sync::Mutex::new(Box::new(all(30))));
    let plan = &mut world.pipeline.lanes[0];
    let kept = DeadLetters::new(world._folder.path(), "d0", 1 << 20, DeadLetterFigures::default());
    plan.dead_letters = Arc::new(kept); // and begins with what the files say
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(world.shown().len(), 5);
    assert_eq!(of_key(&memory.numbers(), 2), [2, 2], "a repeat of what came before the refusal is no harm");
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_halts_where_it_shall_and_nothing_of_it_is_settled() {
    let (world, _) = world(30, &[25], OnPoison::Halt);
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    let fault = ended.result.unwrap_err();
    let said = fault.to_string();
    assert!(!fault.is_retryable());
    for part in ["s:0000000000000001:1:0000000000000019:0", r#"{"id":0}"#, "`d0`", "too_large", "poison"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(fault.remedy().unwrap().contains("on_poison"));
    assert!(world.stored().is_none_or(|n| n < 25), "{:?}", world.stored());
    assert!(world.shown().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_not_struck_off_as_held_and_live_records_come_after_it() {
    let memory = Arc::new(Memory { poison: vec![5, 17], keeps_marks: true, ..Memory::default() });
    let mut world = World::new(all(30), vec![(memory.clone(), true)]);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    memory.mended.store(true, Ordering::SeqCst);
    let progress = world.replay(35).await;
    assert_eq!((progress.replayed, progress.refused, progress.left), (2, 0, 0));
    assert_eq!(memory.numbers()[28..], [5, 17, 31, 32, 33, 34, 35]);
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_fails_half_way_settles_what_arrived_and_tries_the_rest_again() {
    let (mut world, memory) = world(30, &[5, 6, 8, 9], OnPoison::DeadLetter);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    memory.mended.store(true, Ordering::SeqCst);
    let call = memory.calls.load(Ordering::SeqCst);
    memory.failing.lock().unwrap().push_back(call);
    let progress = world.replay(30).await;
    assert_eq!((progress.replayed, progress.left), (4, 0));
    assert_eq!(memory.numbers()[26..], [5, 6, 8, 9]);
    assert!(world.shown().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replay_into_a_destination_that_fails_for_good_ends_and_leaves_the_letters() {
    let (mut world, memory) = world(30, &[5], OnPoison::DeadLetter);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    let call = memory.calls.load(Ordering::SeqCst);
    let broken = Arc::new(Memory { fatal: true, ..Memory::default() });
    world.pipeline.lanes[0].destination = broken;
    let progress = world.replay(30).await; // nothing new: only the replay meets the destination
    assert_eq!((progress.replayed, progress.left, progress.ended), (0, 1, true));
    assert!(progress.why.contains("writing: no"), "{progress:?}");
    assert_eq!((world.shown().len(), memory.calls.load(Ordering::SeqCst)), (1, call));
}

#[tokio::test(start_paused = true)]
async fn a_replay_takes_what_waits_behind_the_selected_letters_along_also_what_came_since() {
    let (mut world, memory) = world(20, &[7, 8], OnPoison::BlockKey);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    memory.mended.store(true, Ordering::SeqCst);
    let first = Shown::of(world._folder.path(), "d0", &Selection::default(), 1).unwrap().letters.remove(0);
    let only_first = Selection { id: vec![first.id], ..Selection::default() };
    let begun = world.letters().begin_replay(only_first, None).await.unwrap();
    assert_eq!(begun.selected, 1);
    let part = world.letters().take_part("s").unwrap();
    let plan = &world.pipeline.lanes[0];
    let courier = Courier {
        destination: memory.clone(),
        batch: plan.settings.batch,
        timeout: plan.settings.timeout,
        retry: plan.settings.retry,
    };
    Replay { courier, in_order: true }.run(part, || false).await;
    assert_eq!(of_key(&memory.numbers(), 2), [2, 7, 12, 17]);
    assert_eq!(of_key(&memory.numbers(), 3), [3], "another key");
    let progress = world.letters().replay_progress().unwrap();
    assert_eq!((progress.selected, progress.replayed, progress.left), (3, 3, 0));
    assert_eq!(world.replay(25).await.replayed, 3);
    assert_eq!(of_key(&memory.numbers(), 3), [3, 8, 13, 18, 23]);
}

#[tokio::test(start_paused = true)]
async fn one_replay_at_a_time() {
    let (world, _) = world(30, &[5], OnPoison::DeadLetter);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    let letters = world.letters();
    letters.begin_replay(Selection::default(), None).await.unwrap();
    let refusal = letters.begin_replay(Selection::default(), None).await.unwrap_err();
    assert!(refusal.error.contains("under way"), "{refusal:?}");
    drop(letters.take_part("s"));
    let progress = letters.replay_progress().unwrap();
    assert_eq!((progress.left, progress.ended), (1, true), "a part that nobody finished says so");
    letters.begin_replay(Selection::default(), None).await.unwrap();
}

/// Keeps the highest mark of each stream and takes nothing that is not above it, as a table of positions does.
#[derive(Default)]
struct Positions {
    held: Mutex<HashMap<StreamId, Mark>>,
    poison: AtomicBool,
}

#[async_trait]
impl Destination for Positions {
    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        Ok(self.held.lock().unwrap().get(stream).copied())
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let stream = (**delivery.stream()).clone();
        let open: Vec<(usize, Mark)> =
            delivery.open().map(|(i, record)| (i, record.event().mark())).collect();
        for (index, mark) in open {
            if self.poison.load(Ordering::SeqCst) {
                delivery.reject(index, Rejection::new("refused", &std::io::Error::other("poison")));
                continue;
            }
            let before = self.held.lock().unwrap().insert(stream.clone(), mark);
            assert!(before.is_none_or(|before| before < mark), "{before:?} then {mark} in {stream}");
            delivery.accept(index);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn marks_of_every_replay_are_above_what_the_destination_holds_of_it() {
    let (mut world, _) = world(12, &[], OnPoison::BlockKey);
    let positions = Arc::new(Positions::default());
    positions.poison.store(true, Ordering::SeqCst);
    world.pipeline.lanes[0].destination = positions.clone();
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(world.shown().len(), 12);
    positions.poison.store(false, Ordering::SeqCst);
    let one = Selection { key: Some(r#"{"id":1}"#.into()), ..Selection::default() };
    assert_eq!(world.replay_of(one, 12).await.replayed, 3);
    assert_eq!(world.replay(12).await.replayed, 9);
    let held = positions.held.lock().unwrap();
    let live = StreamId { source: "s".into(), epoch: 1 };
    assert!(held.len() == 1 && !held.contains_key(&live), "live positions are not moved: {held:?}");
}
