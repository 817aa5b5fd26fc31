//! Reading a body whole, within its limits.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

/// How much of an inflated body is taken from the memory for bodies at a time.
const STEP: usize = 64 << 10;

/// Why a body could not be read. None of it is an event yet: whoever sent it is told to send it again or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than a body may be, as it comes or inflated.
    TooLarge,
    /// There is no memory for it now.
    NoMemory,
    /// It did not come in time.
    TooSlow,
    /// The connection broke.
    Gone,
}

/// A body, and the memory that it holds until it is dropped.
#[derive(Debug)]
pub(super) struct Whole {
    /// The bytes, inflated.
    pub bytes: Bytes,
    /// Why they are not inflated: they are not what `Content-Encoding` says.
    pub wrong: Option<String>,
    _memory: Option<OwnedSemaphorePermit>,
}

/// How bodies are read.
#[derive(Debug)]
pub(super) struct Bodies {
    /// Bytes as they come.
    pub most: usize,
    /// Bytes after they were inflated.
    pub most_inflated: usize,
    /// How long a body may take.
    pub patience: Duration,
    /// The memory for all bodies, in bytes.
    pub memory: Arc<Semaphore>,
}

impl Bodies {
    /// Reads a body.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<Whole, Unread> {
        if body.is_end_stream() {
            return Ok(Whole { bytes: Bytes::new(), wrong: None, _memory: None });
        }
        if body.size_hint().lower() > u64::try_from(self.most).unwrap_or(u64::MAX) {
            return Err(Unread::TooLarge);
        }
        let mut memory = None;
        let raw =
            timeout(self.patience, self.collect(body, &mut memory)).await.map_err(|_| Unread::TooSlow)??;
        let (bytes, wrong) = match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes()) {
            None | Some(b"" | b"identity") => (raw, None),
            Some(b"gzip" | b"x-gzip") => match self.inflate(&raw, &mut memory)? {
                Ok(inflated) => (inflated.into(), None),
                Err(why) => (raw, Some(why)),
            },
            Some(other) => {
                let why = format!("the content encoding `{}` is not gzip", String::from_utf8_lossy(other));
                (raw, Some(why))
            }
        };
        Ok(Whole { bytes, wrong, _memory: memory })
    }

    async fn collect(
        &self,
        mut body: Incoming,
        memory: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Bytes, Unread> {
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Unread::Gone)?.into_data() else { continue };
            if first.len().max(all.len()) + data.len() > self.most {
                return Err(Unread::TooLarge);
            }
            self.hold(data.len(), memory)?;
            // Most bodies come in one piece, which needs no copy.
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.reserve(first.len() + data.len());
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    /// The inner error says why it is no gzip.
    fn inflate(
        &self,
        raw: &[u8],
        memory: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Result<Vec<u8>, String>, Unread> {
        let mut decoder = MultiGzDecoder::new(raw);
        let mut inflated = Vec::with_capacity(raw.len().saturating_mul(4).min(STEP));
        let step = u64::try_from(STEP).expect("it is small");
        loop {
            self.hold(STEP, memory)?;
            match decoder.by_ref().take(step).read_to_end(&mut inflated) {
                Ok(0) => break,
                Ok(_) if inflated.len() > self.most_inflated => return Err(Unread::TooLarge),
                Ok(_) => {}
                Err(error) => return Ok(Err(format!("the body is not gzip: {error}"))),
            }
        }
        // What was not needed is given back, and so is what came, which is not kept.
        if let Some(memory) = memory {
            drop(memory.split(memory.num_permits().saturating_sub(inflated.len())));
        }
        Ok(Ok(inflated))
    }

    fn hold(&self, bytes: usize, memory: &mut Option<OwnedSemaphorePermit>) -> Result<(), Unread> {
        let bytes = u32::try_from(bytes).map_err(|_| Unread::TooLarge)?;
        let more = self.memory.clone().try_acquire_many_owned(bytes).map_err(|_| Unread::NoMemory)?;
        match memory {
            Some(memory) => memory.merge(more),
            None => *memory = Some(more),
        }
        Ok(())
    }
}
