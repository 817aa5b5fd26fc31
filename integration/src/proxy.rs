//! A TCP proxy whose network misbehaves as a test wishes: late, slow, cut in the middle of a message, silent, gone.
//!
//! What is not lost on purpose arrives unchanged and in order. A fault counts from the call on, for the connections that
//! are open and for those to come; bytes that have left the proxy cannot be called back.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{PATIENCE, free_ports};

/// One read, hence the unit in which delays and rates act.
const PIECE_BYTES: usize = 16 * 1024;
/// How many pieces are under way in one direction; then the sender feels back-pressure, as on a real line.
const PIECES_UNDER_WAY: usize = 64;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the server to whoever connected to the proxy.
    ToClient,
    /// From whoever connected to the proxy to the server.
    ToServer,
}

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// They arrive.
    Open,
    /// They wait.
    Held,
    /// They vanish, and their sender does not learn it.
    Swallowed,
}

/// What the test wishes, as the connections see it.
#[derive(Debug, Clone, Copy)]
struct Terms {
    flow: Flow,
    latency: Duration,
    bytes_per_second: Option<NonZeroU64>,
    /// Whether anybody listens.
    listening: bool,
    /// Connections of an earlier era end.
    era: u64,
    /// How they end: with RST, or with FIN.
    reset: bool,
}

/// What the proxy's tasks share with the test.
#[derive(Debug)]
struct Line {
    target: u16,
    terms: watch::Sender<Terms>,
    /// How many more bytes may pass in each direction before the connection that brings the next is cut.
    allowance: Mutex<[Option<u64>; 2]>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

/// The proxy. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
    /// Owns the listener's task, which owns the connections' tasks.
    _tasks: JoinSet<()>,
    listening: watch::Receiver<bool>,
}

/// A connection that ends before its time.
struct Cut;

impl Proxy {
    /// A proxy in front of a port of 127.0.0.1, where nobody has to listen yet.
    pub async fn to(target: u16) -> Self {
        let port = free_ports(1);
        let terms = Terms {
            flow: Flow::Open,
            latency: Duration::ZERO,
            bytes_per_second: None,
            listening: true,
            era: 0,
            reset: false,
        };
        let terms = watch::Sender::new(terms);
        let line = Line { target, terms, allowance: Mutex::new([None; 2]), open: watch::Sender::new(0) };
        let line = Arc::new(line);
        let (listens, listening) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(port, line.clone(), listens));
        let mut proxy = Self { port, line, _tasks: tasks, listening };
        proxy.until_listening(true).await;
        proxy
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same as text.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Delays what passes by this much in each direction.
    pub fn delay(&self, latency: Duration) {
        self.line.terms.send_modify(|terms| terms.latency = latency);
    }

    /// Lets so many bytes per second pass on each connection and direction; `None` lifts that.
    pub fn limit(&self, bytes_per_second: Option<NonZeroU64>) {
        self.line.terms.send_modify(|terms| terms.bytes_per_second = bytes_per_second);
    }

    /// Lets `bytes` more pass in this direction, over all connections, and ends the connection that brings the next
    /// byte, once. Everything after that passes again.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.line.allowance.lock().expect("nothing panics while it is locked")[direction as usize] =
            Some(bytes);
    }

    /// Holds everything back until [`Proxy::resume`]. Connections stay, and new ones are taken.
    pub fn pause(&self) {
        self.line.terms.send_modify(|terms| terms.flow = Flow::Held);
    }

    /// Half-open: both sides can write and nobody gets anything, until [`Proxy::resume`]; what was written is lost, so
    /// the connections of that time are of no use any more.
    pub fn swallow(&self) {
        self.line.terms.send_modify(|terms| terms.flow = Flow::Swallowed);
    }

    /// Ends [`Proxy::pause`] and [`Proxy::swallow`].
    pub fn resume(&self) {
        self.line.terms.send_modify(|terms| terms.flow = Flow::Open);
    }

    /// Ends all connections in good order (FIN). New ones are taken.
    pub async fn close_all(&self) {
        self.end_all(false).await;
    }

    /// Ends all connections with a reset (RST). New ones are taken.
    pub async fn reset_all(&self) {
        self.end_all(true).await;
    }

    /// Takes no more connections, as a port where nobody listens, and ends those that are open.
    pub async fn shut(&mut self) {
        self.line.terms.send_modify(|terms| terms.listening = false);
        self.until_listening(false).await;
        self.end_all(true).await;
    }

    /// Takes connections again.
    pub async fn open(&mut self) {
        self.line.terms.send_modify(|terms| terms.listening = true);
        self.until_listening(true).await;
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        *self.line.open.borrow()
    }

    /// Waits until so many connections are open.
    pub async fn wait_for_connections(&self, count: usize) {
        let mut open = self.line.open.subscribe();
        let reached = tokio::time::timeout(PATIENCE, open.wait_for(|open| *open == count)).await;
        if reached.is_err() {
            panic!("the proxy has {} connections after {PATIENCE:?}, not {count}", self.connections());
        }
    }

    /// Returns when the connections that were open are gone.
    async fn end_all(&self, reset: bool) {
        let mut open = self.line.open.subscribe();
        self.line.terms.send_modify(|terms| {
            terms.era += 1;
            terms.reset = reset;
        });
        // A client may connect again at once, so that there is never a moment without a connection: any change will do.
        if *open.borrow_and_update() > 0 {
            open.changed().await.expect("the line lives as long as the proxy");
        }
    }

    async fn until_listening(&mut self, wanted: bool) {
        self.listening.wait_for(|listening| *listening == wanted).await.expect("the listener's task runs");
    }
}

