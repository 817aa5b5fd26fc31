//! What librdkafka is told of a consumer: our settings, which keep the promises, over the user's options.
//!
//! Invariant: nothing that a user writes under `options` can move a group's offsets by itself, begin anywhere but where
//! we say, or let librdkafka hand partitions around while events of them are under way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use forebay_api::Mistake;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{OptionValue, Sasl, Tls};
use crate::options::{mistake, secure, wrong_brokers, wrong_options, wrong_tls};

/// Options that no user may set, and what to do instead.
const REFUSED: [(&[&str], &str); 7] = [
    (&["bootstrap.servers", "metadata.broker.list"], "set `brokers`"),
    (&["group.id"], "set `group`"),
    (&["auto.offset.reset"], "set `start`"),
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
        &["enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms", "enable.auto.offset.store"],
        "leave it out: the group's offsets move only past what is delivered",
    ),
    (
        &[
            "partition.assignment.strategy",
            "group.protocol",
            "group.remote.assignor",
            "isolation.level",
            "enable.partition.eof",
            "allow.auto.create.topics",
            "log.queue",
        ],
        "leave it out: Forebay sets it itself",
    ),
];

/// What we set unless a user's option says otherwise, each with its reason.
const DEFAULTS: [(&str, &str); 7] = [
    // What is read ahead of the pipeline; the pipeline's own budget bounds what is in it.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.max.bytes", "8388608"),
    // A record that comes alone is handed on at once; brokers wait for company only so long.
    ("fetch.wait.max.ms", "100"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    // A broker that returns is found within a second.
    ("reconnect.backoff.max.ms", "1000"),
    // No telemetry to the brokers.
    ("enable.metrics.push", "false"),
];

/// The keys that a source and a journal have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// `brokers`.
    pub(crate) brokers: &'a [String],
    /// `tls`.
    pub(crate) tls: Option<&'a Tls>,
    /// `sasl`.
    pub(crate) sasl: Option<&'a Sasl>,
    /// `options`.
    pub(crate) options: &'a BTreeMap<String, OptionValue>,
}

/// A consumer's configuration of librdkafka that has been validated.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Everything but `group.id`.
    pub(crate) native: ClientConfig,
    /// The files of `tls`, which librdkafka would not name when it cannot read them.
    pub(crate) files: Vec<PathBuf>,
    /// How long the group waits for a member that must give partitions back.
    pub(crate) max_poll: Duration,
}

impl Settings {
    /// Validates all that can be without a connection; `name` is the client's.
    pub(crate) fn new(access: Access<'_>, name: &str) -> Result<Settings, Vec<Mistake>> {
        let mut mistakes = wrong_options(access.options, &REFUSED);
        mistakes.extend(wrong_brokers(access.brokers));
        mistakes.extend(access.tls.and_then(wrong_tls));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let native = native(access, name);
        let known =
            native.create_native_config().map_err(|error| vec![mistake("", error.to_string(), None)])?;
        let max_poll = known.get("max.poll.interval.ms").ok().and_then(|text| text.parse().ok());
        let Some(max_poll) = max_poll.map(Duration::from_millis) else {
            return Err(vec![mistake("", "cannot read librdkafka's limits back".to_owned(), None)]);
        };
        let files = access.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]);
        Ok(Settings { files: files.flatten().cloned().collect(), native, max_poll })
    }
}

/// Defaults, then the user's options, then what must be so.
fn native(access: Access<'_>, name: &str) -> ClientConfig {
    let mut native = ClientConfig::new();
    for (key, value) in DEFAULTS {
        native.set(key, value);
    }
    native.set("client.id", format!("forebay-{name}"));
    for (key, value) in access.options {
        native.set(key, value.expose());
    }
    let debug = access.options.contains_key("debug");
    native.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });

    native.set("bootstrap.servers", access.brokers.join(","));
    // The group's offsets move when we say so, and an offset that is gone is an error.
    native.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    native.set("auto.offset.reset", "error");
    // All partitions are given back before any is handed out: simple, hence safe.
    native.set("partition.assignment.strategy", "roundrobin");
    native.set("isolation.level", "read_committed");
    native.set("enable.partition.eof", "true");
    native.set("allow.auto.create.topics", "false");
    secure(&mut native, access.tls, access.sasl);
    native
}

/// Whether a consumer group can have this name.
pub(crate) fn wrong_group(group: &str) -> Option<Mistake> {
    let wrong = group.is_empty() || group.len() > 200 || group.chars().any(char::is_control);
    wrong.then(|| {
        mistake(
            "/group",
            format!("{group:?} is not a name for a group"),
            Some("use letters, digits, `.`, `_` and `-`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: serde_json::Value) -> Result<Settings, Vec<Mistake>> {
        let options = serde_json::from_value(options).unwrap();
        let access = Access { brokers: &["b:1".to_owned()], tls: None, sasl: None, options: &options };
        Settings::new(access, "docs")
    }

    #[test]
    fn no_option_moves_offsets_or_changes_what_a_key_says() {
        for key in REFUSED.iter().flat_map(|(keys, _)| keys.iter()) {
            let found = settings(serde_json::json!({ *key: "1" })).unwrap_err();
            assert_eq!(found[0].message, format!("`options` may not set `{key}`"));
        }
    }

    #[test]
    fn the_time_for_giving_partitions_back_is_the_groups() {
        assert_eq!(settings(serde_json::json!({})).unwrap().max_poll, Duration::from_secs(300));
        let options = serde_json::json!({ "max.poll.interval.ms": 10_000, "session.timeout.ms": 6000 });
        assert_eq!(settings(options).unwrap().max_poll, Duration::from_secs(10));
    }
}
