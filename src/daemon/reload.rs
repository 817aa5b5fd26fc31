//! Reload: the configuration is read and judged anew, and only the pipelines that it changes are restarted.

use serde_json::{Value, json};
use tracing::info;

use super::parts::Built;
use super::plan::{self, PipelinePlan};
use super::{Running, close, refused};
use crate::config::Settings;
use crate::snapshot::Refusal;

impl Running {
    /// Validates first: where anything is wrong, nothing has changed. What was done is the answer.
    pub(super) async fn reload(&mut self) -> Result<Value, Refusal> {
        let Some(reread) = &self.reread else {
            return Err(Refusal::wrong("a dry run reads its configuration once", "start it again"));
        };
        let settings = reread().map_err(|error| {
            Refusal::wrong(error.render(false), "mend the configuration; what ran before runs on")
        })?;
        let mut fixed = needs_a_restart(&self.settings, &settings);
        // Whether anything would be left in it is asked at a start, when nobody has it open.
        fixed.extend(settings.sources.iter().filter_map(|source| {
            let before = self.settings.sources.iter().find(|before| before.name == source.name)?;
            let kind =
                |settings: &Settings, source| settings.journal_of(source).map(|journal| journal.kind.clone());
            let (before, after) = (kind(&self.settings, before), kind(&settings, source));
            (before.is_some() && before != after).then(|| format!("the journal of `{}`", source.name))
        }));
        if !fixed.is_empty() {
            return Err(Refusal::wrong(
                format!("{} changed, which takes a restart; nothing was done", fixed.join(" and ")),
                "restart the daemon, or take that change back",
            ));
        }
        let plans = self.plans(&settings);
        let runs = |plan: &PipelinePlan| self.crew.members().iter().any(|member| member.plan == *plan);
        let fresh: Vec<PipelinePlan> = plans.iter().filter(|plan| !runs(plan)).cloned().collect();
        // Everything is built beside what runs, so that a mistake leaves that as it is.
        let mut parts = self.parts.clone();
        let given_up = parts.retain(&plans, &settings);
        let built = fresh
            .iter()
            .map(|plan| parts.build(plan, &settings))
            .collect::<Result<Vec<Built>, _>>()
            .map_err(refused)?;
        let forwarders = parts.forwarders(&settings).map_err(refused)?;
        let before: Vec<String> = self.crew.members().iter().map(|member| member.plan.key.clone()).collect();
        self.crew.stop(|plan| !plans.contains(plan)).await;
        self.parts = parts;
        self.forward(forwarders).await;
        close(given_up, &self.shutdown).await;
        let mut done = Done::default();
        let kept: Vec<String> = self.crew.members().iter().map(|member| member.plan.key.clone()).collect();
        for key in &before {
            if !plans.iter().any(|plan| plan.key == *key) {
                done.stopped.push(key.clone());
            } else if kept.contains(key) {
                done.unchanged.push(key.clone());
            } else {
                done.restarted.push(key.clone());
            }
        }
        done.started =
            fresh.iter().map(|plan| plan.key.clone()).filter(|key| !before.contains(key)).collect();
        self.settings = settings;
        for (plan, built) in fresh.into_iter().zip(built) {
            self.crew.start(plan, built, None, &self.shutdown);
        }
        self.show();
        info!(
            started = done.started.join(", "),
            restarted = done.restarted.join(", "),
            stopped = done.stopped.join(", "),
            unchanged = done.unchanged.len(),
            "configuration reloaded"
        );
        Ok(json!({
            "started": done.started,
            "restarted": done.restarted,
            "stopped": done.stopped,
            "unchanged": done.unchanged,
        }))
    }

    /// The pipelines that shall run: those of the configuration, and the replays that it still has room for.
    fn plans(&self, settings: &Settings) -> Vec<PipelinePlan> {
        let mut plans = plan::pipelines(settings);
        plans.extend(self.replays.iter().filter_map(|replay| PipelinePlan::of_replay(settings, replay)));
        plans
    }
}

/// What was done, by the keys of pipelines.
#[derive(Default)]
struct Done {
    started: Vec<String>,
    restarted: Vec<String>,
    stopped: Vec<String>,
    unchanged: Vec<String>,
}

/// The keys that changed and that a running daemon cannot change.
fn needs_a_restart(before: &Settings, after: &Settings) -> Vec<String> {
    let fixed = [
        ("`name`", before.name == after.name),
        ("`environment`", before.environment == after.environment),
        ("`data_dir`", before.data_dir == after.data_dir),
        ("`admin`", before.admin == after.admin),
        ("`privacy`", before.privacy == after.privacy),
        ("`validation`", before.validation == after.validation),
        ("`checkpoints`", before.checkpoints == after.checkpoints),
        ("`startup`", before.startup == after.startup),
        ("`shutdown`", before.shutdown == after.shutdown),
    ];
    fixed.into_iter().filter(|(_, same)| !same).map(|(key, _)| key.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_running_daemon_cannot_change_is_named() {
        let before = Settings::default();
        let after = Settings { name: "other".to_owned(), data_dir: "elsewhere".into(), ..before.clone() };
        assert_eq!(needs_a_restart(&before, &after), ["`name`", "`data_dir`"]);
        assert!(needs_a_restart(&before, &before.clone()).is_empty());
    }
}
