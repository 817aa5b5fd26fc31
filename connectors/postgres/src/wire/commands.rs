//! [`Connection`]: a session that is ready for commands, among them the one that begins the stream.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::escape::escape_identifier;
use postgres_protocol::message::{backend, frontend};
use tokio::time::Instant;
use tracing::debug;

use super::dial::Dial;
use super::error::WireError;
use super::read::ReadHalf;
use super::startup::{Greeting, Login, start_up};
use super::write::WriteHalf;
use crate::cursor::Cursor;
use crate::lsn::Lsn;
use crate::url::ChannelBinding;

/// How long a command may take that needs nothing but the server's attention.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// More rows than any command of ours answers with.
const MAX_ROWS: usize = 10_000;

/// A replication connection outside a stream.
#[derive(Debug)]
pub struct Connection {
    reader: ReadHalf,
    greeting: Greeting,
    dial: Dial,
}

/// One row of an answer; all values are text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    /// The bytes of a column; `None` where it is null or absent.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.as_deref()
    }

    /// The text of a column, which must be there.
    pub fn text(&self, column: usize) -> Result<&str, WireError> {
        let bytes = self.bytes(column).ok_or_else(|| WireError::malformed("a row lacks a column"))?;
        std::str::from_utf8(bytes).map_err(WireError::malformed)
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, column: usize) -> Result<T, WireError> {
        self.text(column)?.parse().map_err(WireError::malformed)
    }
}

/// What `COPY … TO STDOUT` brings.
#[derive(Clone, Copy, Debug)]
pub enum Copied<'a> {
    /// A long line of so many bytes begins; no room was made for it yet.
    Long(usize),
    /// A line, without its end.
    Line(&'a [u8]),
}

/// How a copy ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// All of it was handed over.
    Whole,
    /// Whoever took the lines wanted no more.
    Broken,
}

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Of the cluster, the same on all its standbys and after a promotion.
    pub identifier: u64,
    /// Which history of the cluster this server is on.
    pub timeline: u32,
    /// Where its WAL ends now.
    pub flushed: Lsn,
}

/// One line of a timeline's history: where an earlier one was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The timeline that ended.
    pub timeline: u32,
    /// Where: what lies before belongs to it.
    pub at: Lsn,
}

/// A slot to create.
#[derive(Clone, Copy, Debug)]
pub struct NewSlot<'a> {
    /// Its name.
    pub name: &'a str,
    /// Gone with the connection.
    pub temporary: bool,
    /// Kept on standbys, too (PostgreSQL 17 and later).
    pub failover: bool,
}

/// What to stream.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The slot to read from.
    pub slot: &'a str,
    /// Where to begin; the server begins later if the slot says so.
    pub from: Lsn,
    /// The publications whose tables are wanted.
    pub publications: &'a [&'a str],
    /// Logical messages, too (PostgreSQL 14 and later).
    pub messages: bool,
    /// Only what was not replicated from elsewhere (PostgreSQL 16 and later).
    pub origin_none: bool,
}

