//! [`Server`]: connects to the first of a URL's hosts that will do, for replication and for SQL alike.
//!
//! Both kinds of connection use the same hosts, TLS configuration, password and session settings, so that what one
//! can reach the other can, and one value never prints in two ways. Everything that blocks runs on a blocking thread,
//! and every wait is limited by `connect_timeout`.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use futures::future::BoxFuture;
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding as SqlChannelBinding, SslMode as SqlSslMode, SslNegotiation};
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::tls::{self, TlsError};
use crate::url::{ChannelBinding, Host, SessionAttributes, SslMode, Url};
use crate::wire::{Connection, Dial, WireError};

mod error;
mod password;

pub use error::ConnectError;

/// The settings that every session of ours has: two sessions that differ in one of them would print one value in
/// two ways, and the two time limits would end a stream or a snapshot at an administrator's whim.
const SESSION: &str = "-c datestyle=ISO -c intervalstyle=iso_8601 -c extra_float_digits=3 -c bytea_output=hex \
                       -c timezone=UTC -c lc_monetary=C -c statement_timeout=0 \
                       -c idle_in_transaction_session_timeout=0";

/// What tells a primary from a standby, on both kinds of connection.
const ROLE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";

/// A URL with its certificates read.
#[derive(Clone)]
pub struct Server {
    url: Arc<Url>,
    tls: Option<Arc<ClientConfig>>,
    sql_tls: MakeRustlsConnect,
}

/// A connection for SQL. The task that drives it ends with it.
pub struct Sql {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

impl Deref for Sql {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A transaction needs the client for itself.
impl DerefMut for Sql {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Server {
    /// Reads the certificates that the URL names. Connects to nothing.
    pub fn new(url: Url) -> Result<Server, TlsError> {
        let config = tls::client_config(&url)?;
        // never used without TLS; the SQL library wants one all the same
        let sql_tls = MakeRustlsConnect::new(match &config {
            Some(config) => config.clone(),
            None => tls::client_config(&Url { ssl_mode: SslMode::Prefer, ..url.clone() })?
                .expect("every mode but `disable` has a configuration"),
        });
        Ok(Server { url: Arc::new(url), tls: config.map(Arc::new), sql_tls })
    }

    /// The URL that this server was made of.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Opens a replication connection, bound to the database.
    pub async fn replication(&self) -> Result<Connection, ConnectError> {
        let password = self.url.password.read(self.url.connect_timeout).await?;
        let password = password.as_deref();
        self.first(|host, session| Box::pin(self.wire_at(host, session, password, true))).await
    }

    /// Opens a connection for SQL over our own client, which copies tables without a buffer for each row.
    pub async fn copying(&self) -> Result<Connection, ConnectError> {
        let password = self.url.password.read(self.url.connect_timeout).await?;
        let password = password.as_deref();
        self.first(|host, session| Box::pin(self.wire_at(host, session, password, false))).await
    }

    /// Opens a connection for SQL.
    pub async fn sql(&self) -> Result<Sql, ConnectError> {
        let password = self.url.password.read(self.url.connect_timeout).await?;
        self.first(|host, session| Box::pin(self.sql_at(host, session, password.as_deref()))).await
    }

    /// Tries the hosts in order. `prefer-standby` goes round twice. An attempt is boxed because the future of an
    /// `AsyncFn` cannot be shown to be `Send`.
    async fn first<'a, T>(
        &'a self,
        attempt: impl Fn(&'a Host, SessionAttributes) -> BoxFuture<'a, Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let rounds: &[SessionAttributes] = match self.url.session {
            SessionAttributes::PreferStandby => &[SessionAttributes::Standby, SessionAttributes::Any],
            _ => std::slice::from_ref(&self.url.session),
        };
        let mut failed: Vec<ConnectError> = Vec::new();
        for &session in rounds {
            failed.clear();
            for host in &self.url.hosts {
                match attempt(host, session).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => failed.push(error),
                }
            }
        }
        let tried: Vec<String> = failed.iter().map(|error| chain(error)).collect();
        let telling = failed.iter().position(ConnectError::is_an_answer).unwrap_or(0);
        let source = failed.swap_remove(telling);
        if tried.len() == 1 {
            return Err(source);
        }
        Err(ConnectError::NoHost { tried: tried.join("; "), source: Box::new(source) })
    }

