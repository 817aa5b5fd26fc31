//! [`Object`]: a JSON object in the making.

use forebay_api::json::write_string;

/// Members that were written, without the braces around them.
#[derive(Debug, Default)]
pub struct Object {
    members: Vec<u8>,
}

impl Object {
    /// Adds a member; `value` is JSON. The caller sees to it that each name comes once.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.members.extend_from_slice(value);
    }

    /// Adds a member whose value is a string.
    pub fn push_string(&mut self, name: &str, value: &str) {
        self.name(name);
        write_string(value, &mut self.members);
    }

    fn name(&mut self, name: &str) {
        if !self.members.is_empty() {
            self.members.push(b',');
        }
        write_string(name, &mut self.members);
        self.members.push(b':');
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The JSON of it.
    pub fn finish(self) -> Vec<u8> {
        [b"{", &self.members[..], b"}"].concat()
    }
}
