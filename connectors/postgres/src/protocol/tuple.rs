//! [`Tuple`]: the values of one row.

use crate::cursor::{Cursor, Malformed};

use super::unknown;

/// The values of one row, in the order of the relation's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    /// Exactly the values, already checked.
    values: &'a [u8],
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// Stored out of line and not touched, so the server did not send it.
    Unchanged,
    /// As the type's output function prints it.
    Text(&'a [u8]),
    /// As the type's send function packs it; comes only where it was asked for.
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Reads and checks all values.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Tuple<'a>, Malformed> {
        let count = cursor.u16()?;
        let before = cursor.0;
        for _ in 0..count {
            value(cursor)?;
        }
        Ok(Tuple { count, values: &before[..before.len() - cursor.0.len()] })
    }

    /// So many values, which the caller has just written as the stream would: whoever walks them panics if not.
    pub(crate) fn of_values(count: u16, values: &'a [u8]) -> Tuple<'a> {
        Tuple { count, values }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// A table may have no columns.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values. Walking again costs nothing but the walk.
    pub fn values(&self) -> Values<'a> {
        Values { left: self.count, cursor: Cursor(self.values) }
    }
}

/// Walks the values of a [`Tuple`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Some(value(&mut self.cursor).expect("checked when the message was read"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Values<'_> {}

#[inline]
fn value<'a>(cursor: &mut Cursor<'a>) -> Result<Value<'a>, Malformed> {
    match cursor.u8()? {
        b't' => {
            let length = cursor.length()?;
            Ok(Value::Text(cursor.take(length)?))
        }
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b'b' => {
            let length = cursor.length()?;
            Ok(Value::Binary(cursor.take(length)?))
        }
        tag => Err(unknown("a value", tag)),
    }
}