impl Connection {
    /// Connects and logs in; blocks for `dial.timeout` at most. `parameters` are those of the startup message;
    /// `user` is among them.
    pub(crate) fn open(
        dial: Dial,
        parameters: &[(&str, &str)],
        password: Option<&[u8]>,
        channel_binding: ChannelBinding,
    ) -> Result<Connection, WireError> {
        let deadline = Instant::now() + dial.timeout;
        let mut reader = ReadHalf::new(dial.open(deadline)?);
        let user = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, user)| user);
        let login = Login { user, password, channel_binding };
        let greeting = start_up(&mut reader, login, parameters, deadline)?;
        Ok(Connection { reader, greeting, dial })
    }

    /// A setting that the server reported when we logged in.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.greeting.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The server's major version, such as 15.
    pub fn major_version(&self) -> Result<u32, WireError> {
        let version = self.parameter("server_version").unwrap_or_default();
        let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().map_err(|_| WireError::malformed(format!("server version `{version}`")))
    }

    /// Runs one command and returns its rows. When it takes longer than `limit` it is cancelled on the server, and
    /// this connection is of no further use.
    pub fn query(&mut self, command: &str, limit: Duration) -> Result<Vec<Row>, WireError> {
        let deadline = Instant::now() + limit;
        self.send(command, deadline)?;
        let rows = self.rows(deadline);
        match &rows {
            Err(WireError::Timeout { .. }) => self.cancel(),
            Err(WireError::Server(error)) if !error.ends_the_connection() => self.skip_to_ready(deadline)?,
            _ => {}
        }
        rows
    }

    /// Runs `COPY … TO STDOUT` and hands over each line as it comes, and before one that is longer than `long`, its
    /// length. `each` ends the copy by `false`; this connection is of no further use then. `limit` is for each wait, not
    /// for the whole.
    pub fn copy_out(
        &mut self,
        command: &str,
        limit: Duration,
        long: usize,
        each: &mut dyn FnMut(Copied<'_>) -> bool,
    ) -> Result<CopyEnd, WireError> {
        const COPYING: &str = "copying a table";
        self.send(command, Instant::now() + limit)?;
        loop {
            let deadline = Instant::now() + limit;
            if let Some(length) = self.reader.long_one(long, COPYING, deadline)?
                && !each(Copied::Long(length))
            {
                self.cancel();
                return Ok(CopyEnd::Broken);
            }
            let deadline = Instant::now() + limit;
            let (tag, body) = match self.reader.receive(COPYING, deadline) {
                Err(WireError::Server(error)) if !error.ends_the_connection() => {
                    self.skip_to_ready(deadline)?;
                    return Err(WireError::Server(error));
                }
                received => received?,
            };
            match tag {
                backend::COPY_DATA_TAG => {
                    if !each(Copied::Line(body.strip_suffix(b"\n").unwrap_or(body))) {
                        self.cancel();
                        return Ok(CopyEnd::Broken);
                    }
                }
                backend::READY_FOR_QUERY_TAG => return Ok(CopyEnd::Whole),
                backend::COPY_OUT_RESPONSE_TAG
                | backend::COPY_DONE_TAG
                | backend::COMMAND_COMPLETE_TAG
                | backend::PARAMETER_STATUS_TAG => {}
                tag => return Err(WireError::unexpected(tag, COPYING)),
            }
        }
    }

    /// The value of a setting.
    pub fn show(&mut self, setting: &str) -> Result<String, WireError> {
        let rows = self.query(&format!("SHOW {setting}"), COMMAND_LIMIT)?;
        Ok(one(&rows)?.text(0)?.to_owned())
    }

    /// Which cluster and timeline this is.
    pub fn identify(&mut self) -> Result<System, WireError> {
        let rows = self.query("IDENTIFY_SYSTEM", COMMAND_LIMIT)?;
        let row = one(&rows)?;
        Ok(System { identifier: row.parse(0)?, timeline: row.parse(1)?, flushed: row.parse(2)? })
    }

    /// Where the timelines before this one ended; the first has none before it.
    pub fn timeline_history(&mut self, timeline: u32) -> Result<Vec<Switch>, WireError> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}"), COMMAND_LIMIT)?;
        switches(one(&rows)?.text(1)?)
    }

    /// Creates a slot and returns where it begins. The server waits for the transactions that run, so this can take
    /// as long as the longest of them.
    pub fn create_slot(&mut self, slot: NewSlot<'_>, limit: Duration) -> Result<Lsn, WireError> {
        let rows = self.query(&slot.command(), limit)?;
        one(&rows)?.parse(1)
    }

    /// Drops a slot, at once or not at all.
    pub fn drop_slot(&mut self, name: &str) -> Result<(), WireError> {
        self.query(&format!("DROP_REPLICATION_SLOT {}", escape_identifier(name)), COMMAND_LIMIT)?;
        Ok(())
    }

    /// Begins the stream.
    pub fn start(mut self, start: Start<'_>) -> Result<(ReadHalf, WriteHalf), WireError> {
        const COPY_BOTH_RESPONSE_TAG: u8 = b'W';
        let deadline = Instant::now() + COMMAND_LIMIT;
        self.send(&start.command(), deadline)?;
        loop {
            let (tag, _) = self.reader.receive(DOING, deadline)?;
            match tag {
                COPY_BOTH_RESPONSE_TAG => break,
                backend::PARAMETER_STATUS_TAG => {}
                tag => return Err(WireError::unexpected(tag, DOING)),
            }
        }
        self.reader.begin()?;
        let writer = WriteHalf::new(self.reader.transport.clone());
        Ok((self.reader, writer))
    }

    /// Takes leave, so that the server's log has no complaint.
    pub fn close(self) -> Result<(), WireError> {
        WriteHalf::new(self.reader.transport).terminate()
    }

    fn send(&self, command: &str, deadline: Instant) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        frontend::query(command, &mut message).map_err(WireError::io(DOING))?;
        self.reader.transport.send_all(&message, deadline)
    }

    fn rows(&mut self, deadline: Instant) -> Result<Vec<Row>, WireError> {
        let mut rows = Vec::new();
        loop {
            let (tag, body) = self.reader.receive(DOING, deadline)?;
            match tag {
                backend::READY_FOR_QUERY_TAG => return Ok(rows),
                backend::DATA_ROW_TAG if rows.len() < MAX_ROWS => rows.push(row(body)?),
                backend::ROW_DESCRIPTION_TAG
                | backend::COMMAND_COMPLETE_TAG
                | backend::PARAMETER_STATUS_TAG
                | backend::EMPTY_QUERY_RESPONSE_TAG => {}
                tag => return Err(WireError::unexpected(tag, DOING)),
            }
        }
    }

    /// After an error the server says when it is ready again, which is not to be taken for the next command's answer.
    fn skip_to_ready(&mut self, deadline: Instant) -> Result<(), WireError> {
        while self.reader.receive(DOING, deadline)?.0 != backend::READY_FOR_QUERY_TAG {}
        Ok(())
    }

    /// The process that the greeting named, which on a server is the one that answers.
    pub fn greeted_by(&self) -> Option<i32> {
        self.greeting.cancel_key.map(|(process, _)| process)
    }

    /// What ends a command of this connection from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller { cancel_key: self.greeting.cancel_key, dial: self.dial.clone() }
    }

    /// A server that waits for a lock does not notice that its client has gone, so it is told.
    fn cancel(&self) {
        self.canceller().cancel();
    }
}

