//! The thread that reads the stream: frames in, chunks out.
//!
//! It owns an OS thread because it must not wake for each row ("gather" in [`crate::wire`]), and it may wait in
//! [`Outlet::send`] as long as destinations are slow: status updates are somebody else's task. A chunk is sent off when
//! it is full or when nothing more is in the socket, so an idle stream has no delay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use forebay_api::{Chunk, Closed, Fault, Mark, Outlet, Position, StreamId, Ticket, step};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::debug;

use super::position::Resume;
use super::relation::{Shape, Shapes};
use super::snapshot::landing::{Landed, Landing, Landings, Piece};
use super::snapshot::window::Verdict;
use super::transcribe::{self, Taken, Transcriber};
use super::{fault, now_micros};
use crate::decode::row::Columns;
use crate::protocol::{self, Frame, Message};
use crate::wire::{Read, ReadHalf};

/// A chunk is sent off at so many rows,
const ROWS: usize = 256;
/// or at so many bytes, whichever comes first.
const BYTES: usize = 256 * 1024;
/// After so many pieces of the stream at the latest the position is sent off and a stop is heard, though nothing of them
/// was wanted.
const PIECES: usize = 16 * 1024;

/// A server that said nothing for so long, although every status update asks it to answer, is not there any more.
const SILENCE: Duration = Duration::from_secs(45);

/// So many requests for an answer, without anything new between them, come only from a server that is shutting down
/// and waits for us.
const BURST: u32 = 5;
/// They come within this time.
const BURST_WITHIN: Duration = Duration::from_secs(2);

/// What the reader shares with the tasks beside it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Told to stop.
    pub stop: AtomicBool,
    /// Counts its turns.
    pub turns: AtomicU64,
    /// It waits for memory or for a slower stage, which is not being stuck.
    pub sending: AtomicBool,
    /// Everything that there is has been read.
    pub caught_up: AtomicBool,
    /// When the newest transaction that was read was committed: microseconds since the Unix epoch.
    pub newest: AtomicI64,
    /// The newest LSN that was received.
    pub received: AtomicU64,
    /// The server wants a status update at once.
    pub asked: Notify,
}

/// How the reader ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to, or the pipeline takes nothing more.
    Stopped,
    /// The server ended the stream.
    ServerDone,
    /// The server is shutting down and waits for us to go.
    ServerWaits,
}

/// See the module.
pub(super) struct Reader {
    pub half: ReadHalf,
    pub transcriber: Transcriber,
    pub outlet: Outlet,
    pub stream: Arc<StreamId>,
    /// What positions are made from.
    pub resume: Resume,
    pub shapes: Arc<Shapes>,
    pub shared: Arc<Shared>,
    pub runtime: Handle,
    /// The last position that was sent off.
    pub sent: crate::lsn::Lsn,
    /// The current timeline, which positions are on.
    pub timeline: u32,
    pub burst: Burst,
    /// It has waited in `send`, and what gathered meanwhile is not read yet: requests in it say nothing of now.
    pub waited: bool,
    /// Pieces taken since something was sent off.
    pub taken: usize,
    /// What the copy has left in the stream's way.
    pub landings: Arc<Landings>,
    /// Schemas that were sent, and when they are durable.
    pub announced: mpsc::Sender<Announced>,
}

/// Shapes whose schemas were sent, and what resolves when they are durable.
pub(super) type Announced = (Vec<Arc<Shape>>, Ticket);

/// Requests for an answer at one place.
#[derive(Debug, Default)]
pub(super) struct Burst {
    at: crate::lsn::Lsn,
    count: u32,
    since: Option<Instant>,
}

impl Burst {
    /// Counts one; whether there were too many of them to be anything but a shutdown.
    fn count(&mut self, at: crate::lsn::Lsn, now: Instant) -> bool {
        let fresh = self.since.is_none_or(|since| now - since > BURST_WITHIN);
        if self.at != at || fresh {
            *self = Burst { at, count: 0, since: Some(now) };
        }
        self.count += 1;
        self.count >= BURST
    }
}

/// What one step of the reader came to.
enum Turn {
    Go,
    Flush,
    End(End),
}

impl Reader {
    /// Reads until told to stop, until the pipeline closes, or until the stream ends. Blocks its thread.
    pub(super) fn run(mut self) -> Result<End, Fault> {
        loop {
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            self.taken += 1;
            let full = self.transcriber.draft.len() >= ROWS
                || self.transcriber.draft.buf.len() >= BYTES
                || self.taken >= PIECES;
            let turn = if full { Turn::Flush } else { self.step()? };
            let end = match turn {
                Turn::Go => continue,
                Turn::Flush => self.flush(),
                Turn::End(end) => {
                    self.flush();
                    Some(end)
                }
            };
            if let Some(end) = end {
                return Ok(end);
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                self.flush();
                return Ok(End::Stopped);
            }
        }
    }

