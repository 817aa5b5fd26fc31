//! Why no connection could be made.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::wire::WireError;

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The password's file cannot be read.
    #[error("could not read the password from `{path}`")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The password's command failed.
    #[error("the password command failed: {why}")]
    PasswordCommand {
        /// How, with what it wrote to its standard error.
        why: String,
    },
    /// A replication connection failed.
    #[error("could not connect to `{host}`")]
    Wire {
        /// The host.
        host: String,
        /// The cause.
        source: WireError,
    },
    /// A connection for SQL failed.
    #[error("could not connect to `{host}`")]
    Sql {
        /// The host.
        host: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// The host took longer than `connect_timeout`.
    #[error("could not connect to `{host}` within {limit:?}")]
    Timeout {
        /// The host.
        host: String,
        /// `connect_timeout`.
        limit: Duration,
    },
    /// The host is reachable and is not what `target_session_attrs` asks for.
    #[error("`{host}` is {is}, which `target_session_attrs` does not want")]
    WrongRole {
        /// The host.
        host: String,
        /// What it is.
        is: &'static str,
    },
    /// Several hosts, and none will do.
    #[error("none of the hosts can be used ({tried})")]
    NoHost {
        /// Each host with its reason.
        tried: String,
        /// The most telling of the errors.
        source: Box<ConnectError>,
    },
}

impl ConnectError {
    /// The server's own code, where a server refused.
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            ConnectError::Wire { source, .. } => source.sql_state(),
            ConnectError::Sql { source, .. } => source.code(),
            ConnectError::NoHost { source, .. } => source.sql_state(),
            _ => None,
        }
    }

    /// A host that answers says more than one that does not.
    pub(super) fn is_an_answer(&self) -> bool {
        self.sql_state().is_some() || matches!(self, ConnectError::WrongRole { .. })
    }
}
