//! [`Activity`]: what a connection does, so that one that does too little can be closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

/// What HTTP/2 begins with: there idle connections send frames, so bytes are not the head of a request.
const HTTP2_BEGINS: u8 = b'P';
const HTTP2_GOES_ON: u8 = b'R';

/// What one connection does.
#[derive(Debug)]
pub(super) struct Activity {
    born: Instant,
    /// Requests that are not answered yet.
    open: AtomicU32,
    /// Milliseconds since `born` when the last request was answered.
    answered: AtomicU64,
    /// Milliseconds since `born`, at least 1, when a head began that is not whole yet; 0: none has.
    head_began: AtomicU64,
    http2: AtomicBool,
    anything_read: AtomicBool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing; look again then.
    Fine(Duration),
    /// It has been idle for too long.
    Idle,
    /// It takes too long for the head of a request.
    Slow,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity {
            born: Instant::now(),
            open: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            head_began: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            anything_read: AtomicBool::new(false),
        }
    }
}

impl Activity {
    /// A request is whole but for its body; it is open until what this returns is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.head_began.store(0, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Whether a request is not answered yet.
    pub(super) fn is_answering(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Judges the connection as it is now.
    pub(super) fn judge(&self, headers: Duration, idle: Duration) -> Judgement {
        if self.open.load(Ordering::Relaxed) > 0 {
            return Judgement::Fine(idle);
        }
        let now = self.now();
        let head = self.head_began.load(Ordering::Relaxed);
        let (since, limit, over) = if head > 0 {
            (head, headers, Judgement::Slow)
        } else {
            (self.answered.load(Ordering::Relaxed), idle, Judgement::Idle)
        };
        let left = limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
        // A head may begin while nobody looks.
        if left.is_zero() { over } else { Judgement::Fine(left.min(headers).max(Duration::from_millis(1))) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self, bytes: &[u8]) {
        if !self.anything_read.swap(true, Ordering::Relaxed) {
            self.http2.store(bytes.starts_with(&[HTTP2_BEGINS, HTTP2_GOES_ON]), Ordering::Relaxed);
        }
        let in_head = self.open.load(Ordering::Relaxed) == 0 && !self.http2.load(Ordering::Relaxed);
        if in_head && self.head_began.load(Ordering::Relaxed) == 0 {
            self.head_began.store(self.now().max(1), Ordering::Relaxed);
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Open(Arc<Activity>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.answered.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose bytes are noticed.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    /// Notices what is read from `stream`.
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Watched<S> {
        Watched { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            self.activity.read(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
