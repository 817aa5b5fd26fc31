//! Requests that are not given up half-way.
//!
//! A `deliver` may be dropped while a server works on its request, and the server may then carry it out behind the next
//! one. [`InTurn`] lets a request go on without whoever asked, and begins the next of the same stream after its end.
//! Invariant: of a stream, one request at most is under way. It is for the request to end in bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, oneshot};
use tokio::task::JoinSet;

use crate::mark::StreamId;

/// Owns the requests that are under way; when it is dropped, they are given up.
#[derive(Debug, Default)]
pub struct InTurn {
    tasks: Mutex<JoinSet<()>>,
    turns: Mutex<HashMap<Arc<StreamId>, Arc<Turn<()>>>>,
}

impl InTurn {
    /// Runs a request of a stream when those before it have ended. It begins at once or not at all: whoever is dropped
    /// while waiting has asked for nothing.
    pub async fn run<T: Send + 'static>(
        &self,
        stream: &Arc<StreamId>,
        request: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let turn = self.turn(stream).lock_owned().await;
        let (answer, answered) = oneshot::channel();
        {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                let answer_of = request.await;
                // The next one may begin before this answer is read, so it goes first.
                answer.send(answer_of).ok();
                drop(turn);
            });
        }
        answered.await.expect("a request is given up only with us, and it does not panic")
    }

    fn turn(&self, stream: &Arc<StreamId>) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(stream) {
            return turn.clone();
        }
        // Streams come and go with epochs and replays; those with nothing under way are forgotten.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(stream.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn stream(name: &str) -> Arc<StreamId> {
        Arc::new(StreamId { source: name.into(), epoch: 1 })
    }

    #[tokio::test]
    async fn a_request_whose_asker_is_gone_ends_before_the_next_begins() {
        let requests = InTurn::default();
        let (told, mut heard) = mpsc::channel(4);
        let (go, gone) = oneshot::channel::<()>();
        let first = {
            let told = told.clone();
            async move {
                told.send("first began").await.unwrap();
                gone.await.unwrap();
                told.send("first ended").await.unwrap();
            }
        };
        let stream_a = stream("a");
        tokio::select! {
            () = requests.run(&stream_a, first) => panic!("it waits"),
            said = heard.recv() => assert_eq!(said, Some("first began")),
        }
        let second = requests.run(&stream_a, async move { told.send("second").await.unwrap() });
        // Another stream does not wait.
        assert_eq!(requests.run(&stream("b"), async { 5 }).await, 5);
        assert!(heard.try_recv().is_err());
        let both = async {
            go.send(()).unwrap();
            (heard.recv().await, heard.recv().await)
        };
        let ((), said) = tokio::join!(second, both);
        assert_eq!(said, (Some("first ended"), Some("second")));
    }

    #[tokio::test]
    async fn who_is_dropped_before_his_turn_has_asked_for_nothing() {
        let requests = InTurn::default();
        let (go, gone) = oneshot::channel::<()>();
        let stream = stream("a");
        let (began, has_begun) = oneshot::channel();
        let first = requests.run(&stream, async move {
            began.send(()).unwrap();
            gone.await.ok();
        });
        tokio::select! {
            () = first => panic!("it waits"),
            _ = has_begun => {}
        }
        tokio::select! {
            biased;
            () = requests.run(&stream, async { panic!("nobody waits for it") }) => {}
            () = tokio::task::yield_now() => {}
        }
        drop(go);
        requests.run(&stream, async {}).await;
    }
}
