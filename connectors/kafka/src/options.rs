//! What librdkafka is told: our settings, which keep the promises, over the user's options.
//!
//! Invariant: nothing that a user writes under `options` can weaken acknowledgements, idempotence or order, or change
//! what another key of the configuration says; such an option is refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_api::Mistake;
use forebay_api::template::Template;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{Config, OptionValue, Sasl, Tls, Verify};
use crate::topics;

/// Options that no user may set, and what to do instead.
const REFUSED: [(&[&str], &str); 9] = [
    (&["bootstrap.servers", "metadata.broker.list"], "set `brokers`"),
    (&["partitioner", "partitioner_cb"], "set `partitioner`"),
    (&["compression.codec", "compression.type"], "set `compression`"),
    (&["allow.auto.create.topics"], "set `create_topics`"),
    (
        &["security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"],
        "set `sasl` and `tls`",
    ),
    (
        &[
            "ssl.ca.location",
            "ssl.certificate.location",
            "ssl.key.location",
            "enable.ssl.certificate.verification",
            "ssl.endpoint.identification.algorithm",
        ],
        "set `tls`",
    ),
    (
        &[
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "enable.gapless.guarantee",
            "queuing.strategy",
        ],
        "leave it out: Forebay needs every replica's acknowledgement and the idempotent producer to lose nothing and \
         to keep the order of a key",
    ),
    (
        &["retries", "message.send.max.retries", "message.timeout.ms", "delivery.timeout.ms"],
        "leave it out: a message that were given up would be overtaken by later ones of its key",
    ),
    (&["transactional.id", "log.queue"], "leave it out: Forebay does not use it or sets it itself"),
];

/// How long the brokers keep a transaction open whose daemon has gone, where no option says otherwise: readers wait so
/// long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Other names that librdkafka has for options which we set and users may set otherwise.
const ALIASES: [(&str, &str); 2] =
    [("linger.ms", "queue.buffering.max.ms"), ("max.in.flight", "max.in.flight.requests.per.connection")];

/// What we set unless a user's option says otherwise, each with its reason.
const DEFAULTS: [(&str, &str); 10] = [
    // No wait for company: batches fill by themselves while earlier ones are under way.
    ("queue.buffering.max.ms", "0"),
    // Below the 1,048,588 bytes that a broker takes by default, so that only a single record can be too large.
    ("batch.size", "1000000"),
    ("batch.num.messages", "10000"),
    // Copies of what deliveries in flight hold; the pipeline's own budget bounds those first.
    ("queue.buffering.max.kbytes", "8192"),
    ("queue.buffering.max.messages", "100000"),
    ("socket.nagle.disable", "true"),
    // A connection that a firewall has forgotten is found by the kernel.
    ("socket.keepalive.enable", "true"),
    // A broker that returns is found within a second.
    ("reconnect.backoff.max.ms", "1000"),
    // Topics are looked up before they are written, so one that becomes unknown is soon known to be gone.
    ("topic.metadata.propagation.max.ms", "5000"),
    // No telemetry to the brokers.
    ("enable.metrics.push", "false"),
];

/// A configuration of librdkafka that has been validated, and what of it our own code needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Everything but `batch.size`, which [`crate::client::Client`] sets.
    pub(crate) native: ClientConfig,
    /// How many bytes of records make a batch.
    pub(crate) batch_bytes: usize,
    /// The files of `tls`, which librdkafka would not name when it cannot read them.
    pub(crate) files: Vec<PathBuf>,
}

