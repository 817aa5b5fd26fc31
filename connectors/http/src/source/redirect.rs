//! [`Target`]: where a redirect leads that a sender asked for.
//!
//! Browsers, libraries and we must agree on the host of an address, or an allow-list is worth nothing. So whatever
//! readers are known to disagree about is refused: other schemes, users and passwords, backslashes, white space, control
//! characters, hosts that are not written in plain ASCII. Behind the host, what an address cannot hold as it is gets
//! percent-encoded.

use http::HeaderValue;

/// An address whose host nobody can read otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// In lowercase, without a port.
    pub host: String,
    /// The address, for `Location`.
    pub location: HeaderValue,
}

/// Why an address is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// Another scheme, or none.
    #[error("it does not begin with `http://` or `https://`")]
    Scheme,
    /// Characters that some readers drop and others take for `/`.
    #[error("it has a control character or a backslash")]
    Character,
    /// `user@host`.
    #[error("it has a user before its host")]
    User,
    /// No name of a host.
    #[error("its host is not a name or an IPv4 address in plain ASCII")]
    Host,
    /// No port.
    #[error("its port is not a number")]
    Port,
}

impl Target {
    /// Reads an absolute address of the web.
    pub fn parse(address: &str) -> Result<Target, NoTarget> {
        let (scheme, rest) = address.split_once("://").ok_or(NoTarget::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(NoTarget::Scheme);
        }
        if address.bytes().any(|byte| byte.is_ascii_control() || byte == b'\\') {
            return Err(NoTarget::Character);
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(NoTarget::User);
        }
        let (host, port) = match authority.split_once(':') {
            None => (authority, None),
            Some((host, port)) => (host, Some(port)),
        };
        if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
            return Err(NoTarget::Port);
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if host.len() > 253 || !host.split('.').all(label) {
            return Err(NoTarget::Host);
        }
        let mut location = String::with_capacity(address.len());
        for byte in address.bytes() {
            // RFC 3986 allows neither these nor what is not ASCII.
            match byte.is_ascii_graphic() && !b"\"<>^`{|}".contains(&byte) {
                true => location.push(char::from(byte)),
                false => location.push_str(&format!("%{byte:02X}")),
            }
        }
        let location = HeaderValue::try_from(location).map_err(|_| NoTarget::Character)?;
        Ok(Target { host: host.to_ascii_lowercase(), location })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_host_is_what_every_reader_takes_for_it() {
        for (address, host) in [
            ("https://example.com", "example.com"),
            ("HTTP://Example.COM:8080/a?b=c#d", "example.com"),
            ("https://example.com?u=http://evil.example/@x", "example.com"),
            ("https://example.com/%5c@evil.example//x", "example.com"),
            ("http://127.0.0.1/", "127.0.0.1"),
        ] {
            let target = Target::parse(address).unwrap();
            assert_eq!((&*target.host, target.location.to_str().unwrap()), (host, address));
        }
    }

    #[test]
    fn what_an_address_cannot_hold_is_encoded_behind_the_host() {
        let target = Target::parse("https://a.b/ü x?q=\"<é>\"#%20").unwrap();
        assert_eq!(target.location.to_str().unwrap(), "https://a.b/%C3%BC%20x?q=%22%3C%C3%A9%3E%22#%20");
    }

    #[test]
    fn tricks_are_refused() {
        for (address, why) in [
            ("", NoTarget::Scheme),
            ("/local", NoTarget::Scheme),
            ("//evil.example", NoTarget::Scheme),
            ("https:evil.example", NoTarget::Scheme),
            ("https:/evil.example", NoTarget::Scheme),
            ("javascript://example.com/%0aalert(1)", NoTarget::Scheme),
            ("ftp://example.com", NoTarget::Scheme),
            (" https://example.com", NoTarget::Scheme),
            ("https://", NoTarget::Host),
            ("https:///example.com", NoTarget::Host),
            ("https://example.com@evil.example", NoTarget::User),
            ("https://example.com:80@evil.example", NoTarget::User),
            ("https://example.com\\@evil.example", NoTarget::Character),
            ("https://evil.example\\.example.com", NoTarget::Character),
            ("https://example.com\r\nSet-Cookie: a=b", NoTarget::Character),
            ("https://example.com\t", NoTarget::Character),
            ("https://exämple.com", NoTarget::Host),
            ("https://evil。example", NoTarget::Host),
            ("https://example.com%2eevil.example", NoTarget::Host),
            ("https://example.com.", NoTarget::Host),
            ("https://.example.com", NoTarget::Host),
            ("https://exa mple.com/", NoTarget::Host),
            ("https://[::1]/", NoTarget::Port),
            ("https://example.com:/", NoTarget::Port),
            ("https://example.com:+80/", NoTarget::Port),
            ("https://example.com:99999", NoTarget::Port),
        ] {
            assert_eq!(Target::parse(address), Err(why), "{address}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in "(https?://)?[ -~é\\\\]{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert!(text.to_ascii_lowercase().contains(&target.host));
                prop_assert!(!text.contains(['@', '\\']) || text.find(['/', '?', '#']).is_some());
            }
        }
    }
}
