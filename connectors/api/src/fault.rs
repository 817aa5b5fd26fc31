//! A [`Fault`] is an error that has been judged: will another attempt help, and if not, who must act?
//!
//! Each connector judges its errors in one `match`; an error it does not know is fatal, because repeating what is
//! not understood loses data or hides it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

type Cause = Box<dyn Error + Send + Sync>;

/// An error that has been judged.
#[derive(Debug)]
pub enum Fault {
    /// Another attempt may succeed: a server that is down, a timeout, a deadlock.
    Retryable {
        /// What was being attempted: `connecting to 127.0.0.1:5432`.
        doing: String,
        /// When the other side said when to come again.
        after: Option<Duration>,
        /// What to do if it stays so.
        remedy: Option<String>,
        /// What went wrong.
        source: Cause,
    },
    /// No attempt will succeed until somebody acts.
    Fatal {
        /// What was being attempted.
        doing: String,
        /// Who must act; it decides the exit code.
        blame: Blame,
        /// What to do: a setting, a statement to run.
        remedy: Option<String>,
        /// What went wrong.
        source: Cause,
    },
}

/// Who must act before a fatal fault goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Only the configuration or the command line can mend it (exit 78): bad credentials, a missing table.
    Configuration,
    /// Something outside must change (exit 69): a server setting, a privilege, a disk.
    Outside,
    /// Forebay itself, or data that it does not understand (exit 1).
    Defect,
}

impl Fault {
    /// A fault that another attempt may mend.
    pub fn retryable(doing: impl Into<String>, source: impl Into<Cause>) -> Fault {
        Fault::Retryable { doing: doing.into(), after: None, remedy: None, source: source.into() }
    }

    /// A fault that stays until somebody acts.
    pub fn fatal(doing: impl Into<String>, blame: Blame, source: impl Into<Cause>) -> Fault {
        Fault::Fatal { doing: doing.into(), blame, remedy: None, source: source.into() }
    }

    /// The same fault with what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, text: impl Into<String>) -> Fault {
        match &mut self {
            Fault::Retryable { remedy, .. } | Fault::Fatal { remedy, .. } => *remedy = Some(text.into()),
        }
        self
    }

    /// The same fault, after which the next attempt is made at once and is nothing to warn of: a source begins anew, for
    /// instance because its group has handed partitions around.
    #[must_use]
    pub fn at_once(mut self) -> Fault {
        if let Fault::Retryable { after, .. } = &mut self {
            *after = Some(Duration::ZERO);
        }
        self
    }

    /// Whether another attempt may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Fault::Retryable { .. })
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Fault::Retryable { remedy, .. } | Fault::Fatal { remedy, .. } => remedy.as_deref(),
        }
    }

    /// What was attempted and every cause below it, outermost first.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.doing().to_owned()];
        let mut next = self.source();
        while let Some(error) = next {
            chain.push(error.to_string());
            next = error.source();
        }
        chain
    }

    fn doing(&self) -> &str {
        match self {
            Fault::Retryable { doing, .. } | Fault::Fatal { doing, .. } => doing,
        }
    }
}

/// `doing: cause: cause's cause`, each said once.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = String::new();
        for link in self.chain() {
            // Some libraries repeat their cause in their own message.
            if said.ends_with(&link) {
                continue;
            }
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&link);
        }
        f.write_str(&said)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Fault::Retryable { source, .. } | Fault::Fatal { source, .. } => Some(source.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_tells_what_was_attempted_and_every_cause_once() {
        let refused = std::io::Error::other("connection refused");
        let fault = Fault::retryable("connecting to 127.0.0.1:1", refused).with_remedy("start it");
        assert_eq!(fault.to_string(), "connecting to 127.0.0.1:1: connection refused");
        assert_eq!(fault.remedy(), Some("start it"));
        assert!(fault.is_retryable());
    }
}
