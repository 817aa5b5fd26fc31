//! `format: cloudevents`: CloudEvents 1.0 in structured JSON mode (spec §3.1, JSON event format §3).
//!
//! `data` is the payload alone, because `dataschema` names the schema of the payload. What else an event has goes
//! into extension attributes, whose names are lowercase alphanumerics and whose values are strings or booleans:
//! `op`, `valid`, `received`, `partitionkey` (the documented extension: the key's JSON), and as JSON in strings
//! `origin` (the envelope's `source`), `before`, `unchanged`, `contexts`, `error`. Nothing is lost.

use forebay_api::{Event, Verdict, json};

use super::{Encoder, TimeText, write_id, write_invalid, write_or_null, write_source};

pub(super) fn write(
    encoder: &mut Encoder,
    event: Event<'_>,
    verdict: &Verdict,
    received: &TimeText,
    out: &mut Vec<u8>,
) {
    let subject = event.subject();
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
    write_id(event, out);
    // A URI reference: names hold letters that a path may need percent-encoded.
    out.extend_from_slice(b",\"source\":\"/");
    write_path_segment(&event.stream().source, out);
    out.extend_from_slice(b"\",\"type\":");
    json::write_string(&format!("{}.{}.{}", subject.vendor, subject.name, event.op().as_str()), out);
    out.extend_from_slice(b",\"subject\":");
    json::write_string(&subject.name, out);
    out.extend_from_slice(b",\"time\":");
    out.extend_from_slice(encoder.time.get(event.row().time));
    out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"dataschema\":\"iglu:");
    write_path_segment(&subject.vendor, out);
    out.push(b'/');
    write_path_segment(&subject.name, out);
    out.extend_from_slice(b"/jsonschema/");
    write_path_segment(&subject.version, out);
    out.extend_from_slice(b"\",\"op\":\"");
    out.extend_from_slice(event.op().as_str().as_bytes());
    out.extend_from_slice(b"\",\"received\":");
    out.extend_from_slice(&received.text);
    let mut text = Vec::new();
    event.write_partition_key(&mut text);
    write_text_member(b",\"partitionkey\":", &text, out);
    text.clear();
    write_source(event, &mut text);
    write_text_member(b",\"origin\":", &text, out);
    write_text_member(b",\"before\":", event.before(), out);
    write_text_member(b",\"unchanged\":", event.unchanged(), out);
    write_text_member(b",\"contexts\":", event.contexts(), out);
    match verdict {
        Verdict::Valid => out.extend_from_slice(b",\"valid\":true"),
        Verdict::Invalid(invalid) => {
            out.extend_from_slice(b",\"valid\":false");
            text.clear();
            write_invalid(invalid, &mut text);
            write_text_member(b",\"error\":", &text, out);
        }
    }
    out.extend_from_slice(b",\"data\":");
    write_or_null(event.payload(), out);
    out.push(b'}');
}

/// A member whose value is a string that holds `text`; nothing where `text` is absent.
fn write_text_member(name: &[u8], text: &[u8], out: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    out.extend_from_slice(name);
    out.push(b'"');
    json::write_escaped(text, out);
    out.push(b'"');
}

/// RFC 3986 §3.3: what is not unreserved is percent-encoded.
fn write_path_segment(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
}
