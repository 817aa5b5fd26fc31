//! Real Apache Kafka brokers, started by `integration/servers/kafka.sh`.

use std::fs::File;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay::demo::process::{Process, Signal};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, Proxy, Topic, free_ports, unique};

/// What a broker says when it serves, and how often we look whether it has.
const SERVES: &str = "Kafka Server started";
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long a broker may take to start: five seconds on a quiet machine, minutes where tests and builds share two cores.
const START_LIMIT: Duration = Duration::from_secs(240);
/// As the script lays them out: plain text, controller, three that are secure, one for a proxy.
const PORTS: u16 = 6;
const PROXIED_PORT: u16 = 5;
/// How much of a broker's log a failure shows.
const LOG_LINES: usize = 30;

/// What kind of broker a test wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// Plain text, for everyone.
    Plain,
    /// With SASL and TLS listeners and ACLs on top.
    Secure,
}

/// A broker with its data.
#[derive(Debug)]
pub struct Kafka {
    process: Option<Process>,
    port: u16,
    kind: Broker,
    /// The port that clients of the proxied listener are told to use.
    proxied: Option<NonZeroU16>,
    /// Its data, its log and its certificates; removed after the broker has ended.
    dir: TempDir,
}

impl Kafka {
    /// The broker that all tests of this binary share. It ends with the binary.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(Broker::Plain)).await
    }

    /// A broker of the test's own.
    pub async fn start(kind: Broker) -> Self {
        Self::create(kind, free_ports(PORTS), None).await
    }

    /// A broker of the test's own, and a proxy that its clients cannot go around: they are told the proxy's address.
    /// [`Kafka::bootstrap`] still goes straight to the broker, for the test's own eyes.
    pub async fn behind_proxy() -> (Self, Proxy) {
        let port = free_ports(PORTS);
        let proxy = Proxy::to(port + PROXIED_PORT).await;
        let told = NonZeroU16::new(proxy.port()).expect("a bound port is not 0");
        (Self::create(Broker::Plain, port, Some(told)).await, proxy)
    }

    async fn create(kind: Broker, port: u16, proxied: Option<NonZeroU16>) -> Self {
        let dir = tempfile::Builder::new().prefix("forebay-kafka-").tempdir();
        let dir = dir.expect("the temporary folder is writable");
        let mut kafka = Self { process: None, port, kind, proxied, dir };
        kafka.start_again().await;
        kafka
    }

    /// Starts it again after [`Kafka::stop`] or [`Kafka::kill`], on the same data and ports, and returns when it serves.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the broker is running already");
        let log = self.dir.path().join("log");
        let output = File::create(&log).expect("its folder is writable"); // emptied: each start says that it serves
        let errors = output.try_clone().expect("a file can be shared");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/kafka.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg("run").arg(self.dir.path()).arg(self.port.to_string());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        if self.kind == Broker::Secure {
            command.env("KAFKA_SECURE", "1");
        }
        if let Some(port) = self.proxied {
            command.env("KAFKA_PROXIED", port.to_string());
        }
        let process = Process::spawn(&mut command, Signal::KILL, Some(self.dir.path()));
        let process = self.process.insert(process.expect("bash is there"));
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let said = std::fs::read_to_string(&log).expect("the log was created above");
            if said.contains(SERVES) {
                return;
            }
            let ended = process.ended().expect("a child can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Kafka did not start (`integration/run` brings what it needs); ended: {ended:?}\n{}",
                last_lines(&said)
            );
            sleep(LOOK_PAUSE).await;
        }
    }

    /// SIGKILL: what it acknowledged is there again after [`Kafka::start_again`].
    pub async fn kill(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// A shutdown in good order.
    pub async fn stop(&mut self) {
        self.end(Signal::TERM).await;
    }

    async fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(signal).expect("a child can be signalled");
        let ended = process.wait(PATIENCE).await.expect("a child can be waited for");
        assert!(ended.is_some(), "Kafka does not end within {PATIENCE:?} after {signal:?}");
    }

    /// Where clients find it without security and without a proxy.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where clients find its SASL_PLAINTEXT, SSL and SASL_SSL listeners, in this order.
    pub fn secure_bootstraps(&self) -> [String; 3] {
        assert_eq!(self.kind, Broker::Secure, "this broker has no secure listeners");
        [2, 3, 4].map(|offset| format!("127.0.0.1:{}", self.port + offset))
    }

    /// The certificate that signs a secure broker's own.
    pub fn ca_certificate(&self) -> PathBuf {
        self.dir.path().join("tls/ca.pem")
    }

    /// A new topic, whose name begins with `name`.
    pub async fn topic(&self, name: &str, partitions: i32) -> Topic {
        self.topic_with(name, partitions, &[]).await
    }

    /// A new topic with settings such as `max.message.bytes`.
    pub async fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Topic {
        let name = unique(name);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let created = self.admin().create_topics([&topic], &options).await.expect("the broker answers");
        for result in created {
            result.unwrap_or_else(|(name, code)| panic!("cannot create topic `{name}`: {code}"));
        }
        self.existing(&name)
    }

    /// A topic of exactly this name, which somebody else creates.
    pub fn existing(&self, name: &str) -> Topic {
        Topic::new(self.bootstrap(), name.to_owned())
    }

    /// For what the harness has no verb for.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config.create().expect("the configuration is right")
    }

    /// The last lines of what the broker said since its last start.
    pub fn log(&self) -> String {
        let said = std::fs::read_to_string(self.dir.path().join("log"));
        said.map_or_else(|error| format!("(no log: {error})"), |said| last_lines(&said))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
