//! A whole pipeline with a scripted source and scripted destinations: what must hold whatever they do.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{Delivery, Draft, Mark, Op, Rejection, Row, Span, StreamId, Subject};

use super::*;
use crate::lane::{BatchLimits, Retry};
use crate::state::MemoryState;
use crate::telemetry::{DeadLetterFigures, Telemetry};

mod poison;

/// Sends `events` events in chunks of `per_chunk`, a position after each chunk, from wherever it resumes.
struct Scripted {
    events: u64,
    per_chunk: u64,
    /// What to end the first run with, after everything is sent.
    fault: Option<Fault>,
    /// Whether to wait for a stop when everything is sent.
    wait: bool,
}

fn event_chunk(from: u64, to: u64) -> forebay_api::Chunk {
    let subject = Arc::new(Subject::new(
        ("v", "public.t", "1-0-0"),
        (Some("d"), Some("public"), Some("t")),
        r#""type":"test""#.to_owned(),
    ));
    let mut draft = Draft::default();
    for n in from..to {
        let start = draft.buf.len();
        draft.buf.extend_from_slice(format!("{{\"id\":{}}}", n % 5).as_bytes());
        let key = draft.since(start);
        let start = draft.buf.len();
        draft.buf.extend_from_slice(format!("{{\"n\":{n}}}").as_bytes());
        let payload = draft.since(start);
        let subject = draft.subject(&subject);
        let empty = Span::default();
        draft.push(Row {
            mark: Mark { major: (1, n), minor: 0, part: 0 },
            time: 0,
            xid: 0,
            subject,
            op: Op::Insert,
            id: empty,
            key,
            before: empty,
            payload,
            unchanged: empty,
            contexts: empty,
            extra: empty,
        });
    }
    draft.finish(&Arc::new(StreamId { source: "s".into(), epoch: 1 }), 0, false)
}

fn position(n: u64) -> Position {
    Position(Bytes::from(n.to_string()))
}

fn number(position: &Position) -> u64 {
    position.to_string().parse().unwrap()
}

#[async_trait]
impl Source for Scripted {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        context.report.set_connected(true);
        let mut next = context.resume.as_ref().map_or(1, |p| number(p) + 1);
        while next <= self.events {
            let end = (next + self.per_chunk).min(self.events + 1);
            if context.outlet.send(event_chunk(next, end), Some(position(end - 1))).await.is_err() {
                return Ok(());
            }
            next = end;
        }
        if self.wait {
            context.stop.cancelled().await;
        }
        self.fault.take().map_or(Ok(()), Err)
    }
}

/// The number in `{"n":…}`.
fn payload_number(payload: &[u8]) -> u64 {
    std::str::from_utf8(&payload[5..payload.len() - 1]).unwrap().parse().unwrap()
}

/// Keeps the numbers it accepted, in order; fails as told.
#[derive(Default)]
struct Memory {
    kept: Mutex<Vec<u64>>,
    calls: AtomicUsize,
    /// Calls that fail after accepting the first record of the delivery.
    failing: Mutex<VecDeque<usize>>,
    /// Rejects these numbers.
    poison: Vec<u64>,
    /// Rejects nothing any more.
    mended: AtomicBool,
    /// Never answers while set.
    hangs: AtomicBool,
    fatal: bool,
    /// What `held` says, when the destination keeps marks.
    keeps_marks: bool,
}

impl Memory {
    fn numbers(&self) -> Vec<u64> {
        self.kept.lock().unwrap().clone()
    }
}