/// Ends the command that a connection runs, by a connection of its own, as PostgreSQL wants it.
#[derive(Clone, Debug)]
pub struct Canceller {
    cancel_key: Option<(i32, i32)>,
    dial: Dial,
}

impl Canceller {
    /// Asks the server to end the command; blocks for `connect_timeout` at most.
    pub fn cancel(&self) {
        let Some((process, secret)) = self.cancel_key else { return };
        let deadline = Instant::now() + self.dial.timeout;
        let mut message = BytesMut::new();
        frontend::cancel_request(process, secret, &mut message);
        let sent = self.dial.open(deadline).and_then(|transport| transport.send_all(&message, deadline));
        if let Err(error) = sent {
            // the command may go on, which harms nobody
            debug!(error = %error, "a command could not be cancelled");
        }
    }
}

const DOING: &str = "a replication command";

fn one(rows: &[Row]) -> Result<&Row, WireError> {
    rows.first().ok_or_else(|| WireError::malformed("no row in the answer to a replication command"))
}

fn row(body: &[u8]) -> Result<Row, WireError> {
    let mut body = Cursor(body);
    let mut values = Vec::new();
    for _ in 0..body.u16()? {
        values.push(match body.i32()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(WireError::malformed)?;
                Some(body.take(length)?.to_vec())
            }
        });
    }
    body.end()?;
    Ok(Row(values))
}

/// Lines of `timeline <tab> position <tab> reason`, and comments.
fn switches(history: &str) -> Result<Vec<Switch>, WireError> {
    let mut switches = Vec::new();
    for line in history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let (Some(timeline), Some(at)) = (words.next(), words.next()) else {
            return Err(WireError::malformed(format!("line `{line}` of a timeline's history")));
        };
        let timeline = timeline.parse().map_err(WireError::malformed)?;
        switches.push(Switch { timeline, at: at.parse().map_err(WireError::malformed)? });
    }
    Ok(switches)
}

impl NewSlot<'_> {
    fn command(&self) -> String {
        let name = escape_identifier(self.name);
        let temporary = if self.temporary { " TEMPORARY" } else { "" };
        // the first form is the only one that 13 and 14 know, the second the only one that can say FAILOVER
        let options = if self.failover { "(SNAPSHOT 'nothing', FAILOVER true)" } else { "NOEXPORT_SNAPSHOT" };
        format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {options}")
    }
}

impl Start<'_> {
    fn command(&self) -> String {
        let names: Vec<String> = self.publications.iter().map(|name| escape_identifier(name)).collect();
        let mut options = vec![
            "\"proto_version\" '1'".to_owned(),
            format!("\"publication_names\" {}", literal(&names.join(","))),
        ];
        if self.messages {
            options.push("\"messages\" 'true'".to_owned());
        }
        if self.origin_none {
            options.push("\"origin\" 'none'".to_owned());
        }
        let (slot, from) = (escape_identifier(self.slot), self.from);
        format!("START_REPLICATION SLOT {slot} LOGICAL {from} ({})", options.join(", "))
    }
}

/// The replication grammar knows no `E''` strings, so a backslash is itself.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_whatever_the_names() {
        let start = Start {
            slot: "a\"b",
            from: Lsn(0x16_B374_D848),
            publications: &["p", "O'Neil", "x\\y\"z"],
            messages: true,
            origin_none: true,
        };
        assert_eq!(
            start.command(),
            "START_REPLICATION SLOT \"a\"\"b\" LOGICAL 16/B374D848 (\"proto_version\" '1', \
             \"publication_names\" '\"p\",\"O''Neil\",\"x\\y\"\"z\"', \"messages\" 'true', \"origin\" 'none')"
        );
        let slot = NewSlot { name: "s", temporary: false, failover: false };
        assert_eq!(slot.command(), "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        let slot = NewSlot { name: "s", temporary: true, failover: true };
        let expected =
            "CREATE_REPLICATION_SLOT \"s\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)";
        assert_eq!(slot.command(), expected);
    }

    #[test]
    fn a_history_says_where_each_timeline_ended() {
        let history = "1\t0/3000158\tno recovery target specified\n\n# comment\n2\t16/B374D848\tbefore\n";
        let expected =
            [Switch { timeline: 1, at: Lsn(0x300_0158) }, Switch { timeline: 2, at: Lsn(0x16_B374_D848) }];
        assert_eq!(switches(history).unwrap(), expected);
        assert!(switches("1").is_err());
        assert!(switches("x\t0/1").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_row_panic(body: Vec<u8>) {
            let _ = row(&body);
        }
    }
}