    /// Takes one piece of the stream.
    fn step(&mut self) -> Result<Turn, Fault> {
        let read = self.half.read().map_err(|error| fault::wire("reading the stream", error))?;
        let bytes = match read {
            Read::Frame(bytes) => bytes,
            Read::Empty => {
                self.shared.caught_up.store(true, Ordering::Relaxed);
                self.waited = false;
                if self.half.quiet() > SILENCE {
                    let error = format!("the server has said nothing for {} s", SILENCE.as_secs());
                    return Err(Fault::retryable("reading the stream", error));
                }
                return Ok(Turn::Flush);
            }
            Read::Done => return Ok(Turn::End(End::ServerDone)),
        };
        match protocol::frame(bytes).map_err(|error| fault::wire("reading the stream", error.into()))? {
            Frame::Keepalive { wal_end, reply } => {
                self.transcriber.reached(wal_end);
                self.shared.received.fetch_max(wal_end.0, Ordering::Relaxed);
                if reply {
                    self.shared.asked.notify_one();
                    if !self.waited && self.burst.count(wal_end, Instant::now()) {
                        return Ok(Turn::End(End::ServerWaits));
                    }
                }
                Ok(Turn::Go)
            }
            Frame::Data { at, message } => {
                step!("read");
                self.shared.caught_up.store(false, Ordering::Relaxed);
                let message = protocol::message(message)
                    .map_err(|error| fault::wire("reading the stream", error.into()))?;
                if let Message::Relation(relation) = &message {
                    let shape = self.runtime.block_on(self.shapes.of(relation))?;
                    self.transcriber.learn(relation.id, shape);
                    return Ok(Turn::Go);
                }
                while let Taken::Unfit(relation) = self.transcriber.take(at, &message)? {
                    relearn(&mut self.transcriber, &self.shapes, &self.runtime, (relation, &message))?;
                }
                if !matches!(message, Message::Commit(_)) {
                    return Ok(Turn::Go);
                }
                let (major, xid) = self.transcriber.completed();
                match self.landings.take(xid) {
                    Some(landing) => Ok(self.land(landing, major)),
                    None => Ok(Turn::Go),
                }
            }
        }
    }

    /// What the copy has left behind a transaction of its own gets its place there.
    fn land(&mut self, landing: Landing, major: (u32, u64)) -> Turn {
        match landing {
            // Whoever asked is gone only when the run ends.
            Landing::Begin(told) => drop(told.send(self.transcriber.window.begin())),
            Landing::Rest => self.transcriber.window.rest(),
            Landing::End(told) => {
                self.transcriber.window.end();
                // Whoever asked is gone only when the run ends.
                told.send(()).ok();
            }
            // Whoever read it has gone, and with them the promise that what overtook it is remembered.
            Landing::Piece(piece) if piece.landed.is_closed() => {}
            Landing::Moved(table, told) => drop(told.send(self.transcriber.window.has_moved(table))),
            Landing::Piece(piece) => {
                if let Some(end) = self.flush() {
                    return Turn::End(end);
                }
                if self.send_piece(piece, major).is_err() {
                    return Turn::End(End::Stopped);
                }
                if let Some(seen) = self.landings.oldest() {
                    self.transcriber.window.forget(&seen);
                }
            }
        }
        Turn::Go
    }

    /// Sends the rows of a piece that the stream has not overtaken.
    fn send_piece(&mut self, piece: Piece, major: (u32, u64)) -> Result<(), Closed> {
        let Piece { shape, table, keyed, only_moved, seen, chunks, landed } = piece;
        let key_shape = transcribe::key_shape(&shape.columns);
        let blurred = keyed && self.transcriber.window.blurs(table, key_shape, &seen);
        let mut told = Landed::default();
        let (mut number, mut minor) = (0, 0);
        let last = chunks.len().saturating_sub(1);
        let mut tickets = Vec::new();
        for (at, mut chunk) in chunks.into_iter().enumerate() {
            let rows = std::mem::take(&mut chunk.rows);
            for mut row in rows {
                let key = &chunk.buf[row.key.at as usize..(row.key.at + row.key.len) as usize];
                let window = &self.transcriber.window;
                let verdict = match (keyed, blurred) {
                    // Only a truncation can be told of it.
                    (false, _) => window.judge(table, &[], &seen),
                    (true, _) if only_moved && !window.may_have_moved(table, key_shape, key) => {
                        Verdict::LeaveOut
                    }
                    (true, true) => Verdict::Again,
                    (true, false) => window.judge(table, key, &seen),
                };
                match verdict {
                    Verdict::Send => {
                        minor += 1;
                        row.mark = Mark { major, minor, part: 0 };
                        told.bytes += u64::from(row.payload.len);
                        chunk.rows.push(row);
                    }
                    Verdict::LeaveOut => {}
                    Verdict::Again => told.again.push(number),
                }
                number += 1;
            }
            told.rows += chunk.rows.len() as u64;
            if chunk.rows.is_empty() && at < last {
                continue;
            }
            if !chunk.rows.is_empty() {
                self.transcriber.say_copied(&shape);
                self.flush_schemas()?;
            }
            let sent = self.send(chunk, None);
            step!("snapshot-sent");
            tickets.push(sent?);
        }
        // Sends are settled in order, so the last ticket stands for all.
        told.ticket = tickets.pop();
        // The copy may have been given up just now; what was sent was judged rightly.
        landed.send(told).ok();
        Ok(())
    }

