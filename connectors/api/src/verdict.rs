//! What validation said of an event.

/// Whether an event obeys the schema it names. Invalid events are delivered too, to the destinations that accept
/// them: a verdict is never a reason to lose an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The payload obeys its schema, or is valid by construction.
    #[default]
    Valid,
    /// It does not; the envelope carries why.
    Invalid(Box<Invalid>),
}

impl Verdict {
    /// Whether it is [`Verdict::Valid`].
    pub fn is_valid(&self) -> bool {
        matches!(self, Verdict::Valid)
    }
}

/// Why an event is invalid: the envelope's `error` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// A stable word for programs: `invalid_payload`, `schema_not_found`, …
    pub kind: String,
    /// One sentence for a person.
    pub message: String,
    /// What to do about it.
    pub resolution: Option<String>,
    /// Each failure that validation found.
    pub details: Vec<InvalidDetail>,
}

/// One failure inside a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDetail {
    /// JSON pointer into the payload.
    pub path: String,
    /// JSON pointer into the schema: the keyword that failed.
    pub keyword: String,
    /// What the keyword asked for.
    pub message: String,
}
