//! `forebay check`: connects as `run` would and looks at the topics and the group. Joins and changes nothing.

use std::sync::Arc;

use forebay_api::{Blame, Chunk, Fault, Finding, StreamId};
use rdkafka::consumer::Consumer;

use super::entry::{Entry, Intake};
use super::session::{Plan, Session};
use super::wrong;
use crate::client::blocking;
use crate::config::{Mechanism, Sasl};

/// Takes nothing in: a check reads no message.
struct Nothing;

impl Intake for Nothing {
    fn take(&mut self, _: &Arc<StreamId>, _: &Entry<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn gathered(&self) -> (usize, usize) {
        (0, 0)
    }

    fn chunks(&mut self) -> Vec<Chunk> {
        Vec::new()
    }
}

/// Looks at everything that could keep the source from reading.
pub(crate) async fn check(plan: Plan, is_plain: bool, sasl: Option<&Sasl>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_plain && sasl.is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
        let fact = "`sasl.mechanism: PLAIN` sends the password unencrypted";
        findings.push(Finding::warning(fact, "set `tls`, or use a SCRAM mechanism"));
    }
    let plan = Arc::new(plan);
    let look = move || {
        let session = match Session::start(&plan, Box::new(Nothing), || {}) {
            Ok(session) => session,
            Err(fault) => return vec![Finding::fault(&fault)],
        };
        look(&session, &plan).unwrap_or_else(|fault| vec![Finding::fault(&fault)])
    };
    findings.extend(blocking(look).await);
    findings
}

/// The brokers, each topic, and whether the group can be asked.
fn look(session: &Session, plan: &Plan) -> Result<Vec<Finding>, Fault> {
    let cluster = session.describe(None)?;
    let mut findings = vec![Finding::good(format!("{} broker(s) answer", cluster.brokers().len()))];
    let mut some = Vec::new();
    for topic in &plan.topics {
        if topic.starts_with('^') {
            findings.push(Finding::good(format!("topics like `{topic}` are read, now and as they come")));
            continue;
        }
        let found = cluster.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| found.partitions().len()) {
            None | Some(0) => findings.push(Finding::fault(&wrong::missing(topic))),
            Some(partitions) => {
                findings.push(Finding::good(format!("topic `{topic}` has {partitions} partition(s)")));
                some.push((topic.clone(), 0));
            }
        }
    }
    if some.is_empty() {
        return Ok(findings);
    }
    findings.push(match session.known_to_group(&some) {
        Ok(known) if known.is_empty() => {
            Finding::good(format!("group `{}` can be read and has no offsets yet", plan.group))
        }
        Ok(_) => Finding::good(format!("group `{}` can be read and has offsets", plan.group)),
        Err(fault) => Finding::fault(&fault),
    });
    findings.extend(members(session, plan));
    Ok(findings)
}

/// Who else is in the group: other software would not understand us, nor we it.
fn members(session: &Session, plan: &Plan) -> Option<Finding> {
    let groups = session.consumer().fetch_group_list(Some(&plan.group), super::session::ASK_WAIT).ok()?;
    let group = groups.groups().iter().find(|group| group.name() == plan.group)?;
    let strangers =
        group.members().iter().filter(|member| !member.client_id().starts_with("forebay-")).count();
    (strangers > 0).then(|| {
        let fact = format!("{strangers} member(s) of group `{}` are not Forebay", plan.group);
        Finding::bad(fact, Blame::Configuration, "set `group` to one in which only Forebay reads")
    })
}
