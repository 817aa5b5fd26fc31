//! [`Hosts`]: a list of hosts that something is allowed to.

/// `*`, `*.example.com`, `example.com`, or an origin with its scheme.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    any: bool,
    exact: Vec<String>,
    /// With the dot that they begin with.
    below: Vec<String>,
}

impl Hosts {
    /// Reads a list. The error is the index of what is no host, and why.
    pub fn parse(list: &[String]) -> Result<Hosts, (usize, String)> {
        let mut hosts = Hosts::default();
        for (at, entry) in list.iter().enumerate() {
            let entry = entry.to_ascii_lowercase();
            match entry.strip_prefix("*.") {
                _ if entry == "*" => hosts.any = true,
                Some(domain) if is_host(domain) => hosts.below.push(format!(".{domain}")),
                None if is_host(entry.rsplit_once("://").map_or(&*entry, |(_, host)| host)) => {
                    hosts.exact.push(entry)
                }
                _ => return Err((at, format!("`{entry}` is not a host, `*.` and a domain, or `*`"))),
            }
        }
        Ok(hosts)
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        !self.any && self.exact.is_empty() && self.below.is_empty()
    }

    /// Whether a host, without a port, is in the list.
    pub fn has(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.any || self.exact.contains(&host) || self.below.iter().any(|domain| ends_below(&host, domain))
    }

    /// Whether an origin (`https://www.example.com:8443`) is in the list: exactly, or its host below a domain.
    pub fn has_origin(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let Some((_, authority)) = origin.split_once("://") else { return self.any };
        let host = host_of(authority);
        self.any || self.exact.contains(&origin) || self.below.iter().any(|domain| ends_below(host, domain))
    }
}

/// The host of `host:port`.
pub fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn ends_below(host: &str, domain: &str) -> bool {
    host.len() > domain.len() && host.ends_with(domain)
}

fn is_host(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[&str]) -> Hosts {
        Hosts::parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_domain_rule_takes_what_is_below_it_and_nothing_that_only_ends_alike() {
        let allowed = hosts(&["*.acme.com", "https://shop.example.org", "www.example.net"]);
        for origin in ["https://www.acme.com", "http://a.b.ACME.com:8080", "https://shop.example.org"] {
            assert!(allowed.has_origin(origin), "{origin}");
        }
        for origin in [
            "https://acme.com",
            "https://evilacme.com",
            "https://acme.com.evil.org",
            "http://shop.example.org",
            "https://shop.example.org:444",
            "null",
            "",
            "https://www.acme.com@evil.org",
        ] {
            assert!(!allowed.has_origin(origin), "{origin}");
        }
        assert!(
            allowed.has("www.example.net")
                && !allowed.has("example.net")
                && !allowed.has("notwww.example.net")
        );
        assert!(hosts(&["*"]).has_origin("null") && hosts(&[]).is_empty());
        assert_eq!(Hosts::parse(&["a.b".into(), "a b".into()]).unwrap_err().0, 1);
    }
}
