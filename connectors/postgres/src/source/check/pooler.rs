//! Whether `url` leads to the server itself. A pooler between gives a session's settings to others, or refuses
//! replication.
//!
//! A pooler makes up the process that its greeting names, since it has no server yet when a client comes; and one that is
//! told to ignore the settings that we bring leaves them out.

use std::time::Duration;

use forebay_api::{Blame, Fault, Finding};

use crate::connect::Server;
use crate::source::fault;
use crate::wire::{Connection, WireError};

/// How long the questions may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Who answers, whether one of the settings that we bring came through, and where the server itself is.
const WHO: &str = "SELECT pg_backend_pid(), current_setting('IntervalStyle'), coalesce(host(inet_server_addr()), ''), \
                   coalesce(inet_server_port()::text, '')";

/// What a session says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    /// The process that the greeting named.
    greeted: Option<i32>,
    /// The one that answered.
    answered: i32,
    /// Whether it has our settings.
    ours: bool,
    /// Where that is; empty for a unix socket.
    address: String,
}

/// Opens a connection of each kind.
pub(super) async fn findings(server: &Server) -> Vec<Finding> {
    let session = match session(server).await {
        Ok(session) => session,
        Err(fault) => return vec![Finding::fault(&fault)],
    };
    let replication = server.replication().await;
    let pooled = session.pooled(replication.is_ok());
    match replication {
        Ok(_) => {
            let opened = Finding::good("a replication connection can be opened");
            std::iter::once(opened).chain(pooled).collect()
        }
        Err(error) => {
            let refused = || Finding::fault(&fault::connect("opening a replication connection", error));
            vec![pooled.unwrap_or_else(refused)]
        }
    }
}

async fn session(server: &Server) -> Result<Session, Fault> {
    const DOING: &str = "asking who answers";
    let connection = server.copying().await.map_err(|error| fault::connect(DOING, error))?;
    let asked = tokio::task::spawn_blocking(move || ask(connection)).await;
    let asked = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    asked.map_err(|error| fault::wire(DOING, error))
}

fn ask(mut connection: Connection) -> Result<Session, WireError> {
    let rows = connection.query(WHO, LIMIT)?;
    let row = rows.first().ok_or_else(|| WireError::malformed("an answer has no row"))?;
    let (host, port) = (row.text(2)?, row.text(3)?);
    Ok(Session {
        greeted: connection.greeted_by(),
        answered: row.text(0)?.parse().map_err(WireError::malformed)?,
        ours: row.text(1)? == "iso_8601",
        address: if host.is_empty() { String::new() } else { format!("{host}, port {port}") },
    })
}

impl Session {
    /// What is wrong with a pooler between; `None`: there is none.
    fn pooled(&self, replicates: bool) -> Option<Finding> {
        if self.greeted == Some(self.answered) && self.ours {
            return None;
        }
        let itself = match self.address.is_empty() {
            true => "-- connect to the server itself".to_owned(),
            false => format!("-- connect to the server itself; it answers at {}", self.address),
        };
        let bad = |why: &str| {
            let fact = format!("`url` leads to a pooler such as PgBouncer, {why}");
            Some(Finding::bad(fact, Blame::Configuration, itself.clone()))
        };
        match (replicates, self.ours) {
            (false, _) => bad("which does not let replication through"),
            (true, false) => bad("which leaves out the settings that our sessions bring"),
            (true, true) => Some(Finding::warning(
                "something between us and the server answers in its place: a proxy, or a pooler",
                format!("{itself}; a pooler that gives one session's server to another must not be used"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(greeted: Option<i32>, ours: bool) -> Session {
        Session { greeted, answered: 7, ours, address: "10.0.0.1, port 5432".to_owned() }
    }

    #[test]
    fn a_pooler_is_known_by_the_process_that_it_makes_up_or_by_what_it_leaves_out() {
        assert!(session(Some(7), true).pooled(true).is_none());
        assert!(session(Some(7), true).pooled(false).is_none(), "the refusal says why itself");
        let blame = |session: Session, replicates| {
            session.pooled(replicates).and_then(|finding| finding.trouble).and_then(|trouble| trouble.blame)
        };
        assert_eq!(blame(session(Some(8), true), false), Some(Blame::Configuration));
        assert_eq!(blame(session(Some(7), false), true), Some(Blame::Configuration));
        assert_eq!(blame(session(Some(8), false), true), Some(Blame::Configuration));
        assert_eq!(blame(session(None, false), false), Some(Blame::Configuration));
        let proxy = session(Some(8), true).pooled(true).unwrap();
        assert!(
            proxy
                .trouble
                .unwrap()
                .remedy
                .starts_with("-- connect to the server itself; it answers at 10.0.0.1")
        );
    }
}
