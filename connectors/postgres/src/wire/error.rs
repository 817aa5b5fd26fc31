//! What can go wrong between us and the server.

use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use crate::cursor::Malformed;
use crate::tls;

/// A failure of a replication connection. Whether trying again can help is judged by whoever knows what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server refused, in its own words.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The socket failed.
    #[error("{doing} failed")]
    Io {
        /// What was being attempted.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The handshake or a record was refused, by us or by the server.
    #[error("TLS failed{}", tls::remedy(.0))]
    Tls(#[from] rustls::Error),
    /// The server has no TLS, and `sslmode` insists on it.
    #[error("the server does not offer TLS; set `ssl = on` there, or `sslmode=disable` here")]
    NoTls,
    /// The time given for it is over.
    #[error("{doing} took too long")]
    Timeout {
        /// What was being attempted.
        doing: &'static str,
    },
    /// The server ended the connection without a word.
    #[error("the server closed the connection during {doing}")]
    Closed {
        /// What was being attempted.
        doing: &'static str,
    },
    /// The login cannot be done as the server or `url` wants it.
    #[error("could not log in: {0}")]
    Login(String),
    /// What came is not the protocol: a proxy, another service, or a broken stream.
    #[error("the server's answer is not understood: {0}")]
    Malformed(String),
}

impl From<Malformed> for WireError {
    fn from(error: Malformed) -> WireError {
        WireError::Malformed(error.0)
    }
}

impl WireError {
    /// The server's own code, where it was the server who refused.
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            WireError::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Gives an I/O error its meaning.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> WireError {
        move |source| match source.kind() {
            io::ErrorKind::TimedOut => WireError::Timeout { doing },
            io::ErrorKind::UnexpectedEof => WireError::Closed { doing },
            _ => match source.downcast::<rustls::Error>() {
                Ok(error) => WireError::Tls(error),
                Err(source) => WireError::Io { doing, source },
            },
        }
    }

    /// Says what was being attempted, where a read could not know.
    pub(super) fn during(self, doing: &'static str) -> WireError {
        match self {
            WireError::Io { source, .. } => WireError::Io { doing, source },
            WireError::Closed { .. } => WireError::Closed { doing },
            other => other,
        }
    }

    pub(super) fn unexpected(tag: u8, doing: &'static str) -> WireError {
        WireError::Malformed(format!("message `{}` during {doing}", char::from(tag).escape_default()))
    }

    pub(crate) fn malformed(what: impl fmt::Display) -> WireError {
        WireError::Malformed(what.to_string())
    }
}

/// PostgreSQL's ErrorResponse.
#[derive(Debug)]
pub struct ServerError {
    /// `FATAL` ends the connection, `ERROR` only the command.
    pub severity: String,
    /// Five characters that say what kind of error it is, in any language.
    pub code: SqlState,
    /// The message in the server's language.
    pub message: String,
    /// More of the same.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
}

impl ServerError {
    /// Whether the server hangs up after saying this.
    pub fn ends_the_connection(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Reads the body of an ErrorResponse or a NoticeResponse. Lenient, for nothing would be gained by losing an
    /// error over the way it is told.
    pub(super) fn read(mut body: &[u8]) -> ServerError {
        let mut error = ServerError {
            severity: String::new(),
            code: SqlState::INTERNAL_ERROR,
            message: "an error without a message".to_owned(),
            detail: None,
            hint: None,
        };
        let mut translated = true;
        while let Some((&field, rest)) = body.split_first() {
            if field == 0 {
                break;
            }
            let end = memchr::memchr(0, rest).unwrap_or(rest.len());
            let text = String::from_utf8_lossy(&rest[..end]).into_owned();
            match field {
                // `V` is never translated; `S` is what older servers had
                b'V' => (error.severity, translated) = (text, false),
                b'S' if translated => error.severity = text,
                b'C' => error.code = SqlState::from_code(&text),
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                _ => {}
            }
            body = rest.get(end + 1..).unwrap_or_default();
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server says: {} (SQLSTATE {})", self.message, self.code.code())?;
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_code_message_detail_and_hint() {
        let body = b"SFEHLER\0VERROR\0C55006\0Mslot is active\0Dby PID 7\0Hwait\0Fslot.c\0\0";
        let error = ServerError::read(body);
        assert_eq!((error.severity.as_str(), &error.code), ("ERROR", &SqlState::OBJECT_IN_USE));
        let shown = "the server says: slot is active (SQLSTATE 55006); by PID 7; wait";
        assert_eq!(error.to_string(), shown);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_an_error_panic(body: Vec<u8>) {
            ServerError::read(&body);
        }
    }
}
