//! Walks through JSON along the paths of rules and copies everything else as it is.
//!
//! It goes down only where a rule leads, so its depth is that of a path; what it does not look into it skips. A key that is
//! there twice is met twice, and escapes in keys are undone before they are compared.

use std::borrow::Cow;
use std::net::IpAddr;

use hmac::Mac;

use super::path::Step;
use super::{Action, Open};

/// The text is not JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

const MASK: &[u8] = b"\"***\"";

/// Copies a value with what the rules make of it. Empty: it is absent, and stays so.
pub(super) fn rewrite(text: &[u8], rules: &[Open<'_>], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    if text.is_empty() || rules.is_empty() {
        out.extend_from_slice(text);
        return Ok(());
    }
    let mut at = space(text, 0);
    let first = *text.get(at).ok_or(Unreadable)?;
    let close = match first {
        b'{' => b'}',
        b'[' => b']',
        _ => {
            out.extend_from_slice(text);
            return Ok(());
        }
    };
    out.push(first);
    at = space(text, at + 1);
    let mut written = false;
    if text.get(at) == Some(&close) {
        out.push(close);
        return Ok(());
    }
    loop {
        let start = at;
        let mut below: Vec<Open<'_>> = Vec::new();
        if first == b'{' {
            let end = string(text, at)?;
            let key: Cow<'_, str> = serde_json::from_slice(&text[at..end]).map_err(|_| Unreadable)?;
            let named = |step: &Step| matches!(step, Step::Member(name) if *name == key);
            below.extend(rules.iter().filter(|(steps, _)| named(&steps[0])).map(|(s, a)| (&s[1..], *a)));
            at = space(text, end);
            if text.get(at) != Some(&b':') {
                return Err(Unreadable);
            }
            at = space(text, at + 1);
        } else {
            let every = rules.iter().filter(|(steps, _)| steps[0] == Step::EveryElement);
            below.extend(every.map(|(s, a)| (&s[1..], *a)));
        }
        let value = at;
        let end = skip(text, value)?;
        let decided = below.iter().find(|(steps, _)| steps.is_empty()).map(|(_, action)| *action);
        let dropped = first == b'{' && matches!(decided, Some(Action::Drop));
        if !dropped {
            if written {
                out.push(b',');
            }
            written = true;
            out.extend_from_slice(&text[start..value]);
            match decided {
                Some(action) => act(action, &text[value..end], out),
                None => rewrite(&text[value..end], &below, out)?,
            }
        }
        at = space(text, end);
        match text.get(at) {
            Some(b',') => at = space(text, at + 1),
            Some(byte) if *byte == close => break,
            _ => return Err(Unreadable),
        }
    }
    out.push(close);
    if space(text, at + 1) == text.len() { Ok(()) } else { Err(Unreadable) }
}

/// Copies a list, each element by `each`.
pub(super) fn elements(
    text: &[u8],
    out: &mut Vec<u8>,
    mut each: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut at = space(text, 0);
    if text.get(at) != Some(&b'[') {
        return Err(Unreadable);
    }
    out.push(b'[');
    at = space(text, at + 1);
    if text.get(at) == Some(&b']') {
        out.push(b']');
        return Ok(());
    }
    loop {
        let end = skip(text, at)?;
        each(&text[at..end], out)?;
        at = space(text, end);
        match text.get(at) {
            Some(b',') => {
                out.push(b',');
                at = space(text, at + 1);
            }
            Some(b']') => break,
            _ => return Err(Unreadable),
        }
    }
    out.push(b']');
    Ok(())
}

/// The text of a member of an object; `None` where there is none, or no object.
pub(super) fn member<'t>(text: &'t [u8], name: &str) -> Result<Option<&'t [u8]>, Unreadable> {
    let mut at = space(text, 0);
    if text.get(at) != Some(&b'{') {
        return Ok(None);
    }
    at = space(text, at + 1);
    while text.get(at) == Some(&b'"') {
        let end = string(text, at)?;
        let key: Cow<'_, str> = serde_json::from_slice(&text[at..end]).map_err(|_| Unreadable)?;
        at = space(text, end);
        if text.get(at) != Some(&b':') {
            return Err(Unreadable);
        }
        at = space(text, at + 1);
        let end = skip(text, at)?;
        if key == name {
            return Ok(Some(&text[at..end]));
        }
        at = space(text, end);
        if text.get(at) == Some(&b',') {
            at = space(text, at + 1);
        }
    }
    Ok(None)
}

fn act(action: &Action, value: &[u8], out: &mut Vec<u8>) {
    match action {
        Action::Drop => out.extend_from_slice(b"null"),
        _ if value == b"null" => out.extend_from_slice(value),
        Action::Mask => out.extend_from_slice(MASK),
        Action::Hash(mac) => {
            let mut mac = mac.clone();
            // A string by its text, so that escapes make no difference.
            match serde_json::from_slice::<String>(value) {
                Ok(text) => mac.update(text.as_bytes()),
                Err(_) => mac.update(value),
            }
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push(b'"');
            for byte in mac.finalize().into_bytes() {
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
            out.push(b'"');
        }
        Action::TruncateIp => {
            match serde_json::from_slice::<String>(value).ok().and_then(|text| text.parse().ok()) {
                Some(address) => out.extend_from_slice(format!("\"{}\"", truncated(address)).as_bytes()),
                None => out.extend_from_slice(MASK),
            }
        }
    }
}

fn truncated(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

/// Behind the value at `at`. It counts brackets, and does not look at what is between them.
fn skip(text: &[u8], mut at: usize) -> Result<usize, Unreadable> {
    let mut depth = 0usize;
    loop {
        match text.get(at).ok_or(Unreadable)? {
            b'"' => at = string(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1).ok_or(Unreadable)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {
                if depth == 0 {
                    return Err(Unreadable);
                }
                at += 1;
                continue;
            }
            _ => {
                while text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) {
                    at += 1;
                    if depth == 0 && text.get(at).is_none() {
                        return Ok(at);
                    }
                }
                if text.get(at).is_some_and(|byte| !b",:]}[{\" \t\n\r".contains(byte)) {
                    return Err(Unreadable);
                }
            }
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

/// Behind the string at `at`.
fn string(text: &[u8], at: usize) -> Result<usize, Unreadable> {
    if text.get(at) != Some(&b'"') {
        return Err(Unreadable);
    }
    let mut at = at + 1;
    loop {
        match text.get(at).ok_or(Unreadable)? {
            b'"' => return Ok(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| b" \t\n\r".contains(byte)) {
        at += 1;
    }
    at
}
