//! What the harness promises about the network between two processes.

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::time::Duration;

use forebay_integration::{Direction, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longer than anything takes that happens, and short enough to wait for what must not.
const NOTHING_COMES: Duration = Duration::from_millis(200);

/// A server that answers with what it is told, its port, and the task that it lives in.
async fn echo() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    (port, tasks)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn ask(client: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    client.write_all(text).await.unwrap();
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn bytes_pass_unchanged_and_the_end_of_one_side_reaches_the_other() {
    let (port, _server) = echo().await;
    let proxy = Proxy::to(port).await;
    let mut client = connect(&proxy).await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    assert_eq!(ask(&mut client, b"hello").await, b"hello");
    let (mut reader, mut writer) = client.split();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
    read.unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[tokio::test]
async fn a_connection_is_cut_after_exactly_so_many_bytes_and_the_next_one_is_whole() {
    let (port, _server) = echo().await;
    let proxy = Proxy::to(port).await;
    let mut client = connect(&proxy).await;
    proxy.cut_after(Direction::ToClient, 1000);
    client.write_all(&[7; 4000]).await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 1000);

    let mut next = connect(&proxy).await;
    assert_eq!(ask(&mut next, &[7; 4000]).await, [7; 4000]);
}

#[tokio::test]
async fn what_is_held_arrives_later_and_what_is_swallowed_never() {
    let (port, _server) = echo().await;
    let proxy = Proxy::to(port).await;
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, b"a").await, b"a");

    proxy.pause();
    client.write_all(b"held").await.unwrap();
    assert!(timeout(NOTHING_COMES, client.read_u8()).await.is_err(), "a byte passed a pause");
    proxy.resume();
    let mut held = [0; 4];
    client.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"held");

    proxy.swallow();
    client.write_all(b"lost").await.unwrap();
    assert!(timeout(NOTHING_COMES, client.read_u8()).await.is_err(), "a byte was not swallowed");
    proxy.resume();
    assert_eq!(ask(&mut client, b"next").await, b"next");
}

#[tokio::test]
async fn a_reset_is_seen_as_a_reset_and_a_close_as_an_end() {
    let (port, _server) = echo().await;
    let proxy = Proxy::to(port).await;
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, b"a").await, b"a");
    proxy.reset_all().await;
    assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.wait_for_connections(0).await;

    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, b"a").await, b"a");
    proxy.close_all().await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_shut_proxy_refuses_until_it_is_open_again() {
    let (port, _server) = echo().await;
    let mut proxy = Proxy::to(port).await;
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, b"a").await, b"a");
    proxy.shut().await;
    assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.open().await;
    assert_eq!(ask(&mut connect(&proxy).await, b"b").await, b"b");
}

#[tokio::test]
async fn delay_and_rate_are_felt_and_lifted() {
    let (port, _server) = echo().await;
    let proxy = Proxy::to(port).await;
    let mut client = connect(&proxy).await;
    proxy.delay(Duration::from_millis(50));
    let begun = Instant::now();
    ask(&mut client, b"a").await;
    assert!(begun.elapsed() >= Duration::from_millis(100), "both ways are delayed");

    proxy.delay(Duration::ZERO);
    proxy.limit(NonZeroU64::new(100_000));
    let begun = Instant::now();
    ask(&mut client, &[7; 10_000]).await;
    assert!(begun.elapsed() >= Duration::from_millis(200), "10 kB take 100 ms each way");

    proxy.limit(None);
    let begun = Instant::now();
    ask(&mut client, &[7; 10_000]).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "the limit is lifted");
}
