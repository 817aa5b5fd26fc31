//! [`Scratch`]: what encoders of nested values need beside their output.

/// A buffer that has grown larger than this is not kept for the next value.
const KEPT_BYTES: usize = 1 << 20;

/// Room for parts that must be unquoted, and what is said of arrays. Kept from value to value, so that it is allocated
/// once.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Not in use. As many as a value was nested deep.
    buffers: Vec<Vec<u8>>,
    /// Where in the column's value the encoders are.
    path: Vec<Step>,
    /// The arrays met that tell their lower bounds.
    bounds: Vec<Bounds>,
}

/// One step into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into an array or multirange.
    Index(u32),
    /// Into a composite's attribute, or a range's bound.
    Part(u32),
}

/// The lower bounds of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Where the array is.
    pub path: Vec<Step>,
    /// The lower bound of each of its dimensions.
    pub lower: Vec<i32>,
}

impl Scratch {
    /// An empty buffer, to be given back.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BYTES {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// Goes into the first element of an array.
    #[inline]
    pub(super) fn enter_array(&mut self) {
        self.path.push(Step::Index(0));
    }

    /// Goes to the next one.
    #[inline]
    pub(super) fn next_element(&mut self) {
        if let Some(Step::Index(index)) = self.path.last_mut() {
            *index += 1;
        }
    }

    /// Goes into a part that has a name.
    #[inline]
    pub(super) fn enter_part(&mut self, part: u32) {
        self.path.push(Step::Part(part));
    }

    /// Goes back out of an array or a part.
    #[inline]
    pub(super) fn leave(&mut self) {
        self.path.pop();
    }

    /// Remembers the lower bounds of the array that begins here.
    pub(super) fn note_bounds(&mut self, lower: Vec<i32>) {
        self.bounds.push(Bounds { path: self.path.clone(), lower });
    }

    /// Whether any array told its lower bounds.
    #[inline]
    pub(super) fn has_bounds(&self) -> bool {
        !self.bounds.is_empty()
    }

    /// Those lower bounds; they are forgotten here.
    pub(super) fn take_bounds(&mut self) -> Vec<Bounds> {
        std::mem::take(&mut self.bounds)
    }

    /// Forgets the value that was being written.
    pub(super) fn reset(&mut self) {
        self.path.clear();
        self.bounds.clear();
    }
}