impl Settings {
    /// Validates all that can be without a connection.
    pub(crate) fn new(config: &Config, name: &str) -> Result<Settings, Vec<Mistake>> {
        let mut mistakes = wrong_options(&config.options, &REFUSED);
        mistakes.extend(wrong_brokers(&config.brokers));
        mistakes.extend(wrong_topic(&config.topic));
        mistakes.extend(config.tls.as_ref().and_then(wrong_tls));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let native = native(config, name);
        // What we set ourselves is refused only where this build lacks it, such as a codec.
        let known =
            native.create_native_config().map_err(|error| vec![mistake("", error.to_string(), None)])?;
        let number = |key: &str| known.get(key).ok().and_then(|text| text.parse::<usize>().ok());
        let (Some(batch_bytes), Some(message_bytes), Some(queue_kib)) =
            (number("batch.size"), number("message.max.bytes"), number("queue.buffering.max.kbytes"))
        else {
            return Err(vec![mistake("", "cannot read librdkafka's limits back".to_owned(), None)]);
        };
        if queue_kib.saturating_mul(1024) < message_bytes {
            let message =
                format!("a message of `message.max.bytes` ({message_bytes}) does not fit into the queue");
            let help =
                "set `queue.buffering.max.kbytes` to several times `message.max.bytes` divided by 1024";
            return Err(vec![mistake("/options", message, Some(help))]);
        }
        let files =
            config.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]).flatten().cloned().collect();
        Ok(Settings { native, batch_bytes, files })
    }
}

impl Settings {
    /// The same for the producer that alone writes under a transactional id.
    pub(crate) fn transactional(&self, id: &str) -> Result<Settings, Vec<Mistake>> {
        let mut settings = self.clone();
        let native = &mut settings.native;
        native.set("transactional.id", id);
        native.set("transaction.timeout.ms", self.transaction_timeout().as_millis().to_string());
        // What fails aborts the transaction as a whole, so there is no gap to be afraid of.
        native.set("enable.gapless.guarantee", "false");
        native.remove("message.timeout.ms"); // librdkafka takes the transaction's
        let wrong = |error: rdkafka::error::KafkaError| {
            vec![mistake("/options", format!("these settings allow no transactions: {error}"), None)]
        };
        native.create_native_config().map_err(wrong)?;
        Ok(settings)
    }

    /// How long the brokers let a transaction take.
    pub(crate) fn transaction_timeout(&self) -> Duration {
        let set = self.native.get("transaction.timeout.ms").and_then(|text| text.parse().ok());
        set.map_or(TRANSACTION_TIMEOUT, Duration::from_millis)
    }

    /// The settings of a consumer that reads one topic by itself, in no group.
    pub(crate) fn reading(&self, id: &str, isolation: &str) -> ClientConfig {
        let mut native = self.native.clone();
        native.set("group.id", id).set("isolation.level", isolation);
        native.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        native.set("auto.offset.reset", "earliest").set("fetch.wait.max.ms", "50");
        native
    }
}

/// Defaults, then the user's options, then what must be so.
fn native(config: &Config, name: &str) -> ClientConfig {
    let mut native = ClientConfig::new();
    for (key, value) in DEFAULTS {
        native.set(key, value);
    }
    native.set("client.id", format!("forebay-{name}"));
    for (key, value) in &config.options {
        let key = ALIASES.iter().find(|(alias, _)| alias == key).map_or(key.as_str(), |(_, key)| key);
        native.set(key, value.expose());
    }
    // A line for each step only where somebody asked for it.
    let debug = config.options.contains_key("debug");
    native.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });

    native.set("bootstrap.servers", config.brokers.join(","));
    native.set("enable.idempotence", "true").set("acks", "all");
    // A batch that fails ends the client instead of leaving a gap that later batches jump over.
    native.set("enable.gapless.guarantee", "true");
    // Never given up: a message that leaves the queue unwritten would be overtaken by those behind it.
    native.set("message.timeout.ms", "0");
    native.set("allow.auto.create.topics", "false");
    native.set("partitioner", config.partitioner.as_str());
    native.set("compression.codec", config.compression.as_str());
    secure(&mut native, config.tls.as_ref(), config.sasl.as_ref());
    native
}

