//! Asking a running daemon's admin server from another process: one plain HTTP/1.0 exchange.
//!
//! The other side is Forebay, mostly on this machine; no client library is worth linking for that. Both the answer's
//! size and its time are bounded.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The admin server of a daemon that lives answers at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A status of ten thousand tables and a thousand lanes takes less.
const ANSWER_BYTES: u64 = 16 << 20;

/// Status code and body of `GET path` at `host:port`.
pub async fn get(authority: &str, path: &str) -> io::Result<(u16, String)> {
    ask(authority, format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n"), ANSWER_LIMIT).await
}

/// Status code and body of `POST path` with JSON at `host:port`.
pub async fn post(authority: &str, path: &str, json: &str) -> io::Result<(u16, String)> {
    post_patiently(authority, path, json, ANSWER_LIMIT).await
}

/// The same, for what takes its time.
pub async fn post_patiently(
    authority: &str,
    path: &str,
    json: &str,
    within: Duration,
) -> io::Result<(u16, String)> {
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{json}",
        json.len()
    );
    ask(authority, request, within).await
}

async fn ask(authority: &str, request: String, within: Duration) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(within, exchange)
        .await
        .map_err(|_| io::Error::other(format!("no answer within {within:?}")))??;
    parse(&answer).ok_or_else(|| io::Error::other("what answers there does not speak HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(parse("HTTP/1.0 503 x\r\na: b\r\n\r\nwhy\r\n\r\n"), Some((503, "why\r\n\r\n".to_owned())));
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn a_listener_that_speaks_something_else_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (asked, ()) = tokio::join!(get(&authority, "/status"), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 256]).await.unwrap() > 0);
            stream.write_all(b"220 mail.example.com\r\n").await.unwrap();
        });
        assert!(asked.unwrap_err().to_string().contains("does not speak HTTP"));
    }
}
