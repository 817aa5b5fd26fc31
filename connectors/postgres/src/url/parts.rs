//! The mapping form: one documented field for each key, since the configuration's schema is made from it.

use schemars::JsonSchema;
use serde::Deserialize;

/// How to reach a PostgreSQL server, in parts. The names are libpq's, except for where the password comes from.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlParts {
    /// Host name, address or directory of a Unix socket; several are separated by commas and tried in turn.
    pub host: String,
    /// One port for all hosts, or one for each, separated by commas. Default 5432.
    pub port: Option<PortSetting>,
    /// Role to log in as.
    pub user: String,
    /// Database to connect to. Default: the user's name.
    pub database: Option<String>,
    /// Password; better written as `${NAME}` or `${file:/path}`.
    pub password: Option<String>,
    /// File that holds the password, read at each connect.
    pub password_file: Option<String>,
    /// Shell command that prints the password, run at each connect (for tokens that expire).
    pub password_command: Option<String>,
    /// Settings for the session, as `-c name=value`.
    pub options: Option<String>,
    /// Name shown in `pg_stat_activity`. Default `forebay`.
    pub application_name: Option<String>,
    /// any (default), read-write, read-only, primary, standby or prefer-standby.
    pub target_session_attrs: Option<String>,
    /// disable, prefer (default), require, verify-ca or verify-full.
    pub sslmode: Option<String>,
    /// postgres (default), or direct for PostgreSQL 17 and later.
    pub sslnegotiation: Option<String>,
    /// PEM file of the certificates to trust. Default: the system's.
    pub sslrootcert: Option<String>,
    /// PEM file of the client's certificate.
    pub sslcert: Option<String>,
    /// PEM file of the client's key.
    pub sslkey: Option<String>,
    /// disable, prefer (default) or require.
    pub channel_binding: Option<String>,
    /// Seconds that one host may take to become usable. Default 10.
    pub connect_timeout: Option<u32>,
}

/// A port, or several separated by commas.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PortSetting {
    /// One for all hosts.
    One(u16),
    /// One for each host.
    Several(String),
}

impl UrlParts {
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let port = self.port.as_ref().map(|port| match port {
            PortSetting::One(port) => port.to_string(),
            PortSetting::Several(ports) => ports.clone(),
        });
        let given = [
            ("host", Some(self.host.clone())),
            ("port", port),
            ("user", Some(self.user.clone())),
            ("dbname", self.database.clone()),
            ("password", self.password.clone()),
            ("password_file", self.password_file.clone()),
            ("password_command", self.password_command.clone()),
            ("options", self.options.clone()),
            ("application_name", self.application_name.clone()),
            ("target_session_attrs", self.target_session_attrs.clone()),
            ("sslmode", self.sslmode.clone()),
            ("sslnegotiation", self.sslnegotiation.clone()),
            ("sslrootcert", self.sslrootcert.clone()),
            ("sslcert", self.sslcert.clone()),
            ("sslkey", self.sslkey.clone()),
            ("channel_binding", self.channel_binding.clone()),
            ("connect_timeout", self.connect_timeout.map(|seconds| seconds.to_string())),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}
