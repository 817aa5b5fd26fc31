//! Ports for servers that live as long as a demo or a test.
//!
//! They are taken below the range from which the kernel gives ports to outgoing connections, so that nobody takes
//! a server's port while it is being restarted, and never twice by one process.

use std::io;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Above the ports of well-known services.
const FIRST: u16 = 10_000;
/// How many there are: Linux gives 32768 and above to outgoing connections.
const RANGE: u32 = 22_000;

/// The first of `count` adjacent ports on which nobody listens.
pub fn free(count: u16) -> io::Result<u16> {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // A start of its own for each process: two that begin together rarely try the same port.
    let next = NEXT.get_or_init(|| AtomicU32::new(rand::random_range(0..RANGE)));
    for _ in 0..RANGE {
        let step = next.fetch_add(u32::from(count), Ordering::Relaxed) % RANGE;
        let first = FIRST + u16::try_from(step).expect("the range is smaller than u16");
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(first);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("cannot find {count} adjacent free ports on 127.0.0.1"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_never_one_that_is_taken() {
        let first = free(2).unwrap();
        let second = free(1).unwrap();
        assert!(second != first && second != first + 1, "{second} was given before");
        let taken = TcpListener::bind(("127.0.0.1", free(1).unwrap())).unwrap().local_addr().unwrap().port();
        assert!((FIRST..32_768).contains(&taken));
    }
}
