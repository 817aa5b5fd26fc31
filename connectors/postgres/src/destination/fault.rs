//! How errors of the destination's server are judged: the one place that decides what is tried again.

use std::error::Error as _;
use std::io;

use forebay_api::{Blame, Fault};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::connect::ConnectError;
use crate::tls::TlsError;
use crate::wire::ServerError;

/// Another attempt may help, or somebody must act; and what to do.
enum Verdict {
    Retry(Option<&'static str>),
    Stop(Blame, Option<&'static str>),
}

/// Judges an error of a statement.
pub(super) fn judge(doing: impl Into<String>, error: Error) -> Fault {
    let verdict = match error.as_db_error() {
        Some(refusal) => judge_state(refusal.code()),
        None if is_connection_lost(&error) => Verdict::Retry(None),
        None => Verdict::Stop(Blame::Defect, None),
    };
    fault(doing, verdict, said(error))
}

/// Judges why no connection could be made.
pub(super) fn judge_connecting(doing: impl Into<String>, error: ConnectError) -> Fault {
    let verdict = judge_connect(&error);
    fault(doing, verdict, error)
}

/// Certificates that cannot be read: nothing was connected yet.
pub(super) fn judge_tls(doing: impl Into<String>, error: TlsError) -> Fault {
    fault(doing, Verdict::Stop(Blame::Configuration, None), error)
}

/// Whether the server refused one record for what is in it. The record goes to the dead letters, its neighbours do not.
pub(super) fn refuses_content(error: &Error) -> bool {
    let Some(state) = error.code() else { return false };
    if *state == SqlState::INVALID_BINARY_REPRESENTATION || *state == SqlState::BAD_COPY_FILE_FORMAT {
        return false; // what we wrote is wrong, not what is in the record
    }
    // data exceptions, constraints and triggers that a user put on the table, limits of the server
    matches!(&state.code()[..2], "22" | "23" | "54") || *state == SqlState::RAISE_EXCEPTION
}

/// The server's own words in one line, else the error itself.
pub(super) fn said(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error.as_db_error() {
        Some(refusal) => Box::new(in_its_words(refusal)),
        None => Box::new(error),
    }
}

/// In its own words, with neither the statement nor the row.
fn in_its_words(refusal: &DbError) -> ServerError {
    ServerError {
        severity: refusal.severity().to_owned(),
        code: refusal.code().clone(),
        message: refusal.message().to_owned(),
        detail: refusal.detail().map(str::to_owned),
        hint: refusal.hint().map(str::to_owned),
    }
}

fn fault(
    doing: impl Into<String>,
    verdict: Verdict,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Fault {
    let (fault, remedy) = match verdict {
        Verdict::Retry(remedy) => (Fault::retryable(doing, error), remedy),
        Verdict::Stop(blame, remedy) => (Fault::fatal(doing, blame, error), remedy),
    };
    match remedy {
        Some(remedy) => fault.with_remedy(remedy),
        None => fault,
    }
}

/// What the server's code means for us. Unknown is fatal: what is not understood may go wrong for ever.
fn judge_state(state: &SqlState) -> Verdict {
    use Blame::{Configuration, Defect, Outside};
    use Verdict::{Retry, Stop};
    match state.code() {
        "08P01" => {
            Stop(Configuration, Some("connect to the server itself; a pooler in between must pool sessions"))
        }
        "57P04" => Stop(Configuration, Some("create the database, or correct `url`")),
        // 57: shutdown, crash, starting up, statement timeout; 55P03: lock timeout; 25P03: idle in transaction
        code if code.starts_with("08") || code.starts_with("57") => Retry(None),
        code if code.starts_with("40") => Retry(None),
        "55P03" | "55006" => Retry(Some("look in `pg_locks` for who holds a lock on the table")),
        "25P03" | "25P04" => Retry(None),
        "25006" => Retry(Some("write to the primary; with several hosts set `target_session_attrs=primary`")),
        "53100" => Retry(Some("free space on the server's disk")),
        "53300" => Retry(Some("raise `max_connections` on the server, or free some")),
        code if code.starts_with("53") => Retry(Some("give the server more memory or disk")),
        "58030" => Retry(Some("look at the server's disk and its log")),
        code if code.starts_with("28") => {
            Stop(Configuration, Some("correct user or password in `url`, or pg_hba.conf"))
        }
        "3D000" => Stop(Configuration, Some("create the database, or correct `url`")),
        "3F000" => Stop(Configuration, Some("create the schema, or correct `table`")),
        "42501" => Stop(Outside, Some("grant the privilege; `forebay check` says which")),
        "42P01" => Stop(Configuration, Some("the table was dropped; a new start makes it again")),
        "42703" | "42804" | "42P10" | "428C9" => {
            Stop(Configuration, Some("the table was changed; `forebay check` says what is missing"))
        }
        "26000" => {
            Stop(Configuration, Some("connect to the server itself; a pooler in between must pool sessions"))
        }
        "XX001" | "XX002" => Stop(Outside, Some("the server's data is damaged; see its log")),
        _ => Stop(Defect, None),
    }
}

fn judge_connect(error: &ConnectError) -> Verdict {
    match error {
        ConnectError::PasswordFile { .. } => Verdict::Stop(Blame::Configuration, None),
        ConnectError::PasswordCommand { .. } | ConnectError::Timeout { .. } => Verdict::Retry(None),
        ConnectError::WrongRole { .. } => {
            Verdict::Retry(Some("name a host with that role, or change `target_session_attrs`"))
        }
        ConnectError::NoHost { source, .. } => judge_connect(source),
        ConnectError::Sql { source, .. } => match source.code() {
            Some(state) => judge_state(state),
            // without a cause: closed, or out of time
            None if source.source().is_none() || is_connection_lost(source) => {
                Verdict::Retry(Some("start the server, or correct `url`"))
            }
            // TLS and authentication
            None => {
                Verdict::Stop(Blame::Configuration, Some("correct `url`: password, sslmode or certificates"))
            }
        },
        ConnectError::Wire { source, .. } => match source.sql_state() {
            Some(state) => judge_state(state),
            None => Verdict::Stop(Blame::Defect, None),
        },
    }
}

/// Whether the connection ended, rather than something being wrong with what was said over it.
fn is_connection_lost(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        // a certificate that does not verify comes as an I/O error, too
        Some(cause) => !cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        None => error.is_closed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame(code: &str) -> Option<Blame> {
        match judge_state(&SqlState::from_code(code)) {
            Verdict::Retry(_) => None,
            Verdict::Stop(blame, _) => Some(blame),
        }
    }

    #[test]
    fn what_passes_is_tried_again() {
        for code in [
            "08006", "25006", "25P03", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03",
        ] {
            assert_eq!(blame(code), None, "{code}");
        }
    }

    #[test]
    fn what_stays_names_who_must_act_and_what_is_unknown_is_ours() {
        use Blame::{Configuration, Defect, Outside};
        for (code, who) in [
            ("08P01", Configuration),
            ("28P01", Configuration),
            ("3D000", Configuration),
            ("42501", Outside),
            ("42P01", Configuration),
            ("57P04", Configuration),
            ("22P04", Defect),
            ("XX000", Defect),
            ("0A000", Defect),
        ] {
            assert_eq!(blame(code), Some(who), "{code}");
        }
    }

    #[test]
    fn a_password_command_may_work_the_next_time_and_a_missing_file_does_not() {
        let command = ConnectError::PasswordCommand { why: "exit status: 1".to_owned() };
        assert!(judge_connecting("connecting", command).is_retryable());
        let file = ConnectError::PasswordFile { path: "/none".into(), source: io::Error::other("gone") };
        let hosts = ConnectError::NoHost { tried: String::new(), source: Box::new(file) };
        assert!(!judge_connecting("connecting", hosts).is_retryable());
    }
}