/// Takes connections while the terms say so.
async fn listen(port: u16, line: Arc<Line>, listens: watch::Sender<bool>) {
    let mut terms = line.terms.subscribe();
    let mut connections = JoinSet::new();
    loop {
        if terms.wait_for(|terms| terms.listening).await.is_err() {
            return;
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on port {port} again: {error}"));
        listens.send_replace(true);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (client, _) = accepted.expect("a listener accepts");
                    connections.spawn(carry(client, line.clone()));
                }
                Some(_) = connections.join_next() => {} // a connection that ended is forgotten
                _ = terms.wait_for(|terms| !terms.listening) => break,
            }
        }
        drop(listener);
        listens.send_replace(false);
    }
}

/// One connection, from its beginning to its end.
async fn carry(client: TcpStream, line: Arc<Line>) {
    let mut terms = line.terms.subscribe();
    let era = terms.borrow().era;
    // Nobody behind the proxy: the client sees its connection end at once.
    let Ok(server) = TcpStream::connect(("127.0.0.1", line.target)).await else { return };
    line.open.send_modify(|open| *open += 1);
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("a TCP socket has no delay if told so");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mut up, mut down) = ((from_client, to_server), (from_server, to_client));
    let reset = tokio::select! {
        _ = async { tokio::try_join!(
            pass(&mut up.0, &mut up.1, Direction::ToServer, &line),
            pass(&mut down.0, &mut down.1, Direction::ToClient, &line),
        ) } => false,
        reset = async { terms.wait_for(|terms| terms.era > era).await.is_ok_and(|terms| terms.reset) } => reset,
    };
    if reset {
        for half in [up.1, down.1] {
            // Fails where the peer has gone already, and then it is ended as well.
            let _ = SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
            half.forget(); // or it would send a FIN before the RST
        }
        drop((up.0, down.0));
    } else {
        drop((up, down));
    }
    // Only now are both sockets closed.
    line.open.send_modify(|open| *open -= 1);
}

/// Carries bytes one way until their end, which it passes on, or until the connection is cut.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    direction: Direction,
    line: &Line,
) -> Result<(), Cut> {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_UNDER_WAY);
    let read = async move {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = from.read(&mut piece).await.map_err(|_| Cut)?;
            if count == 0 || under_way.send((Instant::now(), piece[..count].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        let mut terms = line.terms.subscribe();
        while let Some((read_at, bytes)) = arriving.recv().await {
            let now = *terms.wait_for(|terms| terms.flow != Flow::Held).await.map_err(|_| Cut)?;
            if now.flow == Flow::Swallowed {
                continue;
            }
            sleep_until(read_at + now.latency).await;
            if let Some(rate) = now.bytes_per_second {
                sleep(Duration::from_secs_f64(bytes.len() as f64 / rate.get() as f64)).await;
            }
            let allowed = line.allow(direction, bytes.len());
            to.write_all(&bytes[..allowed]).await.map_err(|_| Cut)?;
            if allowed < bytes.len() {
                return Err(Cut);
            }
        }
        to.shutdown().await.map_err(|_| Cut)
    };
    tokio::try_join!(read, write).map(drop)
}

impl Line {
    /// How many of `wanted` bytes may pass. Fewer means that this connection is cut and the allowance is used up.
    fn allow(&self, direction: Direction, wanted: usize) -> usize {
        let mut allowance = self.allowance.lock().expect("nothing panics while it is locked");
        let slot = &mut allowance[direction as usize];
        let Some(left) = *slot else { return wanted };
        let allowed = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
        *slot = if allowed < wanted { None } else { Some(left - allowed as u64) };
        allowed
    }
}
