//! How the source's errors are judged: the one place that decides what is tried again.

use std::time::Duration;

use forebay_api::{Blame, Fault};
use tokio_postgres::error::SqlState;

use crate::connect::ConnectError;
use crate::tls::TlsError;
use crate::wire::{ServerError, WireError};

/// After a server said that it goes down, it is given so long before it is asked again.
const SHUTTING_DOWN: Duration = Duration::from_secs(2);

/// Judges a failure of the replication connection.
pub(super) fn wire(doing: impl Into<String>, error: WireError) -> Fault {
    match &error {
        WireError::Server(refusal) => {
            let (code, message) = (refusal.code.clone(), refusal.message.clone());
            state(doing.into(), &code, &message, error)
        }
        WireError::Io { .. } | WireError::Timeout { .. } | WireError::Closed { .. } => {
            Fault::retryable(doing, error)
        }
        WireError::Tls(_) | WireError::NoTls | WireError::Login(_) => {
            Fault::fatal(doing, Blame::Configuration, error)
                .with_remedy("correct `url`: user, password, sslmode or certificates")
        }
        WireError::Malformed(_) => Fault::fatal(doing, Blame::Defect, error).with_remedy(
            "make sure that `url` leads to PostgreSQL itself and not to a pooler; else report this",
        ),
    }
}

/// Judges an error of a statement.
pub(super) fn sql(doing: impl Into<String>, error: tokio_postgres::Error) -> Fault {
    let doing = doing.into();
    let Some(refusal) = error.as_db_error() else {
        // Everything but a refusal is the connection: closed, cut, timed out.
        return Fault::retryable(doing, error);
    };
    let words = ServerError {
        severity: refusal.severity().to_owned(),
        code: refusal.code().clone(),
        message: refusal.message().to_owned(),
        detail: refusal.detail().map(str::to_owned),
        hint: refusal.hint().map(str::to_owned),
    };
    let (code, message) = (words.code.clone(), words.message.clone());
    state(doing, &code, &message, words)
}

/// Judges why no connection could be made.
pub(super) fn connect(doing: impl Into<String>, error: ConnectError) -> Fault {
    let doing = doing.into();
    match error {
        ConnectError::Wire { host, source } => wire(format!("{doing}: connecting to `{host}`"), source),
        ConnectError::Sql { host, source } => {
            let doing = format!("{doing}: connecting to `{host}`");
            if source.as_db_error().is_some() {
                return sql(doing, source);
            }
            if is_handshake(&source) {
                return Fault::fatal(doing, Blame::Configuration, source)
                    .with_remedy("correct `url`: user, password, sslmode or certificates");
            }
            Fault::retryable(doing, source).with_remedy("start the server, or correct host and port in `url`")
        }
        ConnectError::PasswordFile { .. } => {
            Fault::fatal(doing, Blame::Configuration, error).with_remedy("correct `password_file` in `url`")
        }
        ConnectError::PasswordCommand { .. } | ConnectError::Timeout { .. } => Fault::retryable(doing, error),
        ConnectError::WrongRole { .. } => Fault::retryable(doing, error)
            .with_remedy("name a host with that role, or change `target_session_attrs`"),
        ConnectError::NoHost { tried, source } => {
            let fault = connect(doing, *source);
            let remedy = fault.remedy().unwrap_or("start one of the servers").to_owned();
            fault.with_remedy(format!("{remedy} (tried: {tried})"))
        }
    }
}

/// Certificates that cannot be read.
pub(super) fn tls(error: TlsError) -> Fault {
    Fault::fatal("reading the certificates of `url`", Blame::Configuration, error)
}

