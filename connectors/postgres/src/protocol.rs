//! What the stream says: replication frames, and the messages of `pgoutput` in them (protocol version 1).
//!
//! Everything is a borrowed view of the bytes that were read; every length is checked while a message is read, so
//! that walking a [`Tuple`] afterwards cannot fail. Pure, and never panics on any bytes. A tag that we do not know is
//! an error: what it stands for would be lost in silence. From version 2 on, messages between Stream Start and Stream
//! Stop carry a transaction id after the tag; version 1 has neither.

use crate::cursor::{Cursor, Malformed};
use crate::lsn::Lsn;

mod tuple;

pub use tuple::{Tuple, Value};

/// The contents of one CopyData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of the stream.
    Data {
        /// Where it stands in the WAL. Rows of one statement can share it, so it is no key.
        at: Lsn,
        /// The `pgoutput` message.
        message: &'a [u8],
    },
    /// A sign of life between the pieces.
    Keepalive {
        /// How far the server has read. Inside a transaction it is no position to resume from.
        wal_end: Lsn,
        /// Whether the server wants a status update at once.
        reply: bool,
    },
}

/// Reads one CopyData message.
pub fn frame(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut cursor = Cursor(bytes);
    match cursor.u8()? {
        b'w' => {
            let at = Lsn(cursor.u64()?);
            // the server's WAL end and its clock, which nothing here rests on
            cursor.take(16)?;
            Ok(Frame::Data { at, message: cursor.0 })
        }
        b'k' => {
            let wal_end = Lsn(cursor.u64()?);
            cursor.take(8)?;
            let reply = cursor.u8()? != 0;
            cursor.end()?;
            Ok(Frame::Keepalive { wal_end, reply })
        }
        tag => Err(unknown("a replication frame", tag)),
    }
}

/// One message of `pgoutput`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction follows, whole and already committed.
    Begin(Begin),
    /// It is complete.
    Commit(Commit),
    /// It was replicated from elsewhere.
    Origin(Origin<'a>),
    /// The shape of a table, before its first row and after each change of it.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(TypeName<'a>),
    /// A new row.
    Insert(Insert<'a>),
    /// A changed row.
    Update(Update<'a>),
    /// A row that is gone.
    Delete(Delete<'a>),
    /// Tables that were emptied.
    Truncate(Truncate<'a>),
    /// What an application wrote with `pg_logical_emit_message`.
    Logical(Logical<'a>),
}

/// Begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record is: the position of all that follows.
    pub commit_lsn: Lsn,
    /// When it was committed, in PostgreSQL's microseconds (see [`crate::time`]).
    pub time: i64,
    /// Its id.
    pub xid: u32,
}

/// Commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record is; the same as in Begin.
    pub commit_lsn: Lsn,
    /// Where the record ends: what to resume from and to confirm.
    pub end_lsn: Lsn,
    /// When it was committed, in PostgreSQL's microseconds.
    pub time: i64,
}

/// Where a transaction came from first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its commit position there.
    pub commit_lsn: Lsn,
    /// The origin's name here.
    pub name: &'a str,
}

/// The shape of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its oid, by which rows refer to it.
    pub id: u32,
    /// Its schema; empty means `pg_catalog`.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What the server gives of old rows.
    pub identity: ReplicaIdentity,
    /// How many columns it has.
    count: u16,
    /// The columns, already checked.
    columns: &'a [u8],
}

/// What the server gives of old rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// All columns.
    Full,
    /// The columns of some unique index.
    Index,
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether it belongs to the replica identity.
    pub key: bool,
    /// Its name.
    pub name: &'a str,
    /// Its type's oid.
    pub type_oid: u32,
    /// Its type's modifier (a length, a precision); -1 where there is none.
    pub type_modifier: i32,
}

/// The name of a type that is not built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName<'a> {
    /// Its oid.
    pub oid: u32,
    /// Its schema; empty means `pg_catalog`.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert<'a> {
    /// The table.
    pub relation: u32,
    /// The row.
    pub new: Tuple<'a>,
}

/// A changed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The table.
    pub relation: u32,
    /// What the server gives of the old row, where it gives anything.
    pub old: Option<Old<'a>>,
    /// The row as it is now.
    pub new: Tuple<'a>,
}

/// A row that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The table.
    pub relation: u32,
    /// What the server gives of it.
    pub old: Old<'a>,
}

/// An old row, as the replica identity makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only the columns of the key have values; the others look like nulls.
    Key(Tuple<'a>),
    /// All of it.
    Full(Tuple<'a>),
}

/// Tables that were emptied by one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// CASCADE was said.
    pub cascade: bool,
    /// RESTART IDENTITY was said.
    pub restart_identity: bool,
    /// The tables' oids, four bytes each, already checked.
    relations: &'a [u8],
}

/// What an application wrote into the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logical<'a> {
    /// Whether it belongs to the transaction around it.
    pub transactional: bool,
    /// Where it stands.
    pub lsn: Lsn,
    /// What it is for.
    pub prefix: &'a str,
    /// Any bytes.
    pub content: &'a [u8],
}

