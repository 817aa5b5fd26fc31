//! Is the suite honest? A source of a log in memory passes every check; the same with one flaw is caught, flaw by
//! flaw, by the check that is there for it.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{CHECKS, SourceRig, check, conform};
use crate::chunk::{Chunk, Draft, Event, Op, Row, Span, Subject};
use crate::fault::{Blame, Fault};
use crate::mark::{Mark, Position, StreamId};
use crate::outlet::Closed;
use crate::source::{Source, SourceContext};
use crate::testing::Failure;

/// What is wrong with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    Reorders,
    Repeats,
    GivesOneMarkTwice,
    MixesStreams,
    CountsMarksPerRun,
    ChangesContent,
    GivesPositionsTooEarly,
    GivesPositionsInsideTransactions,
    ForgetsWhereItWas,
    SkipsAfterAFault,
    DropsWhenHeldBack,
    LooksStuckWhenHeldBack,
    IgnoresStop,
    FailsWhenStopped,
    IgnoresClosed,
    EndsByItself,
    Panics,
    ConfirmsWhatItSent,
    ConfirmsWhenStopped,
    NeverConfirms,
    IsSilentWhenIdle,
    CallsARestartFatal,
}

/// How many changes share a transaction.
const TRANSACTION: u64 = 5;

#[derive(Default)]
struct Log {
    /// The numbers of each transaction.
    transactions: Vec<Vec<u64>>,
    /// How many transactions the reader said are settled.
    confirmed: u64,
    down: bool,
    runs: u64,
}

#[derive(Clone, Default)]
struct Server(Arc<(Mutex<Log>, Notify)>);

impl Server {
    fn log<T>(&self, use_it: impl FnOnce(&mut Log) -> T) -> T {
        use_it(&mut self.0.0.lock().unwrap())
    }
}

struct LogSource {
    server: Server,
    flaw: Flaw,
    subject: Arc<Subject>,
    ran: bool,
}