#[async_trait]
impl Destination for Memory {
    async fn held(&self, _: &StreamId) -> Result<Option<Mark>, Fault> {
        let last = self.kept.lock().unwrap().iter().max().copied();
        Ok(last.filter(|_| self.keeps_marks).map(|n| Mark { major: (1, n), minor: 0, part: 0 }))
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.fatal {
            return Err(Fault::fatal("writing", Blame::Outside, "no"));
        }
        while self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let fails = self.failing.lock().unwrap().contains(&call);
        let open: Vec<(usize, u64)> = delivery
            .open()
            .map(|(index, record)| (index, payload_number(record.event().payload())))
            .collect();
        for (at, (index, n)) in open.into_iter().enumerate() {
            if fails && at == 1 {
                return Err(Fault::retryable("writing", "told to fail"));
            }
            if self.poison.contains(&n) && !self.mended.load(Ordering::SeqCst) {
                delivery.reject(index, Rejection::new("too_large", &std::io::Error::other("poison")));
                continue;
            }
            self.kept.lock().unwrap().push(n);
            delivery.accept(index);
        }
        Ok(())
    }
}

/// A store in memory.
#[derive(Default)]
struct Kept {
    saved: Mutex<BTreeMap<String, Checkpoint>>,
    failures: AtomicUsize,
}

#[async_trait]
impl CheckpointStore for Kept {
    async fn load(&self, key: &str) -> Result<Option<Checkpoint>, Fault> {
        Ok(self.saved.lock().unwrap().get(key).cloned())
    }

    async fn save(&self, key: &str, checkpoint: &Checkpoint) -> Result<(), SaveError> {
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(SaveError::Io("disk full".into()));
        }
        self.saved.lock().unwrap().insert(key.to_owned(), checkpoint.clone());
        Ok(())
    }

    fn all(&self) -> Result<BTreeMap<String, Checkpoint>, Fault> {
        Ok(self.saved.lock().unwrap().clone())
    }

    fn forget_now(&self, key: &str) -> Result<(), Fault> {
        self.saved.lock().unwrap().remove(key);
        Ok(())
    }

    async fn forget(&self, key: &str) -> Result<(), Fault> {
        self.saved.lock().unwrap().remove(key);
        Ok(())
    }
}

struct World {
    pipeline: Pipeline,
    store: Arc<Kept>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(source: Scripted, destinations: Vec<(Arc<Memory>, bool)>) -> World {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::default();
        let store = Arc::new(Kept::default());
        let lanes = destinations.into_iter().enumerate().map(|(index, (destination, required))| {
            let name = format!("d{index}");
            LanePlan {
                settings: LaneSettings {
                    replays_letters: true,
                    source: "s".into(),
                    destination: name.as_str().into(),
                    index,
                    required,
                    format: 0,
                    batch: BatchLimits { records: 7, bytes: 1 << 20, age: Duration::ZERO },
                    timeout: Duration::from_secs(5),
                    retry: Retry {
                        initial: Duration::from_millis(10),
                        max: Duration::from_millis(100),
                        attempts: NonZeroU32::new(3).unwrap(),
                    },
                    on_poison: OnPoison::DeadLetter,
                },
                destination,
                filter: Filter::default(),
                dead_letters: Arc::new(DeadLetters::new(
                    folder.path(),
                    &name,
                    1 << 20,
                    telemetry.dead_letters(&name),
                )),
                courtesy: Budget::new(64 << 10),
                figures: telemetry.lane("s", &name),
                report: Report::default(),
            }
        });
        let pipeline = Pipeline {
            name: "s".into(),
            source: Arc::new(tokio::sync::Mutex::new(Box::new(source))),
            lanes: lanes.collect(),
            formats: Arc::new([Format::Forebay]),
            instance: ("n".into(), "e".into()),
            store: store.clone(),
            snapshots: Arc::new(SnapshotDesk::new(
                "s",
                Arc::new(MemoryState::default()),
                telemetry.snapshot("s"),
            )),
            schemas: Arc::new(SourceSchemas::new("s", Arc::new(MemoryState::default()))),
            privacy: Arc::default(),
            judge: Judge::plain("s"),
            budget: Budget::new(1 << 20),
            restream: None,
            isolated: false,
            drain: Duration::from_secs(30),
            figures: telemetry.source("s"),
            reports: PipelineReports::default(),
            stored: Arc::default(),
            owed_counted: AtomicBool::new(false),
        };
        World { pipeline, store, _folder: folder }
    }

    fn stored(&self) -> Option<u64> {
        self.store.saved.lock().unwrap().get("s").map(|checkpoint| number(&checkpoint.position))
    }

