//! Where a server is and how to reach it: `url:` of a source or a destination, as a libpq URI, as libpq's
//! `key=value` string, or as a mapping of the same keys. Pure: reads no file and connects to nothing.
//!
//! All three forms become one list of pairs, and one `match` gives each its meaning, so that they cannot differ.
//! libpq's environment (`PGHOST`, `~/.pgpass`, …) is deliberately ignored: what the configuration says is all.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

mod pairs;
mod parts;
mod text;

pub use parts::UrlParts;

/// `url:` as it stands in the configuration.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum UrlSetting {
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`, or `host=… user=…`.
    Text(String),
    /// The same in parts, for passwords that are better kept out of a URI.
    Parts(Box<UrlParts>),
}

impl UrlSetting {
    /// Reads the setting; the error names the key that is wrong, and never shows a password.
    pub fn parse(&self) -> Result<Url, UrlError> {
        match self {
            UrlSetting::Text(text) => text::pairs(text).and_then(pairs::meaning),
            UrlSetting::Parts(parts) => pairs::meaning(parts.pairs()),
        }
    }
}

/// The text may hold a password, so nothing of it is shown.
impl fmt::Debug for UrlSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlSetting(…)")
    }
}

/// A connection string, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The servers to try, in this order. Never empty.
    pub hosts: Vec<Host>,
    /// The role to log in as.
    pub user: String,
    /// The database, which logical replication is bound to.
    pub database: String,
    /// Where the password comes from.
    pub password: Password,
    /// The user's own `options` (`-c name=value`), which go before the settings that we pin.
    pub options: Option<String>,
    /// What `pg_stat_activity` shows. A zombie of ours is known by it.
    pub application_name: String,
    /// Which of several servers will do.
    pub session: SessionAttributes,
    /// How far the server must prove who it is.
    pub ssl_mode: SslMode,
    /// Whether TLS begins at once (PostgreSQL 17+) or is asked for first.
    pub ssl_direct: bool,
    /// Certificates that the server's must descend from; the system's where this is absent.
    pub ssl_root_cert: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub ssl_identity: Option<(PathBuf, PathBuf)>,
    /// Whether the password exchange is bound to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// How long one host may take until it is ready for the first command.
    pub connect_timeout: Duration,
    /// How the kernel finds out that the other side is gone.
    pub keepalive: Keepalive,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Over TCP.
    Tcp {
        /// The name that is looked up, and that `verify-full` expects in the certificate.
        name: String,
        /// Used instead of looking the name up (`hostaddr`).
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
    /// Over a Unix socket, where TLS is never used (as in libpq).
    Unix {
        /// The directory that holds the socket.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Host::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Host::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// Where the password comes from. Files and commands are read at each connect, because tokens expire.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The server asks for none (trust, peer, certificate).
    Absent,
    /// It stands in the configuration.
    Text(String),
    /// The file's contents without the line's end.
    File(PathBuf),
    /// What `sh -c` prints, without the line's end.
    Command(String),
}

/// Says where the password comes from, never the password; a command may hold one too.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Password::Absent => "Absent",
            Password::Text(_) => "Text(…)",
            Password::File(_) => "File(…)",
            Password::Command(_) => "Command(…)",
        })
    }
}

/// `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAttributes {
    /// Any server will do.
    #[default]
    Any,
    /// Transactions are read-write by default.
    ReadWrite,
    /// Transactions are read-only by default.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// `sslmode`. libpq's `allow` is refused: it promises nothing that `prefer` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it; nothing is verified.
    #[default]
    Prefer,
    /// TLS; the certificate is verified only if `sslrootcert` is given (as in libpq).
    Require,
    /// TLS, and the certificate descends from a trusted one.
    VerifyCa,
    /// And it carries the host's name.
    VerifyFull,
}

/// `channel_binding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    #[default]
    Prefer,
    /// Or no connection is made.
    Require,
}

/// Settings of the TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `keepalives=0` turns probes off.
    pub enabled: bool,
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes that may stay unanswered.
    pub count: u32,
    /// How long what was sent may stay unacknowledged.
    pub user_timeout: Duration,
}

/// A dead peer is found in a minute, where the kernel's own defaults would take over two hours.
impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive {
            enabled: true,
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::from_secs(60),
        }
    }
}

/// A connection string that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// Neither a URI nor `key=value` pairs.
    #[error("the connection string cannot be read: {0}")]
    Syntax(&'static str),
    /// A key that we do not know, which may have been meant to protect something.
    #[error("`{key}` is not a known connection parameter; known are {}", known_keys())]
    Unknown {
        /// The key.
        key: String,
    },
    /// A value that its key does not allow.
    #[error("`{key}` cannot be `{value}`; write {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was written; never a password.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Something that must be said is not said.
    #[error("the connection string {0}")]
    Missing(&'static str),
}

/// Every key, in the order in which errors list them.
const KEYS: [&str; 23] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "password_file",
    "password_command",
    "dbname",
    "options",
    "application_name",
    "target_session_attrs",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
];

fn known_keys() -> String {
    KEYS.map(|key| format!("`{key}`")).join(", ")
}

/// The name under which we appear in `pg_stat_activity` and `pg_stat_replication`.
pub const APPLICATION_NAME: &str = "forebay";

#[cfg(test)]
mod tests;
