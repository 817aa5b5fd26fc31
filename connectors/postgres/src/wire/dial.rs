//! [`Dial`]: from a host to a socket with TLS on it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::time::Instant;

use super::error::WireError;
use super::transport::{Timed, Transport};
use crate::url::{Host, Keepalive, SslMode};

/// How one host is reached; kept by a connection, so that it can reach the same host again to cancel.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The server.
    pub host: Host,
    /// Whether TLS is wanted or needed.
    pub ssl_mode: SslMode,
    /// Whether TLS begins at once.
    pub ssl_direct: bool,
    /// How; `None` only where `ssl_mode` is `Disable`.
    pub tls: Option<Arc<ClientConfig>>,
    /// Settings of the socket.
    pub keepalive: Keepalive,
    /// How long all of it may take, the login included.
    pub timeout: Duration,
}

impl Dial {
    /// Connects and secures the socket.
    pub(super) fn open(&self, deadline: Instant) -> Result<Transport, WireError> {
        match &self.host {
            Host::Unix { directory, port } => {
                let address = SockAddr::unix(directory.join(format!(".s.PGSQL.{port}")));
                let socket = address.and_then(|address| connect(&address, deadline));
                Ok(Transport::new(socket.map_err(WireError::io("connecting"))?, None))
            }
            Host::Tcp { name, address, port } => {
                let socket =
                    self.tcp(name, address.map(|address| SocketAddr::new(address, *port)), *port, deadline);
                self.secure(socket.map_err(WireError::io("connecting"))?, name, deadline)
            }
        }
    }

    /// Tries each address that the name has.
    fn tcp(&self, name: &str, known: Option<SocketAddr>, port: u16, deadline: Instant) -> io::Result<Socket> {
        let addresses = match known {
            Some(address) => vec![address],
            None => (name, port).to_socket_addrs()?.collect(),
        };
        let mut last = io::Error::other("the name has no address");
        for address in addresses {
            match connect(&address.into(), deadline).and_then(|socket| self.prepared(socket)) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn prepared(&self, socket: Socket) -> io::Result<Socket> {
        // status updates are small and must not wait for one another
        socket.set_tcp_nodelay(true)?;
        if self.keepalive.enabled {
            let probes = TcpKeepalive::new()
                .with_time(self.keepalive.idle)
                .with_interval(self.keepalive.interval)
                .with_retries(self.keepalive.count);
            socket.set_tcp_keepalive(&probes)?;
        }
        socket.set_tcp_user_timeout(Some(self.keepalive.user_timeout))?;
        Ok(socket)
    }

    fn secure(&self, socket: Socket, name: &str, deadline: Instant) -> Result<Transport, WireError> {
        let Some(config) = self.tls.as_ref().filter(|_| self.ssl_mode != SslMode::Disable) else {
            return Ok(Transport::new(socket, None));
        };
        let mut timed = Timed { socket: &socket, deadline };
        if !self.ssl_direct && !offers_tls(&mut timed)? {
            return match self.ssl_mode {
                SslMode::Prefer => Ok(Transport::new(socket, None)),
                _ => Err(WireError::NoTls),
            };
        }
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| WireError::Login(format!("`{name}` cannot be a name in a certificate")))?;
        let mut tls = ClientConnection::new(config.clone(), server)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut timed).map_err(WireError::io("the TLS handshake"))?;
        }
        Ok(Transport::new(socket, Some(tls)))
    }
}

fn connect(address: &SockAddr, deadline: Instant) -> io::Result<Socket> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let socket = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
    socket.connect_timeout(address, left)?;
    Ok(socket)
}

/// Asks whether the server has TLS. Exactly one byte is read: more of them in the open could be an attacker's.
fn offers_tls(socket: &mut Timed<'_>) -> Result<bool, WireError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut answer = [0];
    let asked = socket.write_all(&request).and_then(|()| socket.read_exact(&mut answer));
    asked.map_err(WireError::io("asking for TLS"))?;
    match answer[0] {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // a server too busy to fork answers with an error; its text is not to be trusted before TLS
        b'E' => Err(WireError::malformed("an error instead of a yes or no to TLS; is the server full?")),
        other => Err(WireError::malformed(format!("{other:#04x} instead of a yes or no to TLS"))),
    }
}
