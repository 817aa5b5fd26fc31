//! One line of `COPY … TO STDOUT` as the row that the stream would have sent, so that both are written by one encoder.
//! Pure.

use crate::protocol::Tuple;

/// Room for one row; reused from line to line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The values in the stream's own form.
    bytes: Vec<u8>,
}

/// A line that COPY does not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of COPY cannot be read")]
pub(crate) struct NotALine;

impl Line {
    /// Takes a line apart: fields between tabs, `\N` for null, backslashes before what would mean something else.
    pub(crate) fn read(&mut self, mut line: &[u8], columns: u16) -> Result<Tuple<'_>, NotALine> {
        self.bytes.clear();
        for left in (0..columns).rev() {
            let end = memchr::memchr(b'\t', line).unwrap_or(line.len());
            self.field(&line[..end])?;
            match (left, line.get(end)) {
                (0, None) => line = &[],
                (1.., Some(_)) => line = &line[end + 1..],
                _ => return Err(NotALine),
            }
        }
        if !line.is_empty() {
            return Err(NotALine);
        }
        Ok(Tuple::of_values(columns, &self.bytes))
    }

    fn field(&mut self, mut field: &[u8]) -> Result<(), NotALine> {
        if field == b"\\N" {
            self.bytes.push(b'n');
            return Ok(());
        }
        self.bytes.push(b't');
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        while let Some(at) = memchr::memchr(b'\\', field) {
            self.bytes.extend_from_slice(&field[..at]);
            self.bytes.push(match field.get(at + 1).ok_or(NotALine)? {
                b'b' => 0x08,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 0x0b,
                b'f' => 0x0c,
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return Err(NotALine),
            });
            field = &field[at + 2..];
        }
        self.bytes.extend_from_slice(field);
        let length = u32::try_from(self.bytes.len() - length_at - 4).map_err(|_| NotALine)?;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;

    fn values(line: &[u8], columns: u16) -> Result<Vec<Option<Vec<u8>>>, NotALine> {
        let mut room = Line::default();
        let tuple = room.read(line, columns)?;
        let value = |value| match value {
            Value::Text(text) => Some(text.to_vec()),
            Value::Null => None,
            other => panic!("{other:?} in a copy"),
        };
        Ok(tuple.values().map(value).collect())
    }

    /// As the server writes it.
    fn written(values: &[Option<Vec<u8>>]) -> Vec<u8> {
        let field = |value: &Option<Vec<u8>>| match value {
            None => b"\\N".to_vec(),
            Some(text) => text
                .iter()
                .flat_map(|byte| match byte {
                    0x08 => b"\\b".to_vec(),
                    b'\t' => b"\\t".to_vec(),
                    b'\n' => b"\\n".to_vec(),
                    0x0b => b"\\v".to_vec(),
                    0x0c => b"\\f".to_vec(),
                    b'\r' => b"\\r".to_vec(),
                    b'\\' => b"\\\\".to_vec(),
                    other => vec![*other],
                })
                .collect(),
        };
        values.iter().map(field).collect::<Vec<_>>().join(&b'\t')
    }

    #[test]
    fn a_line_is_the_row_that_it_was_made_of() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(values(b"1\t\\N\t\ta\\tb\\\\N", 4).unwrap(), [text("1"), None, text(""), text("a\tb\\N")]);
        assert_eq!(values(b"", 1).unwrap(), [text("")]);
        assert_eq!(values(b"", 0).unwrap(), []);
    }

    #[test]
    fn a_line_of_another_width_is_refused() {
        for (line, columns) in [(&b"1\t2"[..], 1), (b"1", 2), (b"\\", 1), (b"\\x", 1), (b"x", 0)] {
            assert_eq!(values(line, columns), Err(NotALine), "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_row_comes_back(row in proptest::collection::vec(proptest::option::of(proptest::collection::vec(1u8.., 0..20)), 1..8)) {
            let columns = u16::try_from(row.len()).unwrap();
            proptest::prop_assert_eq!(values(&written(&row), columns).unwrap(), row);
        }

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, columns in 0u16..5) {
            let _ = values(&line, columns);
        }
    }
}