pub(crate) fn secure(native: &mut ClientConfig, tls: Option<&Tls>, sasl: Option<&Sasl>) {
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    native.set("security.protocol", protocol);
    if let Some(tls) = tls {
        let mut file = |key: &str, path: Option<&Path>| {
            if let Some(path) = path {
                native.set(key, path.to_string_lossy());
            }
        };
        file("ssl.ca.location", tls.ca.as_deref());
        file("ssl.certificate.location", tls.cert.as_deref());
        file("ssl.key.location", tls.key.as_deref());
        native.set("enable.ssl.certificate.verification", (tls.verify != Verify::None).to_string());
        let names = if tls.verify == Verify::Full { "https" } else { "none" };
        native.set("ssl.endpoint.identification.algorithm", names);
    }
    if let Some(sasl) = sasl {
        native.set("sasl.mechanism", sasl.mechanism.as_str());
        native.set("sasl.username", &sasl.username).set("sasl.password", sasl.password.expose());
    }
}

/// Each option that is refused, unknown to librdkafka, or not of its type. Nothing repeats the value, which may be
/// secret.
pub(crate) fn wrong_options(
    options: &BTreeMap<String, OptionValue>,
    refused: &[(&[&str], &str)],
) -> Vec<Mistake> {
    let wrong = |key: &String| {
        let at = format!("/options/{}", key.replace('~', "~0").replace('/', "~1"));
        if let Some((_, instead)) = refused.iter().find(|(keys, _)| keys.contains(&key.as_str())) {
            return Some(mistake(&at, format!("`options` may not set `{key}`"), Some(instead)));
        }
        let mut alone = ClientConfig::new();
        alone.set(key, options[key].expose());
        let Err(error) = alone.create_native_config() else { return None };
        let unknown = matches!(
            error,
            rdkafka::error::KafkaError::ClientConfig(
                rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
                ..
            )
        );
        let (message, help) = if unknown {
            (format!("librdkafka has no option `{key}`"), "its CONFIGURATION.md lists all options")
        } else {
            (
                format!("`{key}` cannot have this value"),
                "librdkafka's CONFIGURATION.md lists what it can have",
            )
        };
        Some(mistake(&at, message, Some(help)))
    };
    options.keys().filter_map(wrong).collect()
}

pub(crate) fn wrong_brokers(brokers: &[String]) -> Vec<Mistake> {
    let help = "write each broker as an item of its own, `host:port`";
    if brokers.is_empty() {
        return vec![mistake("/brokers", "`brokers` is empty".to_owned(), Some(help))];
    }
    let wrong = |broker: &&String| broker.is_empty() || broker.contains([',', ' ', '/', '\0']);
    let of = |(at, _): (usize, &String)| {
        mistake(&format!("/brokers/{at}"), "not the address of a broker".to_owned(), Some(help))
    };
    brokers.iter().enumerate().filter(|(_, broker)| wrong(broker)).map(of).collect()
}

/// The template's own text must be legal in a name; what placeholders bring is made so.
fn wrong_topic(topic: &Template) -> Option<Mistake> {
    let mut name = String::new();
    topic.render(|_| Some("a"), |_| false, &mut name);
    let help =
        "Kafka's topics have up to 249 letters, digits, `.`, `_` and `-`, and are neither `.` nor `..`";
    topics::illegal(&name)
        .then(|| mistake("/topic", format!("`{topic}` makes no name of a topic"), Some(help)))
}

pub(crate) fn wrong_tls(tls: &Tls) -> Option<Mistake> {
    let (at, has, lacks) = match (&tls.cert, &tls.key) {
        (Some(_), None) => ("/tls/cert", "cert", "key"),
        (None, Some(_)) => ("/tls/key", "key", "cert"),
        _ => return None,
    };
    let help = format!("set `tls.{lacks}` too, or neither");
    Some(mistake(at, format!("`tls.{has}` needs `tls.{lacks}`"), Some(&help)))
}

