//! The body of a request: records joined as the receiver wants them, and compressed.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::config::Compression;

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// How records stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One a line, each with a line end.
    Ndjson,
    /// In a JSON array.
    Array {
        /// Whether they are events of the CloudEvents specification, which has a media type for such an array.
        cloudevents: bool,
    },
    /// One alone.
    Single {
        /// The same for one.
        cloudevents: bool,
    },
}

impl Form {
    /// Whether a request has one record.
    pub(crate) fn is_single(self) -> bool {
        matches!(self, Form::Single { .. })
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Form::Ndjson => "application/x-ndjson",
            Form::Array { cloudevents: false } | Form::Single { cloudevents: false } => "application/json",
            Form::Array { cloudevents: true } => "application/cloudevents-batch+json",
            Form::Single { cloudevents: true } => "application/cloudevents+json",
        }
    }

    /// What stands before the first record, between two, and after the last.
    fn marks(self) -> (&'static [u8], &'static [u8], &'static [u8]) {
        match self {
            Form::Ndjson => (b"", b"\n", b"\n"),
            Form::Array { .. } => (b"[", b",", b"]"),
            Form::Single { .. } => (b"", b"", b""),
        }
    }
}

impl Compression {
    /// The value of `Content-Encoding`.
    pub(crate) fn encoding(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }
}

/// The body of a request with these records, which are copied once.
pub(crate) fn body<'a>(
    form: Form,
    compression: Compression,
    records: impl Iterator<Item = &'a [u8]> + Clone,
) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => {
            let bytes = records.clone().map(|record| record.len() + 1).sum::<usize>() + 1;
            let mut body = Vec::with_capacity(bytes);
            write(form, records, &mut body)?;
            Ok(body)
        }
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            write(form, records, &mut encoder)?;
            encoder.finish()
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            write(form, records, &mut encoder)?;
            encoder.finish()
        }
    }
}

fn write<'a>(form: Form, records: impl Iterator<Item = &'a [u8]>, out: &mut impl Write) -> io::Result<()> {
    let (before, between, after) = form.marks();
    out.write_all(before)?;
    for (at, record) in records.enumerate() {
        if at > 0 {
            out.write_all(between)?;
        }
        out.write_all(record)?;
    }
    out.write_all(after)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const RECORDS: [&[u8]; 2] = [b"{\"n\":1}", b"{\"n\":2}"];

    fn plain(form: Form, records: &[&'static [u8]]) -> String {
        let body = body(form, Compression::None, records.iter().copied()).unwrap();
        assert!(body.capacity() <= 16 + body.len());
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn records_are_lines_an_array_or_alone() {
        assert_eq!(plain(Form::Ndjson, &RECORDS), "{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(plain(Form::Array { cloudevents: false }, &RECORDS), "[{\"n\":1},{\"n\":2}]");
        assert_eq!(plain(Form::Single { cloudevents: false }, &RECORDS[..1]), "{\"n\":1}");
    }

    #[test]
    fn compressed_bodies_say_the_same() {
        let form = Form::Ndjson;
        let gzip = body(form, Compression::Gzip, RECORDS.into_iter()).unwrap();
        let mut said = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut said).unwrap();
        assert_eq!(said, "{\"n\":1}\n{\"n\":2}\n");
        let zstd = body(form, Compression::Zstd, RECORDS.into_iter()).unwrap();
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), said.as_bytes());
    }
}
