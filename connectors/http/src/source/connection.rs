//! One connection: its handshake, its requests, and its end, which comes by itself, for idleness, or at the stop.

use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::activity::{Activity, Judgement, Watched};
use super::listener::{Accepted, Stream};
use super::server::Server;

/// The most headers of a request.
const MAX_HEADERS: usize = 100;
/// The most requests at once of an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// How long a connection that shall end may take to write its last answer, and how often one is looked at meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub(super) async fn serve(server: Arc<Server>, accepted: Accepted, tls: Option<TlsAcceptor>) {
    let Accepted { stream, peer } = accepted;
    let stream: Box<dyn Stream> = match tls {
        // Whoever connects by the Unix socket is on this machine.
        Some(acceptor) if peer.is_some() => {
            match timeout(server.plan.head_limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
                Err(_) => return debug!("TLS handshake took too long"),
            }
        }
        _ => stream,
    };
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let open = activity.request();
        let server = server.clone();
        async move {
            let response = server.serve(request, peer).await;
            drop(open);
            response
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A head that is too slow is judged by its activity; half a connection is enough to be answered.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(server.plan.head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(server.plan.head_bytes).unwrap_or(u32::MAX));
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut ending = false;
    let mut look = Instant::now() + server.plan.head_limit;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(error = %error, "a connection ended");
                }
                return;
            }
            () = server.stop.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
                look = Instant::now() + LAST_WORDS;
            }
            () = sleep_until(look) => match activity.judge(server.plan.head_limit, server.plan.idle_limit) {
                Judgement::Fine(_) if activity.is_answering() => look = Instant::now() + LAST_WORDS,
                _ if ending => return,
                Judgement::Fine(left) => look = Instant::now() + left,
                Judgement::Slow => return debug!("the head of a request took too long"),
                Judgement::Idle => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                    look = Instant::now() + LAST_WORDS;
                }
            },
        }
    }
}
