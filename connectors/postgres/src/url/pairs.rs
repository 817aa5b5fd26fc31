//! What each key means: pairs of key and value become a [`Url`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{
    APPLICATION_NAME, ChannelBinding, Host, Keepalive, Password, SessionAttributes, SslMode, Url, UrlError,
};

/// The port of a host that names none.
const DEFAULT_PORT: u16 = 5432;

/// How long a host may take to become usable where `connect_timeout` does not say.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives each pair its meaning. Of a key given twice the later one counts, as in libpq.
pub(super) fn meaning(pairs: Vec<(String, String)>) -> Result<Url, UrlError> {
    let mut hosts = HostLists::default();
    let (mut user, mut database, mut certificate, mut key_file) = (None, None, None, None);
    let mut url = Url {
        hosts: Vec::new(),
        user: String::new(),
        database: String::new(),
        password: Password::Absent,
        options: None,
        application_name: APPLICATION_NAME.to_owned(),
        session: SessionAttributes::Any,
        ssl_mode: SslMode::Prefer,
        ssl_direct: false,
        ssl_root_cert: None,
        ssl_identity: None,
        channel_binding: ChannelBinding::Prefer,
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        keepalive: Keepalive::default(),
    };
    for (key, value) in pairs {
        match key.as_str() {
            "host" => hosts.names = value,
            "hostaddr" => hosts.addresses = value,
            "port" => hosts.ports = value,
            "user" => user = Some(value),
            "dbname" => database = Some(value),
            "password" => url.password = Password::Text(value),
            "password_file" => url.password = Password::File(value.into()),
            "password_command" => url.password = Password::Command(value),
            "options" => url.options = Some(value),
            "application_name" => url.application_name = value,
            "target_session_attrs" => url.session = session_attributes(value)?,
            "sslmode" => url.ssl_mode = ssl_mode(value)?,
            "sslnegotiation" => url.ssl_direct = ssl_negotiation(value)?,
            // `system` is libpq's word for what is our default
            "sslrootcert" => url.ssl_root_cert = (value != "system").then(|| value.into()),
            "sslcert" => certificate = Some(PathBuf::from(value)),
            "sslkey" => key_file = Some(PathBuf::from(value)),
            "channel_binding" => url.channel_binding = channel_binding(value)?,
            "connect_timeout" => url.connect_timeout = seconds("connect_timeout", value)?,
            "keepalives" => url.keepalive.enabled = number::<u32>("keepalives", value)? != 0,
            "keepalives_idle" => url.keepalive.idle = seconds("keepalives_idle", value)?,
            "keepalives_interval" => url.keepalive.interval = seconds("keepalives_interval", value)?,
            "keepalives_count" => url.keepalive.count = number("keepalives_count", value)?,
            "tcp_user_timeout" => {
                url.keepalive.user_timeout = Duration::from_millis(number("tcp_user_timeout", value)?);
            }
            _ => return Err(UrlError::Unknown { key }),
        }
    }
    url.hosts = hosts.zip()?;
    url.user = user.filter(|name| !name.is_empty()).ok_or(UrlError::Missing("names no user"))?;
    url.database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| url.user.clone());
    url.ssl_identity = match (certificate, key_file) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(UrlError::Missing("has one of `sslcert` and `sslkey` without the other")),
    };
    Ok(url)
}

/// The comma-separated lists that together say which servers there are.
#[derive(Default)]
struct HostLists {
    names: String,
    addresses: String,
    ports: String,
}

impl HostLists {
    fn zip(self) -> Result<Vec<Host>, UrlError> {
        let list = |text: &str| -> Vec<String> {
            if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
        };
        let (names, addresses, ports) = (list(&self.names), list(&self.addresses), list(&self.ports));
        let count = names.len().max(addresses.len());
        if count == 0 {
            return Err(UrlError::Missing("names no host"));
        }
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            return Err(UrlError::Missing("has another number of `hostaddr` than of hosts"));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(UrlError::Missing("has another number of ports than of hosts"));
        }
        (0..count)
            .map(|i| {
                let port = ports.get(i).or_else(|| ports.first()).map_or("", String::as_str);
                let port = if port.is_empty() { DEFAULT_PORT } else { number("port", port.to_owned())? };
                let address = addresses.get(i).map(|text| address(text)).transpose()?;
                match (names.get(i), address) {
                    (Some(name), None) if name.starts_with('/') => {
                        Ok(Host::Unix { directory: name.into(), port })
                    }
                    (Some(name), address) if !name.is_empty() => {
                        Ok(Host::Tcp { name: name.clone(), address, port })
                    }
                    (_, Some(address)) => {
                        Ok(Host::Tcp { name: address.to_string(), address: Some(address), port })
                    }
                    _ => Err(UrlError::Missing("has an empty host")),
                }
            })
            .collect()
    }
}

fn address(text: &str) -> Result<IpAddr, UrlError> {
    text.parse().map_err(|_| refused("hostaddr", text.to_owned(), "an IP address"))
}

fn number<T: FromStr>(key: &'static str, value: String) -> Result<T, UrlError> {
    value.trim().parse().map_err(|_| {
        // a `/` in a password that is not percent-encoded makes its beginning look like a port
        let shown = if value.bytes().all(|b| b.is_ascii_digit()) { value } else { "…".to_owned() };
        refused(key, shown, "a number, and special characters of a password percent-encoded")
    })
}

/// A duration of at least one second: libpq's `0`, no limit at all, is refused.
fn seconds(key: &'static str, value: String) -> Result<Duration, UrlError> {
    match value.trim().parse() {
        Ok(seconds @ 1..=MAX_SECONDS) => Ok(Duration::from_secs(seconds)),
        _ => Err(refused(key, value, "a number of seconds from 1 to 86400")),
    }
}

/// A day; longer waits are mistakes.
const MAX_SECONDS: u64 = 86_400;

fn refused(key: &'static str, value: String, expected: &'static str) -> UrlError {
    UrlError::Value { key, value, expected }
}

fn session_attributes(value: String) -> Result<SessionAttributes, UrlError> {
    Ok(match value.as_str() {
        "any" => SessionAttributes::Any,
        "read-write" => SessionAttributes::ReadWrite,
        "read-only" => SessionAttributes::ReadOnly,
        "primary" => SessionAttributes::Primary,
        "standby" => SessionAttributes::Standby,
        "prefer-standby" => SessionAttributes::PreferStandby,
        _ => {
            let expected = "any, read-write, read-only, primary, standby or prefer-standby";
            return Err(refused("target_session_attrs", value, expected));
        }
    })
}

fn ssl_mode(value: String) -> Result<SslMode, UrlError> {
    Ok(match value.as_str() {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return Err(refused("sslmode", value, "disable, prefer, require, verify-ca or verify-full")),
    })
}

fn ssl_negotiation(value: String) -> Result<bool, UrlError> {
    match value.as_str() {
        "postgres" => Ok(false),
        "direct" => Ok(true),
        _ => Err(refused("sslnegotiation", value, "postgres or direct")),
    }
}

fn channel_binding(value: String) -> Result<ChannelBinding, UrlError> {
    Ok(match value.as_str() {
        "disable" => ChannelBinding::Disable,
        "prefer" => ChannelBinding::Prefer,
        "require" => ChannelBinding::Require,
        _ => return Err(refused("channel_binding", value, "disable, prefer or require")),
    })
}
