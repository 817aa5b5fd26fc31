//! Which daemon a command asks: that of `--url`, else that of the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use forebay_api::{Blame, Fault};

use super::Failure;
use super::config_file::ConfigOption;
use crate::admin::ask;
use crate::{config, connectors};

/// What to do when nobody answers.
const REMEDY: &str = "start the daemon, or name its admin server with `--url`";

/// `--url`, or `--config`.
#[derive(Debug, Args)]
pub(super) struct ServerOption {
    #[command(flatten)]
    config: ConfigOption,
    /// The daemon's admin server, such as http://127.0.0.1:9080
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
}

/// An admin server that can be asked.
#[derive(Debug)]
pub(super) struct Server {
    authority: String,
}

impl ServerOption {
    /// The server to ask.
    pub(super) fn server(&self) -> Result<Server, Failure> {
        let authority = match &self.url {
            Some(url) => authority(url)?,
            None => {
                let settings = self.config.load_if_any(&connectors::registry())?.unwrap_or_default();
                reachable(settings.admin.listen).to_string()
            }
        };
        Ok(Server { authority })
    }
}

impl Server {
    /// That of a configuration.
    pub(super) fn of(settings: &config::Settings) -> Server {
        Server { authority: reachable(settings.admin.listen).to_string() }
    }

    /// What it says at a path; anything but 200 is a fault.
    pub(super) async fn get(&self, path: &str) -> Result<String, Fault> {
        match ask::get(&self.authority, path).await {
            Ok((200, body)) => Ok(body),
            Ok((status, _)) => Err(self.unexpected(path, status)),
            Err(error) => Err(Fault::retryable(self.asking(path), error).with_remedy(REMEDY)),
        }
    }

    /// Status and what it says to JSON that is sent to a path.
    pub(super) async fn post(&self, path: &str, json: &str) -> Result<(u16, String), Fault> {
        let answer = ask::post(&self.authority, path, json).await;
        answer.map_err(|error| Fault::retryable(self.asking(path), error).with_remedy(REMEDY))
    }

    /// The same, for what takes its time.
    pub(super) async fn post_patiently(
        &self,
        path: &str,
        json: &str,
        within: Duration,
    ) -> Result<(u16, String), Fault> {
        let answer = ask::post_patiently(&self.authority, path, json, within).await;
        answer.map_err(|error| Fault::retryable(self.asking(path), error).with_remedy(REMEDY))
    }

    /// It answers, and not as our daemon does.
    pub(super) fn unexpected(&self, path: &str, status: u16) -> Fault {
        let answer = format!("the answer has the status {status}");
        Fault::fatal(self.asking(path), Blame::Outside, answer).with_remedy(REMEDY)
    }

    /// It says something that this version does not understand.
    pub(super) fn not_understood(&self, path: &str, error: serde_json::Error) -> Fault {
        let doing = format!("reading what `http://{}{path}` says", self.authority);
        Fault::fatal(doing, Blame::Outside, error)
            .with_remedy("let the `forebay` that asks have the version of the daemon, or take `--json`")
    }

    fn asking(&self, path: &str) -> String {
        format!("asking the daemon at `http://{}{path}`", self.authority)
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> Result<String, Fault> {
    let rest = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let usable = !rest.contains(['/', '?', '#', '@', ' '])
        && rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if usable {
        return Ok(rest.to_owned());
    }
    Err(Fault::fatal(
        format!("reading `--url {url}`"),
        Blame::Configuration,
        "it is not the address of an admin server",
    )
    .with_remedy("write it like `http://127.0.0.1:9080`"))
}

/// Where a server that listens on `listen` is reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_server_is_taken_as_one() {
        assert_eq!(authority("http://127.0.0.1:9080/").unwrap(), "127.0.0.1:9080");
        assert_eq!(authority("[::1]:9080").unwrap(), "[::1]:9080");
        for wrong in ["https://a:1", "http://a", "http://a:b", "http://u@a:1", "http://a:1/status", ":1"] {
            let fault = authority(wrong).unwrap_err();
            assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:9080".parse().unwrap()).to_string(), "127.0.0.1:9080");
        assert_eq!(reachable("[::]:9080".parse().unwrap()).to_string(), "[::1]:9080");
        assert_eq!(reachable("10.0.0.7:1".parse().unwrap()).to_string(), "10.0.0.7:1");
    }
}
