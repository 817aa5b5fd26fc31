//! The two textual forms, taken apart into pairs of key and value.

use super::UrlError;

/// Takes a URI (`postgres://…`) or libpq's `key=value …` string apart.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let text = text.trim();
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => uri(rest),
        None => keywords(text),
    }
}

/// `user:password@host:port,host:port/database?key=value&…`, after the scheme.
fn uri(rest: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut pairs = Vec::new();
    let mut put = |key: &str, value: String| pairs.push((key.to_owned(), value));

    // as libpq does: credentials end at the first `@`, if that comes before any `/`
    let authority_ends = rest.find('/').unwrap_or(rest.len());
    let rest = match rest[..authority_ends].split_once('@') {
        None => rest,
        Some((credentials, _)) => {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            put("user", decoded(user)?);
            if let Some(password) = password {
                put("password", decoded(password)?);
            }
            &rest[credentials.len() + 1..]
        }
    };

    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = host_and_port(host)?;
        names.push(decoded(name)?);
        ports.push(port.to_owned());
    }
    if !names.is_empty() {
        put("host", names.join(","));
        put("port", ports.join(","));
    }
    if !database.is_empty() {
        put("dbname", decoded(database)?);
    }
    for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
        let (key, value) =
            parameter.split_once('=').ok_or(UrlError::Syntax("a parameter after `?` has no `=`"))?;
        match decoded(key)?.as_str() {
            // written by many frameworks, and in libpq too
            "ssl" if value == "true" => put("sslmode", "require".to_owned()),
            key => put(key, decoded(value)?),
        }
    }
    Ok(pairs)
}

/// An IPv6 address stands in brackets, as its colons would read as a port.
fn host_and_port(host: &str) -> Result<(&str, &str), UrlError> {
    if let Some(bracketed) = host.strip_prefix('[') {
        let (name, rest) =
            bracketed.split_once(']').ok_or(UrlError::Syntax("a `[` before an address has no `]`"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((name, port)),
            None if rest.is_empty() => Ok((name, "")),
            None => Err(UrlError::Syntax("only a port can follow an address in brackets")),
        };
    }
    Ok(host.split_once(':').unwrap_or((host, "")))
}

/// `%2F` and the like.
fn decoded(text: &str) -> Result<String, UrlError> {
    let malformed = UrlError::Syntax("a `%` is not followed by two hexadecimal digits; write it as `%25`");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = tail.first_chunk::<2>().filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return Err(malformed) };
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let (Some(high), Some(low)) = (nibble(digits[0]), nibble(digits[1])) else { return Err(malformed) };
        bytes.push(high << 4 | low);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Syntax("percent-encoded bytes are not UTF-8"))
}

/// `host=… user='a b' password='it\'s'`.
fn keywords(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut pairs = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|&c| c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(UrlError::Syntax(
                "write `postgres://user@host/database` or `host=… user=… dbname=…`",
            ));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if quoted || !c.is_whitespace() => value.push(c),
                None if quoted => return Err(UrlError::Syntax("a `'` is not closed")),
                _ => break,
            }
        }
        pairs.push((key, value));
    }
}