    async fn wire_at(
        &self,
        host: &Host,
        session: SessionAttributes,
        password: Option<&[u8]>,
        replication: bool,
    ) -> Result<Connection, ConnectError> {
        let dial = Dial {
            host: host.clone(),
            ssl_mode: self.url.ssl_mode,
            ssl_direct: self.url.ssl_direct,
            tls: self.tls.clone(),
            keepalive: self.url.keepalive.clone(),
            timeout: self.url.connect_timeout,
        };
        let (url, password) = (self.url.clone(), password.map(<[u8]>::to_vec));
        let limit = self.url.connect_timeout;
        let opening = tokio::task::spawn_blocking(move || {
            let options = url.session_options();
            let mut parameters = vec![
                ("user", url.user.as_str()),
                ("database", &url.database),
                ("application_name", &url.application_name),
                ("client_encoding", "UTF8"),
                ("options", &options),
            ];
            if replication {
                parameters.push(("replication", "database"));
            }
            let mut connection =
                Connection::open(dial, &parameters, password.as_deref(), url.channel_binding)?;
            let role = match session {
                SessionAttributes::Any => None,
                _ => connection.query(ROLE, limit)?.into_iter().next(),
            };
            Ok((connection, role))
        });
        let host = host.to_string();
        let opened = match opening.await {
            Ok(opened) => opened,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let (connection, role) = match opened {
            Ok(opened) => opened,
            Err(WireError::Timeout { .. }) => return Err(ConnectError::Timeout { host, limit }),
            Err(source) => return Err(ConnectError::Wire { host, source }),
        };
        if let Some(row) = role {
            let role =
                |column| row.text(column).map_err(|source| ConnectError::Wire { host: host.clone(), source });
            accepts(session, role(0)?, role(1)?).map_err(|is| ConnectError::WrongRole { host, is })?;
        }
        Ok(connection)
    }

    async fn sql_at(
        &self,
        host: &Host,
        session: SessionAttributes,
        password: Option<&[u8]>,
    ) -> Result<Sql, ConnectError> {
        let config = self.url.sql_config(host, password);
        let (host, limit) = (host.to_string(), self.url.connect_timeout);
        let failed = |source| ConnectError::Sql { host: host.clone(), source };
        let opening = async {
            let (client, connection) = config.connect(self.sql_tls.clone()).await.map_err(failed)?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    // whoever uses the client gets the error, too
                    debug!(error = %error, "a connection for SQL ended");
                }
            });
            let sql = Sql { client, _driver: AbortOnDropHandle::new(driver) };
            if session != SessionAttributes::Any {
                let answer = sql.simple_query(ROLE).await.map_err(failed)?;
                let role = answer.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some((row.get(0)?, row.get(1)?)),
                    _ => None,
                });
                let (in_recovery, read_only) = role.unwrap_or_default();
                accepts(session, in_recovery, read_only)
                    .map_err(|is| ConnectError::WrongRole { host: host.clone(), is })?;
            }
            Ok(sql)
        };
        let opened = timeout(limit, opening).await;
        opened.unwrap_or_else(|_| Err(ConnectError::Timeout { host: host.clone(), limit }))
    }
}

/// Shows where it leads, and nothing secret.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.url).finish()
    }
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sql").finish_non_exhaustive()
    }
}

impl Url {
    /// The user's options first, so that ours win.
    fn session_options(&self) -> String {
        match &self.options {
            Some(options) => format!("{options} {SESSION}"),
            None => SESSION.to_owned(),
        }
    }

    fn sql_config(&self, host: &Host, password: Option<&[u8]>) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.user)
            .dbname(&self.database)
            .application_name(&self.application_name)
            .options(self.session_options())
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(self.keepalive.user_timeout)
            .keepalives(self.keepalive.enabled)
            .keepalives_idle(self.keepalive.idle)
            .keepalives_interval(self.keepalive.interval)
            .keepalives_retries(self.keepalive.count)
            .channel_binding(match self.channel_binding {
                ChannelBinding::Disable => SqlChannelBinding::Disable,
                ChannelBinding::Prefer => SqlChannelBinding::Prefer,
                ChannelBinding::Require => SqlChannelBinding::Require,
            })
            .ssl_mode(match self.ssl_mode {
                SslMode::Disable => SqlSslMode::Disable,
                SslMode::Prefer => SqlSslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => SqlSslMode::Require,
            });
        if self.ssl_direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if let Some(password) = password {
            config.password(password);
        }
        match host {
            Host::Unix { directory, port } => {
                config.host_path(directory).port(*port).ssl_mode(SqlSslMode::Disable);
            }
            Host::Tcp { name, address, port } => {
                config.host(name).port(*port);
                if let Some(address) = address {
                    config.hostaddr(*address);
                }
            }
        }
        config
    }
}

/// Whether a server in this state will do; else what it is.
fn accepts(wanted: SessionAttributes, in_recovery: &str, read_only: &str) -> Result<(), &'static str> {
    match wanted {
        SessionAttributes::Primary if in_recovery != "f" => Err("a standby"),
        SessionAttributes::Standby if in_recovery != "t" => Err("a primary"),
        SessionAttributes::ReadWrite if read_only != "off" => Err("read-only"),
        SessionAttributes::ReadOnly if read_only != "on" => Err("read-write"),
        _ => Ok(()),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
