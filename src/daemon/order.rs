//! What an operator has the running daemon do, and what becomes of it.

use forebay_api::{Position, Since};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::replay::Wanted;
use crate::snapshot::Refusal;

/// So many orders may wait for an answer.
const ORDERS: usize = 16;

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Read the configuration anew and restart what changed.
    Reload,
    /// Deliver a part of a journal once more.
    Replay(ReplayOrder),
    /// End a replay that is not done.
    StopReplay {
        /// Its number.
        number: u64,
    },
    /// Give up the place that a reader has in the journal of a source.
    Forget {
        /// The source.
        source: String,
        /// The reader: a destination's name.
        reader: String,
    },
}

/// Which part of a journal goes where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayOrder {
    /// Whose events; may be left out where one source has a journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where they go.
    pub destination: String,
    /// A position of the journal to begin at. Else reading begins where `wanted` begins, or with the oldest entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Which events.
    #[serde(default)]
    pub wanted: Wanted,
}

impl ReplayOrder {
    /// Where reading has to begin.
    pub(super) fn since(&self) -> Since {
        let window = &self.wanted.window;
        match (window.from_time, window.from_major) {
            (Some(time), _) => Since::Time(time),
            (None, Some(major)) => Since::Major(major),
            (None, None) => Since::Oldest,
        }
    }

    /// The position that was named.
    pub(super) fn begin(&self) -> Option<Position> {
        self.position.as_ref().map(|text| Position(bytes::Bytes::copy_from_slice(text.as_bytes())))
    }
}

/// An order and who waits for what becomes of it.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) order: Order,
    pub(super) answer: oneshot::Sender<Result<Value, Refusal>>,
}

/// Where orders are given.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Given>);

impl Orders {
    /// Both ends.
    pub(super) fn new() -> (Orders, mpsc::Receiver<Given>) {
        let (sender, receiver) = mpsc::channel(ORDERS);
        (Orders(sender), receiver)
    }

    /// Orders that nobody takes: before a daemon runs, and in tests.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Orders {
        Orders::new().0
    }

    /// Has an order done; the answer says what was done.
    pub async fn give(&self, order: Order) -> Result<Value, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Given { order, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::not_now("too many orders wait for an answer", "try it again in a moment")
            }
            mpsc::error::TrySendError::Closed(_) => {
                Refusal::not_now("the daemon is not running yet, or stops", "try it again when it runs")
            }
        })?;
        answered.await.unwrap_or_else(|_| {
            Err(Refusal::not_now(
                "the daemon stopped meanwhile, so nobody knows whether it was done",
                "look at `forebay status`",
            ))
        })
    }
}
