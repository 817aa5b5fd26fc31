//! `forebay check`: asks the service about the streams. Changes nothing.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::{StreamDescriptionSummary, StreamStatus};
use forebay_api::template::Placeholder;
use forebay_api::{Blame, DestinationSetting, Finding, Mistake};

use crate::client;
use crate::config::{KinesisConfig, Order, illegal};
use crate::fault;

/// Looks at everything that could keep the destination from writing.
pub(crate) async fn check(config: &KinesisConfig, setting: &DestinationSetting) -> Vec<Finding> {
    let client = match client::connect(config).await {
        Ok(client) => client,
        Err(fault) => return vec![Finding::fault(&fault)],
    };
    let mut findings = Vec::new();
    let (known, unknown) = names(config, &setting.sources);
    for name in known {
        findings.extend(stream(&client, config, &name).await);
    }
    if let Some(name) = unknown {
        let fact = format!("streams are named by events, such as `{name}`, so that they cannot be looked up");
        findings
            .push(Finding::warning(fact, "create a stream for each table: a missing one stops the daemon"));
    }
    if config.order == Order::Eventual {
        findings.push(Finding::good(
            "`order` is `eventual`: later events of a key may stand before a refused one",
        ));
    }
    findings
}

/// The names that are known without an event; and one with `*` for what only an event can say, where there are such.
fn names(config: &KinesisConfig, sources: &[String]) -> (Vec<String>, Option<String>) {
    let asks_events = config.stream.placeholders().any(|asked| asked != Placeholder::Source);
    let render = |source: &String| {
        let mut name = String::new();
        let value = |asked| Some(if asked == Placeholder::Source { source.as_str() } else { "*" });
        config.stream.render(value, |char| char != '*' && crate::config::forbidden(char), &mut name);
        name
    };
    let mut names: Vec<String> = sources.iter().map(render).collect();
    names.dedup();
    if asks_events { (Vec::new(), names.into_iter().next()) } else { (names, None) }
}

async fn stream(client: &Client, config: &KinesisConfig, name: &str) -> Vec<Finding> {
    if illegal(name) {
        let remedy = "set `stream` to up to 128 letters, digits, `.`, `_` and `-`";
        let fact = format!("`{name}` is not a name that a stream can have");
        return vec![Finding::bad(fact, Blame::Configuration, remedy)];
    }
    let described = client.describe_stream_summary().stream_name(name).send().await;
    match described {
        Ok(described) => match described.stream_description_summary() {
            Some(summary) => vec![described_as(config, name, summary)],
            None => vec![Finding::warning(
                format!("stream `{name}` is not described"),
                "see whether `endpoint` is Kinesis",
            )],
        },
        Err(error) if error.code() == Some("AccessDeniedException") => vec![Finding::warning(
            format!("stream `{name}` may not be looked at"),
            "allow the identity `kinesis:DescribeStreamSummary` for `forebay check`; `run` needs `kinesis:PutRecords` alone",
        )],
        Err(error) => {
            let doing = format!("looking at stream `{name}`");
            vec![Finding::fault(&fault::of_call(&doing, error).fault)]
        }
    }
}

fn described_as(config: &KinesisConfig, name: &str, summary: &StreamDescriptionSummary) -> Finding {
    let status = summary.stream_status();
    if !matches!(status, StreamStatus::Active | StreamStatus::Updating) {
        let fact = format!("stream `{name}` is {status}");
        return Finding::bad(fact, Blame::Outside, "wait until it is active, or create it");
    }
    let takes = summary.max_record_size_in_kib().and_then(|kib| u64::try_from(kib).ok());
    if let Some(kib) = takes
        && config.max_record.get() > kib * 1024
    {
        let fact = format!("stream `{name}` takes records of {kib} KiB, and `max_record` is more");
        let remedy = format!("set `max_record: {kib}KiB`, or raise it: `aws kinesis update-max-record-size`");
        return Finding::bad(fact, Blame::Configuration, remedy);
    }
    Finding::good(format!("stream `{name}` has {} shard(s)", summary.open_shard_count()))
}

/// A mistake of the configuration, as a finding.
pub(crate) fn mistaken(mistake: Mistake) -> Finding {
    let help = mistake.help.unwrap_or_else(|| "correct the configuration".to_owned());
    Finding::bad(format!("{}: {}", mistake.at, mistake.message), Blame::Configuration, help)
}