/// Whether a server that ended our session, or refuses a new one, is going down or just coming up.
pub(super) fn is_going_down(error: &ConnectError) -> bool {
    match error.sql_state() {
        Some(code) => matches!(code.code(), "57P01" | "57P03"),
        // nobody listens any more
        None => match error {
            ConnectError::Wire { source: WireError::Io { .. } | WireError::Closed { .. }, .. } => true,
            ConnectError::Sql { source, .. } => !is_handshake(source),
            ConnectError::NoHost { source, .. } => is_going_down(source),
            _ => false,
        },
    }
}

/// What to return when the server asked us to go.
pub(super) fn going_down() -> Fault {
    Fault::Retryable {
        doing: "reading the stream".to_owned(),
        after: Some(SHUTTING_DOWN),
        remedy: None,
        source: "the server is shutting down and waits for us, so we have disconnected".into(),
    }
}

fn is_handshake(error: &tokio_postgres::Error) -> bool {
    use std::error::Error;
    let text = error.to_string();
    let tls = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let tls = tls.is_some_and(|io| io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()));
    tls || text.contains("authentication") || text.contains("password") || text.contains("TLS")
}

/// What the server's code means for us. Unknown is fatal.
fn state(
    doing: String,
    code: &SqlState,
    message: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Fault {
    let fatal = |blame, error, remedy: &str| Fault::fatal(doing.clone(), blame, error).with_remedy(remedy);
    let error = error.into();
    match code.code() {
        // the server goes down, comes up, or ended this session alone
        "57P01" | "57P02" | "57P03" | "57P05" => {
            Fault::Retryable { doing, after: Some(SHUTTING_DOWN), remedy: None, source: error }
        }
        "55006" => Fault::retryable(doing, error),
        "08P01" => fatal(
            Blame::Configuration,
            error,
            "connect to the server itself; a pooler cannot carry replication",
        ),
        state
            if state.starts_with("08") || state.starts_with("40") || state == "57014" || state == "55P03" =>
        {
            Fault::retryable(doing, error)
        }
        "53300" => Fault::retryable(doing, error)
            .with_remedy("raise `max_connections` or `max_wal_senders` on the server, or free some"),
        "53400" => fatal(
            Blame::Outside,
            error,
            "drop a slot that nobody needs (`SELECT slot_name, active FROM pg_replication_slots`), or raise \
             `max_replication_slots` and restart the server",
        ),
        state if state.starts_with("53") => {
            Fault::retryable(doing, error).with_remedy("give the server more disk or memory")
        }
        "58030" => Fault::retryable(doing, error).with_remedy("look at the server's disk and its log"),
        state if state.starts_with("28") && message.contains("replication") => {
            fatal(Blame::Outside, error, "let pg_hba.conf allow this user, and `ALTER ROLE … REPLICATION`")
        }
        state if state.starts_with("28") => fatal(
            Blame::Configuration,
            error,
            "correct user or password in `url`, or pg_hba.conf on the server",
        ),
        "3D000" => fatal(Blame::Configuration, error, "create the database, or correct `url`"),
        "42501" if message.contains("replication") || message.contains("WAL sender") => {
            fatal(Blame::Outside, error, "ALTER ROLE the_user_of_url REPLICATION;")
        }
        "42501" => fatal(
            Blame::Outside,
            error,
            "grant what is missing (`forebay check` says what), or let an owner of the tables create the publication \
             and write `publication_mode: existing`",
        ),
        "42704" if message.contains("publication") => fatal(
            Blame::Outside,
            error,
            "the publication was dropped; start again and it is made anew, or create it",
        ),
        "55000" | "58P01"
            if doing.starts_with("starting replication") || doing.starts_with("reading the stream") =>
        {
            fatal(
                Blame::Outside,
                error,
                "the slot has lost what it would have to send: its changes are gone. Drop it (`SELECT \
             pg_drop_replication_slot(…)`), run `forebay checkpoint reset`, and copy the tables anew",
            )
        }
        "0A000" => fatal(Blame::Outside, error, "use a server that can do this; PostgreSQL 13 to 18 can"),
        _ => fatal(Blame::Defect, error, "look at the server's log"),
    }
}