impl LogSource {
    fn chunk(&self, at: u64, numbers: &[u64], inside: bool, run: u64) -> Chunk {
        let mut draft = Draft::default();
        let subject = draft.subject(&self.subject);
        let first = if inside { 0 } else { TRANSACTION - numbers.len() as u64 };
        for (number, minor) in numbers.iter().zip(first..) {
            let mut payload = format!("{{\"number\":{number}}}");
            if self.flaw == Flaw::ChangesContent {
                payload = format!("{{\"number\":{number},\"run\":{run}}}");
            }
            let start = draft.buf.len();
            draft.buf.extend_from_slice(payload.as_bytes());
            let payload = draft.since(start);
            let mut mark = Mark { major: (0, at), minor: u32::try_from(minor).unwrap(), part: 0 };
            match self.flaw {
                Flaw::GivesOneMarkTwice => mark.minor = 0,
                Flaw::CountsMarksPerRun => mark.major.1 += run * 1000,
                _ => {}
            }
            let none = Span::default();
            draft.push(Row {
                mark,
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
        let epoch = if self.flaw == Flaw::MixesStreams { at % 2 } else { 7 };
        draft.finish(&Arc::new(StreamId { source: "log".into(), epoch }), 0, inside)
    }

    /// Sends, and keeps turning while it waits.
    async fn send(
        &self,
        context: &SourceContext,
        chunk: Chunk,
        position: Option<Position>,
    ) -> Result<(), Closed> {
        let mut sending = std::pin::pin!(context.outlet.send(chunk, position));
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                sent = &mut sending => return sent,
                _ = ticks.tick(), if self.flaw != Flaw::LooksStuckWhenHeldBack => context.report.turned(),
            }
        }
    }

    async fn send_transaction(&self, context: &SourceContext, at: u64, run: u64) -> Result<(), Closed> {
        let mut numbers = self.server.log(|log| log.transactions[usize::try_from(at).unwrap()].clone());
        match self.flaw {
            Flaw::Reorders => numbers.reverse(),
            Flaw::Repeats => numbers.extend(numbers.last().copied()),
            _ => {}
        }
        let (first, rest) = numbers.split_at(numbers.len() / 2);
        let early = match self.flaw {
            Flaw::GivesPositionsInsideTransactions => Some(position(at + 1)),
            _ => None,
        };
        let late = match self.flaw {
            Flaw::GivesPositionsTooEarly => position(at + 2),
            _ => position(at + 1),
        };
        for (part, inside, position) in [(first, true, early), (rest, false, Some(late))] {
            let chunk = self.chunk(at, part, inside, run);
            if self.flaw == Flaw::DropsWhenHeldBack {
                let patience = Duration::from_millis(500);
                timeout(patience, self.send(context, chunk, position)).await.unwrap_or(Ok(()))?;
            } else {
                self.send(context, chunk, position).await?;
            }
        }
        Ok(())
    }

    fn confirm(&self, context: &SourceContext, sent: u64) {
        let stored = context.committed.latest().map(|stored| number_of(&stored));
        let settled = match self.flaw {
            Flaw::ConfirmsWhatItSent => Some(sent),
            Flaw::ConfirmsWhenStopped if context.stop.is_cancelled() => Some(sent),
            Flaw::NeverConfirms => None,
            _ => stored,
        };
        self.server.log(|log| log.confirmed = log.confirmed.max(settled.unwrap_or(0)));
    }

    async fn read(&mut self, context: &SourceContext, mut at: u64, run: u64) -> Result<(), Fault> {
        loop {
            context.report.turned();
            self.confirm(context, at);
            let (end, down) = self.server.log(|log| (log.transactions.len() as u64, log.down));
            if down {
                return match self.flaw {
                    Flaw::CallsARestartFatal => Err(Fault::fatal("reading", Blame::Outside, "it is gone")),
                    Flaw::EndsByItself => Ok(()),
                    _ => Err(Fault::retryable("reading", "it is gone")),
                };
            }
            let sent = if at < end {
                assert!(self.flaw != Flaw::Panics, "a panic that was asked for");
                self.send_transaction(context, at, run).await
            } else {
                tokio::select! {
                    biased;
                    () = context.stop.cancelled(), if self.flaw != Flaw::IgnoresStop => Err(Closed),
                    () = self.server.0.1.notified() => continue,
                    () = sleep(Duration::from_millis(200)) => {
                        if self.flaw == Flaw::IsSilentWhenIdle {
                            continue;
                        }
                        let stream = Arc::new(StreamId { source: "log".into(), epoch: 7 });
                        self.send(context, Chunk::empty(stream, 0), Some(position(at))).await
                    }
                }
            };
            match sent {
                Ok(()) => at = end.min(at + 1),
                Err(Closed) if self.flaw == Flaw::IgnoresClosed => sleep(Duration::from_millis(10)).await,
                Err(Closed) if context.stop.is_cancelled() && self.flaw == Flaw::IgnoresStop => {
                    std::future::pending::<()>().await;
                }
                Err(Closed) => {
                    self.confirm(context, at);
                    return match self.flaw {
                        Flaw::FailsWhenStopped => Err(Fault::retryable("stopping", "it does not")),
                        _ => Ok(()),
                    };
                }
            }
        }
    }
}

#[async_trait]
impl Source for LogSource {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        let (end, run) = self.server.log(|log| {
            log.runs += 1;
            (log.transactions.len() as u64, log.runs)
        });
        let mut at = context.resume.as_ref().map_or(end, number_of);
        let ran = std::mem::replace(&mut self.ran, true);
        if self.flaw == Flaw::ForgetsWhereItWas || (self.flaw == Flaw::SkipsAfterAFault && ran) {
            at = end;
        }
        self.read(&context, at, run).await
    }
}

/// Everything before this transaction was sent.
fn position(at: u64) -> Position {
    Position(Bytes::from(at.to_string()))
}

fn number_of(position: &Position) -> u64 {
    std::str::from_utf8(&position.0).unwrap().parse().unwrap()
}

struct Place {
    server: Server,
    flaw: Flaw,
}

impl Place {
    fn new(flaw: Flaw) -> Place {
        Place { server: Server::default(), flaw }
    }
}

#[async_trait]
impl SourceRig for Place {
    async fn build(&self) -> Box<dyn Source> {
        let subject = Subject::new(("com.example", "log", "1-0-0"), (None, None, None), String::new());
        Box::new(LogSource {
            server: self.server.clone(),
            flaw: self.flaw,
            subject: Arc::new(subject),
            ran: false,
        })
    }

    async fn write(&self, numbers: Range<u64>) {
        let all: Vec<u64> = numbers.collect();
        let transactions = all.chunks(usize::try_from(TRANSACTION).unwrap()).map(<[u64]>::to_vec);
        self.server.log(|log| log.transactions.extend(transactions));
        self.server.0.1.notify_one();
    }

