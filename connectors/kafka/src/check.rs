//! `forebay check`: connects as `run` would, and looks whether the topics are there. Changes nothing.

use std::sync::Arc;

use forebay_api::template::{Placeholder, Template};
use forebay_api::{Blame, DestinationSetting, Fault, Finding, Mistake};

use crate::client::{self, Client};
use crate::config::{Config, Mechanism, Transactions};
use crate::options::Settings;
use crate::topics;
use crate::transactions;

/// Stands for what only an event can say.
const ANY: &str = "*";

/// Looks at everything that could keep the destination from writing.
pub(crate) async fn check(
    settings: &Settings,
    config: &Config,
    setting: &DestinationSetting,
) -> Vec<Finding> {
    let client = match Client::start(settings, settings.batch_bytes).await {
        Ok(client) => client,
        Err(fault) => return vec![Finding::fault(&fault)],
    };
    let mut findings = Vec::new();
    if config.tls.is_none() && config.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
        let fact = "`sasl.mechanism: PLAIN` sends the password unencrypted";
        findings.push(Finding::warning(fact, "set `tls`, or use a SCRAM mechanism"));
    }
    match look(&client, settings, config, setting).await {
        Ok(found) => findings.extend(found),
        Err(fault) => findings.push(Finding::fault(&fault)),
    }
    client::discard(client).await;
    findings
}

/// A mistake of the configuration, as a finding.
pub(crate) fn mistaken(mistake: &Mistake) -> Finding {
    let help = mistake.help.as_deref().unwrap_or("correct the configuration");
    Finding::bad(format!("{}: {}", mistake.at, mistake.message), Blame::Configuration, help)
}

/// The brokers, and the topics that the template names as far as it is known without an event.
async fn look(
    client: &Arc<Client>,
    settings: &Settings,
    config: &Config,
    setting: &DestinationSetting,
) -> Result<Vec<Finding>, Fault> {
    let cluster = topics::describe(client, None).await?;
    let mut findings = vec![Finding::good(format!("{} broker(s) answer", cluster.brokers().len()))];
    let exist: Vec<&str> = cluster.topics().iter().map(|topic| topic.name()).collect();
    for wanted in patterns(&config.topic, &setting.sources) {
        findings.push(topic(&wanted, &exist, config.create_topics.is_some()));
    }
    if let Some(Transactions { positions_topic, .. }) = &config.transactions {
        let created = config.create_topics.is_some();
        findings.push(transactions::check(client, settings, positions_topic, created).await?);
    }
    Ok(findings)
}

fn topic(wanted: &str, exist: &[&str], created: bool) -> Finding {
    let known = !wanted.contains(ANY);
    let found = exist.iter().filter(|name| matches(wanted, name)).count();
    match (found, known, created) {
        (1.., true, _) => Finding::good(format!("topic `{wanted}` exists")),
        (_, true, true) => Finding::good(format!("topic `{wanted}` will be created")),
        (_, true, false) => Finding::fault(&topics::missing(wanted)),
        (_, false, true) => {
            Finding::good(format!("{found} topic(s) are named `{wanted}`; others will be created"))
        }
        (1.., false, false) => Finding::good(format!("{found} topic(s) are named `{wanted}`")),
        (_, false, false) => {
            let remedy = "create the topics of your tables, or let Forebay create what is missing: `create_topics: {}`";
            Finding::warning(format!("no topic is named `{wanted}`"), remedy)
        }
    }
}

/// The names that the template makes for each source, with [`ANY`] for what only an event can say.
fn patterns(template: &Template, sources: &[String]) -> Vec<String> {
    let render = |source: &str| {
        let mut name = String::new();
        let value = |asked| Some(if asked == Placeholder::Source { source } else { ANY });
        template.render(value, |_| false, &mut name);
        name
    };
    let mut names: Vec<String> = sources.iter().map(|source| render(source)).collect();
    names.dedup();
    names
}

/// Whether a name is one that the pattern stands for.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once(ANY) else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split(ANY).collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // At least one character stands for each placeholder.
        let Some(at) = name.get(1..).and_then(|name| name.find(piece)) else { return false };
        name = &name[1 + at + piece.len()..];
    }
    name.len() > end.len() && name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_names_of_every_table() {
        assert!(matches("shop.*.*", "shop.public.orders"));
        assert!(matches("shop.*.*", "shop.public.a.b"));
        assert!(!matches("shop.*.*", "shop.orders"));
        assert!(!matches("shop.*.*", "shop..orders"));
        assert!(!matches("shop.*.*", "web.public.orders"));
        assert!(matches("*-events", "orders-events") && !matches("*-events", "-events"));
        assert!(matches("all", "all") && !matches("all", "al"));
    }

    #[test]
    fn each_source_has_its_names_and_a_fixed_name_stands_once() {
        let sources = ["docs".to_owned(), "shop".to_owned()];
        let names = |text| patterns(&Template::parse(text).unwrap(), &sources);
        assert_eq!(names("{source}.{schema}.{table}"), ["docs.*.*", "shop.*.*"]);
        assert_eq!(names("everything"), ["everything"]);
    }
}
