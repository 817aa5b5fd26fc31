//! [`Parts`]: a URL taken apart as RFC 3986 writes it, with what browsers leave unencoded left as it is.

/// The parts of a URL; what is not there is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'u> {
    /// `https`.
    pub scheme: Option<&'u str>,
    /// `www.example.com`.
    pub host: Option<&'u str>,
    /// The port that is written, or the scheme's.
    pub port: Option<u16>,
    /// `/shop`.
    pub path: Option<&'u str>,
    /// What follows `?`.
    pub query: Option<&'u str>,
    /// What follows `#`.
    pub fragment: Option<&'u str>,
}

impl<'u> Parts<'u> {
    /// Takes a URL apart. The error says what is wrong with it.
    pub(super) fn of(url: &'u str) -> Result<Parts<'u>, String> {
        if url.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("it holds a control character".to_owned());
        }
        let (rest, fragment) = cut(url, '#');
        let (rest, query) = cut(rest, '?');
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, after)) if is_scheme(scheme) => (Some(scheme), after),
            _ => (None, rest),
        };
        let mut parts = Parts { scheme, query, fragment, ..Parts::default() };
        let Some(after) = rest.strip_prefix("//") else {
            parts.path = some(rest);
            return Ok(parts);
        };
        let end = after.find('/').unwrap_or(after.len());
        let (authority, path) = after.split_at(end);
        let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = if host_port.starts_with('[') {
            let end = host_port.find(']').ok_or("its host has no closing bracket")?;
            (&host_port[..=end], host_port[end + 1..].strip_prefix(':'))
        } else {
            host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port)))
        };
        parts.port = match port.filter(|port| !port.is_empty()) {
            Some(port) => Some(port.parse().map_err(|_| format!("`{port}` is not a port"))?),
            None => scheme.and_then(default_port),
        };
        (parts.host, parts.path) = (some(host), some(path));
        Ok(parts)
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, some(after)))
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        type Expected<'e> = (
            Option<&'e str>,
            Option<&'e str>,
            Option<u16>,
            Option<&'e str>,
            Option<&'e str>,
            Option<&'e str>,
        );
        let cases: [(&str, Expected<'_>); 8] = [
            (
                "http://a.com/x?q=1#f",
                (Some("http"), Some("a.com"), Some(80), Some("/x"), Some("q=1"), Some("f")),
            ),
            ("https://u:p@a.com:8443", (Some("https"), Some("a.com"), Some(8443), None, None, None)),
            (
                "https://[2001:db8::1]:1/",
                (Some("https"), Some("[2001:db8::1]"), Some(1), Some("/"), None, None),
            ),
            ("//a.com/x", (None, Some("a.com"), None, Some("/x"), None, None)),
            ("/x y?a b#c?d", (None, None, None, Some("/x y"), Some("a b"), Some("c?d"))),
            ("file:///etc", (Some("file"), None, None, Some("/etc"), None, None)),
            ("about:blank", (Some("about"), None, None, Some("blank"), None, None)),
            ("https://a.com?u=b:/c", (Some("https"), Some("a.com"), Some(443), None, Some("u=b:/c"), None)),
        ];
        for (url, expected) in cases {
            let parts = Parts::of(url).unwrap();
            let got = (parts.scheme, parts.host, parts.port, parts.path, parts.query, parts.fragment);
            assert_eq!(got, expected, "{url}");
        }
        for wrong in ["http://a:99999/", "http://a:x/", "http://[::1/", "http://a/\nb"] {
            assert!(Parts::of(wrong).is_err(), "{wrong}");
        }
    }
}