    fn number(&self, event: Event<'_>) -> Option<u64> {
        let payload: serde_json::Value = serde_json::from_slice(event.payload()).unwrap();
        payload["number"].as_u64()
    }

    async fn confirmed(&self, position: &Position) -> Option<Ordering> {
        Some(self.server.log(|log| log.confirmed).cmp(&number_of(position)))
    }

    fn can_restart(&self) -> bool {
        true
    }

    async fn stop_server(&self) {
        self.server.log(|log| log.down = true);
        self.server.0.1.notify_one();
    }

    async fn start_server(&self) {
        self.server.log(|log| log.down = false);
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_source_passes_every_check() {
    conform(&[], async |_| Place::new(Flaw::Nothing)).await;
}

/// Flaw, the check that must catch it, words of its finding.
const CAUGHT: &[(Flaw, &str, &str)] = &[
    (Flaw::Reorders, "events_come_in_the_order_of_their_commits", "came after change"),
    (Flaw::Repeats, "events_come_in_the_order_of_their_commits", "came after change"),
    (Flaw::GivesOneMarkTwice, "events_come_in_the_order_of_their_commits", "came after mark"),
    (Flaw::MixesStreams, "events_come_in_the_order_of_their_commits", "two streams"),
    (Flaw::Panics, "events_come_in_the_order_of_their_commits", "a run died"),
    (Flaw::CountsMarksPerRun, "what_is_read_again_is_the_same", "came again as another event"),
    (Flaw::ChangesContent, "what_is_read_again_is_the_same", "came again as another event"),
    (Flaw::GivesPositionsTooEarly, "every_position_can_be_resumed_from", "were lost"),
    (Flaw::GivesPositionsInsideTransactions, "every_position_can_be_resumed_from", "were lost"),
    (Flaw::ForgetsWhereItWas, "what_happens_between_two_runs_comes_later", "did not come"),
    (Flaw::SkipsAfterAFault, "a_server_that_restarts_loses_nothing", "did not come"),
    (Flaw::CallsARestartFatal, "a_server_that_restarts_loses_nothing", "a run failed"),
    (Flaw::EndsByItself, "a_server_that_restarts_loses_nothing", "without being told to"),
    (Flaw::DropsWhenHeldBack, "what_is_held_back_is_not_lost", "came after change"),
    (Flaw::LooksStuckWhenHeldBack, "its_loop_turns_while_it_is_held_back", "did not turn"),
    (Flaw::IgnoresStop, "a_stop_ends_a_run_soon", "after it was told to"),
    (Flaw::FailsWhenStopped, "a_stop_ends_a_run_soon", "told to stop failed"),
    (Flaw::IgnoresClosed, "a_closed_outlet_ends_a_run", "after its outlet was closed"),
    (Flaw::ConfirmsWhatItSent, "only_what_is_committed_is_confirmed", "is settled, but"),
    (Flaw::ConfirmsWhenStopped, "only_what_is_committed_is_confirmed", "stopping confirmed"),
    (Flaw::NeverConfirms, "only_what_is_committed_is_confirmed", "was not confirmed"),
    (Flaw::IsSilentWhenIdle, "an_idle_source_sends_positions", "no position came"),
];

#[tokio::test(start_paused = true)]
async fn each_flaw_is_caught_by_the_check_that_is_there_for_it() {
    for (flaw, name, words) in CAUGHT {
        let outcome = check(name, &Place::new(*flaw)).await;
        let Err(Failure::Broken(seen)) = outcome else { panic!("{flaw:?} passed {name}: {outcome:?}") };
        assert!(seen.contains(words), "{flaw:?} was caught by {name}, but with: {seen}");
    }
}

#[test]
fn every_check_has_caught_a_flaw() {
    for check in CHECKS {
        assert!(
            CAUGHT.iter().any(|(_, name, _)| *name == check.name),
            "nothing shows that {} can fail",
            check.name
        );
    }
}

#[test]
fn the_guide_explains_every_check() {
    let guide = include_str!("../../../../../docs/connectors.md");
    for check in CHECKS {
        assert!(
            guide.contains(&format!("| `{}` |", check.name)),
            "docs/connectors.md does not list {}",
            check.name
        );
    }
}
