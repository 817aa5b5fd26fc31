//! The desk with a scripted source: what must hold whenever it is stopped, paused, killed or refused something.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use forebay_api::{Activity, SnapshotMode};
use tokio::sync::watch;
use tokio::task::yield_now;

use super::*;

mod scripted;

use scripted::{Disk, READ, ROWS, Scripted};

/// One source over several runs of the process.
struct World {
    reader: Arc<Scripted>,
    disk: Arc<Disk>,
    desk: SnapshotDesk,
    plan: SnapshotPlan,
    tables: watch::Sender<Vec<Table>>,
}

fn listed(names: &[&str]) -> Vec<Table> {
    names
        .iter()
        .map(|name| Table {
            name: (*name).to_owned(),
            incarnation: "1".to_owned(),
            estimated_rows: Some(100),
        })
        .collect()
}

fn start(table: &str) -> Command {
    Command::Start { table: table.to_owned(), filter: None }
}

impl World {
    fn new(mode: SnapshotMode, names: &[&str]) -> World {
        let disk = Arc::new(Disk::default());
        World {
            reader: Arc::new(Scripted::new()),
            desk: SnapshotDesk::new("s", disk.clone(), SnapshotFigures::default()),
            disk,
            plan: SnapshotPlan {
                mode,
                parallel: 2,
                identity: "i".to_owned(),
                first_start: true,
                anew: false,
            },
            tables: watch::Sender::new(listed(names)),
        }
    }

    /// Another process with the same disk.
    fn restart(&mut self) {
        self.reader.forget_held();
        self.desk = SnapshotDesk::new("s", self.disk.clone(), SnapshotFigures::default());
        self.plan.first_start = false;
    }

    async fn run(&self) -> Result<(), Fault> {
        self.desk.run(self.plan.clone(), self.tables.subscribe(), self.reader.clone()).await
    }

    /// Runs it to its end.
    async fn end(&self) -> Result<(), Fault> {
        let ended = tokio::time::timeout(Duration::from_secs(600), self.run()).await;
        ended.unwrap_or_else(|_| panic!("it hangs: {:?}", self.desk.report()))
    }

    /// Runs it beside `script`, which it must outlive.
    async fn beside<T>(&self, script: impl Future<Output = T>) -> T {
        tokio::select! {
            ended = self.run() => panic!("the run has ended: {ended:?}"),
            done = script => done,
            () = tokio::time::sleep(Duration::from_secs(600)) => panic!("it hangs: {:?}", self.desk.report()),
        }
    }

