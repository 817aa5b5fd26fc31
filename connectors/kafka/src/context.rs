//! What librdkafka calls back: reports of messages, trouble with brokers, its own log lines.
//!
//! Invariant: [`Context::ended`] never becomes `None` again, and it is set before the report that ended the client counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::watch;

use crate::fault::{KafkaError, code};
use crate::receipts::Receipt;

/// What librdkafka calls back. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct Context(Arc<Known>);

#[derive(Default)]
struct Known {
    /// Why the client ended; `None` while it lives.
    end: watch::Sender<Option<KafkaError>>,
    trouble: Mutex<Trouble>,
    /// Whether there is an error in `trouble`: asked for each message, without a lock.
    troubled: AtomicBool,
    /// Whether a broker has answered this client.
    reached: AtomicBool,
}

/// What is wrong with the way to the brokers, until one takes a message again.
#[derive(Clone, Default)]
pub(crate) struct Trouble {
    /// The last error that concerns no message.
    pub(crate) error: Option<KafkaError>,
    /// Whether librdkafka has tried every broker that it knows.
    pub(crate) all_down: bool,
    /// Why a connection failed last, as librdkafka logged it.
    pub(crate) failure: Option<String>,
}

impl Context {
    /// Why the client ended, if it has.
    pub(crate) fn ended(&self) -> Option<KafkaError> {
        self.0.end.borrow().clone()
    }

    /// Waits until the client has ended.
    pub(crate) async fn until_ended(&self) {
        let mut end = self.0.end.subscribe();
        end.wait_for(Option::is_some).await.expect("the sender lives in `self`");
    }

    fn end(&self, error: KafkaError) {
        self.0.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(error);
            }
            first
        });
    }

    /// A broker has answered this client: from now on trouble is told as it comes.
    pub(crate) fn set_reached(&self) {
        self.0.reached.store(true, Ordering::Relaxed);
    }

    /// What is wrong now.
    pub(crate) fn trouble(&self) -> Trouble {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        // Every change is one assignment, so what a panic leaves is sound.
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line when trouble begins or changes its kind, none while it lasts. Before a broker was reached, whoever waits
    /// for that tells of it.
    fn set_trouble(&self, error: KafkaError) {
        let mut trouble = self.lock();
        let known = trouble.error.as_ref().map(|error| error.code);
        trouble.all_down |= error.code == Code::AllBrokersDown;
        trouble.error = match (error.code, trouble.error.take()) {
            // That none is left says less than why the last one failed.
            (Code::AllBrokersDown, Some(why)) => Some(why),
            (Code::AllBrokersDown, None) => {
                Some(KafkaError { said: trouble.failure.clone().or(error.said), ..error })
            }
            _ => Some(error),
        };
        self.0.troubled.store(true, Ordering::Relaxed);
        let Some(error) = trouble.error.clone().filter(|_| self.0.reached.load(Ordering::Relaxed)) else {
            return;
        };
        if known != Some(error.code) {
            tracing::warn!(code = ?error.code, %error, "trouble with kafka");
        }
        // No broker knows us any more: librdkafka would try for ever without a word to those who wait.
        if trouble.all_down && error.is_refusal() {
            self.end(error);
        }
    }

    /// A broker answers: one line where there was trouble.
    pub(crate) fn clear_trouble(&self) {
        self.0.troubled.store(false, Ordering::Relaxed);
        if std::mem::take(&mut *self.lock()).error.is_some() {
            tracing::info!("kafka answers again");
        }
    }
}

impl ClientContext for Context {
    /// librdkafka's own lines, for those who look into it. What an operator should know comes to
    /// [`ClientContext::error`]; only what it finds odd in the options comes here alone.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if facility == "FAIL" {
            // `[thrd:broker]: why`
            let why = line.split_once("]: ").map_or(line, |(_, why)| why);
            self.lock().failure = Some(why.to_owned());
        }
        match level {
            // We know that the setting is called experimental; `tests/it/kafka` shows that it does what we need.
            RDKafkaLogLevel::Warning
                if facility == "CONFWARN" && !line.contains("enable.gapless.guarantee") =>
            {
                tracing::warn!(facility, "{line}");
            }
            RDKafkaLogLevel::Debug => tracing::trace!(facility, "{line}"),
            _ => tracing::debug!(facility, "{line}"),
        }
    }

    fn error(&self, error: LibraryError, reason: &str) {
        let error = KafkaError { code: code(&error), said: Some(reason.to_owned()) };
        if error.code == Code::Fatal {
            return self.end(error);
        }
        self.set_trouble(error);
    }

    /// Statistics are for those who read them through an option of their own; nobody here does.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Receipt>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Box<Receipt>) {
        if let Err((error, _)) = result {
            let code = code(error);
            self.end(KafkaError { code, said: None });
            return receipt.report(Err(code));
        }
        if self.0.troubled.load(Ordering::Relaxed) {
            self.clear_trouble();
        }
        receipt.report(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached() -> Context {
        let context = Context::default();
        context.set_reached();
        context
    }

    fn error(context: &Context, code: Code, said: &str) {
        context.error(LibraryError::Global(code), said);
    }

    #[test]
    fn a_client_whom_no_broker_knows_any_more_ends_and_says_why() {
        let context = reached();
        error(&context, Code::Authentication, "invalid credentials");
        assert_eq!(context.ended(), None, "another broker may still know it");
        error(&context, Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(context.ended().unwrap().to_string(), "invalid credentials");
    }

    #[test]
    fn a_client_whose_brokers_are_away_waits_for_them() {
        let context = reached();
        context.log(RDKafkaLogLevel::Info, "FAIL", "[thrd:a:1]: a:1: Disconnected");
        error(&context, Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(context.ended(), None);
        assert_eq!(context.trouble().error.as_ref().unwrap().to_string(), "a:1: Disconnected");
        context.clear_trouble();
        assert!(context.trouble().error.is_none() && !context.trouble().all_down);
    }
}
