//! `format: forebay`: the envelope, fields in a fixed order.

use forebay_api::{Event, Verdict};

use super::{Encoder, TimeText, write_id, write_invalid, write_or_null, write_source};

pub(super) fn write(
    encoder: &mut Encoder,
    event: Event<'_>,
    verdict: &Verdict,
    received: &TimeText,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"id\":");
    write_id(event, out);
    out.push(b',');
    out.extend_from_slice(event.subject().envelope_members().as_bytes());
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(event.op().as_str().as_bytes());
    out.extend_from_slice(b"\",\"time\":");
    out.extend_from_slice(encoder.time.get(event.row().time));
    out.extend_from_slice(b",\"received\":");
    out.extend_from_slice(&received.text);
    out.extend_from_slice(b",\"source\":");
    write_source(event, out);
    out.extend_from_slice(b",\"key\":");
    write_or_null(event.key(), out);
    if !event.before().is_empty() {
        out.extend_from_slice(b",\"before\":");
        out.extend_from_slice(event.before());
    }
    out.extend_from_slice(b",\"payload\":");
    write_or_null(event.payload(), out);
    if !event.unchanged().is_empty() {
        out.extend_from_slice(b",\"unchanged\":");
        out.extend_from_slice(event.unchanged());
    }
    if !event.contexts().is_empty() {
        out.extend_from_slice(b",\"contexts\":");
        out.extend_from_slice(event.contexts());
    }
    match verdict {
        Verdict::Valid => out.extend_from_slice(b",\"valid\":true"),
        Verdict::Invalid(invalid) => {
            out.extend_from_slice(b",\"valid\":false,\"error\":");
            write_invalid(invalid, out);
        }
    }
    out.extend_from_slice(b",\"forebay\":");
    out.extend_from_slice(&encoder.instance);
    out.push(b'}');
}