    /// Waits until what the desk tells is as wanted.
    async fn until(&self, wanted: impl Fn(&SnapshotReport) -> bool) {
        while !self.desk.report().is_some_and(|report| wanted(&report)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn idle(&self) {
        self.until(|report| report.state == SnapshotState::Idle).await;
        // what is said is stored, too
        let stored = || async { record::load(&*self.disk, "s").await.unwrap() };
        while stored().await.tables.values().any(|record| record.state.is_open()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Runs it until nothing is left.
    async fn copy(&self) {
        self.beside(self.idle()).await;
    }

    fn table(&self, name: &str) -> TableReport {
        let report = self.desk.report().unwrap();
        report.tables.into_iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no `{name}`"))
    }

    fn state(&self, name: &str) -> TableState {
        self.table(name).state
    }

    /// How often a copy of a table was read, as rows.
    fn rows_read(&self, table: &str, number: u32) -> usize {
        self.reader.seen().read.iter().filter(|(of, n, _)| of == table && *n == number).count()
    }

    fn is_durable(&self, table: &str, number: u32) -> bool {
        let seen = self.reader.seen();
        (0..ROWS).all(|row| seen.durable.contains(&(table.to_owned(), number, row)))
    }
}

/// Polls a future so often at most.
async fn polled<T>(future: impl Future<Output = T>, mut times: usize) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn only_ends_when_every_row_of_every_table_is_durable_and_that_is_stored() {
    let world = World::new(SnapshotMode::Only, &["a", "b", "c"]);
    world.reader.has_last.store(true, SeqCst);
    world.end().await.unwrap();
    for table in ["a", "b", "c"] {
        assert!(world.is_durable(table, 1));
        assert_eq!(world.rows_read(table, 1), ROWS as usize + 1, "every row once");
        let report = world.table(table);
        assert_eq!((report.state, report.rows), (TableState::Done, u64::from(ROWS) + 1));
        assert_eq!((report.chunks, report.bytes, report.ranges_left), (11, 110, 0));
    }
    assert_eq!(world.reader.seen().active, [Activity::Copying, Activity::Over]);
    assert_eq!(world.reader.seen().most_at_once, 2);
    let stored = record::load(&*world.disk, "s").await.unwrap();
    assert!(stored.tables.values().all(|record| record.state == record::State::Done));
    world.end().await.unwrap();
    assert_eq!(world.rows_read("a", 1), ROWS as usize + 1, "a second start has nothing to do");
}

/// Kills a copy by dropping it, and starts it again; whether it was at its end.
async fn kill_and_go_on(moment: impl AsyncFn(&World) -> bool) -> bool {
    let mut world = World::new(SnapshotMode::Only, &["a", "b"]);
    let ended = moment(&world).await;
    world.restart();
    // what is aborted ends a moment later
    while Arc::strong_count(&world.reader) > 1 {
        yield_now().await;
    }
    let read = world.reader.seen().read.len();
    world.plan.first_start = true;
    world.end().await.unwrap();
    assert!(world.is_durable("a", 1) && world.is_durable("b", 1));
    let again = world.reader.seen().read.len() - 2 * ROWS as usize;
    // two workers, which read for the 50 ms in which nothing is stored, and the chunks before and after
    let bound = 2 * 3 * (Duration::from_millis(50).as_millis() / READ.as_millis() + 3);
    assert!(again as u128 <= bound, "{again} rows of {read} are read again");
    ended
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_killed_anywhere_goes_on_where_it_was() {
    let mut times = 0;
    while !kill_and_go_on(async |world| polled(world.run(), times).await.is_some()).await {
        times += 1;
    }
    let mut moment = Duration::ZERO;
    while !kill_and_go_on(async |world| tokio::time::timeout(moment, world.run()).await.is_ok()).await {
        moment += Duration::from_millis(1);
    }
    assert!(times > 20 && moment > Duration::from_millis(200), "{times}, {moment:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_before_the_destinations_have_it() {
    let mut world = World::new(SnapshotMode::Initial, &["a"]);
    world.reader.destinations_are_up.store(false, SeqCst);
    world.beside(tokio::time::sleep(Duration::from_secs(60))).await;
    let report = world.table("a");
    assert_eq!((report.state, report.rows, report.ranges_left), (TableState::Copying, 0, 2));
    assert_eq!(world.rows_read("a", 1), 2 * 4 * 3, "four chunks of each of two ranges are on their way");
    world.restart();
    world
        .beside(async {
            world.until(|_| world.rows_read("a", 1) == 2 * 2 * 4 * 3).await;
            world.reader.destinations_come_up();
            world.idle().await;
        })
        .await;
    assert!(world.is_durable("a", 1));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_never_answered_leaves_the_rest_to_the_next_generation() {
    let mut world = World::new(SnapshotMode::Only, &["a"]);
    world.reader.destinations_are_up.store(false, SeqCst);
    world
        .beside(async {
            world.until(|_| world.rows_read("a", 1) > 0).await;
            world.reader.forget_held();
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .await;
    assert_eq!(world.table("a").rows, 0);
    assert!(world.rows_read("a", 1) <= 12, "nothing more is read");
    world.restart();
    world.reader.destinations_come_up();
    world.end().await.unwrap();
    assert!(world.is_durable("a", 1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_snapshot_reads_nothing_over_a_restart_until_it_is_resumed() {
    let mut world = World::new(SnapshotMode::Initial, &["a", "b"]);
    world
        .beside(async {
            world.until(|report| report.totals.rows > 0).await;
            world.desk.command(Command::Pause { table: None }).await.unwrap();
            world.until(|_| world.reader.seen().active == [Activity::Copying, Activity::Paused]).await;
        })
        .await;
    let read = world.reader.seen().read.len();
    world.restart();
    world.beside(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!(world.reader.seen().read.len(), read);
    let report = world.desk.report().unwrap();
    assert_eq!((report.state, report.tables[0].state), (SnapshotState::Paused, TableState::Paused));
    world
        .beside(async {
            world.until(|_| world.desk.present().commands.is_some()).await;
            world.desk.command(Command::Resume { table: None }).await.unwrap();
            world.idle().await;
        })
        .await;
    assert!(world.is_durable("a", 1) && world.is_durable("b", 1));
    assert!(world.reader.seen().read.len() <= 2 * ROWS as usize + 12, "what was durable is not read again");
}

#[tokio::test(start_paused = true)]
async fn a_table_can_be_paused_alone() {
    let world = World::new(SnapshotMode::Initial, &["a", "b"]);
    let table = || Some("a".to_owned());
    world
        .beside(async {
            world.until(|_| world.rows_read("a", 1) > 0).await;
            world.desk.command(Command::Pause { table: table() }).await.unwrap();
            world.until(|report| report.tables[1].state == TableState::Done).await;
            assert_eq!(world.state("a"), TableState::Paused);
            let refused = world.desk.command(Command::Resume { table: Some("b".to_owned()) }).await;
            assert_eq!(refused.unwrap_err().error, "`b` is not paused");
            world.desk.command(Command::Resume { table: table() }).await.unwrap();
            world.idle().await;
        })
        .await;
    assert!(world.is_durable("a", 1));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_stopped_begins_again_only_when_it_is_asked_for() {
    let mut world = World::new(SnapshotMode::Initial, &["a", "b"]);
    world
        .beside(async {
            world.until(|_| world.rows_read("a", 1) > 0).await;
            world.desk.command(Command::Stop { table: None }).await.unwrap();
            world.until(|_| world.reader.seen().active == [Activity::Copying, Activity::Over]).await;
        })
        .await;
    world.restart();
    world.beside(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!((world.state("a"), world.state("b")), (TableState::Stopped, TableState::Stopped));
    assert!(world.rows_read("a", 1) < ROWS as usize);
    world
        .beside(async {
            world.until(|_| world.desk.present().commands.is_some()).await;
            world.desk.command(start("a")).await.unwrap();
            world.idle().await;
        })
        .await;
    assert!(world.is_durable("a", 2), "a copy of its own, with ids of its own");
    assert_eq!(world.state("b"), TableState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_taken_back_when_its_copy_is_stopped() {
    let mut world = World::new(SnapshotMode::Initial, &["a"]);
    Arc::get_mut(&mut world.reader).unwrap().gate = tokio::sync::Semaphore::new(0);
    world
        .beside(async {
            world.until(|_| world.reader.seen().most_at_once == 2).await;
            world.desk.command(Command::Stop { table: None }).await.unwrap();
            world.until(|_| world.reader.seen().active == [Activity::Copying, Activity::Over]).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_added_is_copied_alone_and_one_that_went_is_forgotten() {
    let mut world = World::new(SnapshotMode::Initial, &["a", "b"]);
    world.copy().await;
    world.restart();
    world
        .beside(async {
            world.idle().await;
            world.tables.send_replace(listed(&["b", "c"]));
            world.until(|report| report.state == SnapshotState::Copying).await;
            world.idle().await;
        })
        .await;
    // `a` had the number 1, and what comes is not known to be another table than what went
    assert!(world.is_durable("c", 2) && world.rows_read("c", 2) == ROWS as usize);
    assert_eq!(world.table("c").reason, Some(Reason::Added));
    assert_eq!(world.rows_read("b", 1), ROWS as usize);
    assert_eq!(world.desk.report().unwrap().tables.len(), 2);
    assert_eq!(world.desk.report().unwrap().totals.tables, 1, "only what is copied together is counted");
    world.restart();
    world.tables.send_replace(listed(&["a", "b", "c"]));
    world.copy().await;
    assert!(world.is_durable("a", 2), "what was forgotten comes back under another number");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_ran_before_copies_nothing_that_is_there_and_everything_that_comes() {
    let mut world = World::new(SnapshotMode::Initial, &["a"]);
    world.plan.first_start = false;
    world
        .beside(async {
            world.idle().await;
            assert_eq!(world.state("a"), TableState::NotCopied);
            world.tables.send_replace(listed(&["a", "b"]));
            world.until(|report| report.tables.len() == 2).await;
            world.idle().await;
        })
        .await;
    assert!(world.is_durable("b", 1));
    assert_eq!(world.rows_read("a", 1), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_was_cut_off_before_it_was_decided_what_to_copy_is_a_first_start_still() {
    let mut world = World::new(SnapshotMode::Initial, &["a"]);
    world.desk.first_start().await.unwrap();
    // a position is stored, and the process dies
    world.restart();
    world.copy().await;
    assert!(world.is_durable("a", 1));
    // that a position is missing again takes nothing back
    world.desk.first_start().await.unwrap();
    world.copy().await;
    assert_eq!(world.rows_read("a", 1), ROWS as usize);
}

#[tokio::test(start_paused = true)]
async fn never_copies_nothing_but_what_is_asked_for() {
    let mut world = World::new(SnapshotMode::Never, &["a", "b"]);
    world
        .beside(async {
            world.idle().await;
            world.tables.send_replace(listed(&["a", "b", "c"]));
            world.until(|report| report.tables.len() == 3).await;
            let filter = Some("x > 5".to_owned());
            world.desk.command(Command::Start { table: "b".to_owned(), filter }).await.unwrap();
            world.until(|_| world.rows_read("b", 1) > 0).await;
        })
        .await;
    world.restart();
    world.copy().await;
    assert!(world.is_durable("b", 1), "it goes on after a restart");
    assert_eq!(world.reader.seen().filters, [Some("x > 5".to_owned())]);
    assert_eq!((world.state("a"), world.state("c")), (TableState::NotCopied, TableState::NotCopied));
    world.restart();
    world.plan.mode = SnapshotMode::Initial;
    world.copy().await;
    assert_eq!(world.state("a"), TableState::NotCopied, "what was left out stays so");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_nobody_asked_for_ends_when_the_mode_becomes_never() {
    let mut world = World::new(SnapshotMode::Initial, &["a"]);
    world.beside(world.until(|_| world.rows_read("a", 1) > 0)).await;
    world.restart();
    world.plan.mode = SnapshotMode::Never;
    world.copy().await;
    assert_eq!(world.state("a"), TableState::NotCopied);
    assert!(world.rows_read("a", 1) < ROWS as usize);
}

#[tokio::test(start_paused = true)]
async fn under_another_identity_everything_is_copied_anew() {
    let mut world = World::new(SnapshotMode::WhenNeeded, &["a"]);
    world
        .beside(async {
            world.idle().await;
            world.tables.send_replace(listed(&["a", "b"]));
            world.until(|report| report.totals.rows > 0 && report.tables.len() == 2).await;
        })
        .await;
    world.restart();
    world.plan.identity = "another".to_owned();
    world.copy().await;
    assert!(world.is_durable("a", 2) && world.is_durable("b", 2));
    assert_eq!(world.table("a").reason, Some(Reason::Anew));
    assert_eq!(world.table("b").reason, Some(Reason::Added));
    world.restart();
    world.plan.anew = true;
    world.copy().await;
    assert!(world.is_durable("a", 3) && world.is_durable("b", 3));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_and_makes_no_sense_ends_alone() {
    let world = World::new(SnapshotMode::Initial, &["a", "b"]);
    world
        .beside(async {
            world.idle().await;
            let filter = Some("nonsense".to_owned());
            world.desk.command(Command::Start { table: "a".to_owned(), filter }).await.unwrap();
            world.until(|report| report.tables[0].state == TableState::Stopped).await;
            world.desk.command(start("b")).await.unwrap();
            world.idle().await;
        })
        .await;
    assert_eq!(world.table("a").problem.as_deref(), Some("dividing: syntax error"));
    assert!(world.is_durable("b", 2));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_be_obeyed_is_refused_with_what_to_do() {
    let world = World::new(SnapshotMode::Initial, &["a", "b"]);
    let command = |command| world.desk.command(command);
    let down = command(start("a")).await.unwrap_err();
    assert!(!down.wrong && down.error.contains("not being read"), "{down:?}");
    let filter = Some(" ".to_owned());
    let empty = Command::Start { table: "a".to_owned(), filter };
    let wrong =
        [(start("x"), "no table"), (start("["), "error parsing glob"), (empty, "the filter is empty")];
    world
        .beside(async {
            world.until(|_| world.rows_read("a", 1) > 0).await;
            for (wrong, why) in wrong {
                let refusal = command(wrong).await.unwrap_err();
                assert!(refusal.wrong && refusal.error.contains(why), "{refusal:?}");
            }
            let busy = command(start("*")).await.unwrap_err();
            assert_eq!((busy.wrong, busy.error.as_str()), (false, "`a`, `b` are being copied already"));
            world.idle().await;
            for nothing in [
                Command::Pause { table: None },
                Command::Resume { table: None },
                Command::Stop { table: Some("a".to_owned()) },
            ] {
                assert!(!command(nothing).await.unwrap_err().wrong);
            }
        })
        .await;
    assert_eq!(world.reader.seen().divided.len(), 2, "what is refused does nothing");
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_is_full_nothing_more_is_read() {
    let world = World::new(SnapshotMode::Initial, &["a"]);
    world
        .beside(async {
            world.until(|_| world.rows_read("a", 1) > 0).await;
            world.disk.is_full.store(true, SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let read = world.rows_read("a", 1);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(world.rows_read("a", 1), read);
            assert!(read < ROWS as usize);
            world.disk.is_full.store(false, SeqCst);
            world.idle().await;
        })
        .await;
    assert_eq!(world.rows_read("a", 1), ROWS as usize, "nothing is read twice");
}

#[tokio::test(start_paused = true)]
async fn progress_is_stored_for_several_chunks_at_once() {
    let world = World::new(SnapshotMode::Only, &["a", "b", "c", "d"]);
    world.end().await.unwrap();
    let puts = world.disk.puts.load(SeqCst);
    assert!(puts < 30, "{puts} puts for 40 chunks");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_gone_or_changed_is_given_up_or_divided_anew() {
    let world = World::new(SnapshotMode::Only, &["a", "gone"]);
    *world.reader.next_outcome.lock().unwrap() = Some("divide");
    world.end().await.unwrap();
    assert!(world.is_durable("a", 2), "under ids of its own");
    let count = |table| world.reader.seen().divided.iter().filter(|divided| *divided == table).count();
    assert_eq!((count("a"), count("gone")), (2, 1));
    assert_eq!(world.desk.report().unwrap().tables.len(), 1);
    let world = World::new(SnapshotMode::Only, &["a"]);
    *world.reader.next_outcome.lock().unwrap() = Some("gone");
    world.end().await.unwrap();
    assert_eq!(world.desk.report().unwrap().tables.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_or_a_panic_of_the_reader_ends_the_run_and_not_the_copy() {
    let world = World::new(SnapshotMode::Only, &["a"]);
    *world.reader.next_outcome.lock().unwrap() = Some("connection lost");
    assert!(world.end().await.unwrap_err().is_retryable());
    *world.reader.next_outcome.lock().unwrap() = Some("panic");
    assert!(matches!(world.end().await, Err(Fault::Fatal { blame: Blame::Defect, .. })));
    world.end().await.unwrap();
    assert!(world.is_durable("a", 1));
}

#[tokio::test(start_paused = true)]
async fn progress_that_cannot_be_read_is_no_fresh_start() {
    let world = World::new(SnapshotMode::Initial, &["a"]);
    let value = Some(b"?".to_vec());
    world.disk.kept.put(Kind::Snapshots, vec![("s/a".to_owned(), value)]).await.unwrap();
    let fault = world.end().await.unwrap_err();
    assert!(!fault.is_retryable() && fault.remedy().is_some(), "{fault}");
    assert!(world.reader.seen().divided.is_empty());
    assert!(world.desk.first_start().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_told_says_how_far_it_is_how_fast_and_for_how_long() {
    let world = World::new(SnapshotMode::Initial, &["a", "b"]);
    world.reader.ranges.store(1, SeqCst);
    world
        .beside(async {
            world.until(|report| report.tables[0].rows == 15).await;
            let report = world.desk.report().unwrap();
            assert_eq!(report.state, SnapshotState::Copying);
            let a = &report.tables[0];
            assert_eq!((a.estimated_rows, a.ranges_left, a.chunks), (Some(u64::from(ROWS)), 1, 5));
            // three rows in 20 ms; the first look is taken when the first chunk is there
            assert!((100.0..200.0).contains(&a.rate_rows_per_second), "{a:?}");
            assert!((0.05..0.2).contains(&a.left_seconds.unwrap()), "{a:?}");
            assert_eq!((report.totals.tables, report.totals.tables_ended), (2, 0));
            assert_eq!(report.totals.estimated_rows, 2 * u64::from(ROWS));
            world.idle().await;
        })
        .await;
    let totals = world.desk.report().unwrap().totals;
    assert_eq!((totals.tables_ended, totals.estimated_rows_left, totals.left_seconds), (2, 0, None));
}
