//! The `http` destination: posts records to a receiver and judges its answers by their status.
//!
//! ```text
//!  deliver ──▶ ranges of records ──▶ request ──▶ receiver
//!     ▲             ▲ halves                        │
//!     └── accept ───┴── too large, refused ◀── status
//! ```
//!
//! A record is **durable** when the receiver has answered the request that it was in with a status of 2xx. Without such
//! an answer nothing is known, and the records come again; `Idempotency-Key` is then the same.
//!
//! Invariants: one request after the other, in the order of the records, so that the order of each key holds; no
//! redirect is followed; what a receiver says is read up to a limit.
//!
//! Reading order: `config`, `body`, `request` (one request and its answer), `signature`, `retry_after`, `fault` (how
//! statuses and errors are judged), `tls`, `check`.

mod body;
mod check;
pub mod config;
mod fault;
mod request;
mod retry_after;
mod signature;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use async_trait::async_trait;
use forebay_api::{
    Blame, Delivery, Destination, DestinationConnector, DestinationSetting, Fault, Finding, Mistake, Record,
    Rejection,
};
use tokio::sync::OnceCell;
use tracing::info;

use self::body::Form;
use self::config::{Body, HttpDestinationConfig};
use self::fault::{Refusal, Said, WRITING};
use self::request::{Requests, Settings};

/// A receiver that has refused so many records one after the other, and taken none in between, refuses more than what
/// they hold.
const REFUSED_IN_A_ROW: u32 = 100;

/// Writes records to a receiver.
#[derive(Debug)]
pub(crate) struct Http {
    settings: Settings,
    /// Made at the first `open`, which reads the certificates.
    requests: OnceCell<Requests>,
    /// Bytes of records in one request; less, once the receiver has called a larger one too large.
    most_bytes: AtomicUsize,
    /// How many records were refused since one was taken.
    refused: AtomicU32,
}

impl Http {
    /// Connects to nothing yet.
    fn new(settings: Settings) -> Http {
        Http {
            settings,
            requests: OnceCell::new(),
            most_bytes: AtomicUsize::new(usize::MAX),
            refused: AtomicU32::new(0),
        }
    }

    async fn requests(&self) -> Result<&Requests, Fault> {
        self.requests.get_or_try_init(async || Requests::new(&self.settings)).await
    }

    /// How many records the next request has: at least one.
    fn count(&self, records: &[(usize, Record<'_>)]) -> usize {
        if self.settings.form.is_single() {
            return 1;
        }
        let most = self.most_bytes.load(Ordering::Relaxed);
        let mut bytes = 0;
        let fit = records.iter().take_while(|(_, record)| {
            bytes += record.body().len();
            bytes <= most
        });
        fit.count().max(1)
    }

    /// Halves the request that was too large, for all that come after it too.
    fn lower(&self, records: &[(usize, Record<'_>)]) {
        let bytes: usize = records.iter().map(|(_, record)| record.body().len()).sum();
        let most = bytes.div_ceil(2);
        if self.most_bytes.fetch_min(most, Ordering::Relaxed) > most {
            info!(
                receiver = self.settings.shown,
                bytes = most,
                "receiver called a request too large; requests are smaller now"
            );
        }
    }

    /// Counts a record that was refused; a fault where it is one of too many.
    fn count_refused(&self, said: &Said) -> Result<(), Fault> {
        if self.refused.fetch_add(1, Ordering::Relaxed) + 1 < REFUSED_IN_A_ROW {
            return Ok(());
        }
        self.refused.store(0, Ordering::Relaxed);
        let error = format!("{REFUSED_IN_A_ROW} records in a row were refused, the last one with {said}");
        let remedy = "see whether `url` is right and the receiver takes this `body` and `format`; the refused records are \
                      dead letters, and `forebay dlq replay` delivers them again";
        Err(Fault::fatal(WRITING, Blame::Outside, error).with_remedy(remedy))
    }
}

#[async_trait]
impl Destination for Http {
    async fn open(&self) -> Result<(), Fault> {
        self.requests().await.map(drop)
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let requests = self.requests().await?;
        let (records, progress) = delivery.open_with_progress();
        // From where to where is still to be written, the next part last. None of them is empty.
        let mut left: Vec<(usize, usize)> = Vec::new();
        if !records.is_empty() {
            left.push((0, records.len()));
        }
        while let Some((start, end)) = left.pop() {
            let until = start + self.count(&records[start..end]);
            if until < end {
                left.push((until, end));
            }
            let cut = &records[start..until];
            let Err(refusal) = requests.send(cut).await? else {
                self.refused.store(0, Ordering::Relaxed);
                cut.iter().for_each(|(index, _)| progress.accept(*index));
                continue;
            };
            match (cut, &refusal) {
                ([(index, _)], Refusal::TooLarge(said)) => {
                    progress.reject(*index, Rejection::new("too_large", said));
                }
                ([(index, _)], Refusal::Content(said)) => {
                    progress.reject(*index, Rejection::new("refused", said));
                    self.count_refused(said)?;
                }
                (_, refusal) => {
                    if let Refusal::TooLarge(_) = refusal {
                        self.lower(cut);
                    }
                    let middle = start + cut.len() / 2;
                    left.push((middle, until));
                    left.push((start, middle));
                }
            }
        }
        Ok(())
    }
}

/// The connector that `type: http` names among destinations.
#[derive(Debug)]
pub struct HttpDestination;

#[async_trait]
impl DestinationConnector for HttpDestination {
    const TYPE: &'static str = "http";
    const ABOUT: &'static str = "posts events to a URL, signed if you like";
    const EXAMPLE: &'static str = "\
type: http
url: https://example.com/events
body: ndjson                     # ndjson | array | single
# auth: {bearer: '${TOKEN}'}
# signature: {secret: '${SIGNING_SECRET}'}
# format: cloudevents            # forebay | debezium | cloudevents
";
    type Config = HttpDestinationConfig;

    fn build(
        config: HttpDestinationConfig,
        setting: &DestinationSetting,
    ) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        Ok(Arc::new(Http::new(Settings::new(&config, setting)?)))
    }

    async fn check(config: HttpDestinationConfig, setting: &DestinationSetting) -> Vec<Finding> {
        match Settings::new(&config, setting) {
            Ok(settings) => check::check(&settings, &config).await,
            Err(mistakes) => mistakes.into_iter().map(check::mistaken).collect(),
        }
    }
}

/// How the records of a request are written, from what the configuration says.
fn form(body: Body, format: &str) -> Form {
    let cloudevents = format == "cloudevents";
    match body {
        Body::Ndjson => Form::Ndjson,
        Body::Array => Form::Array { cloudevents },
        Body::Single => Form::Single { cloudevents },
    }
}