impl<'a> Relation<'a> {
    /// Its columns, in the order of each row's values.
    pub fn columns(&self) -> impl Iterator<Item = Column<'a>> + use<'a> {
        let mut cursor = Cursor(self.columns);
        (0..self.count).map(move |_| column(&mut cursor).expect("checked when the message was read"))
    }
}

impl<'a> Truncate<'a> {
    /// The tables' oids.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let (oids, _) = self.relations.as_chunks();
        oids.iter().map(|&oid| u32::from_be_bytes(oid))
    }
}

/// Reads one message. All of it must be understood.
pub fn message(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut cursor = Cursor(bytes);
    let message = match cursor.u8()? {
        b'I' => Message::Insert(insert(&mut cursor)?),
        b'U' => Message::Update(update(&mut cursor)?),
        b'D' => Message::Delete(delete(&mut cursor)?),
        b'B' => {
            Message::Begin(Begin { commit_lsn: Lsn(cursor.u64()?), time: cursor.i64()?, xid: cursor.u32()? })
        }
        b'C' => {
            // flags, of which there are none yet
            cursor.u8()?;
            Message::Commit(Commit {
                commit_lsn: Lsn(cursor.u64()?),
                end_lsn: Lsn(cursor.u64()?),
                time: cursor.i64()?,
            })
        }
        b'O' => Message::Origin(Origin { commit_lsn: Lsn(cursor.u64()?), name: cursor.text()? }),
        b'R' => Message::Relation(relation(&mut cursor)?),
        b'Y' => {
            Message::Type(TypeName { oid: cursor.u32()?, namespace: cursor.text()?, name: cursor.text()? })
        }
        b'T' => Message::Truncate(truncate(&mut cursor)?),
        b'M' => Message::Logical(logical(&mut cursor)?),
        tag => return Err(unknown("a message", tag)),
    };
    cursor.end()?;
    Ok(message)
}

fn insert<'a>(cursor: &mut Cursor<'a>) -> Result<Insert<'a>, Malformed> {
    let relation = cursor.u32()?;
    match cursor.u8()? {
        b'N' => Ok(Insert { relation, new: Tuple::read(cursor)? }),
        tag => Err(unknown("the row of an insert", tag)),
    }
}

fn update<'a>(cursor: &mut Cursor<'a>) -> Result<Update<'a>, Malformed> {
    let relation = cursor.u32()?;
    let old = match cursor.u8()? {
        b'N' => return Ok(Update { relation, old: None, new: Tuple::read(cursor)? }),
        b'K' => Old::Key(Tuple::read(cursor)?),
        b'O' => Old::Full(Tuple::read(cursor)?),
        tag => return Err(unknown("the row of an update", tag)),
    };
    match cursor.u8()? {
        b'N' => Ok(Update { relation, old: Some(old), new: Tuple::read(cursor)? }),
        tag => Err(unknown("the new row of an update", tag)),
    }
}

fn delete<'a>(cursor: &mut Cursor<'a>) -> Result<Delete<'a>, Malformed> {
    let relation = cursor.u32()?;
    let old = match cursor.u8()? {
        b'K' => Old::Key(Tuple::read(cursor)?),
        b'O' => Old::Full(Tuple::read(cursor)?),
        tag => return Err(unknown("the row of a delete", tag)),
    };
    Ok(Delete { relation, old })
}

fn relation<'a>(cursor: &mut Cursor<'a>) -> Result<Relation<'a>, Malformed> {
    let (id, namespace, name) = (cursor.u32()?, cursor.text()?, cursor.text()?);
    let identity = match cursor.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        tag => return Err(unknown("a replica identity", tag)),
    };
    let count = cursor.u16()?;
    let columns = cursor.0;
    for _ in 0..count {
        column(cursor)?;
    }
    Ok(Relation { id, namespace, name, identity, count, columns })
}

fn column<'a>(cursor: &mut Cursor<'a>) -> Result<Column<'a>, Malformed> {
    let key = cursor.u8()? & 1 != 0;
    Ok(Column { key, name: cursor.text()?, type_oid: cursor.u32()?, type_modifier: cursor.i32()? })
}

fn truncate<'a>(cursor: &mut Cursor<'a>) -> Result<Truncate<'a>, Malformed> {
    let count = cursor.length()?;
    let options = cursor.u8()?;
    let length = count.checked_mul(4).ok_or_else(|| Malformed::new("a truncate of too many tables"))?;
    let relations = cursor.take(length)?;
    Ok(Truncate { cascade: options & 1 != 0, restart_identity: options & 2 != 0, relations })
}

fn logical<'a>(cursor: &mut Cursor<'a>) -> Result<Logical<'a>, Malformed> {
    let transactional = cursor.u8()? & 1 != 0;
    let (lsn, prefix) = (Lsn(cursor.u64()?), cursor.text()?);
    let length = cursor.length()?;
    Ok(Logical { transactional, lsn, prefix, content: cursor.take(length)? })
}

fn unknown(what: &str, tag: u8) -> Malformed {
    Malformed::new(format!("unknown tag `{}` of {what}", char::from(tag).escape_default()))
}

#[cfg(test)]
mod tests;
