//! `privacy`: what is taken out of events.

use std::fmt;

use forebay_api::{Blame, Fault};
use globset::Glob;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::privacy::{Action, Path, Privacy, Rule};

/// One rule: a field, and what becomes of it. One of `drop`, `mask`, `hash` and `truncate_ip` names the field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct PrivacySettings {
    /// A field that is left out. Of rows of tables, fields below `$.payload` are also those of the key and of the row before.
    #[schemars(length(min = 1), example = "$.payload.card_number")]
    pub drop: Option<String>,
    /// A field that becomes `"***"`.
    #[schemars(length(min = 1), example = "$.contexts[*].data.email")]
    pub mask: Option<String>,
    /// A field that becomes its HMAC-SHA-256: it can be compared, and not read.
    #[schemars(length(min = 1), example = "$.payload.email")]
    pub hash: Option<String>,
    /// An IP address of which IPv4 keeps three bytes and IPv6 six.
    #[schemars(length(min = 1), example = "$.payload.items[*].ip")]
    pub truncate_ip: Option<String>,
    /// The key of the HMAC.
    #[schemars(with = "Option<String>", length(min = 1), example = "${FOREBAY_SALT}")]
    pub salt: Option<Salt>,
    /// Of events (below `$.contexts`: of entities) whose schema's key this glob matches. Default: of all.
    #[schemars(length(min = 1), example = "com.acme/*")]
    pub schema: Option<String>,
}

/// Not shown.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Salt(String);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl PrivacySettings {
    /// The rule, or what is wrong, and with which key.
    pub(super) fn rule(&self) -> Result<Rule, (&'static str, String)> {
        let named = [
            ("drop", &self.drop),
            ("mask", &self.mask),
            ("hash", &self.hash),
            ("truncate_ip", &self.truncate_ip),
        ];
        let mut named = named.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
        let one = "a rule has one of `drop`, `mask`, `hash` and `truncate_ip`";
        let (Some((key, path)), None) = (named.next(), named.next()) else {
            return Err(("", one.to_owned()));
        };
        let action = match (key, &self.salt) {
            ("hash", Some(Salt(salt))) => Action::hash(salt),
            ("hash", None) => {
                return Err(("hash", "a hash needs a `salt`, or it could be guessed".to_owned()));
            }
            (_, Some(_)) => return Err(("salt", "only `hash` has a salt".to_owned())),
            ("drop", None) => Action::Drop,
            ("mask", None) => Action::Mask,
            _ => Action::TruncateIp,
        };
        let path = path.parse::<Path>().map_err(|error| (key, error.to_string()))?;
        let glob = self.schema.as_deref().map(Glob::new).transpose();
        let glob = glob.map_err(|error| ("schema", format!("it is not a glob: {}", error.kind())))?;
        Ok(Rule { path, action, schema: glob.map(|glob| glob.compile_matcher()) })
    }
}

/// All rules; the configuration was judged before.
pub(crate) fn privacy(rules: &[PrivacySettings]) -> Result<Privacy, Fault> {
    let rules = rules.iter().map(PrivacySettings::rule).collect::<Result<_, _>>();
    let rules = rules.map_err(|(_, why)| Fault::fatal("reading `privacy`", Blame::Configuration, why))?;
    Ok(Privacy { rules })
}