pub(crate) fn mistake(at: &str, message: String, help: Option<&str>) -> Mistake {
    Mistake { at: at.to_owned(), message, help: help.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: serde_json::Value) -> Result<Settings, Vec<Mistake>> {
        let config: Config = serde_json::from_value(json).unwrap();
        Settings::new(&config, "lake")
    }

    fn mistakes(json: serde_json::Value) -> Vec<(String, String)> {
        settings(json).unwrap_err().into_iter().map(|m| (m.at, m.message)).collect()
    }

    fn with_options(options: serde_json::Value) -> serde_json::Value {
        serde_json::json!({ "brokers": ["127.0.0.1:9092"], "options": options })
    }

    #[test]
    fn no_option_weakens_the_guarantee_or_changes_what_a_key_says() {
        for key in REFUSED.iter().flat_map(|(keys, _)| keys.iter()) {
            let found = mistakes(with_options(serde_json::json!({ *key: "1" })));
            assert_eq!(found, [(format!("/options/{key}"), format!("`options` may not set `{key}`"))]);
        }
    }

    #[test]
    fn every_wrong_option_is_named_and_no_value_is_repeated() {
        let options =
            serde_json::json!({ "linger.sm": 5, "linger.ms": "hunter2", "acks": 0, "client.id": "x" });
        assert_eq!(
            mistakes(with_options(options)),
            [
                ("/options/acks".to_owned(), "`options` may not set `acks`".to_owned()),
                ("/options/linger.ms".to_owned(), "`linger.ms` cannot have this value".to_owned()),
                ("/options/linger.sm".to_owned(), "librdkafka has no option `linger.sm`".to_owned()),
            ]
        );
    }

    #[test]
    fn an_option_replaces_our_default_under_each_of_its_names() {
        let options =
            serde_json::json!({ "linger.ms": 7, "batch.size": 2000, "socket.keepalive.enable": false });
        let settings = settings(with_options(options)).unwrap();
        let known = settings.native.create_native_config().unwrap();
        assert_eq!(known.get("queue.buffering.max.ms").unwrap(), "7");
        assert_eq!(known.get("socket.keepalive.enable").unwrap(), "false");
        assert_eq!(settings.batch_bytes, 2000);
        assert_eq!(known.get("enable.idempotence").unwrap(), "true");
        assert_eq!(known.get("message.timeout.ms").unwrap(), "0");
    }

    #[test]
    fn every_codec_and_mechanism_is_in_this_build() {
        for codec in ["none", "lz4", "zstd", "snappy", "gzip"] {
            settings(serde_json::json!({ "brokers": ["b:1"], "compression": codec })).unwrap();
        }
        let native = ClientConfig::new().create_native_config().unwrap();
        let features = native.get("builtin.features").unwrap();
        for feature in ["ssl", "sasl_plain", "sasl_scram", "zstd", "lz4", "gzip", "snappy"] {
            assert!(features.split(',').any(|built| built == feature), "{feature} is not in {features}");
        }
    }

    #[test]
    fn brokers_topics_and_keys_that_cannot_be_are_refused() {
        let found = mistakes(serde_json::json!({
            "brokers": ["a:1,b:2", "c:3"], "topic": "a b", "tls": { "cert": "c.pem" },
        }));
        let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(places, ["/brokers/0", "/topic", "/tls/cert"]);
        assert_eq!(mistakes(serde_json::json!({ "brokers": [] }))[0].0, "/brokers");
    }

    #[test]
    fn a_message_larger_than_the_queue_would_wait_for_ever_and_is_refused() {
        let found = mistakes(with_options(serde_json::json!({ "message.max.bytes": 100_000_000 })));
        assert_eq!(found[0].0, "/options");
        let enough =
            serde_json::json!({ "message.max.bytes": 100_000_000, "queue.buffering.max.kbytes": 200_000 });
        settings(with_options(enough)).unwrap();
    }

    #[test]
    fn nothing_shows_a_secret() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "brokers": ["b:1"],
            "sasl": { "mechanism": "PLAIN", "username": "u", "password": "hunter2" },
            "options": { "ssl.key.password": "hunter2" },
        }))
        .unwrap();
        let settings = Settings::new(&config, "lake").unwrap();
        assert!(!format!("{config:?} {settings:?}").contains("hunter2"));
    }
}
