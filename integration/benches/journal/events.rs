//! What is written: inserts of some 300 bytes.

use std::path::Path;
use std::sync::Arc;

use forebay_api::{
    Chunk, Draft, Journal, JournalConnector, JournalSetting, Mark, Op, Row, Span, StreamId, Subject,
};
use forebay_journal::DiskJournal;

/// The source of all events.
pub(crate) const SOURCE: &str = "bench";

/// Makes chunks of one stream, with ascending marks.
pub(crate) struct Events {
    stream: Arc<StreamId>,
    subject: Arc<Subject>,
    draft: Draft,
    next: u64,
}

impl Events {
    pub(crate) fn new() -> Events {
        let place = (Some("db"), Some("public"), Some("orders"));
        let source = r#""type":"bench","name":"bench","schema":"public","table":"orders""#.to_owned();
        Events {
            stream: Arc::new(StreamId { source: SOURCE.into(), epoch: 1 }),
            subject: Arc::new(Subject::new(("com.example", "public.orders", "1-0-0"), place, source)),
            draft: Draft::default(),
            next: 1,
        }
    }

    pub(crate) fn stream(&self) -> Arc<StreamId> {
        self.stream.clone()
    }

    /// The next `count` events.
    pub(crate) fn chunk(&mut self, count: usize) -> Chunk {
        let subject = self.draft.subject(&self.subject);
        for _ in 0..count {
            let at = self.draft.buf.len();
            self.draft.buf.extend_from_slice(format!("{{\"id\":{}}}", self.next).as_bytes());
            let key = self.draft.since(at);
            let at = self.draft.buf.len();
            self.draft.buf.extend_from_slice(format!("{{\"id\":{},\"text\":\"", self.next).as_bytes());
            self.draft.buf.resize(self.draft.buf.len() + 200, b'x');
            self.draft.buf.extend_from_slice(b"\"}");
            let payload = self.draft.since(at);
            let none = Span::default();
            self.draft.push(Row {
                mark: Mark { major: (0, self.next), minor: 0, part: 0 },
                time: 0,
                xid: 0,
                subject,
                op: Op::Insert,
                id: none,
                key,
                before: none,
                payload,
                unchanged: none,
                contexts: none,
                extra: none,
            });
            self.next += 1;
        }
        self.draft.finish(&self.stream, 0, false)
    }
}

/// A journal as it is without any keys.
pub(crate) fn journal(folder: &Path) -> Arc<dyn Journal> {
    let setting = JournalSetting {
        source: SOURCE.to_owned(),
        instance: "bench".to_owned(),
        data_dir: folder.to_owned(),
    };
    DiskJournal::build(forebay_journal::DiskConfig::default(), &setting).expect("its defaults are right")
}
