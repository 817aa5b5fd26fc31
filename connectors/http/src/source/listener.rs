//! [`Listener`]: where connections come from, a port, a Unix socket, or both.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use forebay_api::{Blame, Fault};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that was made.
pub(super) struct Accepted {
    /// Its bytes.
    pub stream: Box<dyn Stream>,
    /// Its other end; `None` by a Unix socket.
    pub peer: Option<IpAddr>,
}

/// Open listeners.
#[derive(Debug)]
pub(super) struct Listener {
    tcp: Option<TcpListener>,
    unix: Option<UnixListener>,
    /// Removed when the listener is dropped.
    path: Option<PathBuf>,
}

impl Listener {
    /// Listens.
    pub(super) async fn bind(listen: Option<&str>, unix: Option<&Path>) -> Result<Listener, Fault> {
        let mut listener = Listener { tcp: None, unix: None, path: None };
        if let Some(address) = listen {
            let bound = TcpListener::bind(address).await;
            listener.tcp = Some(bound.map_err(|error| unbound(format!("listening on `{address}`"), error))?);
        }
        if let Some(path) = unix {
            let doing = || format!("listening on the Unix socket `{}`", path.display());
            // A socket that a dead process left refuses connections; one that somebody listens on is not ours to take.
            if let Err(error) = UnixStream::connect(path).await
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                std::fs::remove_file(path).map_err(|error| unbound(doing(), error))?;
            }
            listener.unix = Some(UnixListener::bind(path).map_err(|error| unbound(doing(), error))?);
            listener.path = Some(path.to_owned());
        }
        Ok(listener)
    }

    /// Waits for the next connection. An error is one connection's or the machine's, and passes.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let tcp = async {
            match &self.tcp {
                Some(tcp) => tcp.accept().await,
                None => std::future::pending().await,
            }
        };
        let unix = async {
            match &self.unix {
                Some(unix) => unix.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = tcp => {
                let (stream, peer) = accepted?;
                // Answers are small and complete: nothing is gained by holding them back.
                stream.set_nodelay(true)?;
                Ok(Accepted { stream: Box::new(stream), peer: Some(peer.ip()) })
            }
            accepted = unix => Ok(Accepted { stream: Box::new(accepted?.0), peer: None }),
        }
    }

    /// Where it listens, for `/status`.
    pub(super) fn address(&self) -> String {
        let tcp = self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()).map(|address| address.to_string());
        let unix = self.path.as_ref().map(|path| format!("unix:{}", path.display()));
        tcp.into_iter().chain(unix).collect::<Vec<_>>().join(", ")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays is replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn unbound(doing: String, error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Fault::fatal(doing, Blame::Outside, error)
            .with_remedy("choose a port from 1024 on, or a path that this user may write"),
        io::ErrorKind::InvalidInput => Fault::fatal(doing, Blame::Configuration, error)
            .with_remedy("write an address of this machine and a port, such as `0.0.0.0:8080`"),
        // A name that cannot be resolved now, a port that another process is about to leave, no more files.
        _ => Fault::retryable(doing, error).with_remedy("end what listens there, or choose another address"),
    }
}