    /// `events = delivered + filtered + dead_lettered + dropped + returned`, for each lane.
    fn assert_adds_up(&self) {
        for plan in &self.pipeline.lanes {
            let f = &plan.figures;
            let sum = f.delivered.get()
                + f.filtered.get()
                + f.dead_lettered.get()
                + f.dropped.get()
                + f.returned.get();
            assert_eq!(self.pipeline.figures.events.get(), sum, "{}: {f:?}", plan.settings.destination);
            assert_eq!((f.queue_records.get(), f.queue_bytes.get()), (0, 0));
        }
        assert_eq!(self.pipeline.budget.used(), 0, "all memory was given back");
    }
}

fn all(events: u64) -> Scripted {
    Scripted { events, per_chunk: 10, fault: None, wait: false }
}

fn in_order(numbers: &[u64], events: u64) {
    assert_eq!(numbers, (1..=events).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn everything_arrives_in_order_at_every_destination_and_the_last_position_is_stored() {
    let (a, b) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
    let world = World::new(all(1000), vec![(a.clone(), true), (b.clone(), false)]);
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    assert!(ended.result.is_ok() && ended.drained);
    in_order(&a.numbers(), 1000);
    assert_eq!(world.stored(), Some(1000));
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_failed_delivery_comes_again_with_what_is_open_and_the_successors_of_its_keys() {
    let failing = Mutex::new(VecDeque::from([0, 1, 3, 8]));
    let a = Arc::new(Memory { failing, ..Memory::default() });
    let world = World::new(all(100), vec![(a.clone(), true)]);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    let numbers = a.numbers();
    // A repeat is legal; per key (five of them) the sequence only ever steps back to repeat.
    for key in 0..5 {
        let of_key: Vec<u64> = numbers.iter().copied().filter(|n| n % 5 == key).collect();
        let mut firsts = Vec::new();
        for n in of_key {
            if !firsts.contains(&n) {
                firsts.push(n);
            }
        }
        assert!(firsts.is_sorted(), "{firsts:?}");
    }
    let mut unique = numbers.clone();
    unique.sort_unstable();
    unique.dedup();
    in_order(&unique, 100);
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_struck_off_when_a_generation_comes_again() {
    let a = Arc::new(Memory { keeps_marks: true, ..Memory::default() });
    let mut world = World::new(all(50), vec![(a.clone(), true)]);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    world.store.saved.lock().unwrap().clear(); // the checkpoint is lost, the data is not
    world.pipeline.source = Arc::new(tokio::sync::Mutex::new(Box::new(all(80))));
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    in_order(&a.numbers(), 80);
}

#[tokio::test(start_paused = true)]
async fn poison_becomes_a_dead_letter_and_its_neighbours_flow() {
    let a = Arc::new(Memory { poison: vec![5, 17], ..Memory::default() });
    let world = World::new(all(30), vec![(a.clone(), true)]);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(a.numbers().len(), 28);
    assert_eq!(world.pipeline.lanes[0].figures.dead_lettered.get(), 2);
    let letters = world._folder.path().join("dead_letters/d0/000001.ndjson");
    let letters = std::fs::read_to_string(letters).unwrap();
    assert_eq!(letters.lines().count(), 2);
    assert_eq!(world.stored(), Some(30));
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_full_dead_letter_folder_stops_a_required_lane_and_the_position_stays_before_the_poison() {
    let a = Arc::new(Memory { poison: vec![25], ..Memory::default() });
    let mut world = World::new(all(30), vec![(a.clone(), true)]);
    world.pipeline.lanes[0].dead_letters =
        Arc::new(DeadLetters::new(world._folder.path(), "d0", 10, DeadLetterFigures::default()));
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    assert!(ended.result.unwrap_err().remedy().unwrap().contains("forebay dlq list"));
    assert!(world.stored().is_none_or(|n| n < 25), "{:?}", world.stored());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_required_destination_holds_the_position_back_until_it_answers() {
    let a = Arc::new(Memory { hangs: AtomicBool::new(true), ..Memory::default() });
    let b = Arc::new(Memory::default());
    let world = World::new(Scripted { wait: true, ..all(30) }, vec![(a.clone(), true), (b.clone(), true)]);
    let shutdown = Shutdown::default();
    let check = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        in_order(&b.numbers(), 30);
        assert_eq!(
            world.stored(),
            None,
            "nothing is confirmed for what one required destination has not got"
        );
        a.hangs.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(world.stored(), Some(30));
        shutdown.stop.cancel();
    };
    let (ended, ()) = tokio::join!(world.pipeline.generation(&shutdown), check);
    assert!(ended.drained);
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_hanging_best_effort_destination_holds_nothing_up_and_its_losses_are_counted() {
    let a = Arc::new(Memory::default());
    let b = Arc::new(Memory { hangs: AtomicBool::new(true), ..Memory::default() });
    let world = World::new(all(2000), vec![(a.clone(), true), (b.clone(), false)]);
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    assert!(ended.result.is_ok());
    in_order(&a.numbers(), 2000);
    assert_eq!(world.stored(), Some(2000));
    assert!(world.pipeline.lanes[1].figures.dropped.get() > 0);
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn what_a_best_effort_destination_owes_is_stored_with_the_position() {
    let a = Arc::new(Memory::default());
    let b = Arc::new(Memory { hangs: AtomicBool::new(true), ..Memory::default() });
    let world = World::new(Scripted { wait: true, ..all(30) }, vec![(a, true), (b, false)]);
    let shutdown = Shutdown::default();
    let abort = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        shutdown.abort.cancel();
    };
    let (ended, ()) = tokio::join!(world.pipeline.generation(&shutdown), abort);
    assert!(ended.drained, "what is required is settled");
    assert_eq!(world.store.saved.lock().unwrap()["s"].owed, BTreeMap::from([("d1".to_owned(), 30)]));
    world.assert_adds_up();

    // The process died, and the next one counts what it left.
    let mut next =
        World::new(all(30), vec![(Arc::new(Memory::default()), true), (Arc::new(Memory::default()), false)]);
    next.pipeline.store = world.store.clone();
    assert!(next.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(next.pipeline.lanes[1].figures.dropped.get(), 30);
    assert!(next.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(next.pipeline.lanes[1].figures.dropped.get(), 30, "once");
}

#[tokio::test(start_paused = true)]
async fn a_best_effort_destination_does_not_hold_up_a_stop() {
    let b = Arc::new(Memory { hangs: AtomicBool::new(true), ..Memory::default() });
    let world =
        World::new(Scripted { wait: true, ..all(30) }, vec![(Arc::new(Memory::default()), true), (b, false)]);
    let shutdown = Shutdown::default();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        shutdown.stop.cancel();
        Instant::now()
    };
    let (ended, stopped) = tokio::join!(world.pipeline.generation(&shutdown), stop);
    assert!(ended.result.is_ok() && ended.drained);
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    assert_eq!(world.pipeline.lanes[1].figures.dropped.get(), 30);
    world.assert_adds_up();
}

#[tokio::test(start_paused = true)]
async fn a_fatal_fault_of_a_required_lane_ends_the_generation_and_of_a_best_effort_lane_does_not() {
    for required in [true, false] {
        let a = Arc::new(Memory::default());
        let b = Arc::new(Memory { fatal: true, ..Memory::default() });
        let world = World::new(all(100), vec![(a.clone(), true), (b, required)]);
        let ended = world.pipeline.generation(&Shutdown::default()).await;
        assert_eq!(ended.result.is_err(), required);
        if required {
            assert_eq!(world.stored(), None);
        } else {
            in_order(&a.numbers(), 100);
            assert_eq!(world.stored(), Some(100));
        }
        world.assert_adds_up();
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_drained_and_resumes_where_it_stood() {
    let a = Arc::new(Memory::default());
    let fault = Some(Fault::retryable("reading", "connection lost"));
    let world = World::new(Scripted { fault, ..all(40) }, vec![(a.clone(), true)]);
    let shutdown = Shutdown::default();
    let drained =
        crate::supervise::run(world.pipeline, Some(Duration::from_secs(30)), shutdown).await.unwrap();
    assert!(drained);
    in_order(&a.numbers(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_stored_is_not_published_and_stored_later() {
    let a = Arc::new(Memory::default());
    let world = World::new(all(40), vec![(a.clone(), true)]);
    world.store.failures.store(3, Ordering::SeqCst);
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    assert_eq!(world.stored(), Some(40));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_fault_and_not_a_hang() {
    struct Panics;
    #[async_trait]
    impl Destination for Panics {
        async fn deliver(&self, _: Delivery) -> Result<(), Fault> {
            panic!("told to")
        }
    }
    let mut world = World::new(all(10), vec![(Arc::new(Memory::default()), true)]);
    world.pipeline.lanes[0].destination = Arc::new(Panics);
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    assert!(ended.result.unwrap_err().to_string().contains("panic"));
    assert_eq!(world.stored(), None);
}

#[tokio::test(start_paused = true)]
async fn a_destination_is_known_to_be_reachable_before_its_first_record() {
    let source = Scripted { events: 0, per_chunk: 1, fault: None, wait: true };
    let world = World::new(source, vec![(Arc::new(Memory::default()), true)]);
    let shutdown = Shutdown::default();
    let report = world.pipeline.lanes[0].report.clone();
    let looking = async {
        while !report.connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shutdown.stop.cancel();
    };
    let running = async { tokio::join!(world.pipeline.generation(&shutdown), looking).0 };
    let ended =
        tokio::time::timeout(Duration::from_secs(10), running).await.expect("it is looked at at once");
    assert!(ended.drained);
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_marks_do_not_ascend_is_stopped_before_anything_is_taken_for_delivered() {
    struct Backwards;
    #[async_trait]
    impl Source for Backwards {
        async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
            for (from, to) in [(5, 8), (3, 4)] {
                if context.outlet.send(event_chunk(from, to), Some(position(to))).await.is_err() {
                    break;
                }
            }
            context.stop.cancelled().await;
            Ok(())
        }
    }
    let a = Arc::new(Memory { keeps_marks: true, ..Memory::default() });
    let mut world = World::new(all(1), vec![(a.clone(), true)]);
    world.pipeline.source = Arc::new(tokio::sync::Mutex::new(Box::new(Backwards)));
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    assert!(ended.result.unwrap_err().to_string().contains("came after"));
    assert_eq!(world.stored(), Some(8));
    assert_eq!(a.numbers(), [5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_destination_is_away_turns_however_short_its_waits_are() {
    struct Away {
        opens: bool,
    }
    #[async_trait]
    impl Destination for Away {
        async fn open(&self) -> Result<(), Fault> {
            if self.opens { Ok(()) } else { Err(Fault::retryable("connecting", "nobody listens")) }
        }

        async fn deliver(&self, _: Delivery) -> Result<(), Fault> {
            Err(Fault::retryable("writing", "nobody listens"))
        }
    }
    for (opens, required) in [(true, true), (false, true), (false, false)] {
        let source = Scripted { wait: true, ..all(10) };
        let mut world = World::new(source, vec![(Arc::new(Memory::default()), required)]);
        world.pipeline.lanes[0].destination = Arc::new(Away { opens });
        let report = world.pipeline.lanes[0].report.clone();
        let shutdown = Shutdown::default();
        let watching = async {
            for _ in 0..60 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(
                    report.idle() < Report::MUST_TURN_WITHIN,
                    "(opens, required) = {:?}",
                    (opens, required)
                );
            }
            shutdown.abort.cancel();
        };
        tokio::join!(world.pipeline.generation(&shutdown), watching);
    }
}

/// A member of a group: its first run sends five events and ends as it is told, its second one has nothing to send.
struct Member {
    abort: bool,
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl Source for Member {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        context.report.set_connected(true);
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        if context.outlet.send(event_chunk(1, 6), Some(position(5))).await.is_err() || run > 0 {
            return Ok(());
        }
        if self.abort {
            context.abort.cancel();
        }
        Err(Fault::retryable("reading", "the group hands partitions around").at_once())
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// Takes everything, and notes when it is asked what it holds of a stream, and when to take one over.
#[derive(Default)]
struct Fenced {
    asked: Mutex<Vec<&'static str>>,
    hangs: AtomicBool,
}

#[async_trait]
impl Destination for Fenced {
    async fn held(&self, _: &StreamId) -> Result<Option<Mark>, Fault> {
        self.asked.lock().unwrap().push("held");
        Ok(None)
    }

    async fn take_over(&self, _: &StreamId) -> Result<Option<Mark>, Fault> {
        self.asked.lock().unwrap().push("taken over");
        Ok(None)
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        while self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        delivery.accept_all();
        Ok(())
    }
}

fn member(abort: bool, destination: &Arc<Fenced>) -> (World, Arc<AtomicUsize>) {
    let mut world = World::new(all(0), vec![(Arc::default(), true)]);
    let runs = Arc::new(AtomicUsize::new(0));
    world.pipeline.source = Arc::new(tokio::sync::Mutex::new(Box::new(Member { abort, runs: runs.clone() })));
    world.pipeline.lanes[0].destination = destination.clone();
    (world, runs)
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_another_reader_is_not_drained() {
    let destination = Arc::new(Fenced { hangs: AtomicBool::new(true), ..Fenced::default() });
    let (world, _) = member(true, &destination);
    let began = Instant::now();
    let ended = world.pipeline.generation(&Shutdown::default()).await;
    assert!(ended.result.is_err() && !ended.drained);
    assert!(began.elapsed() < world.pipeline.drain, "an aborted generation is not waited for");
    assert_eq!(world.stored(), None);
}

#[tokio::test(start_paused = true)]
async fn each_generation_of_a_shared_source_begins_at_once_and_takes_its_streams_over() {
    let destination = Arc::new(Fenced::default());
    let (world, runs) = member(false, &destination);
    let store = world.store.clone();
    let began = Instant::now();
    let drained = crate::supervise::run(world.pipeline, Some(Duration::from_secs(30)), Shutdown::default())
        .await
        .unwrap();
    assert!(drained);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert!(began.elapsed() < Duration::from_millis(100), "nothing was waited for: {:?}", began.elapsed());
    assert_eq!(*destination.asked.lock().unwrap(), ["taken over", "taken over"]);
    assert_eq!(number(&store.saved.lock().unwrap()["s"].position), 5);
}

/// Lets several deliveries run at once, and takes what it is given one after the other, in the order in which they asked
/// for a turn, as clients do that have a queue.
#[derive(Default)]
struct InTurn {
    turn: tokio::sync::Mutex<Vec<u64>>,
}

#[async_trait]
impl Destination for InTurn {
    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let first = delivery.open().next().map(|(_, record)| record.event().mark().major.1);
        self.turn.lock().await.extend(first);
        tokio::task::yield_now().await;
        delivery.accept_all();
        Ok(())
    }

    fn max_in_flight(&self) -> std::num::NonZeroUsize {
        std::num::NonZeroUsize::new(16).unwrap()
    }
}

#[tokio::test]
async fn deliveries_that_run_at_once_ask_for_their_turns_in_order() {
    // Tokio lets a task that has done much wait at whatever it awaits next: that must not let one overtake another.
    let destination = Arc::new(InTurn::default());
    let source = Scripted { events: 20_000, per_chunk: 5_000, fault: None, wait: false };
    let mut world = World::new(source, vec![(Arc::new(Memory::default()), true)]);
    world.pipeline.lanes[0].destination = destination.clone();
    world.pipeline.lanes[0].settings.batch.records = 1;
    assert!(world.pipeline.generation(&Shutdown::default()).await.drained);
    let turns = destination.turn.lock().await;
    assert!(
        turns.len() > 2_000 && turns.is_sorted(),
        "{:?}",
        turns.windows(2).find(|pair| pair[0] > pair[1])
    );
}
