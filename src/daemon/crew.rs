//! The pipelines that run.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use forebay_api::{Blame, Fault};
use tokio::task::{Id, JoinSet};
use tracing::info;

use super::parts::Built;
use super::plan::PipelinePlan;
use crate::admin::PipelineStatus;
use crate::shutdown::Shutdown;
use crate::supervise;

/// One pipeline that runs.
pub(super) struct Member {
    pub(super) plan: PipelinePlan,
    pub(super) status: PipelineStatus,
    shutdown: Shutdown,
}

/// How one ended: whether everything that it read is settled, or why not.
pub(super) type Ended = Result<bool, Fault>;

/// All that run, each in a task of its own.
#[derive(Default)]
pub(super) struct Crew {
    members: Vec<Member>,
    tasks: JoinSet<Ended>,
    keys: HashMap<Id, String>,
    /// Those that ended while somebody waited for others.
    ended: VecDeque<(PipelinePlan, Ended)>,
}

impl Crew {
    /// Sets a pipeline going.
    pub(super) fn start(
        &mut self,
        plan: PipelinePlan,
        built: Built,
        startup: Option<Duration>,
        shutdown: &Shutdown,
    ) {
        let shutdown = shutdown.child();
        info!(source = %plan.key, destinations = built.pipeline.lanes.len(), "source starts");
        let task = self.tasks.spawn(supervise::run(built.pipeline, startup, shutdown.clone()));
        self.keys.insert(task.id(), plan.key.clone());
        self.members.push(Member { plan, status: built.status, shutdown });
    }

    /// Those that run, in the order in which they were started.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether one of this key runs.
    pub(super) fn runs(&self, key: &str) -> bool {
        self.members.iter().any(|member| member.plan.key == key)
    }

    /// The next one that ends; `None` when none is left. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(PipelinePlan, Ended)> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        self.join().await
    }

    async fn join(&mut self) -> Option<(PipelinePlan, Ended)> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok((id, ended)) => (id, ended),
            Err(panic) => (panic.id(), Err(Fault::fatal("running a pipeline", Blame::Defect, panic))),
        };
        let key = self.keys.remove(&id).expect("every task was started with a key");
        let at = self.members.iter().position(|member| member.plan.key == key);
        let member = self.members.remove(at.expect("a pipeline leaves once, when it ends"));
        Some((member.plan, ended))
    }

    /// Asks some to end: they stop reading and drain.
    pub(super) fn ask(&self, of: impl Fn(&PipelinePlan) -> bool) {
        self.members
            .iter()
            .filter(|member| of(&member.plan))
            .for_each(|member| member.shutdown.stop.cancel());
    }

    /// Stops some and waits until they have ended, which each does within its grace. How they ended is nobody's matter
    /// any more: what they left comes again.
    pub(super) async fn stop(&mut self, of: impl Fn(&PipelinePlan) -> bool) {
        self.ask(&of);
        while self.members.iter().any(|member| of(&member.plan)) {
            let Some((plan, ended)) = self.join().await else { return };
            if of(&plan) {
                info!(source = %plan.key, drained = matches!(ended, Ok(true)), "stopped");
            } else {
                self.ended.push_back((plan, ended));
            }
        }
    }
}
