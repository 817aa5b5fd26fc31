//! The source: a member of a consumer group, whose offsets are its checkpoint.
//!
//! `GroupReader` is what the core runs; it hands a `Session` to a thread of its own for each run and takes it back. The
//! journal's readers are the same with another `Intake`.

pub(crate) mod check;
pub mod config;
pub(crate) mod cursors;
pub(crate) mod entry;
mod membership;
pub(crate) mod options;
pub(crate) mod session;
mod teller;
pub(crate) mod transcribe;
pub(crate) mod wrong;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{Blame, Fault, Report, Source, SourceContext};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::cursors::Resumed;
use self::entry::Intake;
use self::session::{End, Generation, Plan, Session, Sharing};

/// How often a run that waits for the one before says that it turns.
const TURN: Duration = Duration::from_secs(2);

/// What a run's thread gives back: the session, where it can be used again, and how the run ended.
type Back = (Option<Session>, Result<(), Fault>);

/// Reads as a member of a group, or alone.
pub(crate) struct GroupReader {
    plan: Arc<Plan>,
    intake: Box<dyn Fn() -> Box<dyn Intake> + Send>,
    session: Option<Session>,
    /// The thread of a run that was dropped before it ended.
    left: Option<oneshot::Receiver<Back>>,
}

impl Drop for GroupReader {
    /// To leave a group takes brokers, which may be away: that is waited for where it holds up nobody.
    fn drop(&mut self) {
        let session = self.session.take();
        if let (Some(session), Ok(runtime)) = (session, Handle::try_current()) {
            runtime.spawn_blocking(move || drop(session));
        }
    }
}

impl GroupReader {
    /// Connects to nothing yet.
    pub(crate) fn new(plan: Plan, intake: impl Fn() -> Box<dyn Intake> + Send + 'static) -> GroupReader {
        GroupReader { plan: Arc::new(plan), intake: Box::new(intake), session: None, left: None }
    }

    /// Waits for the thread of a run that was dropped.
    async fn collect(&mut self, report: &Report) {
        while let Some(left) = &mut self.left {
            report.turned();
            if let Ok(back) = timeout(TURN, left).await {
                self.left = None;
                self.session = back.ok().and_then(|(session, _)| session);
            }
        }
    }
}

/// Tells the thread of a run that nobody waits for it any more.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Source for GroupReader {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        self.collect(&context.report).await;
        let resume = context.resume.as_ref().map(Resumed::read).transpose().map_err(wrong::position)?;
        let gone = Arc::new(AtomicBool::new(false));
        let generation = Generation {
            outlet: Some(context.outlet),
            committed: context.committed,
            stop: context.stop,
            abort: context.abort,
            report: context.report,
            resume: resume.unwrap_or_default(),
            runtime: Handle::current(),
            gone: gone.clone(),
            closed: false,
        };
        let (plan, intake) = (self.plan.clone(), (self.intake)());
        let session = self.session.take();
        let (sender, receiver) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let back = run(session, &plan, intake, generation);
            // A source that was dropped meanwhile wants nothing back; its session closes here.
            drop(sender.send(back));
        });
        let _gone = Gone(gone);
        let (session, result) = match self.left.insert(receiver).await {
            Ok(back) => back,
            Err(_) => {
                let fault = Fault::fatal("reading from Kafka", Blame::Defect, "the reading thread died");
                (None, Err(fault.with_remedy("report this")))
            }
        };
        (self.session, self.left) = (session, None);
        result
    }

    /// A partition moves between the members of its group; who reads alone shares nothing.
    fn is_shared(&self) -> bool {
        self.plan.sharing == Sharing::Group
    }
}

/// One run, on a thread of its own.
fn run(
    session: Option<Session>,
    plan: &Arc<Plan>,
    intake: Box<dyn Intake>,
    mut generation: Generation,
) -> Back {
    let mut session = match session.map_or_else(|| Session::open(plan, intake, &generation), Ok) {
        Ok(session) => session,
        Err(fault) => return (None, Err(fault)),
    };
    match session.run(&mut generation) {
        Ok(End::Done) => {
            drop(session);
            (None, Ok(()))
        }
        Ok(End::Open) => (Some(session), Ok(())),
        // librdkafka has given this consumer up; the next run has another one.
        Err(fault) if session.is_dead() => (None, Err(fault)),
        Err(fault) => (Some(session), Err(fault)),
    }
}
