//! Which name a template gives a record: rendered once for each kind of record, not for each record.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::Record;
use crate::chunk::{Op, Subject};
use crate::json;
use crate::mark::StreamId;
use crate::template::{Collision, Names, Placeholder, Template};

/// Routes kept before all are forgotten and made again; a source with more tables than this pays for it.
const MAX_ROUTES: usize = 10_000;

const TIME: [Placeholder; 4] = [Placeholder::Year, Placeholder::Month, Placeholder::Day, Placeholder::Hour];

/// What tells the routes of records apart. Parts that the template does not ask for are always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    stream: usize,
    subject: usize,
    op: Option<Op>,
    valid: bool,
    hour: i64,
}

/// A name, and what keeps the addresses alive that it is found by.
#[derive(Debug)]
struct Route {
    name: Arc<str>,
    _alive: (Arc<StreamId>, Arc<Subject>),
}

/// The names that a template has given.
#[derive(Debug)]
pub struct Routes {
    template: Template,
    /// What the target's names may not hold.
    forbidden: fn(char) -> bool,
    by_op: bool,
    by_verdict: bool,
    by_time: bool,
    found: HashMap<Key, Route>,
    taken: Names,
}

impl Routes {
    /// Names of a template, where every character that is `forbidden` becomes `_` in what the placeholders bring.
    pub fn new(template: Template, forbidden: fn(char) -> bool) -> Routes {
        let asks = |wanted: &[Placeholder]| template.placeholders().any(|found| wanted.contains(&found));
        Routes {
            by_op: asks(&[Placeholder::Op]),
            by_verdict: asks(&[Placeholder::Valid]),
            by_time: asks(&TIME),
            template,
            forbidden,
            found: HashMap::new(),
            taken: Names::default(),
        }
    }

    /// The name of a record's route; an error where two tables would share one by accident.
    pub fn name(&mut self, record: Record<'_>) -> Result<Arc<str>, Collision> {
        let key = self.key(record);
        if let Some(route) = self.found.get(&key) {
            return Ok(route.name.clone());
        }
        let name: Arc<str> = self.render(record)?.into();
        if self.found.len() >= MAX_ROUTES {
            self.found.clear();
        }
        let _alive = (record.event().stream().clone(), record.event().subject().clone());
        self.found.insert(key, Route { name: name.clone(), _alive });
        Ok(name)
    }

    fn key(&self, record: Record<'_>) -> Key {
        let event = record.event();
        Key {
            stream: Arc::as_ptr(event.stream()).addr(),
            subject: Arc::as_ptr(event.subject()).addr(),
            op: self.by_op.then(|| event.op()),
            valid: self.by_verdict && record.verdict().is_valid(),
            hour: if self.by_time { event.row().time.div_euclid(3_600_000_000) } else { 0 },
        }
    }

    fn render(&mut self, record: Record<'_>) -> Result<String, Collision> {
        let mut time = Vec::new();
        json::write_time(record.event().row().time, &mut time);
        let time = String::from_utf8(time).expect("a time is written in ASCII");
        let mut name = String::new();
        self.template.render(|asked| value(asked, record, &time), self.forbidden, &mut name);
        // Two tables share a name at all times or never, so time is left out here and the names stay few.
        let timeless = |asked| if TIME.contains(&asked) { None } else { value(asked, record, &time) };
        let mut timeless_name = String::new();
        self.template.render(timeless, self.forbidden, &mut timeless_name);
        self.taken.take(&timeless_name, &self.template.origin(timeless))?;
        Ok(name)
    }
}

/// What a record has for a placeholder; `time` is its time as JSON.
fn value<'a>(asked: Placeholder, record: Record<'a>, time: &'a str) -> Option<&'a str> {
    let event = record.event();
    let subject = event.subject();
    // `"2026-11-22T18:…"`, its year perhaps with a sign and more digits.
    let clock = time.find('T')?;
    match asked {
        Placeholder::Source => Some(&event.stream().source),
        Placeholder::Database => subject.database.as_deref(),
        Placeholder::Schema => subject.schema.as_deref(),
        Placeholder::Table => subject.table.as_deref(),
        Placeholder::Vendor => Some(&subject.vendor),
        Placeholder::Name => Some(&subject.name),
        Placeholder::Version => Some(&subject.version),
        Placeholder::Op => Some(event.op().as_str()),
        Placeholder::Valid => Some(if record.verdict().is_valid() { "true" } else { "false" }),
        Placeholder::Year => time.get(1..clock - 6),
        Placeholder::Month => time.get(clock - 5..clock - 3),
        Placeholder::Day => time.get(clock - 2..clock),
        Placeholder::Hour => time.get(clock + 1..clock + 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Encoded};
    use crate::chunk::{Chunk, Draft, Row, Span};
    use crate::mark::Mark;

    fn chunk(tables: &[&str]) -> Chunk {
        let mut draft = Draft::default();
        for table in tables {
            let place = (Some("db"), Some("public"), Some(*table));
            let subject = Arc::new(Subject::new(("v", "n", "1-0-0"), place, String::new()));
            let subject = draft.subject(&subject);
            let none = Span::default();
            draft.push(Row {
                mark: Mark::MIN,
                time: 1_795_372_440_123_456,
                xid: 0,
                subject,
                op: Op::Insert,
                id: none,
                key: none,
                before: none,
                payload: none,
                unchanged: none,
                contexts: none,
                extra: none,
            });
        }
        draft.finish(&Arc::new(StreamId { source: "shop".into(), epoch: 1 }), 0, false)
    }

    fn names(template: &str, tables: &[&str]) -> Result<Vec<String>, Collision> {
        let encoded = vec![Encoded::new(Vec::new(), vec![0; tables.len()])];
        let batch = Batch { chunk: chunk(tables), verdicts: Vec::new(), encoded };
        let mut routes = Routes::new(Template::parse(template).unwrap(), |char| char == '/');
        // Twice: rendered, then found.
        let rows = (0..tables.len()).chain(0..tables.len());
        rows.map(|row| routes.name(batch.record(row, 0)).map(|name| name.to_string())).collect()
    }

    #[test]
    fn each_record_has_the_name_of_its_kind() {
        let found = names("{source}-{table}-{op}-{valid}-{year}{month}{day}{hour}", &["a", "b/c"]).unwrap();
        let expected = ["shop-a-insert-true-2026112218", "shop-b_c-insert-true-2026112218"];
        assert_eq!(found, [expected, expected].concat());
        assert_eq!(names("all", &["a", "b"]).unwrap(), ["all"; 4]);
    }

    #[test]
    fn two_tables_share_no_name_by_accident() {
        assert!(names("{table}", &["a/b", "a_b"]).unwrap_err().to_string().contains("`a_b`"));
    }
}