    /// Sends off the schema of rows that are about to follow.
    fn flush_schemas(&mut self) -> Result<(), Closed> {
        if self.transcriber.draft.is_empty() {
            return Ok(());
        }
        let chunk = self.transcriber.draft.finish(&self.stream, now_micros(), false);
        self.send_off(chunk, None)
    }

    /// Sends off what was in the draft, and has it remembered when the schemas in it are durable.
    fn send_off(&mut self, chunk: Chunk, position: Option<Position>) -> Result<(), Closed> {
        let fresh = self.transcriber.take_fresh();
        let ticket = self.send(chunk, position)?;
        if !fresh.is_empty() && self.announced.try_send((fresh, ticket)).is_err() {
            // Nobody remembers that they were said, so they are said once more in the next run.
            debug!("a schema event is not waited for");
        }
        Ok(())
    }

    /// Waits until the pipeline takes a chunk.
    fn send(&mut self, chunk: Chunk, position: Option<Position>) -> Result<Ticket, Closed> {
        self.shared.sending.store(true, Ordering::Relaxed);
        let waiting_since = Instant::now();
        let sent = self.runtime.block_on(self.outlet.send_ticketed(chunk, position));
        self.shared.sending.store(false, Ordering::Relaxed);
        if waiting_since.elapsed() > BURST_WITHIN / 10 {
            self.waited = true;
        }
        sent
    }

    /// Sends off what has gathered; `Some` when the pipeline takes nothing more.
    fn flush(&mut self) -> Option<End> {
        self.taken = 0;
        let transcriber = &mut self.transcriber;
        let boundary = transcriber.boundary.filter(|boundary| *boundary > self.sent);
        if transcriber.draft.is_empty() && boundary.is_none() {
            return None;
        }
        let chunk = if transcriber.draft.is_empty() {
            Chunk::empty(self.stream.clone(), now_micros())
        } else {
            let inside = transcriber.inside_transaction();
            transcriber.draft.finish(&self.stream, now_micros(), inside)
        };
        self.shared.newest.store(transcriber.newest, Ordering::Relaxed);
        let position = boundary.map(|lsn| {
            self.resume.moved = self.transcriber.window.moved_tables();
            self.resume.at(self.timeline, lsn).position()
        });
        let sent = self.send_off(chunk, position);
        step!("sent");
        if sent.is_err() {
            return Some(End::Stopped);
        }
        if let Some(boundary) = boundary {
            self.sent = boundary;
            self.shared.received.fetch_max(boundary.0, Ordering::Relaxed);
        }
        None
    }
}

/// Finds out what a table has become in whose shape a row does not fit.
fn relearn(
    transcriber: &mut Transcriber,
    shapes: &Shapes,
    runtime: &Handle,
    (relation, message): (u32, &Message<'_>),
) -> Result<(), Fault> {
    let before = transcriber.shape(relation).expect("it was introduced before its row").clone();
    let fits = |columns: &Columns| transcribe::fits(columns, message);
    let shape = runtime.block_on(shapes.relearn(&before, fits))?;
    transcriber.learn(relation, shape);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn only_a_burst_of_requests_at_one_place_means_a_shutdown() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut burst = Burst::default();
        let slow: Vec<bool> = (0..8).map(|n| burst.count(Lsn(1), at(n * 3000))).collect();
        assert!(!slow.contains(&true));
        let mut burst = Burst::default();
        let moving: Vec<bool> = (0..8).map(|n| burst.count(Lsn(n), at(n))).collect();
        assert!(!moving.contains(&true));
        let mut burst = Burst::default();
        let stuck: Vec<bool> = (0..5).map(|n| burst.count(Lsn(1), at(n * 100))).collect();
        assert_eq!(stuck, [false, false, false, false, true]);
    }
}
