//! What the pipeline owes a source for one send: a position to store, tickets to answer, bytes to give back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::budget::Permit;
use crate::mark::Position;
use crate::outlet::Closed;

/// Travels with a chunk through the pipeline and rests in the ledger until the chunk is settled. Dropping it
/// gives the bytes back and answers its ticket with [`Closed`]: absence of an acknowledgement is none.
#[derive(Debug)]
pub struct Claim {
    /// Where the source can resume once this and everything before it is settled.
    pub position: Option<Position>,
    /// The budget it holds; the stage adds what encoding adds.
    pub permit: Permit,
    ticket: Option<oneshot::Sender<()>>,
}

impl Claim {
    /// What a send owes. The core and connectors get claims from an outlet; only tests make them.
    pub fn new(position: Option<Position>, permit: Permit, ticket: Option<oneshot::Sender<()>>) -> Claim {
        Claim { position, permit, ticket }
    }

    /// The events are durable wherever they must be: tells whoever holds the ticket.
    pub fn fulfil(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            // The holder may have gone (an HTTP client that hung up); what it waited for is true all the same.
            ticket.send(()).ok();
        }
    }
}

/// A future that says when a send is durable in every required destination.
#[derive(Debug)]
pub struct Ticket(pub(crate) oneshot::Receiver<()>);

impl Future for Ticket {
    type Output = Result<(), Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| Closed)
    }
}
