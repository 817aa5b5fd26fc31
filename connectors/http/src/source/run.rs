//! The source that `type: http` names, and one run of it: from the listener to the last answer.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{
    Blame, Closed, Fault, Finding, Measure, Mistake, Position, Source, SourceConnector, SourceContext,
    SourceSetting, StreamId,
};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tracing::{error, warn};

use super::commit::Committer;
use super::config::Config;
use super::connection;
use super::listener::{Accepted, Listener};
use super::plan::Plan;
use super::server::Server;
use super::tls::Certificate;

/// How often the run says that it turns, and looks whether the certificate changed.
const TURN: Duration = Duration::from_secs(2);
/// How long nothing is accepted after the machine refused to: it has no files left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connector that `type: http` names among sources.
pub struct HttpSource {
    plan: Arc<Plan>,
}

#[async_trait]
impl SourceConnector for HttpSource {
    const TYPE: &'static str = "http";
    const ABOUT: &'static str = "Events over HTTP, from Snowplow trackers; answered when they are durable";
    type Config = Config;

    fn build(config: Config, setting: &SourceSetting) -> Result<Box<dyn Source>, Vec<Mistake>> {
        Ok(Box::new(HttpSource { plan: Arc::new(Plan::new(config, setting)?) }))
    }

    async fn check(config: Config, setting: &SourceSetting) -> Vec<Finding> {
        let plan = match Plan::new(config, setting) {
            Ok(plan) => plan,
            Err(mistakes) => return mistakes.into_iter().map(mistaken).collect(),
        };
        let mut findings = Vec::new();
        if let Some(tls) = &plan.tls {
            findings.push(match Certificate::load(tls) {
                Ok(_) => Finding::good(format!("`{}` and its key can be used", tls.cert.display())),
                Err(fault) => Finding::fault(&fault),
            });
        }
        if let Some(listen) = &plan.listen {
            findings.push(match tokio::net::TcpListener::bind(listen).await {
                Ok(_) => Finding::good(format!("`{listen}` is free to be listened on")),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::warning(
                    format!("somebody listens on `{listen}`"),
                    "if it is not this daemon, end it or choose another address",
                ),
                Err(error) => Finding::bad(
                    format!("`{listen}` cannot be listened on: {error}"),
                    Blame::Outside,
                    "choose an address of this machine, and a port that this user may use",
                ),
            });
        }
        findings
    }

    fn position(_: &str, _: Option<&Position>) -> Result<Position, String> {
        Err("a source of type `http` has no position: what was answered was stored".to_owned())
    }
}

fn mistaken(mistake: Mistake) -> Finding {
    let help = mistake.help.unwrap_or_else(|| "correct the configuration".to_owned());
    Finding::bad(format!("{}: {}", mistake.at, mistake.message), Blame::Configuration, help)
}

#[async_trait]
impl Source for HttpSource {
    /// A stream of its own for each run: ids come from events, and marks only have to ascend.
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        let certificate = self.plan.tls.as_ref().map(Certificate::load).transpose()?.map(Arc::new);
        let config = certificate.as_ref().map(Certificate::server_config).transpose()?;
        let acceptor = config.map(|config| TlsAcceptor::from(Arc::new(config)));
        let listener = Listener::bind(self.plan.listen.as_deref(), self.plan.unix.as_deref()).await?;
        let SourceContext { outlet, stop, report, .. } = context;
        let stream = StreamId { source: self.plan.source.clone(), epoch: rand::random() };
        let (committer, intake) = Committer::new(outlet, stream, self.plan.answer_limit);
        let mut committing = JoinSet::new();
        committing.spawn(committer.run());
        let server = Arc::new(Server { plan: self.plan.clone(), intake, stop: stop.clone() });
        let room = Arc::new(Semaphore::new(usize::try_from(self.plan.connections).unwrap_or(usize::MAX)));
        let mut connections = JoinSet::new();
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut result = Ok(());
        report.detail("listen", listener.address());
        report.set_connected(true);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = turn.tick() => {
                    report.turned();
                    report.set(Measure::HttpConnections, count(connections.len()));
                    if let Some(certificate) = &certificate {
                        certificate.renew();
                    }
                }
                Some(ended) = connections.join_next() => ended_well(ended),
                // Without its committer it could answer nothing but 503.
                ended = committing.join_next() => {
                    result = Err(closed(ended));
                    break;
                }
                (permit, accepted) = next(&listener, &room) => match accepted {
                    Ok(accepted) => {
                        let (server, acceptor) = (server.clone(), acceptor.clone());
                        connections.spawn(async move {
                            connection::serve(server, accepted, acceptor).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        warn!(source = %self.plan.source, %error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        report.set_connected(false);
        drop((listener, server));
        // The committer ends when the last request is answered.
        while !connections.is_empty() || !committing.is_empty() {
            tokio::select! {
                Some(ended) = connections.join_next() => ended_well(ended),
                Some(ended) = committing.join_next() => ended_well(ended),
                _ = turn.tick() => report.turned(),
            }
        }
        report.set(Measure::HttpConnections, Some(0.0));
        result
    }
}

/// The next connection, when there is room for it.
async fn next(
    listener: &Listener,
    room: &Arc<Semaphore>,
) -> (tokio::sync::OwnedSemaphorePermit, io::Result<Accepted>) {
    let permit = room.clone().acquire_owned().await.expect("it is never closed");
    (permit, listener.accept().await)
}

/// A request that panics is a defect; its connection breaks, and its sender comes again.
fn ended_well(ended: Result<(), JoinError>) {
    if let Err(panic) = ended {
        error!(error = %panic, "a connection ended by a defect; report this");
    }
}

/// The pipeline takes nothing more, or the committer has a defect.
fn closed(ended: Option<Result<(), JoinError>>) -> Fault {
    match ended {
        Some(Err(panic)) => {
            Fault::fatal("handing events on", Blame::Defect, panic).with_remedy("report this")
        }
        _ => Fault::retryable("handing events on", Closed),
    }
}

fn count(connections: usize) -> Option<f64> {
    u32::try_from(connections).ok().map(f64::from)
}

#[cfg(test)]
mod tests;
